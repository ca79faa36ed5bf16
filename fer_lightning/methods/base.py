"""The chassis: student, teacher, optimiser, metrics and log. A method says what is believed and learnt."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, cast

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from timm.optim import param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from fer_lightning.data.batch import Evaluated, Labeled, Unlabeled, Views
from fer_lightning.data.datamodule import SemiSupervisedFaces, batches_taken
from fer_lightning.distributed import average_
from fer_lightning.errors import CheckpointError, InputError
from fer_lightning.methods.about import About
from fer_lightning.methods.schedules import Schedule, learning_rate_factor
from fer_lightning.metrics import FaceMetrics
from fer_lightning.models.memory import ResizedOnLoad
from fer_lightning.models.network import FaceNetwork, Stem, make_backbone
from fer_lightning.pseudo_labels import PseudoLabels
from fer_lightning.task import Kind, Output, Prediction, Task


class SemiSupervised(ResizedOnLoad, L.LightningModule):
    """A student, its EMA teacher, the metrics and the log; a subclass says what is believed and learnt.

    A subclass overrides at most ``pseudo_label``, ``losses``, ``build_network``, ``on_train_epoch_start`` /
    ``on_train_epoch_end`` and ``forward``, sets ``about`` and ``views``, and keeps every adaptive state in a
    registered buffer.

    Args:
        targets: what is recognised: ``classes``, ``valence_arousal`` or ``both``.
        emotions: the classes and their order: a taxonomy's name (``basic7``, ``basic8``, ``fer2013``,
            ``ferplus``, ``raf_db``, ``affectnet7``, ``affectnet8``) or a list of emotions.
        backbone: any timm model, or ``wrn_28_2``, ``wrn_16_2``, ``wrn_10_1``.
        backbone_arguments: passed on to the backbone, e.g. ``{drop_path_rate: 0.1}``.
        pretrained: start from timm's weights of the hub.
        weights: start from a local weight file instead.
        in_channels: 3, or 1 to look at the luminance alone.
        stem: ``small`` keeps a ResNet from shrinking images of under about 64 pixels in its first layers.
        mean: of the normalisation, per channel of RGB in [0, 1].
        std: of the normalisation, likewise.
        dropout: of the features before the head.
        optimizer: ``sgd`` (Nesterov, momentum 0.9) or ``adamw``.
        lr: highest learning rate.
        weight_decay: for weights of two or more dimensions; norms and biases are not decayed.
        schedule: of the learning rate over the run: ``cosine_7_16`` (FixMatch's, ends at 0.195 of lr),
            ``cosine`` to zero, or ``constant``.
        warmup_steps: optimiser steps of linear warm-up.
        ema_decay: of the teacher, per optimiser step; 0 for no teacher.
        ema_warmup: let the decay grow as ``1 - (2 + step) ** (-2 / 3)`` until it reaches ``ema_decay``, so
            that a short run is not averaged with its initial weights.
        joint_forward: one forward for labeled and strong images, which share batch statistics, or one each.
        labeled_only_steps: optimiser steps on labeled faces alone before the method begins.
        channels_last: memory layout of the convolutions; faster on CPUs and on recent GPUs.
        compile: run the networks through ``torch.compile``.
    """

    about: ClassVar[About]
    """What the table of methods says."""
    recognises: ClassVar[tuple[Kind, ...]] = ("classes", "both")
    """Targets the method can learn."""
    views: Views = Views()
    """How many views of each face the method learns from."""
    teacher: ModelEmaV3 | None
    noise_seed: Tensor

    def __init__(
        self,
        targets: Kind = "classes",
        emotions: str | Sequence[str] = "basic7",
        backbone: str = "wrn_28_2",
        backbone_arguments: dict[str, Any] | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        in_channels: Literal[1, 3] = 3,
        stem: Stem = "standard",
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.25, 0.25, 0.25),
        dropout: float = 0.0,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        lr: float = 0.03,
        weight_decay: float = 5e-4,
        schedule: Schedule = "cosine_7_16",
        warmup_steps: int = 0,
        ema_decay: float = 0.999,
        ema_warmup: bool = True,
        joint_forward: bool = True,
        labeled_only_steps: int = 0,
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if targets not in self.recognises:
            raise InputError(
                f"{type(self).__name__} believes emotions; --model.targets must be "
                f"{' or '.join(self.recognises)}, not {targets}"
            )
        self.save_hyperparameters()
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
        self.register_buffer("noise_seed", torch.tensor(torch.initial_seed() % 2**31))
        self.metrics = nn.ModuleDict({stage: FaceMetrics(self.task) for stage in ("val", "test")})
        self.student_metrics = nn.ModuleDict({stage: FaceMetrics(self.task) for stage in ("val", "test")})

    # What a method says.

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels | None:
        """Return what is believed about unlabeled faces; called without gradient. None: nothing is."""
        return None

    def losses(
        self, labeled: Labeled, unlabeled: Unlabeled | None, pseudo: PseudoLabels | None
    ) -> dict[str, Tensor]:
        """Return the terms to be minimised by name, each already weighted.

        Both ``unlabeled`` and ``pseudo`` are None during the ``labeled_only_steps`` and for a method without
        them.
        """
        return {"supervised": self.task.supervised(self.student(labeled.image), labeled.target)}

    def build_network(self) -> FaceNetwork:
        """Build the student: a method may give it a neck or a head of its own."""
        backbone = self.build_backbone()
        return FaceNetwork(backbone, self.task, **self.network_options)

    def forward(self, images: Tensor) -> Prediction:
        """Recognise faces: what validation, test, prediction and export all use.

        Args:
            images: (B, 3, H, W) uint8 RGB.
        """
        return self.task.predict(self.inference_network(images))

    # What a method builds with.

    def build_backbone(self) -> nn.Module:
        """Build the backbone of the options."""
        h = self.hparams
        return make_backbone(h.backbone, h.in_channels, h.stem, h.pretrained, h.weights, h.backbone_arguments)

    @property
    def network_options(self) -> dict[str, Any]:
        """The options of a ``FaceNetwork`` other than its parts."""
        h = self.hparams
        return {"in_channels": h.in_channels, "mean": h.mean, "std": h.std, "dropout": h.dropout}

    @property
    def options(self) -> Any:
        """The hyper-parameters by name, saved with every checkpoint."""
        return self.hparams

    @property
    def inference_network(self) -> FaceNetwork:
        """The network that answers: the teacher where there is one."""
        return self.student if self.teacher is None else cast(FaceNetwork, self.teacher.module)

    @property
    def datamodule(self) -> SemiSupervisedFaces:
        """The data of the run, for what is indexed by face; never for the truth of unlabeled faces."""
        return cast(SemiSupervisedFaces, self.trainer.datamodule)  # type: ignore[attr-defined]

    @property
    def progress(self) -> float:
        """Share of the run's optimiser steps that are done, in [0, 1]; 1 for a model without a trainer."""
        return 1.0 if self._trainer is None else min(1.0, self.global_step / self._steps)

    def labeled_prior(self) -> Tensor:
        """Return the (C,) shares of the emotions among the labels of the run, with one more face of each."""
        counts = self.datamodule.labeled_target.emotion.nan_to_num().sum(0) + 1
        return (counts / counts.sum()).to(self.device)

    def forward_views(self, *images: Tensor) -> list[Output]:
        """Show several batches to the student, as ``joint_forward`` says: in one pass or in one pass each."""
        if not self.hparams.joint_forward or len(images) == 1:
            return [self.student(each) for each in images]
        output: Output = self.student(torch.cat(images))
        parts = [part.split([len(each) for each in images]) for part in output]
        return [Output(*part) for part in zip(*parts, strict=True)]

    def labeled_faces(self) -> Iterator[Evaluated]:
        """Iterate once over the labeled faces, not augmented, on this device; each rank gets its own part.

        Positions of -1 fill the last batch and must be left out.
        """
        for batch in self.datamodule.labeled_loader():
            yield self.transfer_batch_to_device(batch, self.device, 0)

    # The chassis itself.

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Believe, learn, log; the audit reads ``pseudo`` from what is returned."""
        self._seed_step()
        labeled: Labeled = batch["labeled"]
        unlabeled: Unlabeled | None = batch.get("unlabeled")
        if self.global_step < self.hparams.labeled_only_steps:
            unlabeled = None
        pseudo = None
        if unlabeled is not None:
            with torch.no_grad():
                pseudo = self.pseudo_label(unlabeled)
        terms = self.losses(labeled, unlabeled, pseudo)
        loss = torch.stack(list(terms.values())).sum()
        self._check_finite(loss, terms)
        if self._logged_now():
            logged = {f"train/{name}": term.detach() for name, term in terms.items()}
            self.log("train/loss", loss.detach(), prog_bar=True)
            if pseudo is not None:
                logged["train/mean_weight"] = pseudo.weight.mean()
            self.log_dict(logged)
        return {"loss": loss, "pseudo": pseudo}

    def _logged_now(self) -> bool:
        """Whether a logger or the end of the epoch reads this training step; others are forgotten.

        To log costs a third of a millisecond a value, which a step of a small network on a GPU would feel. A
        hook that is called without a trainer logs nothing.
        """
        trainer = self._trainer
        if trainer is None or not trainer.training:
            return False
        return trainer.is_last_batch or trainer._logger_connector.should_update_logs

    def _seed_step(self) -> None:
        """Make what a step draws (dropout, mixing) a function of seed, batch number and rank.

        So a resumed run draws what an uninterrupted one draws, on every device and rank, and nothing is
        saved.
        """
        step = batches_taken(self.trainer) * self.trainer.world_size + self.global_rank
        seed = (self._seed * 1_000_003 + step) % 2**63
        # Not torch.manual_seed, which takes a millisecond to seed every kind of device that is not there.
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def _check_finite(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        # Rarely, since reading the loss waits for the GPU.
        if self.global_step % 50 == 0 and not bool(loss.isfinite()):
            values = ", ".join(f"{name} {float(term.detach()):.4g}" for name, term in terms.items())
            raise FloatingPointError(
                f"the loss is not finite at step {self.global_step} ({values}); lower --model.lr"
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then move the teacher: once per optimiser step, also under gradient accumulation."""
        super().optimizer_step(*args, **kwargs)
        # Each rank has seen its own part of the batch; they go on with the same running statistics.
        average_([buffer for buffer in self.student.buffers() if buffer.is_floating_point()])
        if self.teacher is not None:
            # timm takes a step up to 1 for the time before averaging begins; ours begins with the first.
            self.teacher.update(self.student, step=self.global_step + 2)

    def train(self, mode: bool = True) -> "SemiSupervised":
        """Set the mode of everything but the teacher, which never trains."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def configure_optimizers(self) -> Any:
        """Build the optimiser and its per-step schedule."""
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
        """Compile the networks if asked to; in place, so the names in a checkpoint stay."""
        # The teacher is in eval mode on purpose.
        warnings.filterwarnings("ignore", message=r".*module\(s\) in eval mode at the start of training")
        self._seed = int(self.noise_seed)
        if isinstance(self.trainer.strategy, DDPStrategy):
            # A head may be idle for a while: before a method begins, or where nothing is believed.
            self.trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        if self.hparams.compile and stage == "fit":
            self.student.compile()
            if self.teacher is not None:
                self.teacher.module.compile()

    def on_train_start(self) -> None:
        """Read the seed once more: a resumed run goes on with its own."""
        self._seed = int(self.noise_seed)

    # Evaluation.

    def validation_step(self, batch: Evaluated, batch_idx: int) -> None:
        """Count a batch of validation faces."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Evaluated, batch_idx: int) -> None:
        """Count a batch of test faces."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Evaluated, batch_idx: int) -> tuple[Tensor, Prediction]:
        """Return the (B,) positions of the faces and what is predicted of them."""
        return batch.index, self(batch.image)

    def _evaluate(self, batch: Evaluated, stage: str) -> None:
        cast(FaceMetrics, self.metrics[stage]).update(self(batch.image), batch.target)
        if self.teacher is not None:
            student = self.task.predict(self.student(batch.image))
            cast(FaceMetrics, self.student_metrics[stage]).update(student, batch.target)

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
        """Begin to count anew: not at the end, so that callbacks can still draw the confusion matrix."""
        self._reset_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Begin to count anew."""
        self._reset_metrics("test")

    def _reset_metrics(self, stage: str) -> None:
        for kind in (self.metrics, self.student_metrics):
            cast(FaceMetrics, kind[stage]).reset()

    # Checkpoints.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the method and its emotions, so that the file opens anywhere with one call."""
        checkpoint["method"] = f"{type(self).__module__}.{type(self).__qualname__}"
        checkpoint["emotions"] = list(self.task.emotions)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of other emotions.

        Raises:
            CheckpointError: naming both.
        """
        theirs, ours = checkpoint.get("emotions", []), list(self.task.emotions)
        if theirs != ours:
            raise CheckpointError(
                f"the checkpoint knows the emotions {theirs}, this model {ours}, in that order; "
                "set --model.emotions to those of the checkpoint"
            )
