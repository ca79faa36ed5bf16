"""Learning rate over the run, as a factor of the highest."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Literal

from fer_lightning.errors import InputError

Schedule = Literal["cosine_7_16", "cosine", "constant"]


def learning_rate_factor(schedule: Schedule, steps: int, warmup_steps: int = 0) -> Callable[[int], float]:
    """Return the factor as a function of the optimizer step, 0 at first.

    ``cosine_7_16`` is ``cos(7 pi k / 16 K)`` of FixMatch (Sohn et al. 2020, arXiv 2001.07685, section 2.4),
    which ends at 0.195; ``cosine`` is ``(1 + cos(pi k / K)) / 2``, which ends at 0. Both are counted after
    the warm-up, and stay where they are after step K.

    In step k of a warm-up of w steps the factor is ``(k + 1) / (w + 1)``, so that the first step learns
    already and step w is the first of the full rate. USB's is ``k / w``, whose first step learns nothing.

    Args:
        schedule: its name.
        steps: optimizer steps of the whole run, K plus w.
        warmup_steps: w, steps over which the factor rises linearly to 1.

    Raises:
        InputError: if the warm-up is longer than the run.
    """
    if warmup_steps > steps:
        raise InputError(
            f"warmup_steps is {warmup_steps}, more than the {steps} steps of the run",
            option="model.warmup_steps",
        )
    curves: dict[Schedule, Callable[[float], float]] = {
        "cosine_7_16": lambda done: math.cos(7 * math.pi * done / 16),
        "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
        "constant": lambda done: 1.0,
    }
    curve = curves[schedule]

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return curve(min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps)))

    return factor


def ramp_up(progress: float, share: float) -> float:
    """Return the weight of an unlabeled loss that rises linearly to 1 over the first part of the run.

    ``clip(t / (share T), 0, 1)``, the ramp of Pseudo-Label, Mean Teacher and MixMatch in USB (Wang et al.
    2022, https://arxiv.org/abs/2208.07204).

    Args:
        progress: share of the run that is done, t / T, in [0, 1].
        share: of the run over which the weight rises; 0 for a weight of 1 from the beginning.
    """
    return min(1.0, progress / share) if share else 1.0


def stage_at(progress: float, shares: Sequence[float]) -> int:
    """Return the stage of a run, 0 at first.

    Args:
        progress: share of the run that is done, in [0, 1].
        shares: of the run that each stage takes, which sum to 1.
    """
    # Sums of shares are not exact: 0.2 + 0.4 is more than 6 of 10 steps.
    return sum(progress >= end - 1e-9 for end in list(accumulate(shares))[:-1])
