"""Base class of all methods: student, teacher, optimizer, metrics and log."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, cast

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from fer_lightning.data.batch import DataInfo, Evaluated, Labeled, Unlabeled, Views
from fer_lightning.distributed import average_
from fer_lightning.errors import CheckpointError, InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.divergence import FiniteLosses, check_weights
from fer_lightning.methods.same_training import check_same_method
from fer_lightning.methods.schedules import Schedule, learning_rate_factor
from fer_lightning.methods.step_losses import Losses
from fer_lightning.metrics import FaceMetrics
from fer_lightning.models.inputs import face_batch
from fer_lightning.models.memory import ResizedOnLoad
from fer_lightning.models.network import FaceNetwork, Stem, make_backbone
from fer_lightning.pseudo_labels import PseudoLabels
from fer_lightning.ranges import (
    Momentum,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    Share,
    check_ranges,
    plain_numbers,
)
from fer_lightning.task import Kind, Output, Prediction, Task

DEFAULT_EMOTIONS = "basic7"
Optimizer = Literal["sgd", "adamw"]
"""``sgd`` with Nesterov momentum of 0.9, or ``adamw``."""


class SemiSupervised(ResizedOnLoad, L.LightningModule):
    """A student and its EMA teacher; a subclass makes pseudo-labels and losses.

    A training step calls, in this order, ``pseudo_label``, ``losses`` and ``update_state``. The first two
    change no state: called twice they return the same. Where ``learns_from_unlabeled`` is false, as in the
    ``labeled_only_steps``, it calls ``labeled_losses`` and ``update_labeled_state`` instead, so that the
    three always get unlabeled faces.

    What a method may override; ``super()`` is needed where it is written:

    ========================  ==============================================================================
    ``about``, ``revision``   its line in the table of methods; the number of its behavior
    ``views``,                what it needs of the data: how many views, and whether labeled faces are drawn
    ``class_balanced``        class by class (an option of the data overrules it)
    ``targets_supported``     the kinds of task that it can learn
    ``gradient_through_-``    set if the losses need gradients through the outputs on the weak views,
    ``weak_views``            ``pseudo.outputs``; else ``pseudo_label`` is called without gradient
    ``build_network``         the student, if it has a neck or head of its own
    ``prepare``               sizes what depends on the data; called once before training. ``super()``: no
    ``learns_from_unlabeled`` whether a step learns from unlabeled faces. ``super()``: yes
    ``pseudo_label``          pseudo-labels of a batch, from its weak views
    ``losses``                the weighted terms of a step
    ``update_state``          moves thresholds, memories, running means. ``super()``: no
    ``labeled_losses``        the weighted terms of a step on labels alone
    ``update_labeled_state``  moves what such a step moves. ``super()``: no
    ``forward``               where the paper's inference differs from the inference network's softmax; it
                              begins with ``face_batch``, as here
    ``on_train_epoch_end``    what is measured or committed once an epoch. ``super()``: no
    ``on_train_start``        what is done once before the first step. ``super()``: yes
    ``optimizer_step``        what the paper does after each step. ``super()``: yes
    ========================  ==============================================================================

    Every adaptive state is a registered buffer: saved, moved and restored with the weights. Under DDP it is
    reduced over the ranks before it is used; the trainer's strategy must be
    ``ddp_find_unused_parameters_true``, since a head can be idle for some steps.

    Args:
        targets: what is predicted: ``classes``, ``valence_arousal`` or ``both``.
        emotions: the classes and their order: a taxonomy's name (``basic7``, ``basic8``, ``fer2013``,
            ``ferplus``, ``raf_db``, ``affectnet7``, ``affectnet8``) or a list of emotions.
        backbone: any timm model, or ``wrn_28_2``, ``wrn_16_2``, ``wrn_10_1``.
        backbone_arguments: passed on to the backbone, e.g. ``{drop_path_rate: 0.1}``.
        pretrained: start from timm's weights of the hub.
        weights: start from a local weight file instead.
        partial_weights: accept a weight file that fills less than half of the network.
        in_channels: 3, or 1 for the luminance alone.
        stem: ``small`` keeps a ResNet from shrinking images of under about 64 pixels in its first layers.
        mean: of the normalization, per channel of RGB in [0, 1].
        std: of the normalization, per channel.
        dropout: rate of the dropout of the features before the head.
        unit_features: scale the features to unit length before the head.
        projection: width of a projection head for contrastive losses; 0 for none.
        optimizer: ``sgd`` (Nesterov, momentum 0.9) or ``adamw``.
        lr: highest learning rate.
        weight_decay: for weights of two or more dimensions; norms and biases are not decayed.
        schedule: of the learning rate over the run: ``cosine_7_16`` (FixMatch's, ends at 0.195 of lr),
            ``cosine`` to zero, or ``constant``.
        warmup_steps: optimizer steps of linear warm-up.
        ema_decay: of the teacher, per optimizer step; 0 for no teacher.
        ema_warmup: let the decay grow as ``1 - (2 + step) ** (-2 / 3)`` until it reaches ``ema_decay``, so
            that a short run is not averaged with its initial weights.
        joint_forward: one forward for labeled and strong images, which share batch statistics, or one each.
        labeled_only_steps: optimizer steps on labeled faces alone before the method begins.
        channels_last: memory layout of the convolutions; faster on CPUs and on recent GPUs.
        compile: run the networks through ``torch.compile``.
    """

    about: ClassVar[About]
    """Its line in the table of methods."""
    revision: ClassVar[int] = 1
    """Raised with every change that moves the method's losses; rows of results carry it."""
    targets_supported: ClassVar[tuple[Kind, ...]] = ("classes", "both")
    """Kinds of task that the method can learn."""
    views: Views = Views()
    """Number of views of each face."""
    class_balanced: ClassVar[bool] = False
    """Whether labeled faces are drawn class by class."""
    gradient_through_weak_views: bool = False
    """Whether ``pseudo_label`` is called with gradient."""
    teacher: ModelEmaV3 | None
    step_seed: Tensor

    def __init__(
        self,
        targets: Kind = "classes",
        emotions: str | Sequence[str] = DEFAULT_EMOTIONS,
        backbone: str = "wrn_28_2",
        backbone_arguments: dict[str, Any] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        partial_weights: bool = False,
        in_channels: Literal[1, 3] = 3,
        stem: Stem = "standard",
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.25, 0.25, 0.25),
        dropout: Share = 0.0,
        unit_features: bool = False,
        projection: NonNegativeInt = 0,
        optimizer: Optimizer = "sgd",
        lr: PositiveFloat = 0.03,
        weight_decay: NonNegativeFloat = 5e-4,
        schedule: Schedule = "cosine_7_16",
        warmup_steps: NonNegativeInt = 0,
        ema_decay: Momentum = 0.999,
        ema_warmup: bool = True,
        joint_forward: bool = True,
        labeled_only_steps: NonNegativeInt = 0,
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        # A parser's numbers have types of their own, with which a checkpoint could not be read.
        self.save_hyperparameters(plain_numbers(dict(self.hparams)))
        check_ranges(type(self), self.hparams, "model")
        if targets not in self.targets_supported:
            raise InputError(
                f"targets is {targets!r}; {type(self).__name__} learns {' or '.join(self.targets_supported)}",
                option="model.targets",
            )
        self.task = Task.of(targets, emotions)
        self.student = self.build_network()
        if channels_last:
            self.student = self.student.to(memory_format=torch.channels_last)
        # A deep copy in eval mode that shares no storage; the average is of the network alone, never of our
        # buffers.
        self.teacher = None
        if ema_decay:
            self.teacher = (
                ModelEmaV3(self.student, ema_decay, use_warmup=ema_warmup).requires_grad_(False).eval()
            )
        self.register_buffer("step_seed", torch.tensor(torch.initial_seed() % 2**31))
        self.batches_taken = 0
        self.image_size: int | None = None
        self._finite = FiniteLosses()
        self._steps = 0
        self._data: DataInfo | None = None
        self.metrics = nn.ModuleDict({stage: FaceMetrics(self.task) for stage in ("val", "test")})
        self.student_metrics = nn.ModuleDict({stage: FaceMetrics(self.task) for stage in ("val", "test")})

    # What a method overrides.

    def build_network(self) -> FaceNetwork:
        """Build the student: the backbone, average pooling and a linear head."""
        return self.make_network(self.build_backbone())

    def prepare(self, data: DataInfo) -> None:
        """Size what depends on the data: memories, queues, priors. Called once before training."""

    @property
    def learns_from_unlabeled(self) -> bool:
        """Whether this step learns from unlabeled faces; without a trainer, whether it has pseudo-labels."""
        begun = self._attached is None or self.global_step >= self.hparams.labeled_only_steps
        return self.views.unlabeled and begun

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        """Make the pseudo-labels of a batch of unlabeled faces; changes no state."""
        raise NotImplementedError(
            f"{type(self).__name__} declares views of unlabeled faces: give it pseudo-labels"
        )

    def losses(self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels) -> Losses:
        """Return the weighted terms of a step, and the student's outputs; changes no state."""
        raise NotImplementedError(f"{type(self).__name__} declares views of unlabeled faces: give it losses")

    def update_state(
        self, labeled: Labeled, unlabeled: Unlabeled, pseudo: PseudoLabels, outputs: tuple[Output, ...]
    ) -> None:
        """Move thresholds, memories and running means; called in training only, without gradient.

        Args:
            labeled: the batch.
            unlabeled: the batch.
            pseudo: what ``pseudo_label`` returned.
            outputs: those of the student, as ``losses`` returned them, with the graph they were made in.
        """

    def labeled_losses(self, labeled: Labeled) -> Losses:
        """Return the weighted terms of a step on labels alone; changes no state."""
        x = self.student(labeled.weak[0])
        return Losses((x,), supervised=self.task.supervised(x, labeled.target))

    def update_labeled_state(self, labeled: Labeled, outputs: tuple[Output, ...]) -> None:
        """Move what a step on labels alone moves, as ``update_state`` does."""

    def forward(self, images: Tensor) -> Prediction:
        """Predict with the inference network: what validation, test, prediction and export use.

        Args:
            images: (B, 3, H, W) uint8 RGB, or another form that ``face_batch`` takes; resized to the size of
                the training.
        """
        return self.task.predict(self.inference_network(face_batch(images, self.image_size)))

    # What a method builds with.

    def build_backbone(self) -> nn.Module:
        """Build the backbone of the hyper-parameters."""
        h = self.hparams
        return make_backbone(
            h.backbone,
            h.in_channels,
            h.stem,
            h.pretrained,
            h.weights,
            h.backbone_arguments,
            partial=h.partial_weights,
        )

    def make_network(
        self,
        backbone: nn.Module,
        neck: nn.Module | None = None,
        head: nn.Module | None = None,
        projection: int | None = None,
    ) -> FaceNetwork:
        """Put a network together by the hyper-parameters.

        Args:
            backbone: of ``build_backbone``.
            neck: in the place of pooling, with a ``width``; see ``FaceNetwork``.
            head: in the place of a linear layer.
            projection: width of the projection head; None for that of the hyper-parameters.
        """
        h = self.hparams
        return FaceNetwork(
            backbone,
            self.task,
            neck=neck,
            head=head,
            in_channels=h.in_channels,
            mean=h.mean,
            std=h.std,
            dropout=h.dropout,
            unit_features=h.unit_features,
            projection=h.projection if projection is None else projection,
        )

    @property
    def hparams(self) -> Any:
        """The hyper-parameters by name, saved with every checkpoint."""
        return super().hparams

    @property
    def inference_network(self) -> FaceNetwork:
        """The network that predicts: the teacher where there is one, else the student."""
        return self.student if self.teacher is None else cast(FaceNetwork, self.teacher.module)

    @property
    def data(self) -> DataInfo:
        """The facts about the data of the run.

        Raises:
            InputError: if the data came without them, as those of a plain DataLoader do.
        """
        if self._data is None:
            raise InputError(
                f"{type(self).__name__} needs the labels and sizes of its data: train it on "
                "SemiSupervisedFaces, or on a datamodule with a method `info` that returns a DataInfo"
            )
        return self._data

    @property
    def progress(self) -> float:
        """Share of the run's optimizer steps that are done, in [0, 1]; 1 for a model without a trainer."""
        return 1.0 if self._attached is None else min(1.0, self.global_step / max(1, self._steps))

    @property
    def logging_now(self) -> bool:
        """Whether a logger or the end of the epoch reads this training step; others are not logged.

        To log costs a third of a millisecond a value, which a step of a small network on a GPU would feel. A
        hook that is called without a trainer logs nothing.
        """
        trainer = self._attached
        if trainer is None or not trainer.training:
            return False
        every: int = getattr(trainer, "log_every_n_steps", 0)  # 0: not at all
        return trainer.is_last_batch or (every > 0 and (trainer.global_step + 1) % every == 0)

    def forward_views(self, *images: Tensor) -> list[Output]:
        """Run the student on several batches: in one pass or in one each, see ``joint_forward``.

        Args:
            images: (B, 3, H, W) each, of any B.
        """
        if not self.hparams.joint_forward or len(images) == 1:
            return [self.student(each) for each in images]
        output: Output = self.student(torch.cat(images))
        sizes = [len(each) for each in images]
        parts = [[None] * len(sizes) if part is None else part.split(sizes) for part in output]
        return [Output(*part) for part in zip(*parts, strict=True)]

    def labeled_faces(self) -> Iterator[Evaluated]:
        """Iterate once over the labeled faces, not augmented, on this device; each rank gets its own part.

        Indices of -1 fill the last batch and must be left out.
        """
        for batch in self.data.labeled_loader():
            yield self.transfer_batch_to_device(batch, self.device, 0)

    # Training.

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Make pseudo-labels, compute losses, update state, log; the audit reads ``pseudo`` of the result."""
        self.batches_taken += 1
        self._seed_step()
        labeled: Labeled = batch["labeled"]
        pseudo: PseudoLabels | None = None
        if self.learns_from_unlabeled:
            unlabeled: Unlabeled = batch["unlabeled"]
            with torch.set_grad_enabled(self.gradient_through_weak_views):
                pseudo = self.pseudo_label(unlabeled)
            terms = self.losses(labeled, unlabeled, pseudo)
            with torch.no_grad():
                self.update_state(labeled, unlabeled, pseudo, terms.outputs)
        else:
            terms = self.labeled_losses(labeled)
            with torch.no_grad():
                self.update_labeled_state(labeled, terms.outputs)
        loss = torch.stack(list(terms.values())).sum()
        self._finite.add(self.global_step, terms)
        if self.logging_now:
            self.log("train/loss", loss.detach(), prog_bar=True)
            self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
            if pseudo is not None:
                self.log("train/mean_weight", pseudo.weight.mean())
        if pseudo is not None:  # its outputs would keep the graph alive
            pseudo = pseudo._replace(outputs=(), similarity=None)
        return {"loss": loss, "pseudo": pseudo}

    def _seed_step(self) -> None:
        """Make what a step draws (dropout, mixing) a function of seed, batch number and rank.

        So a resumed run draws what an uninterrupted one draws, on every device and rank, and nothing is
        saved.
        """
        step = self.batches_taken * self.trainer.world_size + self.global_rank
        seed = (self._seed * 1_000_003 + step) % 2**63
        # Not torch.manual_seed, which takes a millisecond to seed every kind of device that is not there.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then move the teacher: once per optimizer step, also under gradient accumulation."""
        super().optimizer_step(*args, **kwargs)
        # Each rank has seen its own part of the batch; they go on with the same running statistics.
        average_([buffer for buffer in self.student.buffers() if buffer.is_floating_point()])
        if self.teacher is not None:
            # timm takes a step up to 1 for the time before averaging begins; ours begins with the first.
            self.teacher.update(self.student, step=self.global_step + 2)

    def train(self, mode: bool = True) -> "SemiSupervised":
        """Set the mode of everything but the teacher, which stays in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its per-step schedule."""
        h = self.hparams
        groups = param_groups_weight_decay(self, h.weight_decay)
        optimizer: torch.optim.Optimizer
        if h.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, h.lr, momentum=0.9, nesterov=True)
        else:
            optimizer = torch.optim.AdamW(groups, h.lr)
        self._steps = int(self.trainer.estimated_stepping_batches)
        factor = learning_rate_factor(h.schedule, self._steps, h.warmup_steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Take in the facts about the data, and compile the networks if ``compile`` is set."""
        # The teacher is in eval mode on purpose.
        warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode at the start of training")
        info = getattr(getattr(self.trainer, "datamodule", None), "info", None)
        if info is not None:
            self._data = info()
            self.image_size = self._data.image_size
            for metrics in (*self.metrics.values(), *self.student_metrics.values()):
                cast(FaceMetrics, metrics).set_groups(self._data.groups)
        if stage == "fit":
            if type(self).prepare is not SemiSupervised.prepare:
                self.prepare(self.data)
            if self.hparams.compile:  # in place, so the names in a checkpoint stay
                self.student.compile()
                if self.teacher is not None:
                    self.teacher.module.compile()

    def on_train_start(self) -> None:
        """Read the seed of the steps: a resumed run goes on with its own."""
        self._seed = int(self.step_seed)

    @property
    def _attached(self) -> L.Trainer | None:
        """The trainer, or None: Lightning raises where there is none."""
        try:
            return self.trainer
        except RuntimeError:
            return None

    # Evaluation.

    def validation_step(self, batch: Evaluated, batch_idx: int) -> None:
        """Count a batch of validation faces."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Evaluated, batch_idx: int) -> None:
        """Count a batch of test faces."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Evaluated, batch_idx: int) -> tuple[Tensor, Prediction]:
        """Return the (B,) indices of the faces and their predictions."""
        return batch.index, self(batch.image)

    def _evaluate(self, batch: Evaluated, stage: str) -> None:
        cast(FaceMetrics, self.metrics[stage]).update(self(batch.image), batch.target, batch.group)
        if self.teacher is not None:
            student = self.task.predict(self.student(batch.image))
            cast(FaceMetrics, self.student_metrics[stage]).update(student, batch.target, batch.group)

    def on_validation_epoch_end(self) -> None:
        """Log every metric of the validation faces."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log every metric of the test faces."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        metrics = cast(FaceMetrics, self.metrics[stage])
        values = metrics.compute()
        # torchmetrics has reduced them over the ranks already; saying so again only silences a warning.
        several = self.trainer.world_size > 1
        score = values.pop("score")
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=several)
        self.log(f"{stage}/score", score, prog_bar=True, sync_dist=several)
        if self.teacher is not None:
            student = cast(FaceMetrics, self.student_metrics[stage]).compute()
            name = "accuracy" if self.task.classes else "score"
            self.log(f"{stage}/student_{name}", student[name], sync_dist=several)

    def on_validation_epoch_start(self) -> None:
        """Reset the counts: not at the end, so that callbacks can still draw the confusion matrix."""
        if self.trainer.state.fn == "fit":
            self._check_finite()
        self._reset_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Reset the counts."""
        self._reset_metrics("test")

    def _reset_metrics(self, stage: str) -> None:
        for kind in (self.metrics, self.student_metrics):
            cast(FaceMetrics, kind[stage]).reset()

    # Checkpoints.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add method, emotions and image size, so that one call opens the file anywhere, and batches taken.

        Raises:
            Diverged: if a loss or weight is not finite: the last good checkpoint stays.
        """
        self._check_finite()
        checkpoint["method"] = class_path(type(self))
        checkpoint["emotions"] = list(self.task.emotions)
        checkpoint["image_size"] = self.image_size
        checkpoint["batches_taken"] = self.batches_taken

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on after the batches taken; refuse a checkpoint of another method, options or emotions.

        Raises:
            CheckpointError: naming what differs.
        """
        if self._attached is not None:
            check_same_method(checkpoint, class_path(type(self)), self.hparams)
        theirs, ours = checkpoint.get("emotions", []), list(self.task.emotions)
        if theirs != ours:
            raise CheckpointError(
                f"the checkpoint knows the emotions {theirs}, this model {ours}, in that order; set emotions "
                "to those of the checkpoint",
                option="model.emotions",
            )
        self._take_image_size(checkpoint.get("image_size"))
        self.batches_taken = checkpoint.get("batches_taken", 0)

    def _take_image_size(self, trained: int | None) -> None:
        """Go on with the image size of a checkpoint; faces of another size are resized to it."""
        if trained is None:
            return
        if self.image_size not in (None, trained):
            if self.trainer.state.fn == "fit":
                raise CheckpointError(
                    f"the checkpoint was trained on images of {trained} pixels, and those here have "
                    f"{self.image_size}: set image_size to {trained}, or start anew from its weights",
                    option="data.image_size",
                )
            rank_zero_warn(
                f"the checkpoint was trained on images of {trained} pixels: those of {self.image_size} are "
                "resized to that"
            )
        self.image_size = trained

    def _check_finite(self) -> None:
        self._finite.check()
        check_weights(self.global_step, self.student.named_parameters())


def class_path(cls: type) -> str:
    """Return the name of a class with its module, as a checkpoint and a configuration have it."""
    return f"{cls.__module__}.{cls.__qualname__}"
