"""Notice at which step a training diverged, without making a GPU wait for it."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fer_lightning.errors import InputError


class Diverged(InputError):
    """A loss or a weight is not finite any more."""


class _Pending(NamedTuple):
    step: int
    names: tuple[str, ...]
    values: Tensor
    arrived: torch.cuda.Event | None


class FiniteLosses:
    """Checks the terms of every step.

    On a CUDA device they are copied to the host behind the computation, and read as soon as they have
    arrived: the message then comes a few steps late, and names the right one. Elsewhere they are read at
    once.
    """

    def __init__(self) -> None:
        self._pending: deque[_Pending] = deque()

    def add(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Take in the terms of a step, and check those that have arrived.

        Args:
            step: optimizer steps done before it.
            terms: scalars by name.

        Raises:
            Diverged: naming the step and its terms.
        """
        values = torch.stack([term.detach().float() for term in terms.values()])
        arrived = None
        if values.is_cuda:
            host = torch.empty(values.shape, pin_memory=True)
            host.copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(torch.cuda.current_stream(values.device))
            values = host
        self._pending.append(_Pending(step, tuple(terms), values, arrived))
        self.check(wait=False)

    def check(self, wait: bool = True) -> None:
        """Check what was taken in: all of it, or only what has arrived.

        Raises:
            Diverged: naming the step and its terms.
        """
        while self._pending:
            first = self._pending[0]
            if first.arrived is not None:
                if wait:
                    first.arrived.synchronize()
                elif not first.arrived.query():
                    return
            self._pending.popleft()
            if not bool(first.values.isfinite().all()):
                terms = zip(first.names, first.values.tolist(), strict=True)
                raise _diverged(
                    f"the loss is not finite at step {first.step} "
                    f"({', '.join(f'{name} {value:.4g}' for name, value in terms)})"
                )


def check_weights(step: int, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Check that every weight is finite: before they are saved or evaluated.

    Raises:
        Diverged: naming the step and the first one that is not.
    """
    named = dict(weights)
    if not named or bool(torch.stack([value.isfinite().all() for value in named.values()]).all()):
        return
    name = next(name for name, value in named.items() if not bool(value.isfinite().all()))
    raise _diverged(f"the weights are not finite after step {step} ({name})")


def _diverged(what: str) -> Diverged:
    return Diverged(
        f"{what}: the training has diverged, and the last checkpoint is from before. Lower the learning rate",
        option="model.lr",
    )
