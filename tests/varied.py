"""A batch of unlike faces without a datamodule, and a student that predicts differently for each."""

from typing import TypeVar

import torch

from fer_lightning.data.batch import Labeled, Target, Unlabeled
from fer_lightning.methods import SemiSupervised

M = TypeVar("M", bound=SemiSupervised)


def varied_batch(labeled: int = 7, unlabeled: int = 12) -> tuple[Labeled, Unlabeled]:
    """Faces of one color each under noise, one view of each kind; the labels are the emotions in turn.

    Valence and arousal are unknown.
    """
    generator = torch.Generator().manual_seed(0)
    color = torch.rand(labeled + unlabeled, 3, 1, 1, generator=generator)

    def view(colors: torch.Tensor, noise: float) -> torch.Tensor:
        pixels = colors + noise * torch.randn(len(colors), 3, 16, 16, generator=generator)
        return (255 * pixels.clamp(0, 1)).to(torch.uint8)[None]

    target = Target(torch.eye(7)[torch.arange(labeled) % 7], torch.full((labeled, 2), torch.nan))
    known = Labeled(view(color[:labeled], 0.1), target, torch.arange(labeled))
    weak, strong = view(color[labeled:], 0.1), view(color[labeled:], 0.4)
    return known, Unlabeled(weak, strong, torch.arange(unlabeled))


@torch.no_grad()
def opinionated(model: M) -> M:
    """The model in eval mode, with a head whose logits on ``varied_batch`` have mean 0 and deviation 1.5."""
    logits = model.eval().student(varied_batch()[1].weak[0]).logits
    scale = 1.5 / logits.std(0).mean()
    head = model.student.head
    head.weight.mul_(scale)
    head.bias.sub_(logits.mean(0)).mul_(scale)
    return model
