"""Memories of faces: of a whole set by index, or a queue of the last ones."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fer_lightning.data.batch import Evaluated
from fer_lightning.distributed import gather


class ResizedOnLoad(nn.Module):
    """A module whose own buffers take the size that they have in the checkpoint, as memories need."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if buffer is not None and saved is not None and saved.shape != buffer.shape:
                self._buffers[name] = torch.empty_like(saved, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


def last_of_each(index: Tensor, faces: int) -> Tensor:
    """Return, for each row of a batch, the last row of the same face.

    A memory that writes these rows writes the same for all rows of a face, so that it does not matter which
    of them a GPU writes last.

    Args:
        index: (B,) int64 indices of the faces.
        faces: number of faces in the set.

    Returns:
        (B,) int64 in 0 .. B - 1.
    """
    row = torch.arange(len(index), device=index.device)
    return row.new_zeros(faces).scatter_reduce(0, index, row, "amax")[index]


class _Rows(ResizedOnLoad):
    """N rows of an embedding and of probabilities of the emotions; all 0 before they are written."""

    features: Tensor
    """(N, P) float32."""
    probability: Tensor
    """(N, C) float32."""
    written: Tensor
    """(N,) bool: the rows that have been written."""

    def __init__(self, rows: int, width: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(rows, width))
        self.register_buffer("probability", torch.zeros(rows, classes))
        self.register_buffer("written", torch.zeros(rows, dtype=torch.bool))

    def resize(self, rows: int) -> None:
        """Forget everything and make room for ``rows`` rows."""
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = buffer.new_zeros(rows, *buffer.shape[1:])


class FaceMemory(_Rows):
    """An embedding and probabilities of every face of a set, addressed by its index.

    Empty until ``resize`` (in the method's ``prepare``) or a checkpoint gives it a size. It is written in
    place: to differentiate through ``features`` and write before the backward pass, read a clone.

    Args:
        width: P, of the embeddings.
        classes: C.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(0, width, classes)

    @torch.no_grad()
    def write(self, index: Tensor, features: Tensor, probability: Tensor) -> None:
        """Replace the rows of the faces of all ranks' batches.

        Args:
            index: (B,) int64 indices of the faces; of a face that comes several times the last row counts.
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
        """Write the rows of all labeled faces; to be called on all ranks together.

        Args:
            faces: batch by batch; indices of -1, which fill the last batch, are left out.
            encode: (B, 3, H, W) images to (B, P) rows.
        """
        for batch in faces:
            index, *rows = gather(batch.index, encode(batch.image), batch.target.emotion.nan_to_num())
            real = index >= 0
            self.write(index[real], *(each[real] for each in rows))


class Queue(_Rows):
    """Embeddings and probabilities of the last faces, those of the newest batch first.

    Args:
        length: N, number of rows.
        width: P, of the embeddings.
        classes: C.
    """

    def __init__(self, length: int, width: int, classes: int) -> None:
        super().__init__(length, width, classes)

    @torch.no_grad()
    def push(self, features: Tensor, probability: Tensor, member: Tensor | None = None) -> None:
        """Put the rows of all ranks' batches in the place of the oldest.

        Args:
            features: (B, P) any float type; B may exceed the length, then the first rows are kept.
            probability: (B, C) any float type.
            member: (B,) bool, the rows to keep; None for all.
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
    """Return dot products with the rows of a memory over a temperature.

    Args:
        query: (B, P) of unit length, any float type; computed in float32 or better.
        features: (N, P) of unit length.
        temperature: over 0.
        written: (N,) bool; None for all.

    Returns:
        (B, N) float32 or better, whose softmax is ``similarity``; the lowest number of the type for a row
        that is not written.
    """
    # Autocast would multiply in half precision, where similarities over a temperature are too coarse.
    with torch.autocast(query.device.type, enabled=False):
        query = query.to(torch.promote_types(query.dtype, torch.float32))
        logits = query @ features.to(query.dtype).T / temperature
    return logits if written is None else logits.masked_fill(~written, torch.finfo(logits.dtype).min)


def similarity(query: Tensor, features: Tensor, temperature: float, written: Tensor | None = None) -> Tensor:
    """Return the softmax over the rows of a memory of their similarity to each query.

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
    """Average the probabilities of the rows of a memory by their similarity: ``sum_n s_n p_n``.

    The memory smoothing of CoMatch (Li et al., ICCV 2021, https://arxiv.org/abs/2011.11183, eq. 3) and the
    aggregation of SimMatch (Zheng et al., CVPR 2022, https://arxiv.org/abs/2203.06915).

    Args:
        similarity: (B, N) float32.
        probability: (N, C) float32; one-hot for hard labels.

    Returns:
        (B, C) float32; rows sum to 1 where those of ``similarity`` do.
    """
    with torch.autocast(similarity.device.type, enabled=False):
        return similarity @ probability


def unfold(similarity: Tensor, probability: Tensor, p: Tensor) -> Tensor:
    """Weight similarities by the query's probability of each row's emotion: ``s_n p(y_n)``, normalized.

    The unfolding of SimMatch (Zheng et al., CVPR 2022, https://arxiv.org/abs/2203.06915).

    Args:
        similarity: (B, N) float32.
        probability: (N, C) float32, labels of the rows; a soft one counts ``sum_c p_c y_nc``.
        p: (B, C) float32, probabilities of each query.

    Returns:
        (B, N) float32, rows of a sum of 1, or 0 if all products are 0.
    """
    with torch.autocast(similarity.device.type, enabled=False):
        weighted = similarity * (p @ probability.T)
    return weighted / weighted.sum(-1, keepdim=True).clamp(min=torch.finfo(weighted.dtype).tiny)
