"""UDA: sharpened pseudo-labels of weak views, learned on strong views."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Target, Unlabeled, Views
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.methods.step_losses import Losses
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.ranges import NonNegativeFloat, PositiveFloat, Share

Annealing = Literal["none", "linear", "log", "exp"]


class UDA(SemiSupervised):
    """UDA: sharpened pseudo-labels of weak views, learned on strong views.

    Xie et al., "Unsupervised Data Augmentation for Consistency Training", NeurIPS 2020,
    https://arxiv.org/abs/1904.12848: ``l_s + lambda_u l_u``, where ``l_u`` is the mean over the whole
    unlabeled batch of ``1[max q >= beta] H(q_sharp, p(strong))``, ``q`` are the student's probabilities on
    the weak view and ``q_sharp`` the softmax of its logits over ``temperature`` (the paper's tau). With
    training signal annealing, a labeled face is left out of ``l_s`` while the probability of its label
    exceeds ``signal_threshold``.

    The equations are those of the official code (google-research/uda, image/main.py). Checked against the
    code of microsoft/Semi-supervised-learning (USB): its step and this one, side by side on random batches
    for 40 to 80 steps, gave losses and weights equal to 1e-8. Differences (official code / USB / here),
    beside those of FixMatch:

    - target: sharpened / not sharpened / sharpened (``temperature`` 1 is USB's)
    - ``l_u``: Kullback-Leibler divergence / cross-entropy / as USB, of the same gradient
    - a confidence equal to ``beta``: rejected / accepted / accepted
    - annealing compares: the label's probability / the highest one / the label's probability
    - ``l_s`` under annealing is the mean over: the faces left / all / the faces left
    - entropy minimization of the weak view: an option, off / none / none
    - learning rate: cosine to 0.004 of it after a warm-up / ``cos(7 pi k / 16 K)`` / that of the options

    With ``targets: both``, valence and arousal are accepted wherever the emotion is, and weighted alike;
    annealing leaves their labels in.

    Args:
        threshold: confidence from which a pseudo-label is accepted (beta); of the official CIFAR-10 script.
        temperature: of the target; below 1 sharpens it; of the same script.
        unlabeled_weight: weight of the unlabeled loss (lambda_u).
        annealing: of the training signal: how its threshold rises over the run, ``none`` to use every label;
            ``exp`` suits few labels, ``log`` many.
        **kwargs: options of every method.
    """

    about = About(
        name="UDA",
        paper="Xie et al. 2020",
        url="https://arxiv.org/abs/1904.12848",
        pseudo_labels="the student's sharpened prediction on the weak view, from `threshold` on",
        learns="the strong view",
        state="",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(
        self,
        threshold: Share = 0.8,
        temperature: PositiveFloat = 0.4,
        unlabeled_weight: NonNegativeFloat = 1.0,
        annealing: Annealing = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.threshold, self.temperature = threshold, temperature
        self.unlabeled_weight, self.annealing = unlabeled_weight, annealing

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Accept the student's sharpened probabilities where the unsharpened reach the threshold."""
        q = self.student(unlabeled.weak[0])
        p, sharp = q.logits.softmax(-1), (q.logits / self.temperature).softmax(-1)
        return make_pseudo_labels(unlabeled.index, p, q.valence_arousal, self.threshold, soft=sharp)

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return ``l_s`` on weak labeled views and ``lambda_u l_u`` on strong unlabeled ones."""
        x, s = self.forward_views(labeled.weak[0], unlabeled.strong[0])
        eta = signal_threshold(self.annealing, self.progress, self.task.classes)
        return Losses(
            (x, s),
            supervised=self.task.supervised(x, annealed(labeled.target, x.logits.softmax(-1), eta)),
            unlabeled=self.unlabeled_weight * self.task.consistency(s, pseudo.target, pseudo.weight),
        )


def signal_threshold(schedule: Annealing, progress: float, classes: int) -> float:
    """Return the probability above which a label is left out, ``alpha (1 - 1 / C) + 1 / C``.

    ``alpha`` is ``t / T`` (linear), ``1 - exp(-5 t / T)`` (log), ``exp(5 (t / T - 1))`` (exp), or 1 (none).

    Args:
        schedule: its name.
        progress: share of the run that is done, t / T, in [0, 1].
        classes: C.
    """
    alpha = {
        "none": 1.0,
        "linear": progress,
        "log": 1 - math.exp(-5 * progress),
        "exp": math.exp(5 * (progress - 1)),
    }[schedule]
    return 1 - (1 - alpha) * (1 - 1 / classes)  # exactly 1 for an alpha of 1


def annealed(target: Target, probability: Tensor, threshold: float) -> Target:
    """Make the emotion unknown where the label is more probable than the threshold.

    Args:
        target: of B labeled faces.
        probability: (B, C) of the emotions.
        threshold: in [0, 1].
    """
    learned = (probability * target.emotion).sum(-1, keepdim=True) > threshold
    return target._replace(emotion=torch.where(learned, torch.nan, target.emotion))
