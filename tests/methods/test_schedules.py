import math

import pytest

from fer_lightning.errors import InputError
from fer_lightning.methods.schedules import learning_rate_factor, ramp_up, stage_at


@pytest.mark.parametrize(
    ("schedule", "half_way", "end"),
    [
        ("cosine_7_16", math.cos(7 * math.pi / 32), 0.195090),
        ("cosine", 0.5, 0.0),
        ("constant", 1.0, 1.0),
    ],
)
@pytest.mark.parametrize("warmup", [0, 20])
def test_values(schedule, half_way, end, warmup):
    factor = learning_rate_factor(schedule, 100 + warmup, warmup)
    assert factor(warmup) == pytest.approx(1)
    assert factor(warmup + 50) == pytest.approx(half_way)
    assert factor(warmup + 100) == pytest.approx(end, abs=1e-6)
    assert factor(warmup + 100_000) == factor(warmup + 100)  # a run may outlast its plan


def test_warm_up_rises_evenly_and_never_rests():
    factor = learning_rate_factor("cosine", 10, warmup_steps=3)
    assert [factor(step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize("schedule", ["cosine_7_16", "cosine", "constant"])
def test_after_the_warm_up_it_never_rises(schedule):
    factor = learning_rate_factor(schedule, 50, warmup_steps=5)
    values = [factor(step) for step in range(5, 51)]
    assert values == sorted(values, reverse=True)


def test_a_run_may_be_all_warm_up():
    factor = learning_rate_factor("cosine", 4, warmup_steps=4)
    assert [factor(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_a_warm_up_longer_than_the_run():
    with pytest.raises(InputError, match=r"^warmup_steps is 11, more than the 10 steps") as refused:
        learning_rate_factor("cosine", 10, warmup_steps=11)
    assert refused.value.option == "model.warmup_steps"


@pytest.mark.parametrize(
    ("progress", "share", "weight"), [(0, 0.4, 0), (0.1, 0.4, 0.25), (0.4, 0.4, 1), (1, 0.4, 1), (0, 0, 1)]
)
def test_ramp_rises_over_its_share_of_the_run(progress, share, weight):
    assert ramp_up(progress, share) == pytest.approx(weight)


def test_stages_follow_their_shares_exactly():
    """Sums such as 0.2 + 0.4, which is a little more than 0.6, delay no stage."""
    assert [stage_at(step / 10, (0.2, 0.4, 0.4)) for step in range(10)] == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert [stage_at(step / 10, [0.1, 0.3, 0.3, 0.3]) for step in range(10)] == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [stage_at(step / 10, [1.0]) for step in range(11)] == [0] * 11
