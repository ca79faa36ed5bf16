"""Figures of a run, as functions from numbers to a matplotlib figure: no pyplot, no display, no state.

Colors are from the palette of Okabe and Ito, which people with any kind of color vision can tell apart.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from fer_lightning.metrics import BINS, calibration_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
Rows = Sequence[Mapping[str, float]]

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
HISTORY = ("coverage", "purity", "mean_confidence")
"""Columns of the audit whose course over the epochs is drawn."""


def new_figure(width: float, height: float, left: float, right: float, bottom: float, top: float) -> "Figure":
    """Return an empty figure of this size with these margins, in inches.

    Margins are given, because finding them costs a layout engine as much time as all the rest of a figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    return figure


def confusion_figure(counts: npt.NDArray[np.integer], emotions: Sequence[str], title: str) -> "Figure":
    """Draw a confusion matrix: shares of each true emotion in color and in per cent, numbers of faces below.

    Args:
        counts: (C, C) faces by true (row) and predicted (column) emotion.
        emotions: C names.
        title: of whose predictions; accuracy and UAR are added to it.
    """
    faces = counts.sum(1)
    share = counts / np.maximum(faces, 1)[:, None]
    accuracy, uar = counts.trace() / max(counts.sum(), 1), share.diagonal()[faces > 0].mean()
    side = 0.8 * len(emotions)
    figure = new_figure(side + 1.3, side + 1.45, left=1.15, right=0.15, bottom=1.05, top=0.4)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts):
        text = f"{share[row, column]:.0%}\n{counts[row, column]:,}"
        color = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
    axes.set_xticks(range(len(emotions)), emotions, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(emotions)), emotions)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{title}: accuracy {accuracy:.1%}, UAR {uar:.1%}", fontsize=11)
    return figure


def reliability_figure(bins: Floats, title: str) -> "Figure":
    """Draw accuracy against confidence in bins, and how many faces each bin holds.

    Args:
        bins: (15, 3) as ``metrics.calibration_bins`` returns them.
        title: of whose predictions; the ECE is added to it.
    """
    edges = np.linspace(0, 1, BINS + 1)
    middle, width = (edges[:-1] + edges[1:]) / 2, 1 / BINS
    faces, confidences, right = np.asarray(bins, np.float64).T
    filled = faces > 0
    with np.errstate(invalid="ignore"):
        mean, accuracy = confidences / faces, right / faces
    ece = float(calibration_error(torch.as_tensor(bins)))

    figure = new_figure(4.8, 5.4, left=0.75, right=0.25, bottom=0.55, top=0.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.bar(middle[filled], accuracy[filled], width * 0.92, color=BLUE, label="accuracy")
    above.bar(
        middle[filled],
        (mean - accuracy)[filled],
        width * 0.92,
        bottom=accuracy[filled],
        color="none",
        edgecolor=ORANGE,
        hatch="////",
        linewidth=0.8,
        label="gap to confidence",
    )
    above.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    above.legend(loc="upper left", frameon=False)
    above.set_title(f"{title}: ECE {ece:.1%}", fontsize=11)
    below.bar(middle, faces, width * 0.92, color=GREY)
    below.set(xlabel="confidence", ylabel="faces")
    for axes in (above, below):
        _bare(axes)
    return figure


def risk_coverage_figure(thresholds: Floats, coverage: Floats, risk: Floats, chosen: float) -> "Figure":
    """Draw the share of wrong predictions among the faces that are kept, by how many are kept.

    Args:
        thresholds: (M,) confidences, the highest first.
        coverage: (M,) share of the faces that are at least so confident.
        risk: (M,) share of wrong predictions among them.
        chosen: threshold to be marked.
    """
    figure = new_figure(4.8, 3.6, left=0.75, right=0.25, bottom=0.55, top=0.4)
    axes = figure.subplots()
    axes.plot(coverage, risk, color=BLUE, linewidth=1.6)
    row = int((thresholds >= chosen).sum()) - 1
    axes.plot(coverage[row], risk[row], "o", color=ORANGE, label=f"threshold {chosen:.2f}")
    axes.set(
        xlabel="coverage: share of the faces that are kept", ylabel="risk: share of these that are wrong"
    )
    axes.set(xlim=(0, 1), ylim=(0, max(0.05, 1.25 * float(risk.max()))))
    axes.legend(frameon=False, loc="upper left")
    axes.set_title(f"risk {risk[row]:.1%} at a coverage of {coverage[row]:.1%}", fontsize=11)
    _bare(axes)
    return figure


def views_figure(
    rows: Mapping[str, npt.NDArray[np.uint8]], captions: Mapping[str, Sequence[str]]
) -> "Figure":
    """Draw faces side by side, a row of them under each name.

    Args:
        rows: name -> (n, H, W, 3) uint8 RGB; all of the same n.
        captions: name -> n texts above the faces, for the rows that have some.
    """
    columns, side = len(next(iter(rows.values()))), 1.2
    size = (columns * side + 1.0, len(rows) * side + 0.4)
    figure = new_figure(*size, left=0.95, right=0.05, bottom=0.05, top=0.35)
    for axes, (name, images) in zip(
        figure.subplots(len(rows), squeeze=False)[:, 0], rows.items(), strict=True
    ):
        height, width = images.shape[1:3]
        gap = max(1, width // 24)
        framed = np.pad(images, ((0, 0), (gap, gap), (gap, gap), (0, 0)), constant_values=255)
        axes.imshow(np.concatenate(list(framed), axis=1), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.text(-2 * gap, height / 2, name, ha="right", va="center", fontsize=10)
        for position, text in enumerate(captions.get(name, ())):
            middle = (position + 0.5) * (width + 2 * gap)
            axes.text(middle, -gap, text, ha="center", va="bottom", fontsize=9)
    return figure


def audit_figure(rows: Mapping[str, Mapping[str, float]], history: Rows) -> "Figure":
    """Draw coverage and purity of an epoch's pseudo-labels by emotion, and their course over the epochs.

    Args:
        rows: emotion -> coverage, purity and threshold of its pseudo-labels; NaN where unknown.
        history: ``epoch`` and the columns ``HISTORY`` of all pseudo-labels, one entry an epoch.
    """
    figure = new_figure(11.5, 4.3, left=0.65, right=0.15, bottom=0.9, top=0.4)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    place = np.arange(len(rows))
    for offset, key, color in ((-0.2, "coverage", BLUE), (0.2, "purity", ORANGE)):
        values = np.nan_to_num([row[key] for row in rows.values()])
        left.bar(place + offset, values, 0.38, color=color, label=key)
        for x, value, row in zip(place, values, rows.values(), strict=True):
            text = "–" if row[key] != row[key] else f"{value:.0%}"
            left.text(x + offset, value + 0.01, text, ha="center", va="bottom", fontsize=7.5)
    threshold = np.array([row["threshold"] for row in rows.values()])
    if not np.isnan(threshold).all():
        left.hlines(threshold, place - 0.42, place + 0.42, color="black", linewidth=1.4, label="threshold")
    left.set_xticks(place, list(rows))
    left.set(ylim=(0, 1.08), ylabel="share of pseudo-labels")
    left.set_title(f"pseudo-labels by emotion, epoch {history[-1]['epoch']:g}", fontsize=11)

    epoch = [row["epoch"] for row in history]
    marker = "o" if len(history) < 30 else None
    names = ("coverage", "purity", "confidence of accepted")
    for key, name, style in zip(HISTORY, names, (BLUE, ORANGE, GREEN), strict=True):
        line = [row[key] for row in history]
        right.plot(epoch, line, color=style, marker=marker, markersize=3.5, label=name)
    right.set(xlabel="epoch", ylim=(0, 1.08))
    right.xaxis.get_major_locator().set_params(integer=True)
    right.set_title("all pseudo-labels", fontsize=11)
    for axes in (left, right):
        _bare(axes)
        axes.grid(axis="y", color="#E0E0E0", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize=9)
    return figure


def _bare(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
