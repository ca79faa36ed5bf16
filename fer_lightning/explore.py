"""From a checkpoint to its predictions and pseudo-labels, for the notebooks.

    run = open_run("runs/demo/fixmatch-seed0/checkpoints/best.ckpt")
    test = evaluate(run, "test")
    test.table, test.features, test.metrics.compute()
    audited = audit_pseudo_labels(run)

Tables have a row per face and are indexed by its row in ``run.data.faces``, so ``images(run, table.index)``
returns the faces of any part of any table. Figures are plain matplotlib figures, which a notebook displays.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import yaml

from fer_lightning.data.batch import Evaluated, Target
from fer_lightning.data.datamodule import Part, SemiSupervisedFaces
from fer_lightning.data.views import CenterView
from fer_lightning.errors import InputError
from fer_lightning.inference.load import load_method
from fer_lightning.methods.base import SemiSupervised
from fer_lightning.metrics import DIMENSIONS, FaceMetrics, calibration_bins
from fer_lightning.outputs.audit_counts import AuditCounts, audit_rows
from fer_lightning.outputs.plots import (
    GREY,
    HISTORY,
    audit_figure,
    confusion_figure,
    new_figure,
    reliability_figure,
)
from fer_lightning.pseudo_labels import PseudoLabels
from fer_lightning.task import Prediction, as_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

# Of Okabe and Ito, as in the other figures; those that are hard to read on white come last.
COLORS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#0072B2", "#56B4E9", "#000000", "#F0E442")


@dataclass(frozen=True)
class Run:
    """A checkpoint with its data and the records of its run."""

    method: SemiSupervised
    """On the CPU, in eval mode."""
    data: SemiSupervisedFaces
    """The faces, split as the run split them, in the views and the order of classes of the method."""
    run_dir: Path | None
    """None if the checkpoint has left its run."""
    record: dict[str, Any]
    """``run.json``: split, commit, steps, time; empty if there is none, as the tables below."""
    metrics: pd.DataFrame
    """``metrics.csv``: the course of the training."""
    audit: pd.DataFrame
    """``pseudo_labels.csv``: the pseudo-labels of each epoch, see ``audit_rows``."""


def open_run(checkpoint: str | Path, data: SemiSupervisedFaces | None = None, **dataset: Any) -> Run:
    """Open a checkpoint with its data and the records of its run.

    The data are those of the run's ``config.yaml``, split by its ``split.json``.

    Args:
        checkpoint: ``<run>/checkpoints/best.ckpt``, or any other of this package if ``data`` is given.
        data: these instead, split by their own options.
        dataset: options of the data set that have changed since, such as ``root="/new/place"``.

    Raises:
        InputError: if the checkpoint cannot be opened, there is no run around it, or its data are gone.
    """
    if data is not None and dataset:
        raise InputError(f"give data, or {', '.join(dataset)} of the data of the run, not both")
    method = load_method(checkpoint)
    folder = Path(checkpoint).resolve().parent.parent
    run_dir = folder if (folder / "config.yaml").is_file() else None
    if data is None:
        if run_dir is None:
            raise InputError(
                f"{checkpoint} has no run around it ({folder / 'config.yaml'} is missing), so its data are "
                "not known: use open_run(checkpoint, data=SemiSupervisedFaces(...))"
            )
        data = _data_of(run_dir, dataset)
    record = folder / "run.json"
    return Run(
        method,
        prepared(data, method),
        run_dir,
        json.loads(record.read_text(encoding="utf-8")) if run_dir and record.is_file() else {},
        _csv(run_dir, "metrics.csv"),
        _csv(run_dir, "pseudo_labels.csv"),
    )


def prepared(data: SemiSupervisedFaces, method: SemiSupervised) -> SemiSupervisedFaces:
    """Set data up without a trainer, in the views and the order of classes of a method."""
    data.views = method.views
    if method.task.classes:
        data.emotions = method.task.emotions
    data.setup("predict")
    return data


def _data_of(run_dir: Path, dataset: dict[str, Any]) -> SemiSupervisedFaces:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SemiSupervisedFaces, "data")
    file = run_dir / "config.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))["data"]
        content["manifest"] = str(run_dir / "split.json")
        content["dataset"]["init_args"] = content["dataset"].get("init_args", {}) | dataset
        data: SemiSupervisedFaces = parser.instantiate(parser.parse_object({"data": content})).data
    except (KeyError, TypeError, ValueError, yaml.YAMLError, argparse.ArgumentError) as error:
        raise InputError(f"the data section of {file} cannot be used: {error}") from error
    return data


def _csv(run_dir: Path | None, name: str) -> pd.DataFrame:
    return pd.read_csv(run_dir / name) if run_dir and (run_dir / name).is_file() else pd.DataFrame()


@dataclass(frozen=True)
class Evaluation:
    """Predictions for N faces."""

    table: pd.DataFrame
    """``name``, ``group`` (missing where unknown); for emotions ``truth`` (missing where unknown),
    ``prediction``, ``confidence`` and the probability of each emotion under its name; for valence and arousal
    ``valence``, ``arousal``, ``true_valence``, ``true_arousal`` and ``error``, the distance between the two
    points."""
    features: Floats
    """(N, D), the input of the head."""
    metrics: FaceMetrics
    """Of these faces, counted; with those of each group if the data have groups."""


@torch.no_grad()
def evaluate(run: Run, part: Part = "test", limit: int | None = None) -> Evaluation:
    """Predict faces, not augmented, with the inference network, and compare with their true labels.

    Args:
        run: of ``open_run``.
        part: which faces.
        limit: at most so many, evenly spread over the part.

    Raises:
        InputError: if the part is empty.
    """
    data, method = run.data, run.method
    batches = data.part_loader(part).dataset
    metrics, predictions, targets = FaceMetrics(method.task, data.groups), [], []
    index = _spread(run, part, limit)
    for chunk in _chunks(index, data.eval_batch_size):
        batch: Evaluated = batches[chunk]
        prediction: Prediction = method(batch.image)
        metrics.update(prediction, batch.target, batch.group)
        predictions.append(prediction)
        targets.append(batch.target)
    emotion, valence_arousal, features = (torch.cat(each) for each in zip(*predictions, strict=True))
    table = _table(run, getattr(data, part)[index], as_target(emotion, valence_arousal), _joined(targets))
    if method.task.classes:
        table["confidence"] = emotion.max(-1).values.numpy()
        table[list(method.task.emotions)] = emotion.numpy()
    return Evaluation(table, features.numpy(), metrics)


@dataclass(frozen=True)
class AuditedPseudoLabels:
    """Pseudo-labels of a checkpoint for N unlabeled faces, compared with the truth."""

    table: pd.DataFrame
    """As in ``Evaluation``, where ``prediction`` is the pseudo-label and ``weight`` its weight in training: 0
    is rejected. Without the probabilities."""
    audit: pd.DataFrame
    """Coverage, purity and calibration, by pseudo-label and for ``all``; columns as in ``audit_rows``."""


@torch.no_grad()
def audit_pseudo_labels(run: Run, limit: int | None = None) -> AuditedPseudoLabels:
    """Make the pseudo-labels of a checkpoint without training on them, and compare them with the truth.

    The method gets the views and the batch size of training, in eval mode and in the state of the checkpoint,
    which its ``pseudo_label`` does not change. For a method without pseudo-labels, or one that has not begun
    to make them, the predictions stand in, all of them accepted.

    Args:
        run: of ``open_run``.
        limit: at most so many faces, evenly spread over the unlabeled ones.

    Raises:
        InputError: if there are no unlabeled faces.
    """
    data, method = run.data, run.method
    index = _spread(run, "unlabeled", limit)
    plain = data.part_loader("unlabeled").dataset
    counts = AuditCounts(method.task.classes, torch.device("cpu"))
    made, truth = [], []
    for chunk in _chunks(index, data.batch_size * data.unlabeled_ratio):
        batch: Evaluated = plain[chunk]
        if method.learns_from_unlabeled:
            pseudo = method.pseudo_label(data.unlabeled_batch(chunk))
        else:
            pseudo = _accept_all(method, batch)
        counts.add(pseudo, batch.target.label, batch.target.valence_arousal)
        made.append(pseudo)
        truth.append(batch.target)
    target = _joined([each.target for each in made])
    table = _table(run, data.unlabeled[index], target, _joined(truth))
    for name in ("confidence", "weight"):
        table[name] = torch.cat([getattr(each, name) for each in made]).numpy()
    audit = pd.DataFrame(audit_rows(counts.state(), method.task.emotions)).T
    return AuditedPseudoLabels(table, audit.rename_axis("pseudo_label"))


def _accept_all(method: SemiSupervised, batch: Evaluated) -> PseudoLabels:
    prediction = method(batch.image)
    ones = torch.ones(len(batch.image))
    confidence = prediction.emotion.max(-1).values if method.task.classes else ones
    threshold = torch.full((method.task.classes,), torch.nan)
    target = as_target(prediction.emotion, prediction.valence_arousal)
    return PseudoLabels(target, ones, confidence, batch.index, threshold)


def _spread(run: Run, part: Part, limit: int | None) -> Rows:
    """Return (N,) indices in a part, evenly spread."""
    size = len(getattr(run.data, part))
    if not size:
        raise InputError(f"the split has no {part} faces; choose another part")
    return np.linspace(0, size - 1, min(size, limit or size)).astype(np.int64)


def _chunks(index: Rows, size: int) -> list[Rows]:
    return [index[start : start + size] for start in range(0, len(index), size)]


def _joined(targets: list[Target]) -> Target:
    return Target(*(torch.cat(each) for each in zip(*targets, strict=True)))


def _table(run: Run, rows: Rows, predicted: Target, truth: Target) -> pd.DataFrame:
    task, faces = run.method.task, run.data.faces
    table = pd.DataFrame({"name": faces.names[rows]}, index=pd.Index(rows, name="row"))
    group = pd.Series(faces.group[rows], index=table.index)
    table["group"] = group.where(group != "", None)
    if task.classes:
        names = np.array([*task.emotions, None], dtype=object)  # the last for a label of -1
        table["truth"], table["prediction"] = names[truth.label], names[predicted.label]
    if task.valence_arousal:
        table[list(DIMENSIONS)] = predicted.valence_arousal.numpy()
        table[[f"true_{name}" for name in DIMENSIONS]] = truth.valence_arousal.numpy()
        table["error"] = (predicted.valence_arousal - truth.valence_arousal).norm(dim=-1).numpy()
    return table


def group_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return accuracy and UAR (or CCC) of each group of people, and the largest gap between groups.

    Args:
        evaluation: of data with groups; without, the table is empty.
    """
    values = {name: float(value) for name, value in evaluation.metrics.compute().items()}
    rows: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        metric, middle, group = name.partition("/group/")
        if middle:
            rows.setdefault(group, {})[metric] = value
        elif name.endswith("_gap"):
            rows.setdefault("largest gap", {})[name.removesuffix("_gap")] = value
    gap = {"largest gap": rows.pop("largest gap")} if "largest gap" in rows else {}
    return pd.DataFrame(rows | gap if rows else {}).T.rename_axis("group")


def images(run: Run, rows: Sequence[int] | pd.Index) -> Pixels:
    """Return faces as the network gets them in a test, (N, size, size, 3) uint8 RGB.

    Args:
        run: of ``open_run``.
        rows: of ``run.data.faces``, such as the index of a table.
    """
    view, size = CenterView(), run.data.image_size
    shown = [view(run.data.faces.images[int(row)], size, ()) for row in rows]
    return np.stack(shown) if shown else np.empty((0, size, size, 3), np.uint8)


def mistakes(table: pd.DataFrame) -> pd.DataFrame:
    """Return wrong predictions, the most confident first; without emotions all, the worst first.

    Args:
        table: of ``evaluate`` or ``audit_pseudo_labels``.
    """
    if "truth" not in table:
        return table.dropna(subset="error").sort_values("error", ascending=False)
    wrong = table[table["truth"].notna() & (table["truth"] != table["prediction"])]
    return wrong.sort_values("confidence", ascending=False)


def captions(table: pd.DataFrame) -> list[str]:
    """Return two lines for each face: the prediction or pseudo-label, and the truth.

    Args:
        table: of ``evaluate`` or ``audit_pseudo_labels``.
    """
    if "truth" in table:
        truth = table["truth"].where(table["truth"].notna(), "?")
        rows = zip(table["prediction"], table["confidence"], truth, strict=True)
        return [f"{predicted} {confidence:.0%}\nis {true}" for predicted, confidence, true in rows]
    points = table[[*DIMENSIONS, *(f"true_{name}" for name in DIMENSIONS)]].to_numpy().tolist()
    return [f"v {v:+.2f} a {a:+.2f}\nis {true_v:+.2f}, {true_a:+.2f}" for v, a, true_v, true_a in points]


def embed(features: Floats, method: Literal["pca", "tsne"] = "tsne") -> Floats:
    """Embed features in the plane, deterministically.

    Args:
        features: (N, D).
        method: ``pca`` keeps distances between groups, ``tsne`` (van der Maaten and Hinton 2008) keeps
            neighborhoods, and its distances between groups mean nothing.

    Returns:
        (N, 2).

    Raises:
        InputError: if scikit-learn is missing.
    """
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise InputError("embeddings need scikit-learn: pip install 'fer-lightning[notebooks]'") from error
    # A perplexity is a number of neighbors, of which there must be some others.
    tsne = TSNE(perplexity=min(30, (len(features) - 1) / 3), init="pca", random_state=0)
    points: Floats = (tsne if method == "tsne" else PCA(2)).fit_transform(features)
    return points


def neighbors(query: Floats, bank: Floats, k: int = 5) -> tuple[Rows, Floats]:
    """Find the nearest neighbors in feature space, by cosine.

    Args:
        query: (Q, D) features.
        bank: (N, D) features.
        k: how many, at most N.

    Returns:
        (Q, k) indices in the bank, nearest first, and (Q, k) cosines.
    """
    unit = torch.nn.functional.normalize
    cosines = unit(torch.from_numpy(query)) @ unit(torch.from_numpy(bank)).T
    cosine, index = cosines.topk(min(k, len(bank)))
    return index.numpy(), cosine.numpy()


def confusion(evaluation: Evaluation, title: str) -> "Figure":
    """Draw the confusion matrix of a task with emotions."""
    return confusion_figure(
        evaluation.metrics.confusion.compute().numpy(), evaluation.metrics.task.emotions, title
    )


def calibration(table: pd.DataFrame, title: str) -> "Figure":
    """Draw accuracy against confidence, for predictions or for pseudo-labels."""
    known = table.dropna(subset="truth")
    right = torch.tensor((known["truth"] == known["prediction"]).to_numpy())
    return reliability_figure(
        calibration_bins(torch.tensor(known["confidence"].to_numpy()), right).numpy(), title
    )


def concordance(table: pd.DataFrame, title: str) -> "Figure":
    """Draw predicted against true valence and arousal."""
    figure = new_figure(8.8, 4.2, left=0.7, right=0.15, bottom=0.55, top=0.4)
    places = figure.subplots(1, len(DIMENSIONS), gridspec_kw={"wspace": 0.25})
    for axes, name in zip(places, DIMENSIONS, strict=True):
        axes.plot([-1, 1], [-1, 1], color=GREY, linestyle="--", linewidth=1)
        axes.scatter(table[f"true_{name}"], table[name], s=9, alpha=0.5, color=COLORS[4], linewidths=0)
        axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
        axes.set(xticks=(-1, -0.5, 0, 0.5, 1), yticks=(-1, -0.5, 0, 0.5, 1))
        axes.set_title(f"{title}: {name}", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def embedding(points: Floats, evaluation: Evaluation, title: str) -> "Figure":
    """Draw an embedding in the colors of the true emotions, mistakes as crosses; or else of true valence.

    Args:
        points: (N, 2), of ``embed``; those of unknown truth are left out.
        evaluation: of the same N faces.
        title: of the figure.
    """
    figure = new_figure(7.6, 5.6, left=0.15, right=1.75, bottom=0.15, top=0.4)
    axes = figure.add_subplot()
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=11)
    table, emotions = evaluation.table, evaluation.metrics.task.emotions
    if not emotions:
        x, y = points.T
        shown = axes.scatter(x, y, s=14, c=table["true_valence"], cmap="coolwarm", vmin=-1, vmax=1)
        figure.colorbar(shown, ax=axes, label="true valence")
        return figure
    truth, wrong = table["truth"].to_numpy(), (table["truth"] != table["prediction"]).to_numpy()
    for number, emotion in enumerate(emotions):
        color = COLORS[number % len(COLORS)]
        for some, marker in ((truth == emotion) & ~wrong, "o"), ((truth == emotion) & wrong, "x"):
            label = emotion if marker == "o" else None
            x, y = points[some].T
            axes.scatter(x, y, s=14, color=color, marker=marker, linewidths=0.8, label=label)
    axes.scatter([], [], s=14, color=GREY, marker="x", linewidths=0.8, label="mistaken")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def contact_sheet(pictures: Pixels, titles: Sequence[str], columns: int = 8) -> "Figure":
    """Draw faces in lines, each under its title of at most two lines.

    Args:
        pictures: (N, H, W, 3) uint8 RGB.
        titles: N texts.
        columns: faces in a line.
    """
    # One large picture: as many axes would take seconds to draw.
    count, height, width, _ = pictures.shape
    lines, above, beside = max(1, -(-count // columns)), height // 3, max(1, width // 16)
    sheet = np.full((lines * columns, above + height, beside + width, 3), 255, np.uint8)
    sheet[:count, above:, beside:] = pictures
    _, tall, wide, _ = sheet.shape
    side = 1.25
    size = (side * columns, side * lines * tall / wide)
    figure = new_figure(*size, left=0, right=0, bottom=0, top=0)
    axes = figure.add_subplot()
    axes.set_axis_off()
    mosaic = (
        sheet.reshape(lines, columns, tall, wide, 3).swapaxes(1, 2).reshape(lines * tall, columns * wide, 3)
    )
    axes.imshow(mosaic, interpolation="nearest")
    for number, title in enumerate(titles):
        line, column = divmod(number, columns)
        place = (column * wide + beside + width / 2, line * tall + above - 0.04 * height)
        axes.text(*place, title, ha="center", va="bottom", fontsize=8)
    return figure


def learning_curves(metrics: pd.DataFrame) -> "Figure":
    """Draw losses and validation scores over the optimizer steps.

    Args:
        metrics: ``Run.metrics``.
    """
    losses = [name for name in map(str, metrics) if name.startswith("train/") and name != "train/mean_weight"]
    scores = [f"val/{name}" for name in ("accuracy", "uar", "f1", "ece", "ccc_valence", "ccc_arousal")]
    figure = new_figure(10.5, 3.6, left=0.65, right=0.15, bottom=0.55, top=0.3)
    left, right = figure.subplots(1, 2)
    for axes, names in ((left, losses), (right, scores)):
        for color, name in zip(COLORS, (name for name in names if name in metrics), strict=False):
            line = metrics.dropna(subset=name)
            marker = "o" if len(line) < 30 else None
            axes.plot(line["step"], line[name], color=color, marker=marker, markersize=3.5, label=name)
        axes.set(xlabel="step")
        axes.grid(axis="y", color="#E0E0E0", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def pseudo_labels_over_time(audit: pd.DataFrame) -> "Figure":
    """Draw coverage and purity of the last epoch's pseudo-labels, and their course over the epochs.

    Args:
        audit: ``Run.audit``.
    """
    last = audit[audit["epoch"] == audit["epoch"].max()].set_index("emotion")
    emotions = last.drop(index="all") if len(last) > 1 else last
    history = audit.loc[audit["emotion"] == "all", ["epoch", *HISTORY]]
    by_emotion = cast(dict[str, dict[str, float]], emotions.to_dict("index"))
    return audit_figure(by_emotion, cast(list[dict[str, float]], history.to_dict("records")))
