"""Calibration of confidences, and abstention: temperature, bias, risk and coverage.

Everything here is a pure function of probabilities and labels. Temperature and bias are of Guo et al., ICML
2017 (https://arxiv.org/abs/1706.04599, section 4.2: temperature scaling, with the bias of vector scaling
beside it); risk and coverage of Geifman and El-Yaniv, NeurIPS 2017 (https://arxiv.org/abs/1705.08500).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fer_lightning.errors import CheckpointError, InputError
from fer_lightning.metrics import calibration_bins, calibration_error

KEY = "calibration"
"""Where a checkpoint keeps it: a mapping of the fields of ``Calibration``."""


@dataclass(frozen=True)
class Calibration:
    """What was fitted on the validation faces of a checkpoint."""

    temperature: float
    """Divides the logits; above 1 for a network that is too confident."""
    bias: list[float]
    """(C,) added to them afterwards, in the order of the checkpoint's emotions."""
    threshold: float
    """Confidence, after calibration, below which the recognizer abstains."""
    risk: float
    """Share of wrong emotions among the faces from the threshold on."""
    coverage: float
    """Share of the faces that are from the threshold on."""
    ece_before: float
    """Expected calibration error without temperature and bias."""
    ece_after: float
    """The same with them, measured on faces that they were not fitted on."""
    split: str
    """sha256 of the split whose validation faces they are."""

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> "Calibration | None":
        """Return the calibration in the content of a checkpoint, None if it has none.

        Raises:
            CheckpointError: if it is none of ours.
        """
        content = checkpoint.get(KEY)
        if content is None:
            return None
        try:
            found = cls(**content)
        except TypeError as error:
            raise CheckpointError(f"the checkpoint's calibration is not understood: {error}") from error
        if len(found.bias) != len(checkpoint["emotions"]):
            raise CheckpointError("the checkpoint's calibration is for other emotions: calibrate it again")
        return found


def calibrated(probability: Tensor, temperature: float, bias: Tensor) -> Tensor:
    """Return ``softmax(log p / T + b)``, which is ``softmax(z / T + b)`` where p is the softmax of logits z.

    Args:
        probability: (N, C), as a method predicts them.
        temperature: T > 0.
        bias: (C,) b.

    Returns:
        (N, C) probabilities.
    """
    return (_log(probability) / temperature + bias.to(probability)).softmax(-1)


def fit(probability: Tensor, label: Tensor) -> tuple[float, Tensor]:
    """Find the temperature and the bias under which labels are most probable.

    The cross-entropy is minimized by L-BFGS. The logarithm of the temperature and each bias have a standard
    normal prior, which keeps them finite where the faces are few, all of them right, or none of them shows
    an emotion; it counts as much as half a face or so, and nothing where faces are many.

    Args:
        probability: (N, C) predictions for labeled faces that were not trained on.
        label: (N,) int64 true emotions.

    Returns:
        Temperature and (C,) float64 bias.
    """
    logits = _log(probability.double())
    free = torch.zeros(logits.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(logits * (-free[0]).exp() + free[1:], label)
        loss = loss + free.square().sum() / (2 * len(label))
        loss.backward()
        return loss

    optimizer.step(closure)
    found = free.detach()
    return float(found[0].exp()), found[1:]


def cross_fitted(probability: Tensor, label: Tensor) -> Tensor:
    """Calibrate each half of the faces with what was fitted on the other one.

    What is measured on these probabilities is not flattered by the fit.

    Args:
        probability: (N, C); every second face is of one half.
        label: (N,) int64 true emotions.

    Returns:
        (N, C) probabilities.

    Raises:
        InputError: if there are fewer than two faces.
    """
    if len(label) < 2:
        raise InputError(f"{len(label)} labeled faces are too few to calibrate on")
    result = torch.empty_like(probability)
    for ours, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        result[ours] = calibrated(probability[ours], *fit(probability[other], label[other]))
    return result


def expected_calibration_error(probability: Tensor, label: Tensor) -> float:
    """Return the expected calibration error (ECE) of (N, C) probabilities for (N,) labels, in [0, 1]."""
    return float(calibration_error(bins(probability, label)))


def bins(probability: Tensor, label: Tensor) -> Tensor:
    """Count (N, C) probabilities by bin of confidence: (15, 3), see ``metrics.calibration_bins``."""
    confidence, predicted = probability.max(-1)
    return calibration_bins(confidence, predicted == label)


def risk_coverage(confidence: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the share of faces that are kept, and the share of these that are wrong, by threshold.

    Args:
        confidence: (N,).
        right: (N,) bool, whether the predicted emotion is the true one.

    Returns:
        (M,) thresholds, the distinct confidences from the highest down; (M,) coverage, the share of the faces
        with at least this confidence; (M,) risk, the share of wrong ones among them.
    """
    threshold, order = confidence.double().sort(descending=True)
    kept = torch.arange(1, len(threshold) + 1, dtype=torch.float64)
    risk = (~right[order]).double().cumsum(0) / kept
    last = torch.ones(len(threshold), dtype=torch.bool)  # of equal confidences, all are kept or none
    last[:-1] = threshold[1:] < threshold[:-1]
    return threshold[last], (kept / len(threshold))[last], risk[last]


def threshold_for_risk(confidence: Tensor, right: Tensor, risk: float) -> tuple[float, float, float]:
    """Return the threshold that keeps the most faces at a risk of at most this.

    Args:
        confidence: (N,).
        right: (N,) bool, whether the predicted emotion is the true one.
        risk: wanted share of wrong emotions among the faces that are kept.

    Returns:
        Threshold, and coverage and risk there.

    Raises:
        InputError: if no threshold has so small a risk.
    """
    threshold, coverage, measured = risk_coverage(confidence, right)
    good = (measured <= risk).nonzero()
    if not len(good):
        lowest = math.ceil(1000 * float(measured.min())) / 1000  # up, so that it can be asked for
        raise InputError(
            f"no threshold brings the risk down to {risk:g}: the lowest one is {lowest:g}; ask for that, or "
            "train longer",
            option="risk",
        )
    row = int(good[-1])
    return float(threshold[row]), float(coverage[row]), float(measured[row])


def _log(probability: Tensor) -> Tensor:
    return probability.clamp(min=torch.finfo(torch.float32).tiny).log()
