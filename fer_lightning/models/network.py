"""The face network: image -> backbone -> feature maps -> neck -> features -> head."""

import difflib
import math
from collections.abc import Sequence
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from fer_lightning.errors import InputError
from fer_lightning.models import wide_resnet  # noqa: F401  (registers its backbones with timm)
from fer_lightning.models.weights import WeightsError, load_weights
from fer_lightning.task import Output, Task

Stem = Literal["standard", "small"]


class Pool(nn.Module):
    """The default neck: global average pooling, then dropout.

    Args:
        backbone: gives the width.
        dropout: of the pooled features.
        unit: bring the features to unit length after the dropout, as Ada-CM and SIT-FER do.
    """

    def __init__(self, backbone: nn.Module, dropout: float = 0.0, unit: bool = False) -> None:
        super().__init__()
        self.unit = unit
        self.width: int = backbone.num_features  # type: ignore[assignment]
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, K, h, w) feature maps to (B, K) features."""
        pooled: Tensor = self.dropout(self.pool(maps))
        return nn.functional.normalize(pooled.float(), dim=-1) if self.unit else pooled


class Projection(nn.Module):
    """The head of contrastive losses: two linear layers with a ReLU between them, then unit length.

    Chen et al., ICML 2020 (SimCLR), https://arxiv.org/abs/2002.05709, section 4.2; of unit length as in
    SupCon.

    Args:
        inside: D, width of the features, and of the hidden layer.
        outside: P, width of the projection.
    """

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inside, inside), nn.ReLU(), nn.Linear(inside, outside))

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, D) features to (B, P) rows of unit length."""
        return nn.functional.normalize(self.layers(features), dim=-1)


class FaceNetwork(nn.Module):
    """A backbone, a neck and a head over uint8 RGB faces.

    The neck is any module from (B, K, h, w) to (B, ``neck.width``), in the place of pooling and dropout.

    Args:
        backbone: as ``make_backbone`` builds it.
        task: sizes the head.
        neck: pooling followed by dropout (``Pool``) if None.
        in_channels: 3, or 1 to feed the luminance alone.
        mean: of the normalization, in [0, 1], one per channel of RGB; kept with the weights.
        std: of the normalization, one per channel of RGB; kept with the weights.
        dropout: of the features in the default neck.
        projection: width of the projection head for contrastive losses; 0 for none.
        unit_features: scale the features of the default neck to unit length.
        head: from (B, ``neck.width``) to (B, ``task.width``); a linear layer if None.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        task: Task,
        neck: nn.Module | None = None,
        in_channels: int = 3,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
        dropout: float = 0.0,
        projection: int = 0,
        unit_features: bool = False,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = Pool(backbone, dropout, unit_features) if neck is None else neck
        width: int = self.neck.width  # type: ignore[assignment]
        self.head: Any = nn.Linear(width, task.width) if head is None else head
        self.projection = Projection(width, projection) if projection else None
        self.task = task
        self.in_channels = in_channels
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Output:
        """Compute the outputs for a batch of faces.

        Args:
            images: (B, 3, H, W) uint8 RGB, or float in [0, 1] (mixed images).

        Returns:
            Logits, valence and arousal, features and projection in float32, also under autocast; the
            projection is None without a projection head.
        """
        maps = self.feature_maps(images)
        features = self.neck(maps)
        # The head decides against thresholds; bfloat16 steps are 0.004 wide near one.
        with torch.autocast(images.device.type, enabled=False):
            features = features.float()
            logits, valence_arousal = self.task.split(self.head(features))
            projected = None if self.projection is None else self.projection(features)
        return Output(logits, valence_arousal, features, maps, projected)

    def feature_maps(self, images: Tensor) -> Tensor:
        """Return the backbone's last feature maps as (B, K, h, w), whatever its layout.

        Args:
            images: (B, 3, H, W) uint8 RGB, or float in [0, 1].
        """
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        x = (x - self.mean) / self.std
        if self.in_channels == 1:
            x = (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
        maps: Tensor = self.backbone.forward_features(x)  # type: ignore[operator]
        if maps.ndim == 3:  # tokens of a transformer, after a few of its own
            prefix: int = getattr(self.backbone, "num_prefix_tokens", 0)
            side = math.isqrt(maps.shape[1] - prefix)
            maps = maps[:, prefix:].transpose(1, 2).reshape(len(maps), -1, side, side)
        elif maps.shape[1] != self.backbone.num_features:  # channels last, as in Swin
            maps = maps.permute(0, 3, 1, 2)
        return maps


def make_backbone(
    name: str,
    in_channels: int = 3,
    stem: Stem = "standard",
    pretrained: bool = False,
    weights: str | None = None,
    arguments: dict[str, Any] | None = None,
    partial: bool = False,
) -> nn.Module:
    """Build any timm backbone, without pooling and head.

    Args:
        name: a timm model, or ``wrn_28_2``, ``wrn_16_2``, ``wrn_10_1``.
        in_channels: 3 or 1.
        stem: "small" replaces a ResNet's 7x7/2 convolution and its pooling by one 3x3/1 convolution, for
            images under about 64 pixels.
        pretrained: take timm's weights from the hub.
        weights: a local file of weights instead.
        arguments: passed on to timm, e.g. ``{drop_path_rate: 0.1}``, or ``{depth: 10, width: 1.5}`` for a
            WRN.
        partial: accept a weight file that fills less than half of the backbone.

    Raises:
        InputError: for an unknown name (the nearest ones are offered) or a stem the backbone does not have.
        WeightsError: if weights cannot be had or do not fit.
    """
    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
        raise InputError(
            f"no backbone {name!r}; near it are {', '.join(near) or '(none)'}", option="model.backbone"
        )
    if pretrained and weights:
        raise InputError(
            "pretrained and weights exclude each other: choose the hub or the file", option="model.weights"
        )
    if beside := {"checkpoint_path", "pretrained", "in_chans", "num_classes"} & set(arguments or {}):
        raise InputError(
            f"backbone_arguments has {', '.join(sorted(beside))}, for which there are options of their own: "
            "weights, pretrained and in_channels",
            option="model.backbone_arguments",
        )
    try:
        options = {"num_classes": 0, "in_chans": in_channels} | (arguments or {})
        backbone: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        if not pretrained:
            raise InputError(
                f"timm could not build {name!r} with {arguments or {}}: {error}",
                option="model.backbone_arguments",
            ) from error
        raise WeightsError(
            f"the weights of {name!r} could not be fetched ({type(error).__name__}: {error}). Offline, give "
            "a local file as weights, or train from scratch with pretrained false",
            option="model.pretrained",
        ) from error
    if stem == "small":
        _small_stem(backbone, name, keep_weights=pretrained)
    if weights:
        load_weights(backbone, weights, partial)
    return backbone


def _small_stem(backbone: nn.Module, name: str, keep_weights: bool) -> None:
    first, pool = getattr(backbone, "conv1", None), getattr(backbone, "maxpool", None)
    if not isinstance(first, nn.Conv2d) or pool is None:
        raise InputError(
            f"{name!r} has no ResNet stem (conv1, maxpool) to make small; leave stem at standard",
            option="model.stem",
        )
    small = nn.Conv2d(first.in_channels, first.out_channels, 3, 1, 1, bias=False)
    if keep_weights:  # the center of the pretrained kernel still finds edges
        edge = (first.kernel_size[0] - 3) // 2
        small.weight.data.copy_(first.weight.data[:, :, edge : edge + 3, edge : edge + 3])
    backbone.conv1 = small
    backbone.maxpool = nn.Identity()
