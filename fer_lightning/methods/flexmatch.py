"""FlexMatch: FixMatch with a lower threshold for the classes that are seldom predicted with confidence."""

from typing import Any

import torch
from torch import Tensor

from fer_lightning.data.batch import DataInfo, Labeled, Unlabeled
from fer_lightning.distributed import gather
from fer_lightning.methods.about import About
from fer_lightning.methods.fixmatch import FixMatch
from fer_lightning.models.memory import ResizedOnLoad
from fer_lightning.pseudo_labels import PseudoLabels, make_pseudo_labels
from fer_lightning.ranges import NonNegativeFloat, Share
from fer_lightning.task import Output


class FlexMatch(FixMatch):
    """FlexMatch: FixMatch with a lower threshold for the classes that are seldom predicted with confidence.

    Zhang et al., "FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling", NeurIPS
    2021, https://arxiv.org/abs/2110.08263: the losses of FixMatch with ``1[max q >= tau_c]``, c the predicted
    class, ``tau_c = tau beta_c / (2 - beta_c)`` and ``beta_c`` the number of unlabeled faces whose last
    confident prediction was c, over the largest such number (see ``CurriculumThreshold``). In the first steps
    all thresholds are 0, so every pseudo-label is accepted. ``beta`` follows after the masking, as in USB;
    TorchSSL computes it at the start of the step.

    Checked against the code of microsoft/Semi-supervised-learning (USB): its step and this one, side by side
    on random batches for 40 to 80 steps, gave losses and weights equal to 1e-8. Differences from the code
    of USB, which the paper's authors maintain (USB / here), beside those of FixMatch:

    - with several processes the confident predictions are: kept by each for itself / of all

    Args:
        threshold: confidence from which a face counts as learned, and the highest threshold (tau).
        unlabeled_weight: weight of the unlabeled loss (lambda_u).
        threshold_warmup: whether the number of faces without a confident prediction also counts as the
            largest, which keeps all thresholds low at first.
        **kwargs: options of every method.
    """

    about = About(
        name="FlexMatch",
        paper="Zhang et al. 2021",
        url="https://arxiv.org/abs/2110.08263",
        pseudo_labels="the student's prediction on the weak view, from the threshold of its class on",
        learns="the strong view",
        state="the last confident prediction for each unlabeled face; a threshold per class",
    )

    def __init__(
        self,
        threshold: Share = 0.95,
        unlabeled_weight: NonNegativeFloat = 1.0,
        threshold_warmup: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(threshold, unlabeled_weight, **kwargs)
        self.curriculum = CurriculumThreshold(self.task.classes, threshold, threshold_warmup)

    def prepare(self, data: DataInfo) -> None:
        """Make room for the unlabeled faces."""
        self.curriculum.resize(data.unlabeled_count)

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Accept the student's most likely emotion wherever it reaches the emotion's threshold."""
        output = self.student(unlabeled.weak[0])
        q, per_class = self.task.predict(output), self.curriculum.per_class()
        return make_pseudo_labels(unlabeled.index, q.emotion, q.valence_arousal, per_class, outputs=(output,))

    def update_state(
        self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels, outputs: tuple[Output, ...]
    ) -> None:
        """Take in the confident predictions of the batch."""
        self.curriculum.update(pseudo.outputs[0].logits.softmax(-1), unlabeled.index)


class CurriculumThreshold(ResizedOnLoad):
    """Curriculum pseudo-labeling: the fewer faces were ever confident of a class, the lower its threshold.

    Zhang et al., NeurIPS 2021 (FlexMatch), https://arxiv.org/abs/2110.08263. ``sigma_c`` counts the faces of
    the unlabeled set whose last confident prediction was class c, ``beta_c`` is ``sigma_c`` over the
    largest of them, and the threshold ``tau M(beta_c)`` with ``M(beta) = beta / (2 - beta)``. With
    ``warmup`` the number of faces without a confident prediction so far also counts for the largest, so that
    all thresholds start low. ``beta`` begins at 0, where every pseudo-label is accepted, and rests while all
    faces agree, as in USB (https://arxiv.org/abs/2208.07204).

    Args:
        classes: C.
        threshold: tau, from which a prediction counts as confident, and the highest threshold of a class.
        warmup: whether faces without a confident prediction lower all thresholds.
    """

    selected: Tensor
    """(N,) int64, the class of the last confident prediction for each face; -1 for none yet."""
    beta: Tensor
    """(C,) float32 in [0, 1], the learning status."""

    def __init__(self, classes: int, threshold: float = 0.95, warmup: bool = True) -> None:
        super().__init__()
        self.threshold, self.warmup = threshold, warmup
        self.register_buffer("selected", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("beta", torch.zeros(classes))

    def resize(self, faces: int) -> None:
        """Clear it and make room for so many faces."""
        self.selected = self.selected.new_full((faces,), -1)
        self.beta.zero_()

    def per_class(self) -> Tensor:
        """Return the (C,) thresholds."""
        return self.threshold * self.beta / (2 - self.beta)

    @torch.no_grad()
    def update(self, p: Tensor, index: Tensor) -> None:
        """Take in the confident predictions of all ranks' batches; nothing in eval mode.

        Args:
            p: (B, C) float32 probabilities.
            index: (B,) int64 indices in the unlabeled set; the last confident row of an index counts.
        """
        if not self.training:
            return
        confidence, label = p.max(-1)
        index, label, confident = gather(index, label, (confidence >= self.threshold).long())
        # The number of the last confident row of every index, counted from 1: a maximum does not depend on
        # the order in which a GPU writes.
        row = confident * torch.arange(1, len(index) + 1, device=index.device)
        last = torch.zeros_like(self.selected).scatter_reduce(0, index, row, "amax")
        self.selected.copy_(torch.where(last > 0, label[last - 1], self.selected))
        classes = torch.arange(-1, len(self.beta), device=index.device)
        count = (self.selected == classes[:, None]).sum(-1)  # bincount would wait for the GPU
        largest = count.max() if self.warmup else count[1:].max()
        undecided = count.max() == len(self.selected)
        self.beta.copy_(torch.where(undecided, self.beta, count[1:] / largest.clamp(min=1)))
