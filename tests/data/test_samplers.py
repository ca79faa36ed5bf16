import itertools

import numpy as np
import pytest
from faces import quiet_trainer
from lightning.pytorch.trainer.states import RunningStage
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler

from fer_lightning.data.batches import batch_loader
from fer_lightning.data.samplers import BalancedStream, EndlessStream, EvaluationSampler, TrainingSampler
from fer_lightning.errors import InputError

LABELS = np.array([0] * 9 + [2] * 4 + [5] * 1 + [1] * 6)  # class 5 is rare; 3 and 4 have no faces
STREAMS = {
    "endless": lambda seed=0, stream=0: EndlessStream(20, seed, stream),
    "balanced": lambda seed=0, stream=0: BalancedStream(LABELS, seed, stream),
}


@pytest.fixture(params=STREAMS)
def make(request):
    return STREAMS[request.param]


def take(stream, start, stop):
    return stream[np.arange(start, stop)].tolist()


def test_golden_indices():
    # Whatever NumPy changes, a seed must go on to mean the same faces: committed results depend on it.
    assert take(EndlessStream(7, 3, 1), 0, 21) == [
        5,
        6,
        3,
        0,
        1,
        2,
        4,
        1,
        0,
        4,
        5,
        3,
        6,
        2,
        6,
        3,
        4,
        1,
        5,
        0,
        2,
    ]
    balanced = BalancedStream(np.array([0, 0, 0, 0, 2, 1, 1]), 3, 0)
    assert take(balanced, 0, 15) == [2, 5, 4, 4, 1, 6, 4, 6, 3, 4, 5, 0, 6, 4, 1]


def test_a_stream_is_a_pure_function_of_seed_and_draw(make):
    whole = take(make(), 0, 500)
    stream = make()
    for start in (480, 0, 250, 19, 20, 21, 0):  # forth and back, over the ends of permutations
        assert take(stream, start, start + 15) == whole[start : start + 15]
    scattered = np.array([77, 3, 410, 3, 200])
    assert make()[scattered].tolist() == [whole[p] for p in scattered]


def test_far_draws_need_no_walk(make):
    assert take(make(), 10**12, 10**12 + 5) == take(make(), 10**12 - 7, 10**12 + 5)[7:]


def test_seeds_and_streams_differ(make):
    streams = [make(seed, stream) for seed, stream in itertools.product(range(3), range(4))]
    orders = [tuple(take(stream, 0, 60)) for stream in streams]
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize("size", [1, 2, 20, 63])
def test_every_run_of_size_draws_is_a_permutation(size):
    stream = EndlessStream(size, 0, 0)
    rounds = [take(stream, r * size, (r + 1) * size) for r in range(10)]
    assert all(sorted(items) == list(range(size)) for items in rounds)
    if size >= 20:
        assert len({tuple(items) for items in rounds}) == 10


def test_permutations_are_fair():
    # Each of 5 items in each place of 5: 2000 permutations, so 400 each, with a deviation of 18.
    places = np.array(take(EndlessStream(5, 0, 0), 0, 10_000)).reshape(-1, 5)
    counts = np.array([[(places[:, place] == item).sum() for item in range(5)] for place in range(5)])
    assert np.abs(counts - 400).max() < 5 * 18


def test_balanced_runs_hold_each_class_once():
    classes = LABELS[take(STREAMS["balanced"](), 0, 400)].reshape(-1, 4)
    assert (np.sort(classes, axis=1) == [0, 1, 2, 5]).all()
    assert len({tuple(run) for run in classes.tolist()}) > 10  # in ever another order


def test_balanced_classes_show_all_their_faces_before_one_returns():
    items = np.array(take(STREAMS["balanced"](), 0, 400))
    for c in (0, 1, 2, 5):
        members = np.flatnonzero(c == LABELS)
        shown = items[LABELS[items] == c]
        assert len(shown) == 100
        for start in range(0, 100 - len(members), len(members)):
            assert sorted(shown[start : start + len(members)]) == members.tolist()


def test_balanced_classes_do_not_go_in_step():
    items = np.array(take(BalancedStream(np.repeat([0, 1], 10), 0, 0), 0, 40))
    assert items[items < 10].tolist() != (items[items >= 10] - 10).tolist()


@pytest.mark.parametrize("labels", [[0, 1, -1], []])
def test_balanced_sampling_needs_a_class_for_every_face(labels):
    with pytest.raises(InputError, match="needs a class for every labeled face"):
        BalancedStream(np.array(labels, dtype=np.int64), 0, 0)


def test_an_empty_set():
    with pytest.raises(InputError, match="empty set of faces"):
        EndlessStream(0, 0, 0)


def training(make, taken=0, rank=0, world=1, steps=6, labeled=8, unlabeled=24):
    return TrainingSampler(
        make(), make(stream=1), labeled, unlabeled, steps, taken=lambda: taken, rank=rank, world=world
    )


def listed(sampler):
    return [tuple(part.tolist() for draws in keys for part in draws) for keys in sampler]


def test_an_epoch_reads_both_streams_from_the_start(make):
    epoch = list(training(make))
    assert len(epoch) == len(training(make)) == 6
    assert np.concatenate([keys.labeled.draw for keys in epoch]).tolist() == list(range(48))
    assert np.concatenate([keys.unlabeled.draw for keys in epoch]).tolist() == list(range(144))
    assert np.concatenate([keys.labeled.index for keys in epoch]).tolist() == take(make(), 0, 48)
    assert np.concatenate([keys.unlabeled.index for keys in epoch]).tolist() == take(make(stream=1), 0, 144)


def test_a_method_without_unlabeled_faces_gets_none(make):
    sampler = TrainingSampler(make(), None, 8, 24, 2, taken=lambda: 0)
    assert [keys.unlabeled for keys in sampler] == [None, None]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_stream_out_among_themselves(make, world):
    alone = list(training(make))
    ranks = [list(training(make, rank=r, world=world)) for r in range(world)]
    for step, batch in enumerate(alone):
        for name in ("labeled", "unlabeled"):
            whole = getattr(batch, name)
            parts = [getattr(rank[step], name) for rank in ranks]
            pairs = [pair for p in parts for pair in zip(p.draw.tolist(), p.index.tolist(), strict=True)]
            assert {len(p.draw) for p in parts} == {len(whole.draw) // world}
            assert sorted(pairs) == list(zip(whole.draw.tolist(), whole.index.tolist(), strict=True))


@pytest.mark.parametrize("taken", [1, 3, 5, 6, 7, 14])
@pytest.mark.parametrize("world", [1, 2])
def test_resuming_goes_on_where_the_run_stopped(make, taken, world):
    whole = [
        key
        for epoch in range(3)
        for key in listed(training(make, taken=6 * epoch, rank=world - 1, world=world))
    ]
    resumed = listed(training(make, taken=taken, rank=world - 1, world=world))
    end = 6 * (taken // 6 + 1)  # of the epoch in which it stopped
    assert resumed == whole[taken:end]


def test_how_much_was_taken_is_asked_anew_each_epoch(make):
    count = itertools.count(0, 6)
    sampler = TrainingSampler(make(), None, 8, 24, 6, taken=lambda: next(count))
    first, second = list(sampler), list(sampler)
    assert first[-1].labeled.draw[-1] + 1 == second[0].labeled.draw[0] == 48


def test_a_set_smaller_than_a_batch_is_repeated_within_it():
    (batch,) = TrainingSampler(EndlessStream(3, 0, 0), None, 10, 10, 1, taken=lambda: 0)
    assert sorted(batch.labeled.index[:9].tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert batch.labeled.draw.tolist() == list(range(10))  # so that the repeats come in other views


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "name"),
    [(9, 24, "batch_size is 9"), (8, 25, r"batch_size \* unlabeled_ratio is 25")],
)
def test_a_batch_that_ranks_cannot_share(make, labeled, unlabeled, name):
    with pytest.raises(InputError, match=f"{name}, which cannot be divided over 2 devices") as raised:
        training(make, world=2, labeled=labeled, unlabeled=unlabeled)
    assert raised.value.option == "data.batch_size"


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("size", [1, 2, 5, 8, 23])
def test_evaluation_covers_each_face_once(size, batch_size, world):
    ranks = [EvaluationSampler(size, batch_size, rank, world) for rank in range(world)]
    batches = [list(sampler) for sampler in ranks]
    assert {len(sampler) for sampler in ranks} == {len(each) for each in batches} == {len(batches[0])}
    positions = np.concatenate([batch for each in batches for batch in each])
    assert sorted(positions[positions != -1]) == list(range(size))
    assert (positions >= -1).all()
    assert max(len(batch) for each in batches for batch in each) == min(batch_size, -(-size // world))
    if world > 1:  # all ranks step alike
        assert len({len(batch) for each in batches for batch in each}) == 1
    else:
        assert positions.tolist() == list(range(size))


def test_evaluation_of_nothing():
    assert list(EvaluationSampler(0, 4)) == []


def test_an_epoch_without_a_counter_starts_by_the_number_of_the_epoch(make):
    counted, plain = training(make, taken=12), training(make)
    plain.taken = None
    first = listed(plain)
    plain.set_epoch(2)
    assert listed(plain) == listed(counted)
    plain.set_epoch(0)
    assert listed(plain) == first
    counted.set_epoch(1)  # which Lightning calls always
    assert listed(counted) == listed(training(make, taken=12))


class Numbers(Dataset):
    def __len__(self):
        return 7

    def __getitem__(self, key):
        return key


SAMPLERS = [
    TrainingSampler(EndlessStream(3, 0, 0), None, 2, 2, 4, rank=1, world=2),
    EvaluationSampler(7, 2, rank=1, world=2),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_lightning_leaves_the_samplers_alone_and_wraps_others(sampler):
    assert isinstance(sampler, DistributedSampler)  # its rule
    assert (sampler.rank, sampler.num_replicas) == (1, 2)
    prepare = quiet_trainer(None, devices=2, strategy="ddp_spawn")._data_connector._prepare_dataloader
    loader = batch_loader(Numbers(), sampler)
    for mode in (RunningStage.TRAINING, RunningStage.VALIDATING, RunningStage.TESTING):
        assert prepare(loader, shuffle=False, mode=mode) is loader
    assert prepare(loader, shuffle=False, mode=RunningStage.PREDICTING).sampler is sampler
    other = batch_loader(Numbers(), SequentialSampler(range(7)))
    assert prepare(other, shuffle=False, mode=RunningStage.TRAINING).sampler is not other.sampler
