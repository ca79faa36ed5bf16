"""Counts of beliefs, from which everything the audit says follows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fer_lightning.distributed import total
from fer_lightning.outputs.plots import BINS
from fer_lightning.pseudo_labels import PseudoLabels

Cells = npt.NDArray[np.float64]
AuditRows = dict[str, dict[str, float]]
"""Emotion, or ``all`` -> column -> value."""


class AuditCounts:
    """Sums over beliefs, on the device, without ever waiting for it.

    ``cells`` is (2, C + 1, C + 1, BINS, 3): accepted or not, true emotion, believed emotion (the last of each
    is for none known), bin of confidence; and there the number of beliefs, the sum of confidences and the sum
    of weights. ``errors`` is (2, 2, 2): accepted or not, valence or arousal; and there the number of faces
    whose truth is known and the sum of squared errors. ``negatives`` is (C + 1, 4): believed emotion; and
    there, of the faces asked for negative beliefs, their number, that of the emotions denied, that of the
    faces with a known truth of which something was denied, and those of them of which the truth was.

    Args:
        classes: C.
        device: of the beliefs.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self.classes = classes
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no doubles
        self.cells = torch.zeros(2, classes + 1, classes + 1, BINS, 3, dtype=dtype, device=device)
        self.errors = torch.zeros(2, 2, 2, dtype=dtype, device=device)
        self.negatives = torch.zeros(classes + 1, 4, dtype=dtype, device=device)
        self.threshold = torch.full((classes,), torch.nan, device=device)

    def add(self, pseudo: PseudoLabels, label: Tensor, valence_arousal: Tensor) -> None:
        """Count a batch.

        Args:
            pseudo: beliefs about B faces.
            label: (B,) what they really show, -1 where nobody knows.
            valence_arousal: (B, 2) likewise, NaN where nobody knows.
        """
        accepted = (pseudo.weight > 0).long()
        true, believed = (each.remainder(self.classes + 1) for each in (label, pseudo.target.label))
        where = (pseudo.confidence.nan_to_num() * BINS).long().clamp(0, BINS - 1)
        cell = ((accepted * (self.classes + 1) + true) * (self.classes + 1) + believed) * BINS + where
        values = torch.stack([torch.ones_like(pseudo.weight), pseudo.confidence, pseudo.weight], -1)
        self.cells.view(-1, 3).index_add_(0, cell, values.to(self.cells.dtype))

        error = (pseudo.target.valence_arousal - valence_arousal).square()
        values = torch.stack([~error.isnan(), error.nan_to_num()], -1)
        self.errors.index_add_(0, accepted, values.to(self.errors.dtype))

        if pseudo.negative is not None:
            denied = pseudo.negative
            checked = denied.any(-1) & (label >= 0)
            wrong = checked & denied.gather(-1, label.clamp(min=0)[:, None])[:, 0]
            values = torch.stack([torch.ones_like(label), denied.sum(-1), checked, wrong], -1)
            self.negatives.index_add_(0, believed, values.to(self.negatives.dtype))
        self.threshold.copy_(pseudo.threshold)

    def reset(self) -> None:
        """Forget everything counted."""
        self.cells.zero_()
        self.errors.zero_()
        self.negatives.zero_()

    def state(self) -> dict[str, Tensor]:
        """Return the counts of all ranks together, on the CPU; to be called on all of them."""
        cells, errors, negatives = total(self.cells, self.errors, self.negatives)
        # Thresholds are equal on all ranks.
        counts = {"cells": cells, "errors": errors, "negatives": negatives, "threshold": self.threshold}
        return {name: tensor.cpu() for name, tensor in counts.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from these counts."""
        for name, tensor in state.items():
            getattr(self, name).copy_(tensor)


def audit_rows(state: dict[str, Tensor], emotions: Sequence[str]) -> AuditRows:
    """Return what the counts say of the beliefs in each emotion, and of ``all``; NaN where they are silent.

    A belief is accepted if its weight is above 0. Where the truth about a face is unknown, its belief counts
    in the columns that need no truth.

    - ``seen``: beliefs in this emotion; a face counts each time a batch shows it.
    - ``accepted``: those of them that were accepted.
    - ``coverage``: accepted / seen.
    - ``purity``: share of the accepted that are right.
    - ``true_seen``, ``true_coverage``: likewise, of the faces that really show this emotion, whatever was
      believed.
    - ``mean_weight``: of all seen.
    - ``mean_confidence``: of the accepted.
    - ``ece``, ``ece_accepted``: expected calibration error (15 bins) of the confidences of all and of the
      accepted.
    - ``gap``: mean confidence of the accepted less their purity; positive if the method is too sure of
      itself.
    - ``threshold``: the last of the epoch; of ``all``, the mean over the emotions.
    - ``rmse_valence``, ``rmse_arousal``: of the accepted; only in ``all``.
    - ``negatives``: emotions that a face is believed not to show, mean of all seen; empty for a method
      without such beliefs.
    - ``false_negative_rate``: share of the faces, among those of which an emotion is denied, that really show
      a denied one.

    Args:
        state: of ``AuditCounts``.
        emotions: C names.
    """
    cells, errors = state["cells"].double().numpy(), state["errors"].double().numpy()
    negatives = state["negatives"].double().numpy()
    threshold, classes = state["threshold"].double().numpy(), len(emotions)
    rows = {}
    for k, emotion in enumerate(emotions):
        row = _judge(cells[:, :, k], right=cells[:, k, k])
        row |= _of_true(cells[:, k]) | {"threshold": float(threshold[k])}
        rows[emotion] = row | _of_negatives(negatives[k])
    right = cells[:, range(classes), range(classes)].sum(1)
    both = _judge(cells.sum(2), right) | _of_true(cells[:, :classes].sum(1))
    both["threshold"] = _ratio(np.nansum(threshold), np.sum(~np.isnan(threshold)))
    for name, (known, squared) in zip(("valence", "arousal"), errors[1], strict=True):
        both[f"rmse_{name}"] = _ratio(squared, known) ** 0.5
    return rows | {"all": both | _of_negatives(negatives.sum(0))}


def _judge(cells: Cells, right: Cells) -> dict[str, float]:
    """Judge a set of beliefs.

    Args:
        cells: (2, C + 1, BINS, 3) by acceptance, true emotion and bin.
        right: (2, BINS, 3) the right ones among them.
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
        "gap": _ratio(checked[1], checked[0]) - purity,
    }


def _of_true(cells: Cells) -> dict[str, float]:
    """Judge faces by what they show: cells (2, C + 1, BINS, 3) by acceptance, believed emotion and bin."""
    rejected, accepted = cells[..., 0].sum((1, 2))
    return {"true_seen": float(rejected + accepted), "true_coverage": _ratio(accepted, rejected + accepted)}


def _of_negatives(counts: Cells) -> dict[str, float]:
    """Judge what faces are believed not to show: (4,) as in ``AuditCounts.negatives``."""
    faces, denied, checked, wrong = counts
    return {"negatives": _ratio(denied, faces), "false_negative_rate": _ratio(wrong, checked)}


def _calibration_error(known: Cells, right: Cells) -> float:
    """Return the mean over beliefs of |accuracy - confidence| of their bin; both are (BINS, 3)."""
    return _ratio(np.abs(right[:, 0] - known[:, 1]).sum(), known[:, 0].sum())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else np.nan
