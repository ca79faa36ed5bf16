"""Memories of faces: by number, or of the last ones seen."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fer_lightning.data.batch import Evaluated
from fer_lightning.distributed import gather


class ResizedOnLoad(nn.Module):
    """A module whose own buffers take the checkpoint's size: memories are as long as what they remember."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if buffer is not None and saved is not None and saved.shape != buffer.shape:
                self._buffers[name] = torch.empty_like(saved, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


def last_of_each(index: Tensor, faces: int) -> Tensor:
    """Return the number of the last row with the same position, (B,) int64, for each of the B rows.

    Whoever writes the rows it names writes the same for all rows of a position, so that it does not matter
    which of them a GPU writes last.

    Args:
        index: (B,) int64 positions.
        faces: how many positions there are.
    """
    row = torch.arange(len(index), device=index.device)
    return row.new_zeros(faces).scatter_reduce(0, index, row, "amax")[index]


class _Rows(ResizedOnLoad):
    """N rows of an embedding and a distribution over the emotions; all 0 before they are written."""

    features: Tensor
    """(N, P) float32."""
    probability: Tensor
    """(N, C) float32."""
    written: Tensor
    """(N,) bool: the rows that hold something."""

    def __init__(self, rows: int, width: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(rows, width))
        self.register_buffer("probability", torch.zeros(rows, classes))
        self.register_buffer("written", torch.zeros(rows, dtype=torch.bool))

    def resize(self, rows: int) -> None:
        """Forget everything and make room for so many rows."""
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = buffer.new_zeros(rows, *buffer.shape[1:])


class FaceMemory(_Rows):
    """What is known of every face of a set, addressed by its position.

    Empty until ``resize`` (in the method's ``setup``) or a checkpoint gives it a size. It is written in
    place: whoever differentiates through ``features`` and writes before the backward pass reads a clone.

    Args:
        width: P, of the embeddings.
        classes: C.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(0, width, classes)

    @torch.no_grad()
    def write(self, index: Tensor, features: Tensor, probability: Tensor) -> None:
        """Replace what is known of the faces of all ranks' batches.

        Args:
            index: (B,) int64 positions; the last row of a position that comes several times counts.
            features: (B, P) any float type.
            probability: (B, C) any float type.
        """
        index, features, probability = gather(index, features, probability)
        last = last_of_each(index, len(self.written))
        self.features[index] = features[last].to(self.features.dtype)
        self.probability[index] = probability[last].to(self.probability.dtype)
        self.written[index] = True

    @torch.no_grad()
    def fill(self, faces: Iterable[Evaluated], encode: Callable[[Tensor], Tensor]) -> None:
        """Write what is known of all labeled faces; to be called on all ranks together.

        Args:
            faces: batch by batch; positions of -1, which fill the last one, are left out.
            encode: (B, 3, H, W) images to (B, P) rows.
        """
        for batch in faces:
            index, *rows = gather(batch.index, encode(batch.image), batch.target.emotion.nan_to_num())
            real = index >= 0
            self.write(index[real], *(each[real] for each in rows))


class Queue(_Rows):
    """What is known of the last faces seen, those of the newest batch first.

    Args:
        length: N, rows remembered.
        width: P, of the embeddings.
        classes: C.
    """

    def __init__(self, length: int, width: int, classes: int) -> None:
        super().__init__(length, width, classes)

    @torch.no_grad()
    def push(self, features: Tensor, probability: Tensor, member: Tensor | None = None) -> None:
        """Remember the rows of all ranks' batches in the place of the oldest.

        Args:
            features: (B, P) any float type; B may exceed the length, then the first rows are remembered.
            probability: (B, C) any float type.
            member: (B,) bool, the rows to remember; None for all.
        """
        if member is None:
            member = torch.ones(len(features), dtype=torch.bool, device=features.device)
        features, probability, member = gather(features, probability, member)
        held = torch.cat([member, self.written])
        # A stable sort instead of a selection, whose size the host would have to wait for.
        order = (~held).to(torch.uint8).argsort(stable=True)[: len(self.written)]
        for memory, rows in ((self.features, features), (self.probability, probability)):
            new = torch.where(member[:, None], rows.to(memory.dtype), 0.0)
            memory.copy_(torch.cat([new, memory])[order])
        self.written.copy_(held[order])


def similarity_logits(
    query: Tensor, features: Tensor, temperature: float, written: Tensor | None = None
) -> Tensor:
    """Scaled dot products with the rows of a memory; the lowest number for a row that is not written.

    Args:
        query: (B, P) of unit length, any float type; computed in float32 or better.
        features: (N, P) of unit length.
        temperature: over 0.
        written: (N,) bool; None for all.

    Returns:
        (B, N) float32 or better, whose softmax is ``similarity``.
    """
    # Autocast would multiply in half precision, where similarities over a temperature are too coarse.
    with torch.autocast(query.device.type, enabled=False):
        query = query.to(torch.promote_types(query.dtype, torch.float32))
        logits = query @ features.to(query.dtype).T / temperature
    return logits if written is None else logits.masked_fill(~written, torch.finfo(logits.dtype).min)


def similarity(query: Tensor, features: Tensor, temperature: float, written: Tensor | None = None) -> Tensor:
    """Probability of each row of a memory under a softmax of its similarity to the query.

    Args:
        query: (B, P) of unit length, any float type; computed in float32 or better.
        features: (N, P) of unit length.
        temperature: over 0.
        written: (N,) bool, the rows that count; None for all.

    Returns:
        (B, N) float32 or better; rows sum to 1, or are 0 if nothing is written.
    """
    p = similarity_logits(query, features, temperature, written).softmax(-1)
    return p if written is None else p * written


def aggregate(similarity: Tensor, probability: Tensor) -> Tensor:
    """What the remembered rows say of the queries: ``sum_n s_n p_n``.

    The memory smoothing of CoMatch (Li et al., ICCV 2021, https://arxiv.org/abs/2011.11183, eq. 3) and the
    aggregation of SimMatch (Zheng et al., CVPR 2022, https://arxiv.org/abs/2203.06915).

    Args:
        similarity: (B, N) float32.
        probability: (N, C) float32; one-hot for remembered labels.

    Returns:
        (B, C) float32; rows sum to 1 where those of ``similarity`` do.
    """
    with torch.autocast(similarity.device.type, enabled=False):
        return similarity @ probability


def unfold(similarity: Tensor, probability: Tensor, p: Tensor) -> Tensor:
    """Weigh the remembered rows by what is believed of their emotion: ``s_n p(y_n)``, normalised.

    The unfolding of SimMatch (Zheng et al., CVPR 2022, https://arxiv.org/abs/2203.06915).

    Args:
        similarity: (B, N) float32.
        probability: (N, C) float32, labels of the rows; a soft one counts ``sum_c p_c y_nc``.
        p: (B, C) float32, belief about each query.

    Returns:
        (B, N) float32, rows of a sum of 1, or 0 if no remembered row is believed at all.
    """
    with torch.autocast(similarity.device.type, enabled=False):
        weighted = similarity * (p @ probability.T)
    return weighted / weighted.sum(-1, keepdim=True).clamp(min=torch.finfo(weighted.dtype).tiny)
