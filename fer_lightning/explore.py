"""From a checkpoint to what its model sees, says and believes, for the notebooks.

    run = open_run("runs/demo/fixmatch-seed0/checkpoints/best.ckpt")
    test = look(run, "test")
    test.table, test.features, test.metrics.compute()
    beliefs = believe(run)

Tables have a row per face and are indexed by its row in ``run.data.faces``, so ``images(run, table.index)``
shows the faces of any part of any table. Figures are plain matplotlib figures, which a notebook displays.
"""

import argparse
import copy
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

from fer_lightning.data.batch import Evaluated, Target, Unlabeled
from fer_lightning.data.datamodule import EvaluationBatches, Part, SemiSupervisedFaces, TrainingBatches
from fer_lightning.data.samplers import BatchKeys, Draws
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

# Of Okabe and Ito, as in the other figures, in an order that leaves the hardest to read on white for last.
COLORS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#0072B2", "#56B4E9", "#000000", "#F0E442")


@dataclass(frozen=True)
class Run:
    """A checkpoint and what lies around it."""

    method: SemiSupervised
    """On the CPU, in eval mode."""
    data: SemiSupervisedFaces
    """The faces, split as the run split them."""
    run_dir: Path | None
    """None if the checkpoint has left its run."""
    record: dict[str, Any]
    """``run.json``: split, commit, steps, time; empty if there is none, as the tables below."""
    metrics: pd.DataFrame
    """``metrics.csv``: the course of the training."""
    audit: pd.DataFrame
    """``pseudo_labels.csv``: what was believed in each epoch, see ``audit_rows``."""

    def truth(self, rows: Rows) -> Target:
        """Return what faces show, the unlabeled ones too: for people to look at, never to train on."""
        emotion = self.data.faces.emotion_in(self.method.task.taxonomy)[rows]
        return Target(torch.from_numpy(emotion), torch.from_numpy(self.data.faces.valence_arousal[rows]))


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
                "not known: say open_run(checkpoint, data=SemiSupervisedFaces(...))"
            )
        data = _data_of(run_dir, dataset)
    data.setup("predict")
    record = folder / "run.json"
    return Run(
        method,
        data,
        run_dir,
        json.loads(record.read_text(encoding="utf-8")) if run_dir and record.is_file() else {},
        _csv(run_dir, "metrics.csv"),
        _csv(run_dir, "pseudo_labels.csv"),
    )


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
class Looks:
    """What the model says of N faces."""

    table: pd.DataFrame
    """``name``; for emotions ``truth`` (missing where unknown), ``prediction``, ``confidence`` and the
    probability of each emotion under its name; for valence and arousal ``valence``, ``arousal``,
    ``true_valence``, ``true_arousal`` and ``error``, the distance between the two points."""
    features: Floats
    """(N, D), what the head reads."""
    metrics: FaceMetrics
    """Of these faces, counted."""


@torch.no_grad()
def look(run: Run, part: Part = "test", limit: int | None = None) -> Looks:
    """Show faces, not augmented, to the network that serves.

    Args:
        run: of ``open_run``.
        part: which faces.
        limit: at most so many, evenly spread over the part.

    Raises:
        InputError: if the part is empty.
    """
    data, method = run.data, run.method
    rows = getattr(data, part)[_positions(run, part, limit)]
    batches = EvaluationBatches(data.faces, rows, run.truth(rows), data.image_size)
    metrics, predictions = FaceMetrics(method.task), []
    for positions in _batches(len(rows), data.eval_batch_size):
        batch = batches[positions]
        prediction: Prediction = method(batch.image)
        metrics.update(prediction, batch.target)
        predictions.append(prediction)
    emotion, valence_arousal, features = (torch.cat(each) for each in zip(*predictions, strict=True))
    table = _table(run, rows, as_target(emotion, valence_arousal))
    if method.task.classes:
        table["confidence"] = emotion.max(-1).values.numpy()
        table[list(method.task.emotions)] = emotion.numpy()
    return Looks(table, features.numpy(), metrics)


@dataclass(frozen=True)
class Beliefs:
    """What the pseudo-labels of a checkpoint say of N unlabeled faces."""

    table: pd.DataFrame
    """As in ``Looks``, where ``prediction`` is what is believed, ``confidence`` how firmly, and ``weight``
    how much it counts in training: 0 is rejected. Without the probabilities."""
    audit: pd.DataFrame
    """Their worth, by emotion and for ``all``; columns as in ``audit_rows``."""


@torch.no_grad()
def believe(run: Run, limit: int | None = None) -> Beliefs:
    """Ask the method for its pseudo-labels without training on them, and hold the truth against them.

    Faces are shown in the views and in batches of the size of training, but each batch meets the method in
    eval mode and in the state of the checkpoint: whatever the method adapts to one batch is forgotten before
    the next. The predictions of a method that believes nothing are taken for beliefs, all of them accepted.

    Args:
        run: of ``open_run``.
        limit: at most so many faces, evenly spread over the unlabeled ones.

    Raises:
        InputError: if there are no unlabeled faces.
    """
    data, method = run.data, run.method
    positions = _positions(run, "unlabeled", limit)
    rows = data.unlabeled[positions]
    truth = run.truth(rows)
    batches = TrainingBatches(data, method.views, run.truth(data.labeled))
    plain = EvaluationBatches(data.faces, rows, truth, data.image_size)
    counts = AuditCounts(method.task.classes, torch.device("cpu"))
    believed = []
    for here in _batches(len(rows), data.batch_size * data.mu):
        pseudo = None
        if method.views.unlabeled:
            keys = BatchKeys(_NOBODY, Draws(positions[here], positions[here]))
            unlabeled = cast(Unlabeled, batches[keys]["unlabeled"])
            pseudo = copy.deepcopy(method).pseudo_label(unlabeled)
        if pseudo is None:
            pseudo = _believe_all(method, plain[here])
        part = torch.from_numpy(here)
        counts.add(pseudo, truth.label[part], truth.valence_arousal[part])
        believed.append(pseudo)
    said = Target(*(torch.cat(each) for each in zip(*(each.target for each in believed), strict=True)))
    table = _table(run, rows, said)
    for name in ("confidence", "weight"):
        table[name] = torch.cat([getattr(each, name) for each in believed]).numpy()
    audit = pd.DataFrame(audit_rows(counts.state(), method.task.emotions)).T
    return Beliefs(table, audit.rename_axis("believed"))


_NOBODY = Draws(np.empty(0, np.int64), np.empty(0, np.int64))


def _believe_all(method: SemiSupervised, batch: Evaluated) -> PseudoLabels:
    prediction = method(batch.image)
    everybody = torch.ones(len(batch.image))
    confidence = prediction.emotion.max(-1).values if method.task.classes else everybody
    threshold = torch.full((method.task.classes,), torch.nan)
    target = as_target(prediction.emotion, prediction.valence_arousal)
    return PseudoLabels(target, everybody, confidence, batch.index, threshold)


def _positions(run: Run, part: Part, limit: int | None) -> Rows:
    """Return which faces of a part to look at: (N,) positions in it, evenly spread."""
    size = len(getattr(run.data, part))
    if not size:
        raise InputError(f"the split has no {part} faces; look at another part")
    return np.linspace(0, size - 1, min(size, limit or size)).astype(np.int64)


def _batches(count: int, size: int) -> list[Rows]:
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


def _table(run: Run, rows: Rows, said: Target) -> pd.DataFrame:
    task, truth = run.method.task, run.truth(rows)
    table = pd.DataFrame({"name": run.data.faces.names[rows]}, index=pd.Index(rows, name="row"))
    if task.classes:
        names = np.array([*task.emotions, None], dtype=object)  # the last for a label of -1
        table["truth"], table["prediction"] = names[truth.label], names[said.label]
    if task.valence_arousal:
        table[list(DIMENSIONS)] = said.valence_arousal.numpy()
        table[[f"true_{name}" for name in DIMENSIONS]] = truth.valence_arousal.numpy()
        table["error"] = (said.valence_arousal - truth.valence_arousal).norm(dim=-1).numpy()
    return table


def images(run: Run, rows: Sequence[int] | pd.Index) -> Pixels:
    """Return faces as the network is shown them when it is tested, (N, size, size, 3) uint8 RGB.

    Args:
        run: of ``open_run``.
        rows: of ``run.data.faces``, such as the index of a table.
    """
    view, size = CenterView(), run.data.image_size
    shown = [view(run.data.faces.images[int(row)], size, ()) for row in rows]
    return np.stack(shown) if shown else np.empty((0, size, size, 3), np.uint8)


def mistakes(table: pd.DataFrame) -> pd.DataFrame:
    """Return the faces known to be misjudged, the firmest first; without emotions all, the worst first.

    Args:
        table: of ``look`` or ``believe``.
    """
    if "truth" not in table:
        return table.dropna(subset="error").sort_values("error", ascending=False)
    wrong = table[table["truth"].notna() & (table["truth"] != table["prediction"])]
    return wrong.sort_values("confidence", ascending=False)


def captions(table: pd.DataFrame) -> list[str]:
    """Say in two lines what is predicted or believed of each face, and what is true.

    Args:
        table: of ``look`` or ``believe``.
    """
    if "truth" in table:
        truth = table["truth"].where(table["truth"].notna(), "?")
        rows = zip(table["prediction"], table["confidence"], truth, strict=True)
        return [f"{said} {confidence:.0%}\nis {true}" for said, confidence, true in rows]
    points = table[[*DIMENSIONS, *(f"true_{name}" for name in DIMENSIONS)]].to_numpy().tolist()
    return [f"v {v:+.2f} a {a:+.2f}\nis {true_v:+.2f}, {true_a:+.2f}" for v, a, true_v, true_a in points]


def embed(features: Floats, method: Literal["pca", "tsne"] = "tsne") -> Floats:
    """Lay features out in the plane, the same way each time.

    Args:
        features: (N, D).
        method: ``pca`` keeps distances between groups, ``tsne`` (van der Maaten and Hinton 2008) shows who
            is near whom, and its distances between groups mean nothing.

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
    # A perplexity is a number of neighbours, of which there must be some others.
    tsne = TSNE(perplexity=min(30, (len(features) - 1) / 3), init="pca", random_state=0)
    points: Floats = (tsne if method == "tsne" else PCA(2)).fit_transform(features)
    return points


def neighbours(query: Floats, bank: Floats, k: int = 5) -> tuple[Rows, Floats]:
    """Find what lies nearest in feature space, by cosine.

    Args:
        query: (Q, D) features.
        bank: (N, D) features.
        k: how many, at most N.

    Returns:
        (Q, k) positions in the bank, nearest first, and (Q, k) cosines.
    """
    unit = torch.nn.functional.normalize
    cosines = unit(torch.from_numpy(query)) @ unit(torch.from_numpy(bank)).T
    cosine, position = cosines.topk(min(k, len(bank)))
    return position.numpy(), cosine.numpy()


def confusion(looks: Looks, title: str) -> "Figure":
    """Draw the confusion matrix of a task with emotions."""
    return confusion_figure(looks.metrics.confusion.compute().numpy(), looks.metrics.task.emotions, title)


def calibration(table: pd.DataFrame, title: str) -> "Figure":
    """Draw accuracy against confidence, for predictions or for beliefs."""
    known = table.dropna(subset="truth")
    right = torch.tensor((known["truth"] == known["prediction"]).to_numpy())
    return reliability_figure(
        calibration_bins(torch.tensor(known["confidence"].to_numpy()), right).numpy(), title
    )


def agreement(table: pd.DataFrame, title: str) -> "Figure":
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


def embedding(points: Floats, looks: Looks, title: str) -> "Figure":
    """Draw an embedding in the colors of the true emotions, mistakes as crosses; or else of true valence.

    Args:
        points: (N, 2), of ``embed``; those of unknown truth are left out.
        looks: at the same N faces.
        title: what is seen.
    """
    figure = new_figure(7.6, 5.6, left=0.15, right=1.75, bottom=0.15, top=0.4)
    axes = figure.add_subplot()
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=11)
    table, emotions = looks.table, looks.metrics.task.emotions
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
    """Draw losses and validation scores over the optimiser steps.

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


def believed_over_time(audit: pd.DataFrame) -> "Figure":
    """Draw what the pseudo-labels of the last epoch were worth, and how that went over the epochs.

    Args:
        audit: ``Run.audit``.
    """
    last = audit[audit["epoch"] == audit["epoch"].max()].set_index("emotion")
    emotions = last.drop(index="all") if len(last) > 1 else last
    history = audit.loc[audit["emotion"] == "all", ["epoch", *HISTORY]]
    beliefs = cast(dict[str, dict[str, float]], emotions.to_dict("index"))
    return audit_figure(beliefs, cast(list[dict[str, float]], history.to_dict("records")))
