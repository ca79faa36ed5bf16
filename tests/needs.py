"""Small methods, each with one thing that a published method needs of the chassis."""

import copy

import torch
from torch import Tensor, nn

from fer_lightning.data.batch import Labeled, Unlabeled, Views
from fer_lightning.distributed import gather, total
from fer_lightning.methods import FixMatch, Supervised
from fer_lightning.models.network import FaceNetwork
from fer_lightning.pseudo_labels import PseudoLabels
from fer_lightning.task import Prediction, as_target


class FaceMemory(FixMatch):
    """An embedding and a belief of each unlabeled face, written by index on all ranks (SimMatch)."""

    def __init__(self, tau: float = 0.2, **kwargs):
        super().__init__(tau=tau, **kwargs)
        self.register_buffer("memory", torch.zeros(0, 8))
        self.register_buffer("believed", torch.zeros(0, dtype=torch.long))

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            n = len(self.datamodule.unlabeled)
            self.memory = self.memory.new_zeros(n, self.student.head.in_features)
            self.believed = self.believed.new_full((n,), -1)

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        pseudo = super().pseudo_label(unlabeled)
        features = self.student(unlabeled.weak).features
        index, features, label = gather(unlabeled.index, features, pseudo.target.label)
        self.memory[index] = features
        self.believed[index] = label
        return pseudo


class RelabeledTargets(Supervised):
    """Labels that training may change, committed at the end of an epoch (SCN)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))
        self.register_buffer("pending", torch.zeros(0, dtype=torch.long))

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            n = len(self.datamodule.labeled)
            self.labels, self.pending = self.labels.new_full((n,), -1), self.pending.new_full((n,), -1)

    def losses(self, labeled: Labeled, unlabeled, pseudo) -> dict[str, Tensor]:
        output = self.student(labeled.image)
        index, label = gather(labeled.index, output.logits.detach().argmax(-1))
        self.pending[index] = label
        return {"supervised": self.task.supervised(output, labeled.target)}

    def on_train_epoch_end(self) -> None:
        self.labels.copy_(self.pending)


class EpochMargins(FixMatch):
    """A threshold per class, measured at the end of an epoch by the teacher on all labeled faces (Ada-CM)."""

    def __init__(self, tau: float = 0.2, **kwargs):
        super().__init__(tau=tau, **kwargs)
        self.register_buffer("margin", torch.full((self.task.classes,), 0.8))

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        confidence, count = torch.zeros_like(self.margin), torch.zeros_like(self.margin)
        for batch in self.labeled_faces():
            real = batch.index >= 0
            p = self(batch.image[real]).emotion.max(-1).values
            confidence.index_add_(0, batch.target.label[real], p)
            count.index_add_(0, batch.target.label[real], torch.ones_like(p))
        confidence, count = total(confidence, count)
        self.margin.copy_(confidence / count.clamp(min=1))


class FrozenStages(Supervised):
    """A frozen copy of the teacher, renewed at every second epoch, labels for the next (SSER)."""

    views = Views(labeled=1, weak=1, strong=1)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.snapshot = copy.deepcopy(self.inference_network).requires_grad_(False).eval()
        self.register_buffer("stage", torch.tensor(0))

    def train(self, mode: bool = True):
        super().train(mode)
        self.snapshot.eval()
        return self

    def on_train_epoch_start(self) -> None:
        stage = self.current_epoch // 2
        if stage > self.stage:
            self.snapshot.load_state_dict(self.inference_network.state_dict())
            self.stage.fill_(stage)

    def pseudo_label(self, unlabeled: Unlabeled) -> PseudoLabels:
        output = self.snapshot(unlabeled.weak)
        p = output.logits.softmax(-1)
        return PseudoLabels(
            as_target(p, output.valence_arousal),
            torch.ones_like(p[:, 0]),
            p.max(-1).values,
            unlabeled.index,
            p.new_full((self.task.classes,), torch.nan),
        )

    def losses(self, labeled: Labeled, unlabeled, pseudo) -> dict[str, Tensor]:
        x, s = self.forward_views(labeled.image, unlabeled.strong)
        return {
            "supervised": self.task.supervised(x, labeled.target),
            "unlabeled": self.task.consistency(s, pseudo.target, pseudo.weight),
        }


class MixedBatch(FixMatch):
    """Images and targets mixed over the joint batch, with a share drawn at random (MixMatch)."""

    def losses(self, labeled: Labeled, unlabeled, pseudo) -> dict[str, Tensor]:
        images = torch.cat([labeled.image, unlabeled.strong]).float() / 255
        targets = torch.cat([labeled.target.emotion, pseudo.target.emotion])
        share = torch.distributions.Beta(0.75, 0.75).sample().to(images.device)
        order = torch.randperm(len(images), device=images.device)
        output = self.student(share * images + (1 - share) * images[order])
        mixed = share * targets + (1 - share) * targets[order]
        return {"mixed": self.task.supervised(output, labeled.target._replace(emotion=mixed))}


class AmendedNeck(Supervised):
    """A neck with parameters and state of its own in the place of the pooling (ARM)."""

    def build_network(self) -> FaceNetwork:
        backbone = self.build_backbone()
        return FaceNetwork(backbone, self.task, neck=Amending(backbone.num_features), **self.network_options)


class Amending(nn.Module):
    """3 x 3 parts of the face, each squeezed to a number, less their running mean."""

    width = 9

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 1, 1)
        self.register_buffer("mean", torch.zeros(9))

    def forward(self, maps: Tensor) -> Tensor:
        parts = nn.functional.adaptive_avg_pool2d(self.squeeze(maps), 3).flatten(1)
        if self.training:
            self.mean.lerp_(parts.detach().float().mean(0), 0.1)
        return parts - self.mean


class FusedInference(Supervised):
    """Answers with its classifier and the classes' mean features together (SIT-FER)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.register_buffer("centers", torch.zeros(self.task.classes, self.student.head.in_features))

    def losses(self, labeled: Labeled, unlabeled, pseudo) -> dict[str, Tensor]:
        output = self.student(labeled.image)
        label, features = gather(labeled.target.label, output.features.detach())
        self.centers[label] = features
        return {"supervised": self.task.supervised(output, labeled.target)}

    def forward(self, images: Tensor) -> Prediction:
        prediction = super().forward(images)
        near = (-torch.cdist(prediction.features, self.centers)).softmax(-1)
        return prediction._replace(emotion=(prediction.emotion + near) / 2)


METHODS = [FaceMemory, RelabeledTargets, EpochMargins, FrozenStages, MixedBatch, AmendedNeck, FusedInference]
