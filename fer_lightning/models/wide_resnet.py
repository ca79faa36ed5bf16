"""Wide residual networks for small images, which timm does not have.

WRN-d-k of Zagoruyko and Komodakis (BMVC 2016, arXiv 1605.07146), the backbone of the semi-supervised
literature: pre-activation blocks in three stages over the full-size image, leaky ReLU with slope 0.1 as that
literature uses. Registered with timm, so ``wrn_28_2`` is a backbone name like any other.
"""

from typing import Any

import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

SLOPE = 0.1


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each after a norm and an activation, added to their input."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        changes = inside != outside or stride != 1
        self.stride = stride
        self.shortcut = nn.Conv2d(inside, outside, 1, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inside, H, W) to (B, outside, H / stride, W / stride)."""
        ready = F.leaky_relu(self.norm1(x), SLOPE)
        # The stride is taken before the 1x1 convolution: oneDNN writes out of bounds in the backward pass of
        # a strided one with fewer than 16 channels, channels last (uxlfoundation/oneDNN#6035).
        skip = x if self.shortcut is None else self.shortcut(ready[:, :, :: self.stride, :: self.stride])
        out: Tensor = self.conv2(F.leaky_relu(self.norm2(self.conv1(ready)), SLOPE))
        return skip + out


class WideResNet(nn.Module):
    """WRN-depth-width; ``forward_features`` gives (B, 64 * width, H / 4, W / 4).

    Args:
        depth: 6 n + 4, n blocks in each of the three stages.
        width: multiple of the 16, 32 and 64 channels.
        in_chans: channels of the image.
        stem_stride: 2 halves the image at once, for images of 48 pixels and more on a CPU.

    Raises:
        ValueError: if no network has that depth.
    """

    def __init__(self, depth: int, width: float, in_chans: int = 3, stem_stride: int = 1) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"a wide residual network has depth 6 n + 4 (10, 16, 22, 28 ...), not {depth}")
        channels = [16, *(round(base * width) for base in (16, 32, 64))]
        self.conv1 = nn.Conv2d(in_chans, channels[0], 3, stem_stride, 1, bias=False)
        blocks: list[nn.Module] = []
        for stage in range(3):
            for block in range((depth - 4) // 6):
                first = block == 0
                blocks.append(
                    PreActivationBlock(
                        channels[stage] if first else channels[stage + 1],
                        channels[stage + 1],
                        stride=2 if first and stage else 1,
                    )
                )
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels[-1])
        self.num_features = channels[-1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, mode="fan_out", nonlinearity="leaky_relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to the last feature maps, activated."""
        return F.leaky_relu(self.norm(self.blocks(self.conv1(x))), SLOPE)

    def forward_head(self, x: Tensor, pre_logits: bool = True) -> Tensor:
        """Average (B, K, h, w) to (B, K); the classifier is in the face network."""
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map an image to its pooled features."""
        return self.forward_head(self.forward_features(x))


# timm passes every model more than it needs; pooling and head are the face network's.
_OF_TIMM = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "num_classes", "in_chans"}


def _wide_resnet(depth: int, width: float, timm_arguments: dict[str, Any]) -> WideResNet:
    if timm_arguments.get("pretrained", False):
        raise ValueError("wide residual networks have no pretrained weights; give a file of weights instead")
    own = {"depth", "width", "stem_stride"}
    if unknown := set(timm_arguments) - own - _OF_TIMM:
        raise TypeError(f"no argument {', '.join(sorted(unknown))}; there are {', '.join(sorted(own))}")
    built = {"depth": depth, "width": width} | timm_arguments
    return WideResNet(built["depth"], built["width"], built.get("in_chans", 3), built.get("stem_stride", 1))


@register_model
def wrn_28_2(**kwargs: Any) -> WideResNet:
    """Build WRN-28-2, 1.5 M parameters: the network of the semi-supervised literature."""
    return _wide_resnet(28, 2, kwargs)


@register_model
def wrn_16_2(**kwargs: Any) -> WideResNet:
    """Build WRN-16-2, 0.7 M parameters, for a CPU."""
    return _wide_resnet(16, 2, kwargs)


@register_model
def wrn_10_1(**kwargs: Any) -> WideResNet:
    """Build WRN-10-1, 78 thousand parameters: trains in a minute on two cores."""
    return _wide_resnet(10, 1, kwargs)
