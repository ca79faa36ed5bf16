import multiprocessing
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from faces import TINY, TinyFaces, quiet_trainer, tiny_data

from fer_lightning.data.batch import Views
from fer_lightning.data.datamodule import SemiSupervisedFaces
from fer_lightning.data.datasets.base import ArrayImages, DataError
from fer_lightning.data.label_noise import mislabel
from fer_lightning.data.splits import make_split
from fer_lightning.data.views import View, WeakView
from fer_lightning.errors import InputError
from fer_lightning.methods import FixMatch, Supervised


def batches(data: SemiSupervisedFaces, method=None, epochs: int = 1):
    """Every batch of some epochs, as the trainer would take them."""
    trainer = quiet_trainer(None)
    trainer.strategy.connect(method or FixMatch(**TINY))
    data.trainer = trainer
    data.setup("fit")
    loader = data.train_dataloader()
    progress = trainer.fit_loop.epoch_loop.batch_progress.total
    taken = []
    for _ in range(epochs):
        epoch = list(loader)
        progress.ready += len(epoch)
        taken += epoch
    return taken


def flat(batch):
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    return [labeled.image, labeled.index, unlabeled.weak, unlabeled.strong, unlabeled.index]


def test_batches_have_the_declared_shapes_and_types():
    (batch, *_) = batches(tiny_data())
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    assert labeled.image.shape == (14, 3, 16, 16)
    assert unlabeled.weak.shape == unlabeled.strong.shape == (28, 3, 16, 16)
    assert {t.dtype for t in (labeled.image, unlabeled.weak, unlabeled.strong)} == {torch.uint8}
    assert labeled.image.is_contiguous(memory_format=torch.channels_last)
    assert labeled.target.emotion.shape == (14, 7)
    assert labeled.target.valence_arousal.shape == (14, 2)
    assert labeled.index.dtype == unlabeled.index.dtype == torch.int64


def test_labels_belong_to_the_faces():
    data = tiny_data()
    for batch in batches(data):
        labeled = batch["labeled"]
        brightness = labeled.image.float().mean((1, 2, 3))  # 25 a class over noise around 30
        assert torch.equal(labeled.target.label, ((brightness - 30) / 25).round().long())


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_depend_on_no_worker(workers):
    alone = batches(tiny_data(), epochs=2)
    helped = batches(tiny_data(workers=workers), epochs=2)
    for a, b in zip(alone, helped, strict=True):
        for x, y in zip(flat(a), flat(b), strict=True):
            assert torch.equal(x, y)


def test_no_two_draws_of_a_face_look_alike():
    """The trap of albumentations 2.0.8: each worker and each epoch repeat the same augmentations."""
    seen: dict[int, list[bytes]] = {}
    for batch in batches(tiny_data(workers=2), epochs=3):
        for face, image in zip(batch["unlabeled"].index.tolist(), batch["unlabeled"].strong, strict=True):
            seen.setdefault(face, []).append(image.numpy().tobytes())
    assert max(map(len, seen.values())) >= 3
    for looks in seen.values():
        assert len(set(looks)) == len(looks)


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
        method = FixMatch(**TINY, tau=0.2)
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
    data = tiny_data(workers=1, steps_per_epoch=2)
    expected = batches(tiny_data(steps_per_epoch=2))
    context = multiprocessing.get_context("spawn")
    trainer = quiet_trainer(None)
    trainer.strategy.connect(FixMatch(**TINY))
    data.trainer = trainer
    data.setup("fit")
    loader = data.train_dataloader()
    loader.multiprocessing_context = context
    for a, b in zip(expected, loader, strict=True):
        for x, y in zip(flat(a), flat(b), strict=True):
            assert torch.equal(x, y)


def test_evaluation_covers_each_face_once_and_unchanged():
    data = tiny_data(eval_batch_size=8)
    trainer = quiet_trainer(None)
    trainer.strategy.connect(Supervised(**TINY))
    data.trainer = trainer
    data.setup("test")
    seen = list(data.test_dataloader())
    assert torch.cat([b.index for b in seen]).tolist() == list(range(28))
    image = data.faces.images[int(data.test[3])]
    assert np.array_equal(seen[0].image[3].permute(1, 2, 0).numpy(), image)


def test_manifest_of_a_run_is_followed(tmp_path):
    data = tiny_data()
    batches(data)
    data.split.save(tmp_path / "split.json")
    again = tiny_data(manifest=tmp_path / "split.json", labels_per_class=None)
    assert batches(again)
    assert again.split.sha256 == data.split.sha256
    with pytest.raises(DataError):
        batches(tiny_data(dataset=TinyFaces(train=70), manifest=tmp_path / "split.json"))


def test_method_views_are_read_from_the_method():
    class Two(FixMatch):
        views = Views(labeled=1, weak=2, strong=0)

    (batch, *_) = batches(tiny_data(), Two(**TINY))
    assert batch["unlabeled"].weak.shape == (2, 28, 3, 16, 16)
    assert batch["unlabeled"].strong.shape == (0, 28, 3, 16, 16)


@pytest.mark.parametrize("weak", [1, 2, 3])
def test_odd_weak_views_are_mirrored_where_the_method_says_so(weak):
    class Facing(FixMatch):
        views = Views(labeled=1, weak=weak, strong=1, mirrored=True)

    class Any(FixMatch):
        views = Views(labeled=1, weak=weak, strong=1)

    data = tiny_data(weak=WeakView(padding=0))
    ways = []
    for told, free in zip(batches(data, Facing(**TINY)), batches(data, Any(**TINY)), strict=True):
        shown = told["unlabeled"].weak.view(weak, 28, 3, 16, 16)
        drawn = free["unlabeled"].weak.view(weak, 28, 3, 16, 16)
        faces = [data.faces.images[row] for row in data.unlabeled[told["unlabeled"].index]]
        faces = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2)
        for v in range(weak):
            assert torch.equal(shown[v], faces.flip(3) if v % 2 else faces)
        ways.append((drawn == faces).all(2).all(2).all(2))
        # The other views of the method stay free.
        assert torch.equal(told["labeled"].image, free["labeled"].image)
        assert torch.equal(told["unlabeled"].strong, free["unlabeled"].strong)
    assert 0.2 < torch.cat(ways, 1).float().mean() < 0.8  # left to chance, either way is common


def test_a_weak_view_that_cannot_be_mirrored_is_refused():
    class Facing(FixMatch):
        views = Views(labeled=1, weak=2, strong=1, mirrored=True)

    class Middle(View):
        def draw(self, image, size, random):
            return image[:size, :size].copy()

    with pytest.raises(InputError, match=r"Middle cannot be told to mirror.*--data\.weak"):
        batches(tiny_data(weak=Middle()), Facing(**TINY))


@pytest.mark.parametrize("option", ["batch_size", "mu", "steps_per_epoch", "eval_batch_size", "image_size"])
def test_impossible_options_are_named(option):
    with pytest.raises(InputError, match=rf"--data.{option} is 0"):
        SemiSupervisedFaces(TinyFaces(), **{option: 0})


def test_continuous_task_needs_continuous_labels():
    class NoMood(TinyFaces):
        def load(self, image_size):
            faces = super().load(image_size)
            faces.valence_arousal[:] = np.nan
            return faces

    with pytest.raises(DataError, match="no valence and arousal"):
        batches(tiny_data(dataset=NoMood()), Supervised(**TINY, targets="both"))


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
def test_label_noise_of_nobody_and_of_everybody(share, least, most):
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
    everybody = mislabel(emotion, names, 1.0, seed=0)
    np.testing.assert_array_equal(emotion, given)
    np.testing.assert_array_equal(everybody[:3], np.array([[np.nan, np.nan], [1, 0], [0, 1]], np.float32))
    np.testing.assert_array_equal(mislabel(emotion, names, 0.0, seed=0), emotion)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_impossible_label_noise_is_named(share):
    with pytest.raises(InputError, match=r"--data.label_noise is"):
        tiny_data(label_noise=share)


def test_label_noise_needs_emotions_to_confuse():
    class OneEmotion(TinyFaces):
        def load(self, image_size):
            faces = super().load(image_size)
            faces.emotion[:] = np.eye(7, dtype=np.float32)[3]
            return faces

    with pytest.raises(InputError, match="no two emotions"):
        batches(tiny_data(dataset=OneEmotion(), label_noise=0.1, labels_per_class=None), Supervised(**TINY))
