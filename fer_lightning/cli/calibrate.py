"""The command ``fer-lightning calibrate``: confidences that can be trusted, and a threshold to abstain at."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fer_lightning.errors import InputError
from fer_lightning.explore import evaluate, open_run
from fer_lightning.inference.calibration import (
    KEY,
    Calibration,
    bins,
    cross_fitted,
    expected_calibration_error,
    fit,
    risk_coverage,
    threshold_for_risk,
)
from fer_lightning.outputs.checkpoint_files import SafeCheckpointIO, read_checkpoint
from fer_lightning.outputs.figures import save_figure
from fer_lightning.outputs.plots import reliability_figure, risk_coverage_figure
from fer_lightning.ranges import Share


def calibrate(checkpoint: Path, risk: Share | None = None, dataset: dict[str, Any] | None = None) -> int:
    """Calibrate the confidences of a run on its validation faces; the recognizer then uses them.

    A temperature and a bias per emotion are fitted, and kept in the checkpoint itself. Reliability diagrams
    before and after, and the risk by coverage, are drawn into the run's figures. What is measured after the
    fit is measured on halves of the faces, each with the fit on the other half.

    Args:
        checkpoint: checkpoints/best.ckpt or last.ckpt of a run.
        risk: share of wrong emotions that is accepted among the faces that it does not abstain on; without,
            it never abstains.
        dataset: options of the data set that have changed since the training, such as
            --dataset.root new/place.

    Returns:
        Exit status, 0.

    Raises:
        InputError: if there is no run around the checkpoint, it has no emotions or no labeled val faces, or
            no threshold has so small a risk.
    """
    run = open_run(checkpoint, **(dataset or {}))
    emotions = run.method.task.emotions
    if not emotions:
        raise InputError(f"{checkpoint} predicts no emotions: there is nothing to calibrate")
    if not len(run.data.val):
        raise InputError(
            f"the run of {checkpoint} has no val faces to calibrate on: train it with val carved"
        )
    table = evaluate(run, "val").table.dropna(subset="truth")
    probability = torch.from_numpy(table[list(emotions)].to_numpy(copy=True))
    label = torch.tensor([emotions.index(truth) for truth in table["truth"]])

    held_out = cross_fitted(probability, label)
    confidence, predicted = held_out.max(-1)
    right = predicted == label
    threshold, coverage, measured = 0.0, 1.0, float((~right).double().mean())
    if risk is not None:
        threshold, coverage, measured = threshold_for_risk(confidence, right, risk)
    temperature, bias = fit(probability, label)
    found = Calibration(
        temperature=temperature,
        bias=bias.tolist(),
        threshold=threshold,
        risk=measured,
        coverage=coverage,
        ece_before=expected_calibration_error(probability, label),
        ece_after=expected_calibration_error(held_out, label),
        split=run.data.split.sha256,
    )
    SafeCheckpointIO().save_checkpoint(read_checkpoint(checkpoint) | {KEY: asdict(found)}, checkpoint)

    assert run.run_dir is not None  # the data came from it
    figures = run.run_dir / "figures"
    title = "validation faces, {} calibration"
    save_figure(
        reliability_figure(bins(probability, label).numpy(), title.format("before")),
        figures / "calibration_before.png",
    )
    save_figure(
        reliability_figure(bins(held_out, label).numpy(), title.format("after")),
        figures / "calibration_after.png",
    )
    thresholds, coverages, risks = (each.numpy() for each in risk_coverage(confidence, right))
    save_figure(risk_coverage_figure(thresholds, coverages, risks, threshold), figures / "risk_coverage.png")

    print(
        f"On {len(label):,} validation faces: ECE {found.ece_before:.1%}, calibrated {found.ece_after:.1%} "
        f"(temperature {temperature:.3g})\n"
        f"Threshold {threshold:.3g}: keeps {coverage:.1%} of the faces, {measured:.1%} of them wrong\n"
        f"Kept in {checkpoint}; pictures in {figures}\n"
        f"Next: fer-lightning recognize PICTURES --ckpt {checkpoint}"
    )
    return 0
