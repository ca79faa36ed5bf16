"""Counts of pseudo-labels, from which every column of the audit is computed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fer_lightning.distributed import total
from fer_lightning.metrics import BINS, calibration_error, confidence_bin
from fer_lightning.pseudo_labels import PseudoLabels

Cells = npt.NDArray[np.float64]
AuditRows = dict[str, dict[str, float]]
"""Emotion, or ``all`` -> column -> value."""


class AuditCounts:
    """Sums over pseudo-labels, on the device, without ever waiting for it.

    ``cells`` is (2, C + 1, C + 1, 15, 3): accepted or not, true emotion, pseudo-label (the last of each is
    for an unknown one), bin of confidence; and there the number of faces, the sum of confidences and the sum
    of weights. ``errors`` is (2, 2, 2): accepted or not, valence or arousal; and there the number of faces
    whose truth is known and the sum of squared errors. ``complementary`` is (C + 1, 4): pseudo-label; and
    there the number of faces in batches with complementary labels, the number of those labels, the number of
    faces that have some and whose truth is known, and of those the number whose truth is among them.

    Args:
        classes: C.
        device: of the pseudo-labels.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self.classes = classes
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no doubles
        self.cells = torch.zeros(2, classes + 1, classes + 1, BINS, 3, dtype=dtype, device=device)
        self.errors = torch.zeros(2, 2, 2, dtype=dtype, device=device)
        self.complementary = torch.zeros(classes + 1, 4, dtype=dtype, device=device)
        self.threshold = torch.full((classes,), torch.nan, device=device)

    def add(self, pseudo: PseudoLabels, label: Tensor, valence_arousal: Tensor) -> None:
        """Count a batch.

        Args:
            pseudo: of B faces.
            label: (B,) int64 their true emotions, -1 where unknown.
            valence_arousal: (B, 2) their true valence and arousal, NaN where unknown.
        """
        accepted = (pseudo.weight > 0).long()
        true, predicted = (each.remainder(self.classes + 1) for each in (label, pseudo.target.label))
        cell = (accepted * (self.classes + 1) + true) * (self.classes + 1) + predicted
        cell = cell * BINS + confidence_bin(pseudo.confidence)
        values = torch.stack([torch.ones_like(pseudo.weight), pseudo.confidence, pseudo.weight], -1)
        self.cells.view(-1, 3).index_add_(0, cell, values.to(self.cells.dtype))

        error = (pseudo.target.valence_arousal - valence_arousal).square()
        values = torch.stack([~error.isnan(), error.nan_to_num()], -1)
        self.errors.index_add_(0, accepted, values.to(self.errors.dtype))

        if pseudo.negative is not None:
            checked = pseudo.negative.any(-1) & (label >= 0)
            wrong = checked & pseudo.negative.gather(-1, label.clamp(min=0)[:, None])[:, 0]
            values = torch.stack([torch.ones_like(label), pseudo.negative.sum(-1), checked, wrong], -1)
            self.complementary.index_add_(0, predicted, values.to(self.complementary.dtype))
        self.threshold.copy_(pseudo.threshold)

    def reset(self) -> None:
        """Forget everything counted."""
        self.cells.zero_()
        self.errors.zero_()
        self.complementary.zero_()

    def state(self) -> dict[str, Tensor]:
        """Return the counts of all ranks together, on the CPU; to be called on all of them."""
        summed = total(self.cells, self.errors, self.complementary)
        # Thresholds are equal on all ranks.
        counts = [*summed, self.threshold]
        names = ("cells", "errors", "complementary", "threshold")
        return {name: tensor.cpu() for name, tensor in zip(names, counts, strict=True)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from these counts."""
        for name, tensor in state.items():
            getattr(self, name).copy_(tensor)


def audit_rows(state: dict[str, Tensor], emotions: Sequence[str]) -> AuditRows:
    """Judge the pseudo-labels of each emotion, and of ``all``; NaN where there is nothing to judge by.

    A pseudo-label is accepted if its weight is above 0. Where the truth about a face is unknown, its
    pseudo-label counts only in the columns that need no truth.

    - ``seen``: pseudo-labels of this emotion; a face counts each time a batch contains it.
    - ``accepted``: those of them that were accepted.
    - ``coverage``: accepted / seen.
    - ``purity``: share of the accepted that are right.
    - ``true_seen``, ``true_coverage``: seen and coverage of the faces whose true emotion this is, whatever
      their pseudo-label.
    - ``mean_weight``: of all seen.
    - ``mean_confidence``: of the accepted.
    - ``ece``, ``ece_accepted``: expected calibration error (15 bins) of the confidences of all and of the
      accepted.
    - ``confidence_gap``: mean confidence of the accepted minus their purity; above 0 for overconfidence.
    - ``threshold``: the last of the epoch; of ``all``, the mean over the emotions.
    - ``rmse_valence``, ``rmse_arousal``: of the accepted; only in ``all``.
    - ``complementary``: complementary labels of a face, mean of all seen; NaN for a method without them.
    - ``complementary_error``: share of the faces with complementary labels whose true emotion is among them.

    Args:
        state: of ``AuditCounts``.
        emotions: C names.
    """
    cells, errors = state["cells"].double().numpy(), state["errors"].double().numpy()
    complementary = state["complementary"].double().numpy()
    threshold, classes = state["threshold"].double().numpy(), len(emotions)
    rows = {}
    for k, emotion in enumerate(emotions):
        row = _judge(cells[:, :, k], right=cells[:, k, k])
        row |= _of_true(cells[:, k]) | {"threshold": float(threshold[k])}
        rows[emotion] = row | _of_complementary(complementary[k])
    right = cells[:, range(classes), range(classes)].sum(1)
    both = _judge(cells.sum(2), right) | _of_true(cells[:, :classes].sum(1))
    both["threshold"] = _ratio(np.nansum(threshold), np.sum(~np.isnan(threshold)))
    for name, (known, squared) in zip(("valence", "arousal"), errors[1], strict=True):
        both[f"rmse_{name}"] = _ratio(squared, known) ** 0.5
    return rows | {"all": both | _of_complementary(complementary.sum(0))}


def _judge(cells: Cells, right: Cells) -> dict[str, float]:
    """Judge a set of pseudo-labels.

    Args:
        cells: (2, C + 1, 15, 3) by acceptance, true emotion and bin.
        right: (2, 15, 3) the right ones among them.
    """
    every, known = cells.sum((0, 1, 2)), cells[:, :-1].sum(1)
    accepted, checked = cells[1].sum((0, 1)), known[1].sum(0)
    purity = _ratio(right[1, :, 0].sum(), checked[0])
    return {
        "seen": float(every[0]),
        "accepted": float(accepted[0]),
        "coverage": _ratio(accepted[0], every[0]),
        "purity": purity,
        "mean_weight": _ratio(every[2], every[0]),
        "mean_confidence": _ratio(accepted[1], accepted[0]),
        "ece": _calibration_error(known.sum(0), right.sum(0)),
        "ece_accepted": _calibration_error(known[1], right[1]),
        "confidence_gap": _ratio(checked[1], checked[0]) - purity,
    }


def _of_true(cells: Cells) -> dict[str, float]:
    """Judge faces by their true emotion: cells (2, C + 1, 15, 3) by acceptance, pseudo-label and bin."""
    rejected, accepted = cells[..., 0].sum((1, 2))
    return {"true_seen": float(rejected + accepted), "true_coverage": _ratio(accepted, rejected + accepted)}


def _of_complementary(counts: Cells) -> dict[str, float]:
    """Judge complementary labels: (4,) as in ``AuditCounts.complementary``."""
    faces, labels, checked, wrong = counts
    return {"complementary": _ratio(labels, faces), "complementary_error": _ratio(wrong, checked)}


def _calibration_error(known: Cells, right: Cells) -> float:
    """Return the ECE: (15, 3) of pseudo-labels whose truth is known, and of the right ones among them."""
    bins = np.stack([known[:, 0], known[:, 1], right[:, 0]], -1)
    return float(calibration_error(torch.from_numpy(bins)))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else np.nan
