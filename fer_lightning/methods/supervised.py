"""The labeled-only baseline, and with every label the fully supervised one."""

from fer_lightning.data.batch import Views
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised


class Supervised(SemiSupervised):
    """Supervised learning from weakly augmented labeled faces, with the schedule and teacher of every method.

    The two baselines of every table: labeled-only (``supervised``), with the budget of labels of the methods
    that it is compared with, and fully supervised (``fully_supervised``), with every label (give the data no
    budget). Every method trains like this in its ``labeled_only_steps``.
    """

    about = About(
        name="Supervised",
        paper="",
        url="",
        pseudo_labels="none",
        learns="nothing: the labeled-only baseline; fully supervised without a label budget",
        state="",
    )
    targets_supported = ("classes", "valence_arousal", "both")
    views = Views(labeled=1, weak=0, strong=0)
