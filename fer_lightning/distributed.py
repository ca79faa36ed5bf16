"""Exchange between the processes of a training, so that their adaptive state stays equal."""

import torch
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(*rows: Tensor) -> list[Tensor]:
    """Concatenate the rows of every rank, in the order of the ranks, without gradient.

    Args:
        rows: (B, ...) tensors, of the same shape on every rank.

    Returns:
        (world * B, ...) tensors; those given if there is one process.
    """
    if world_size() == 1:
        return [each.detach() for each in rows]
    gathered = []
    for each in rows:
        parts = [torch.empty_like(each) for _ in range(world_size())]
        dist.all_gather(parts, each.detach().contiguous())
        gathered.append(torch.cat(parts))
    return gathered


def total(*sums: Tensor) -> list[Tensor]:
    """Add up sums and counts over the ranks.

    Args:
        sums: tensors of the same shape on every rank; left as they are.
    """
    added = [each.detach().clone() for each in sums]
    if world_size() > 1:
        for each in added:
            dist.all_reduce(each)
    return added


def average_(tensors: list[Tensor]) -> None:
    """Replace each floating-point tensor by its mean over the ranks, in one exchange."""
    if world_size() > 1 and tensors:
        flat = torch.cat([each.flatten() for each in tensors])
        dist.all_reduce(flat)
        flat /= world_size()
        for each, mean in zip(tensors, flat.split([each.numel() for each in tensors]), strict=True):
            each.copy_(mean.view_as(each))
