"""Learning from labels alone: the floor with a budget of labels, the ceiling with all of them."""

from fer_lightning.data.batch import Views
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised


class Supervised(SemiSupervised):
    """Supervised learning from weakly augmented labeled faces, with the chassis' schedule and teacher.

    The two baselines of every table: the floor takes the budget of the methods it is compared with, the
    ceiling takes every label (give the data no budget). It also is what every method does in its
    ``labeled_only_steps``.
    """

    about = About(
        name="Supervised",
        paper="",
        url="",
        believes="nothing",
        learns="labels alone: the floor with a budget, the ceiling without",
        state="",
    )
    recognises = ("classes", "valence_arousal", "both")
    views = Views(labeled=1, weak=0, strong=0)
