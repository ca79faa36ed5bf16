import doctest
import multiprocessing
import signal
from dataclasses import replace
from itertools import combinations
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from faces import TINY, TinyFaces, quiet_trainer, tiny_data

from fer_lightning.data.batch import Evaluated, Views
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.data.datasets.base import ArrayImages, DataError
from fer_lightning.data.label_noise import mislabel
from fer_lightning.data.splits import SplitRequest, make_split
from fer_lightning.data.views import View, WeakView
from fer_lightning.emotions import BASIC_7, RAF_DB, Taxonomy, UnknownEmotion
from fer_lightning.errors import InputError
from fer_lightning.methods import FixMatch
from fer_lightning.task import Task


class Method(L.LightningModule):
    """A module that declares what it needs of its data, and learns nothing."""

    def __init__(self, views=Views(), class_balanced=False, targets="classes", emotions="basic7"):  # noqa: B008
        super().__init__()
        self.views, self.class_balanced, self.batches_taken = views, class_balanced, 0
        self.task = Task.of(targets, emotions)


LABELS_ALONE = Views(labeled=1, weak=0, strong=0)


def attached(data, method=None, **options):
    """The data, set up for a trainer with a method as they are when a fit begins."""
    trainer = quiet_trainer(None, **options)
    trainer.strategy.connect(Method() if method is None else method)
    data.trainer = trainer
    data.setup("fit")
    return data


def batches(data, method=None, epochs=1):
    """Every batch of some epochs, as the trainer would take them."""
    method = Method() if method is None else method
    loader, taken = attached(data, method).train_dataloader(), []
    for _ in range(epochs):
        epoch = list(loader)
        method.batches_taken += len(epoch)
        taken += epoch
    return taken


def flat(batch):
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    return [labeled.weak, labeled.index, unlabeled.weak, unlabeled.strong, unlabeled.index]


def same(some, others):
    return len(some) == len(others) and all(
        torch.equal(x, y)
        for a, b in zip(some, others, strict=True)
        for x, y in zip(flat(a), flat(b), strict=True)
    )


# Without a trainer


def test_the_example_of_the_docstring_runs():
    (example,) = doctest.DocTestFinder(recurse=False).find(SemiSupervisedFaces, "example", globs={})
    assert doctest.DocTestRunner().run(example) == (0, 6)


def test_data_open_without_a_trainer():
    data = tiny_data()
    data.setup("fit")
    loader = data.train_dataloader()
    (first, *rest) = list(loader)
    assert len(rest) == 4
    assert same([first, *rest], batches(tiny_data()))  # as the method's first epoch
    assert torch.equal(next(iter(data.val_dataloader())).target.label, torch.arange(28) % 7)
    loader.sampler.set_epoch(1)  # which Lightning calls for a module that does not count its batches
    assert same(list(loader), batches(tiny_data(), epochs=2)[5:])


def test_views_emotions_and_balance_can_be_given_without_a_method():
    data = tiny_data(views=Views(2, 1, 3), emotions="raf_db", class_balanced=True)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["labeled"].weak.shape == (2, 14, 3, 16, 16)
    assert batch["unlabeled"].weak.shape == (1, 28, 3, 16, 16)
    assert batch["unlabeled"].strong.shape == (3, 28, 3, 16, 16)
    assert torch.bincount(batch["labeled"].target.label).tolist() == [2] * 7
    assert data.taxonomy.emotions == RAF_DB.emotions


def test_unlabeled_faces_are_missed_when_they_are_drawn():
    data = tiny_data(labels_per_class=None)
    data.setup("fit")
    assert len(list(data.val_dataloader())) == 1
    with pytest.raises(DataError, match="needs unlabeled faces and tiny196 has none left") as raised:
        data.train_dataloader()
    assert raised.value.option == "data.labels_per_class"
    with pytest.raises(DataError, match="Method needs unlabeled faces"):
        attached(tiny_data(labels_per_class=None))
    batch = batches(tiny_data(labels_per_class=None), Method(LABELS_ALONE))[0]
    assert set(batch) == {"labeled"}


# What a method declares


@pytest.mark.parametrize("emotions", ["raf_db", "affectnet8", list(reversed(BASIC_7.emotions))])
def test_labels_come_in_the_order_of_the_methods_emotions(emotions):
    method = Method(emotions=emotions)
    data = attached(tiny_data(label_noise=0.2), method)
    names, true = data.faces.names.tolist(), [BASIC_7.emotions[label] for label in data.faces.label]
    truth = dict(zip(names, true, strict=True))

    def shown(target, rows):
        assert target.emotion.shape == (len(rows), len(method.task.emotions))
        assert [method.task.emotions[label] for label in target.label] == [truth[names[row]] for row in rows]

    for part in ("val", "test", "unlabeled", "labeled"):
        for batch in data.part_loader(part):
            shown(batch.target, getattr(data, part)[batch.index])
    shown(data.labeled_truth, data.labeled)
    shown(data.unlabeled_truth, data.unlabeled)
    # With label noise the same faces are mislabeled as the same emotions, whatever the order.
    own = tiny_data(label_noise=0.2)
    own.setup("fit")
    given = [BASIC_7.emotions[label] for label in own.labeled_target.label]
    for target in (data.labeled_target, data.info().labeled):
        assert [method.task.emotions[label] for label in target.label] == given
    for batch in batches(data, method):
        labels = [method.task.emotions[label] for label in batch["labeled"].target.label]
        assert labels == [given[index] for index in batch["labeled"].index]


def test_a_face_of_an_emotion_that_the_method_lacks_is_refused():
    with pytest.raises(UnknownEmotion, match="disgust"):
        attached(tiny_data(), Method(emotions=["anger", "happiness"]))


def test_emotions_other_than_the_methods_are_refused():
    with pytest.raises(DataError, match=r"emotions are surprise, fear.*Method has anger, disgust") as raised:
        attached(tiny_data(emotions="raf_db"), Method())
    assert raised.value.option == "data.emotions"
    attached(tiny_data(emotions="raf_db"), Method(emotions="raf_db"))


def test_options_overrule_what_the_method_declares():
    budget = dict(zip(BASIC_7.emotions, (1, 9, 2, 3, 4, 5, 6), strict=True))
    balanced = Method(class_balanced=True)

    def classes(**options):
        (batch, *_) = batches(tiny_data(labels_per_class=budget, **options), balanced)
        return torch.bincount(batch["labeled"].target.label, minlength=7).tolist()

    assert classes() == classes(class_balanced=True) == [2] * 7
    assert classes(class_balanced=False) != [2] * 7
    (batch, *_) = batches(tiny_data(views=Views(1, 3, 0)), Method(Views(2, 1, 1)))
    assert batch["labeled"].weak.shape[0] == 1
    assert batch["unlabeled"].weak.shape[0] == 3


def test_a_plain_module_learns_from_the_data():
    class Plain(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.seen, self.layer = [], torch.nn.Linear(3, 7)

        def training_step(self, batch, batch_idx):
            self.seen.append(batch["labeled"].index)
            pixels = batch["labeled"].weak[0].float().mean((2, 3)) / 255
            return torch.nn.functional.cross_entropy(self.layer(pixels), batch["labeled"].target.emotion)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    plain = Plain()
    quiet_trainer(None, max_epochs=3).fit(plain, tiny_data(val="none"))
    expected = [batch["labeled"].index for batch in batches(tiny_data(val="none"), epochs=3)]
    assert torch.equal(torch.stack(plain.seen), torch.stack(expected))


def test_the_facts_that_a_method_is_told():
    data = attached(tiny_data(label_noise=0.3))
    info = data.info()
    assert torch.equal(info.labeled.emotion, data.labeled_target.emotion)
    assert (info.unlabeled_count, info.batch_size, info.unlabeled_ratio) == (112, 14, 2)
    assert info.counts.sum() == 28
    assert torch.equal(info.counts.long(), torch.bincount(info.labeled.label, minlength=7))
    assert info.prior.sum() == pytest.approx(1)
    loaded = list(info.labeled_loader())
    assert all(isinstance(batch, Evaluated) for batch in loaded)
    assert torch.equal(torch.cat([batch.target.label for batch in loaded]), info.labeled.label)
    assert info.groups == ()


class Grouped(TinyFaces):
    def load(self, image_size):
        names = np.array(["b", "", "c", "a"])
        faces = super().load(image_size)
        return replace(faces, group=names[np.arange(len(faces)) % 4])


def test_groups_are_numbered_by_name():
    data = attached(tiny_data(dataset=Grouped(), eval_batch_size=10))
    assert data.info().groups == ("a", "b", "c")
    seen = {part: torch.cat([batch.group for batch in data.part_loader(part)]) for part in ("val", "labeled")}
    for part, group in seen.items():
        assert group.dtype == torch.int64
        assert torch.equal(group, torch.tensor([1, -1, 2, 0])[getattr(data, part) % 4])
    (unknown, *_) = attached(tiny_data()).val_dataloader()
    assert (unknown.group == -1).all()


def test_fillers_have_no_label_and_no_group():
    data = tiny_data(dataset=Grouped(), eval_batch_size=16)
    data.setup("validate")
    batch = data.val_dataloader().dataset[np.array([27, -1])]
    assert batch.index.tolist() == [27, -1]
    assert batch.target.label.tolist() == [27 % 7, -1]
    assert batch.target.valence_arousal.isnan().all(1).tolist() == [False, True]
    assert batch.group.tolist() == [0, -1]


# The batches


def test_batches_have_the_declared_shapes_and_types():
    (batch, *_) = batches(tiny_data())
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    assert labeled.weak.shape == (1, 14, 3, 16, 16)
    assert unlabeled.weak.shape == unlabeled.strong.shape == (1, 28, 3, 16, 16)
    assert {t.dtype for t in (labeled.weak, unlabeled.weak, unlabeled.strong)} == {torch.uint8}
    for view in (labeled.weak[0], unlabeled.weak[0], unlabeled.strong[0]):
        assert view.is_contiguous(memory_format=torch.channels_last)
    assert labeled.target.emotion.shape == (14, 7)
    assert labeled.target.valence_arousal.shape == (14, 2)
    assert labeled.index.dtype == unlabeled.index.dtype == torch.int64


@pytest.mark.parametrize("views", [Views(1, 2, 0), Views(3, 0, 1), Views(2, 1, 2)])
def test_every_kind_of_view_has_its_axis(views):
    (batch, *_) = batches(tiny_data(), Method(views))
    assert batch["labeled"].weak.shape == (views.labeled, 14, 3, 16, 16)
    assert batch["unlabeled"].weak.shape == (views.weak, 28, 3, 16, 16)
    assert batch["unlabeled"].strong.shape == (views.strong, 28, 3, 16, 16)
    several = batch["labeled"].weak
    assert len({view.numpy().tobytes() for view in several}) == len(several)


def test_weak_and_strong_views_are_each_of_their_own_kind():
    class Shade(View):
        def __init__(self, shade):
            self.shade = shade

        def draw(self, image, size, random):
            return np.full((size, size, 3), self.shade, np.uint8)

    (batch, *_) = batches(tiny_data(weak=Shade(10), strong=Shade(20)), Method(Views(2, 2, 2)))
    assert batch["labeled"].weak.unique().tolist() == [10]
    assert batch["unlabeled"].weak.unique().tolist() == [10]
    assert batch["unlabeled"].strong.unique().tolist() == [20]


def test_unlabeled_faces_are_shown_alone_for_inspection():
    data = attached(tiny_data(), Method(Views(1, 2, 1)))
    index = np.array([5, 0, 111])
    batch = data.unlabeled_batch(index)
    assert batch.index.tolist() == index.tolist()
    assert batch.weak.shape == (2, 3, 3, 16, 16)
    assert batch.strong.shape == (1, 3, 3, 16, 16)
    again = data.unlabeled_batch(index[::-1].copy())  # a face comes in the same views in any batch
    assert torch.equal(again.weak.flip(1), batch.weak)
    assert torch.equal(again.strong.flip(1), batch.strong)
    faces = torch.from_numpy(np.stack([data.faces.images[row] for row in data.unlabeled[index]]))
    brightness = faces.float().mean((1, 2, 3))
    assert (batch.weak.float().mean((0, 2, 3, 4)) - brightness).abs().max() < 8


def test_labels_belong_to_the_faces():
    data = tiny_data()
    for batch in batches(data):
        labeled = batch["labeled"]
        brightness = labeled.weak[0].float().mean((1, 2, 3))  # 25 a class over noise around 30
        assert torch.equal(labeled.target.label, ((brightness - 30) / 25).round().long())


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_depend_on_no_worker(workers):
    assert same(batches(tiny_data(), epochs=2), batches(tiny_data(workers=workers), epochs=2))


def ranked(rank, world, **options):
    """The data of one of several ranks, without a process group."""
    data = tiny_data(**options)
    data.setup("fit")
    data.trainer = SimpleNamespace(lightning_module=None, global_rank=rank, world_size=world)
    return data


@pytest.mark.parametrize("world", [1, 2, 7])
def test_ranks_share_a_global_batch(world):
    whole = batches(tiny_data())[0]
    ranks = [next(iter(ranked(rank, world).train_dataloader())) for rank in range(world)]
    for kind, name in (("labeled", "weak"), ("unlabeled", "weak"), ("unlabeled", "strong")):
        parts = torch.stack([getattr(rank[kind], name) for rank in ranks], 2).flatten(1, 2)
        assert torch.equal(parts, getattr(whole[kind], name))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_faces_to_evaluate(world):
    ranks = [list(ranked(rank, world, eval_batch_size=12).val_dataloader()) for rank in range(world)]
    index = torch.cat([batch.index for rank in ranks for batch in rank])
    assert sorted(index[index >= 0].tolist()) == list(range(28))
    assert {len(batch.index) for batch in ranks[0][:-1]} == {12 // world}


def test_the_seed_changes_order_views_and_noise_of_the_same_faces(tmp_path):
    first = attached(tiny_data(label_noise=0.5))
    first.split.save(tmp_path / "split.json")
    other = attached(tiny_data(label_noise=0.5, manifest=tmp_path / "split.json", seed=1))
    assert np.array_equal(first.labeled, other.labeled)
    some, others = (next(iter(data.train_dataloader())) for data in (first, other))
    for kind in ("labeled", "unlabeled"):
        assert not torch.equal(some[kind].index, others[kind].index)
    index = np.arange(112)
    assert not torch.equal(first.unlabeled_batch(index).weak, other.unlabeled_batch(index).weak)
    assert not torch.equal(first.labeled_target.label, other.labeled_target.label)


class Number(View):
    """Writes its draw into the pixels."""

    def draw(self, image, size, random):
        return np.full((size, size, 3), random.randrange(256), np.uint8)


def test_streams_of_randomness_have_nothing_in_common():
    seen = batches(tiny_data(weak=Number(), strong=Number(), batch_size=28, unlabeled_ratio=1))
    drawn = {
        "labeled": [batch["labeled"].weak[0, :, 0, 0, 0] for batch in seen],
        "weak": [batch["unlabeled"].weak[0, :, 0, 0, 0] for batch in seen],
        "strong": [batch["unlabeled"].strong[0, :, 0, 0, 0] for batch in seen],
    }
    numbers = {name: torch.cat(each) for name, each in drawn.items()}
    for one, two in combinations(numbers, 2):
        assert (numbers[one] == numbers[two]).float().mean() < 0.1  # one of 256 by chance
    # As many faces on either side: the orders are drawn apart all the same.
    data = tiny_data(dataset=TinyFaces(train=56), batch_size=28, unlabeled_ratio=1)
    (batch, *_) = batches(data)
    assert len(data.labeled) == len(data.unlabeled)
    assert not torch.equal(batch["labeled"].index, batch["unlabeled"].index)


def test_a_loader_draws_nothing_from_the_networks_generator():
    data = attached(tiny_data())
    before = torch.get_rng_state()
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_that_train_outlive_an_epoch():
    data = attached(tiny_data(workers=1))
    training, evaluation = data.train_dataloader(), data.val_dataloader()
    assert (training.num_workers, training.persistent_workers) == (1, True)
    assert (evaluation.num_workers, evaluation.persistent_workers) == (1, False)
    assert attached(tiny_data()).train_dataloader().num_workers == 0
    assert training.state_dict() == {}  # else Lightning would warn that resuming is inexact


def test_workers_leave_signals_to_the_training_process():
    def inherited(number, frame):
        """Is for this process alone."""

    class Signals(View):
        def draw(self, image, size, random):
            names = signal.SIGINT, signal.SIGHUP, signal.SIGUSR1
            ignored = all(signal.getsignal(name) == signal.SIG_IGN for name in names)
            left = signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN, inherited)
            return np.full((size, size, 3), 10 * ignored + left, np.uint8)

    data = attached(tiny_data(weak=Signals(), workers=1, steps_per_epoch=1))
    loader = data.train_dataloader()
    loader.multiprocessing_context = multiprocessing.get_context(
        "fork"
    )  # copies the handlers of this process
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1
    before = [signal.signal(number, inherited) for number in numbers]
    try:
        (batch,) = loader
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert batch["labeled"].weak.unique().tolist() == [11]


def test_the_options_of_the_split_reach_it():
    options = {
        "labels_total": 35,
        "allocation": "proportional",
        "seed": 3,
        "val": "carved",
        "val_fraction": 0.4,
        "unlabeled_includes_labeled": True,
        "drop_test_duplicates": True,
    }
    data = attached(tiny_data(labels_per_class=None, **options))
    assert data.split.request == SplitRequest(**options)
    assert data.split.request != SplitRequest(labels_total=35)
    per_class = attached(tiny_data(labels_per_class=3)).split.request
    assert per_class == SplitRequest(labels_per_class=3)


def test_a_method_may_be_tested_on_data_without_unlabeled_faces():
    data = tiny_data(labels_per_class=None)
    trainer = quiet_trainer(None)
    trainer.strategy.connect(Method())
    data.trainer = trainer
    data.setup("test")
    assert len(list(data.test_dataloader())) == 1


def test_batches_go_on_where_the_method_stopped():
    method = Method()
    whole = batches(tiny_data(), epochs=2)
    method.batches_taken = 3
    assert same(batches(tiny_data(), method, epochs=2), whole[3:])


def test_a_checkpoint_of_other_data_is_refused():
    data = attached(tiny_data())
    data.trainer.state.fn = "fit"
    state = data.state_dict()
    assert set(state) == {"split", "batch_size", "unlabeled_ratio", "seed", "label_noise"}
    assert {type(value) for value in state.values()} <= {int, float, str}  # opens with weights_only=True
    attached(tiny_data()).load_state_dict(state)
    changed = {"unlabeled_ratio": 3, "batch_size": 7, "label_noise": 0.1, "seed": 1, "labels_per_class": 3}
    for option, value in changed.items():
        other = attached(tiny_data(**{option: value}))
        other.load_state_dict(state)  # to test or predict, any data will do
        other.trainer.state.fn = "fit"
        name = "split" if option == "labels_per_class" else option
        with pytest.raises(DataError, match=rf"trained on other data \(.*{name} .* there"):
            other.load_state_dict(state)


def test_no_two_draws_of_a_face_are_alike():
    """The trap of albumentations 2.0.8: each worker and each epoch repeat the same augmentations."""
    seen: dict[int, list[bytes]] = {}
    for batch in batches(tiny_data(workers=2), epochs=3):
        for face, image in zip(batch["unlabeled"].index.tolist(), batch["unlabeled"].strong[0], strict=True):
            seen.setdefault(face, []).append(image.numpy().tobytes())
    assert max(map(len, seen.values())) >= 3
    for drawn in seen.values():
        assert len(set(drawn)) == len(drawn)


def test_every_face_comes_once_before_any_comes_twice():
    taken = [i for b in batches(tiny_data(), epochs=2) for i in b["labeled"].index.tolist()]
    for start in range(0, len(taken), 28):
        assert sorted(taken[start : start + 28]) == list(range(28))


def test_class_balanced_batches():
    budget = dict(zip(TinyFaces().load(16).taxonomy.emotions, (1, 9, 2, 3, 4, 5, 6), strict=True))
    for batch in batches(tiny_data(class_balanced=True, labels_per_class=budget)):
        assert torch.bincount(batch["labeled"].target.label).tolist() == [2] * 7


def test_truth_of_unlabeled_faces_is_in_no_batch_and_no_method():
    """Shuffle the truth of the unlabeled faces: every batch and every buffer must stay as it was."""

    class OtherTruth(TinyFaces):
        def load(self, image_size):
            faces = super().load(image_size)
            split = make_split(faces, tiny_data().request)
            rows = split.rows(faces)["unlabeled"]
            faces.emotion[rows] = np.roll(faces.emotion[rows], 1, axis=1)
            faces.valence_arousal[rows] *= -1
            return faces

    honest, other = tiny_data(), tiny_data(dataset=OtherTruth())
    methods = []
    for data in (honest, other):
        torch.manual_seed(0)
        method = FixMatch(**TINY, threshold=0.2)
        if data is other:  # the same faces labeled: a budget would be drawn from the other labels
            data._ready, data.faces, data.split = True, data.dataset.load(16), honest.split
            for part in ("labeled", "unlabeled", "val", "test"):
                setattr(data, part, getattr(honest, part))
        quiet_trainer(None, max_epochs=1).fit(method, data)
        methods.append(method)
    assert not torch.equal(honest.unlabeled_truth.emotion, other.unlabeled_truth.emotion)
    for a, b in zip(batches(honest), batches(other), strict=True):
        for x, y in zip(flat(a), flat(b), strict=True):
            assert torch.equal(x, y)
    for x, y in zip(methods[0].state_dict().values(), methods[1].state_dict().values(), strict=True):
        assert torch.equal(x, y)


def test_pixels_are_shared_with_workers_not_copied():
    images = ArrayImages(np.zeros((4, 8, 8), np.uint8))
    ForkingPickler.dumps(images)  # how a spawned worker gets its data set
    assert images.pixels.is_shared()


def test_batches_survive_spawned_workers():
    loader = attached(tiny_data(workers=1, steps_per_epoch=2)).train_dataloader()
    loader.multiprocessing_context = multiprocessing.get_context("spawn")
    assert same(list(loader), batches(tiny_data(steps_per_epoch=2)))


def test_evaluation_covers_each_face_once_and_unchanged():
    data = attached(tiny_data(eval_batch_size=8), Method(LABELS_ALONE))
    seen = list(data.test_dataloader())
    assert torch.cat([b.index for b in seen]).tolist() == list(range(28))
    assert [len(b.index) for b in seen] == [8, 8, 8, 4]
    image = data.faces.images[int(data.test[3])]
    assert np.array_equal(seen[0].image[3].permute(1, 2, 0).numpy(), image)


def test_the_part_to_predict_is_chosen():
    data = attached(tiny_data(predict_on="unlabeled"))
    assert len(torch.cat([batch.index for batch in data.predict_dataloader()])) == 112
    empty = attached(tiny_data(predict_on="val", val="none"))
    assert empty.val_dataloader() == []
    with pytest.raises(DataError, match="no val faces; set predict_on") as raised:
        empty.predict_dataloader()
    assert raised.value.option == "data.predict_on"
    with pytest.raises(DataError, match="no test faces"):
        attached(tiny_data(dataset=TinyFaces(test=0))).test_dataloader()


def test_manifest_of_a_run_is_followed(tmp_path):
    data = tiny_data()
    batches(data)
    data.split.save(tmp_path / "split.json")
    again = tiny_data(manifest=tmp_path / "split.json", labels_per_class=None)
    assert batches(again)
    assert again.split.sha256 == data.split.sha256
    with pytest.raises(DataError):
        batches(tiny_data(dataset=TinyFaces(train=70), manifest=tmp_path / "split.json"))


@pytest.mark.parametrize("weak", [1, 2, 3])
def test_odd_weak_views_are_mirrored_where_the_method_declares_it(weak):
    data = tiny_data(weak=WeakView(padding=0))
    told_to, free_to = (Method(Views(1, weak, 1, mirrored)) for mirrored in (True, False))
    ways = []
    for told, free in zip(batches(data, told_to), batches(data, free_to), strict=True):
        faces = [data.faces.images[row] for row in data.unlabeled[told["unlabeled"].index]]
        faces = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2)
        for v, shown in enumerate(told["unlabeled"].weak):
            assert torch.equal(shown, faces.flip(3) if v % 2 else faces)
        ways.append((free["unlabeled"].weak == faces).flatten(2).all(2))
        # The other views of the method stay free.
        assert torch.equal(told["labeled"].weak, free["labeled"].weak)
        assert torch.equal(told["unlabeled"].strong, free["unlabeled"].strong)
    assert 0.2 < torch.cat(ways, 1).float().mean() < 0.8  # left to chance, either way is common


def test_a_weak_view_that_cannot_be_mirrored_is_refused():
    class Middle(View):
        def draw(self, image, size, random):
            return image[:size, :size].copy()

    with pytest.raises(InputError, match="Middle cannot be mirrored at will") as raised:
        batches(tiny_data(weak=Middle()), Method(Views(1, 2, 1, mirrored=True)))
    assert raised.value.option == "data.weak"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0),
        ("unlabeled_ratio", 0),
        ("steps_per_epoch", 0),
        ("eval_batch_size", 0),
        ("image_size", 0),
        ("workers", -1),
        ("seed", -1),
        ("labels_per_class", 0),
        ("labels_total", 0),
        ("val_fraction", 1.0),
        ("label_noise", -0.1),
        ("label_noise", 1.5),
        ("label_noise", float("nan")),
    ],
)
def test_impossible_options_are_named(option, value):
    with pytest.raises(InputError, match=rf"^{option} is ") as raised:
        SemiSupervisedFaces(TinyFaces(), **{option: value})
    assert raised.value.option == f"data.{option}"


def test_continuous_task_needs_continuous_labels():
    class NoContinuous(TinyFaces):
        def load(self, image_size):
            faces = super().load(image_size)
            faces.valence_arousal[:] = np.nan
            return faces

    with pytest.raises(DataError, match="no valence and arousal") as raised:
        attached(tiny_data(dataset=NoContinuous()), Method(targets="both"))
    assert raised.value.option == "model.targets"


def test_a_task_with_classes_needs_emotions():
    class NoEmotions(TinyFaces):
        def load(self, image_size):
            faces = super().load(image_size)
            emotion = np.empty((len(faces), 0), np.float32)
            return replace(faces, taxonomy=Taxonomy("none", ()), emotion=emotion)

    def data():
        return tiny_data(dataset=NoEmotions(), labels_per_class=None, labels_total=14)

    with pytest.raises(DataError, match="no emotions to learn or test") as raised:
        attached(data(), Method())
    assert raised.value.option == "model.targets"
    (batch, *_) = batches(data(), Method(targets="valence_arousal"))
    assert batch["labeled"].target.emotion.shape == (14, 0)
    assert not batch["labeled"].target.valence_arousal.isnan().any()
    with pytest.raises(InputError, match="a class for every labeled face") as raised:
        batches(data(), Method(targets="valence_arousal", class_balanced=True))
    assert raised.value.option == "data.class_balanced"


def noisy(share, **options):
    """A datamodule with wrong labels, and which of its labels are wrong."""
    data = tiny_data(label_noise=share, labels_per_class=15, **options)
    batches(data)
    return data, data.labeled_target.label != data.labeled_truth.label


@pytest.mark.parametrize("class_balanced", [False, True])
def test_label_noise_reaches_the_labeled_faces_and_nothing_else(class_balanced):
    data, wrong = noisy(0.3, class_balanced=class_balanced, val="carved")
    clean = tiny_data(labels_per_class=15, val="carved")
    seen = batches(clean) and batches(data)
    assert 0.15 < wrong.float().mean() < 0.45
    assert torch.equal(clean.labeled_target.emotion, data.labeled_truth.emotion)
    assert torch.equal(data.labeled_target.emotion.sum(1), torch.ones(len(wrong)))
    assert torch.equal(clean.unlabeled_truth.emotion, data.unlabeled_truth.emotion)
    assert torch.equal(clean.labeled_target.valence_arousal, data.labeled_target.valence_arousal)
    labels = data.labeled_target.label
    for batch in seen:
        assert torch.equal(batch["labeled"].target.label, labels[batch["labeled"].index])
    if class_balanced:  # by the labels that training sees, so as not to betray the true ones
        drawn = torch.cat([batch["labeled"].target.label for batch in seen])
        assert torch.bincount(drawn).tolist() == [10] * 7
    (refreshed, *_) = list(data.labeled_loader())
    real = refreshed.index >= 0
    assert torch.equal(refreshed.target.label[real], labels[refreshed.index[real]])
    for part, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        for batch in loader:
            real = batch.index >= 0
            truth = torch.from_numpy(data.faces.label[getattr(data, part)])
            assert torch.equal(batch.target.label[real], truth[batch.index[real]])


def test_label_noise_is_drawn_by_seed_and_name():
    data, wrong = noisy(0.3)
    names = data.faces.names[data.labeled]
    larger, also = noisy(0.6)
    assert torch.equal(larger.labeled_target.emotion[wrong], data.labeled_target.emotion[wrong])
    assert also[wrong].all()
    assert also.sum() > wrong.sum()

    smaller = tiny_data(label_noise=0.3, labels_per_class=4)
    batches(smaller)
    place = {name: i for i, name in enumerate(names)}
    for name, label in zip(
        smaller.faces.names[smaller.labeled], smaller.labeled_target.label.tolist(), strict=True
    ):
        assert label == data.labeled_target.label[place[name]]

    class Shuffled(TinyFaces):
        def load(self, image_size):
            faces = super().load(image_size)
            order = np.random.default_rng(1).permutation(len(faces))
            rows = {"names", "partition", "emotion", "valence_arousal"}
            return replace(
                faces,
                images=ArrayImages(faces.images.pixels.numpy()[order]),
                **{row: getattr(faces, row)[order] for row in rows},
            )

    other, _ = noisy(0.3, dataset=Shuffled())
    for name, label in zip(other.faces.names[other.labeled], other.labeled_target.label, strict=True):
        assert label == data.labeled_target.label[place[name]]

    _, of_seed_1 = noisy(0.3, seed=1)
    assert not torch.equal(of_seed_1, wrong)


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (1.0, 105, 105)])
def test_label_noise_of_no_face_and_of_all(share, least, most):
    _, wrong = noisy(share)
    assert least <= wrong.sum() <= most


def test_every_wrong_emotion_is_as_likely():
    emotion = np.eye(7, dtype=np.float32)[np.full(6000, 2)]
    names = np.array([f"face{i}" for i in range(6000)])
    counts = np.bincount(mislabel(emotion, names, 0.5, seed=0).argmax(1), minlength=7)
    assert counts[2] == pytest.approx(3000, abs=200)  # five deviations
    assert np.delete(counts, 2) == pytest.approx(np.full(6, 500), abs=110)


def test_label_noise_leaves_unknown_emotions_unknown_and_others_soft():
    emotion = np.array([[np.nan, np.nan], [0.3, 0.7], [0.6, 0.4]] * 20, np.float32)
    names = np.array([f"face{i}" for i in range(60)])
    given = emotion.copy()
    all_noisy = mislabel(emotion, names, 1.0, seed=0)
    np.testing.assert_array_equal(emotion, given)
    np.testing.assert_array_equal(all_noisy[:3], np.array([[np.nan, np.nan], [1, 0], [0, 1]], np.float32))
    np.testing.assert_array_equal(mislabel(emotion, names, 0.0, seed=0), emotion)


def test_label_noise_needs_emotions_to_confuse():
    class OneEmotion(TinyFaces):
        def load(self, image_size):
            faces = super().load(image_size)
            faces.emotion[:] = np.eye(7, dtype=np.float32)[3]
            return faces

    data = tiny_data(dataset=OneEmotion(), label_noise=0.1, labels_per_class=None)
    with pytest.raises(InputError, match="no two emotions") as raised:
        batches(data, Method(LABELS_ALONE))
    assert raised.value.option == "data.label_noise"


def test_a_face_in_two_parts_of_a_manifest_is_refused_though_its_hash_is_right(tmp_path):
    split = make_split(TinyFaces().load(16), SplitRequest(labels_per_class=4))
    leaking = replace(split, labeled=(*split.labeled, split.test[0]))
    replace(leaking, sha256=leaking.digest()).save(tmp_path / "split.json")
    with pytest.raises(DataError, match="1 faces are in labeled and in test") as refused:
        tiny_data(manifest=tmp_path / "split.json").setup("fit")
    assert refused.value.option == "data.manifest"


def test_a_run_starts_with_what_is_doubtful_about_its_split(caplog):
    class Doubtful(TinyFaces):
        def load(self, image_size):
            faces = super().load(image_size)
            train, test = (np.flatnonzero(faces.partition == part) for part in ("train", "test"))
            faces.images.pixels[test[0]] = faces.images.pixels[train[0]]
            faces.subject = np.where(np.isin(np.arange(len(faces)), (train[1], test[1])), "s1", "")
            return faces

    tiny_data(dataset=Doubtful()).setup("fit")
    assert "1 of 28 test images are byte-identical to a training image" in caplog.text
    assert "1 of 1 subjects in test are in training too ('s1')" in caplog.text
    caplog.clear()
    tiny_data().setup("fit")
    assert "split of" not in caplog.text
