"""UDA: teach the strong view the sharpened answer to the weak one."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from fer_lightning.data.batch import Labeled, Target, Unlabeled, Views
from fer_lightning.errors import InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels

Annealing = Literal["none", "linear", "log", "exp"]


class UDA(SemiSupervised):
    """UDA: teach the strong view the sharpened answer to the weak one.

    Xie et al., "Unsupervised Data Augmentation for Consistency Training", NeurIPS 2020,
    https://arxiv.org/abs/1904.12848: ``l_s + lambda_u l_u``, where ``l_u`` is the mean over the whole
    unlabeled batch of ``1[max q >= beta] H(q_sharp, p(strong))``, ``q`` is the student's answer to the weak
    view and ``q_sharp`` the softmax of its logits over ``temperature`` (the paper's tau). With training
    signal annealing, a labeled face is left out of ``l_s`` while the probability of its label exceeds
    ``signal_threshold``.

    The paper's symbols are recalled, not re-read; the equations follow its official code
    (google-research/uda, image/main.py), which was read, as was USB's (microsoft/Semi-supervised-learning).
    Official code / USB / ours, where they differ:

    - ``l_u``: Kullback-Leibler divergence / cross-entropy / as USB, of the same gradient
    - a confidence equal to ``beta``: rejected / accepted / accepted
    - annealing asks for: the label's probability / the highest one / the label's probability
    - ``l_s`` under annealing is the mean over: the faces left / all / the faces left
    - entropy minimisation of the weak view: an option, off / none / none
    - learning rate: cosine to 0.004 of it after a warm-up / ``cos(7 pi k / 16 K)`` / that of the options
    - weak view and its forward: as in FixMatch

    With ``targets: both``, valence and arousal are believed wherever the emotion is, and weighted alike;
    annealing leaves their labels in.

    Args:
        beta: confidence from which a face is learnt; of the official CIFAR-10 script.
        temperature: of the target, over 0; below 1 sharpens it; of the same script.
        lambda_u: weight of the unlabeled loss.
        annealing: of the training signal: how its threshold rises over the run, ``none`` to use every label;
            the paper advises (recalled) ``exp`` for few labels, ``log`` for many.
        **kwargs: options of every method.
    """

    about = About(
        name="UDA",
        paper="Xie et al. 2020",
        url="https://arxiv.org/abs/1904.12848",
        believes="the student's weak view, sharpened, if surer than `beta`",
        learns="the strong view",
        state="",
    )
    views = Views(labeled=1, weak=1, strong=1)

    def __init__(
        self,
        beta: float = 0.8,
        temperature: float = 0.4,
        lambda_u: float = 1.0,
        annealing: Annealing = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if temperature <= 0:
            raise InputError(f"--model.temperature is {temperature}; it must be over 0 (the paper: 0.4)")
        self.beta, self.temperature = beta, temperature
        self.lambda_u, self.annealing = lambda_u, annealing

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Believe the student's sharpened answer wherever the answer itself reaches ``beta``."""
        output = self.student(unlabeled.weak)
        p, sharp = output.logits.softmax(-1), (output.logits / self.temperature).softmax(-1)
        return make_pseudo_labels(unlabeled.index, p, output.valence_arousal, self.beta, soft=sharp)

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return ``l_s`` on weak labeled views and ``lambda_u l_u`` on strong unlabeled ones."""
        if unlabeled is None or pseudo is None:
            return super().losses(labeled, unlabeled, pseudo)
        x, s = self.forward_views(labeled.image, unlabeled.strong)
        eta = signal_threshold(self.annealing, self.progress, self.task.classes)
        return {
            "supervised": self.task.supervised(x, annealed(labeled.target, x.logits.softmax(-1), eta)),
            "unlabeled": self.lambda_u * self.task.consistency(s, pseudo.target, pseudo.weight),
        }


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
    """Make the emotion unknown of the faces whose label is more probable than the threshold.

    Args:
        target: of B labeled faces.
        probability: (B, C) of the emotions.
        threshold: in [0, 1].
    """
    learnt = (probability * target.emotion).sum(-1, keepdim=True) > threshold
    return target._replace(emotion=torch.where(learnt, torch.nan, target.emotion))
