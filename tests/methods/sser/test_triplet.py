import math

import pytest
import torch

from fer_lightning.methods.sser.triplet import (
    BATCH_ALL,
    activation_matrix,
    active_share,
    class_distance,
    squared_distance,
    triplet_loss,
)

# Four images of two channels at two sites.
MAPS = torch.tensor([[[1, 0], [0, 1]], [[1, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [1, 1]]]).float()
MAPS = MAPS[:, :, None, :]
LABEL = torch.tensor([0, 0, 1, 1])
VALENCE_AROUSAL = torch.tensor([[0, 0], [0.1, 0.1], [0.8, 0.6], [-0.5, 0.4]])


def distances(maps, form="activation"):
    rows = activation_matrix(maps, form)
    return squared_distance(rows, rows)


def valence_arousal_distance(valence_arousal):
    return torch.cdist(valence_arousal, valence_arousal, compute_mode="donot_use_mm_for_euclid_dist") / (
        2 * math.sqrt(2)
    )


def triplets(rho, eps_rho):
    """All triplets by three loops."""
    n = len(rho)
    for a in range(n):
        for p in range(n):
            for q in range(n):
                if a not in (p, q) and rho[a][q] - rho[a][p] > eps_rho:
                    yield a, p, q


def slow(distance, rho, margin, eps_rho, mining):
    d, rho = distance.tolist(), rho.tolist()
    values = {}
    for a, p, n in triplets(rho, eps_rho):
        values.setdefault(a, []).append(d[a][p] - d[a][n] + margin * (rho[a][n] - rho[a][p]))
    if mining == "hard":
        values = {a: [max(each)] for a, each in values.items()}
    active = [v for each in values.values() for v in each if v > 0]
    return sum(active) / max(len(active), 1)


def some(n, kind, unknown=True):
    """Distances of random images, and of random labels, one of them unknown."""
    generator = torch.Generator().manual_seed(n)
    distance = distances(torch.rand(n, 3, 2, 2, generator=generator))
    if kind == "classes":
        label = torch.randint(0, 4, (n,), generator=generator)
        label[n // 2 : n // 2 + unknown] = -1
        return distance, class_distance(label)
    valence_arousal = 2 * torch.rand(n, 2, generator=generator) - 1
    valence_arousal[n // 2 : n // 2 + unknown] = torch.nan
    return distance, valence_arousal_distance(valence_arousal)


def test_golden_distances():
    d = distances(MAPS)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    expected = [2 - math.sqrt(2), 2, 1, 2, 2, 1]
    assert [d[i, j].item() for i, j in pairs] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("margin", "loss", "active"), [(0.2, 0.2, 1), (0.5, 0.292893, 2), (1.0, 0.792893, 2), (1.5, 0.542893, 8)]
)
def test_golden_loss_of_classes(margin, loss, active):
    d, rho = distances(MAPS), class_distance(LABEL)
    assert len(list(triplets(rho.tolist(), 0.05))) == 8
    margin -= 1e-6  # for a margin of 1, the values of two triplets are exactly 0
    assert triplet_loss(d, rho, margin).item() == pytest.approx(loss, abs=2e-6)
    assert active_share(d, rho, margin).item() == pytest.approx(active / 8)
    assert triplet_loss(d, rho, margin, classes=True).item() == pytest.approx(loss, abs=2e-6)


def test_golden_loss_of_valence_and_arousal():
    rho = valence_arousal_distance(VALENCE_AROUSAL)
    assert rho[0, 1:].tolist() == pytest.approx([0.05, 0.353553, 0.226385], abs=1e-6)
    assert len(list(triplets(rho.tolist(), 0.05))) == 10
    assert triplet_loss(distances(MAPS), rho, 1.0).item() == pytest.approx(0.761166, abs=2e-6)
    assert active_share(distances(MAPS), rho, 1.0).item() == pytest.approx(5 / 10)


@pytest.mark.parametrize("kind", ["classes", "valence_arousal"])
@pytest.mark.parametrize("mining", ["all", "hard"])
@pytest.mark.parametrize("n", [4, 13, 30])
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
def test_equals_three_loops(kind, mining, n, margin):
    distance, rho = some(n, kind)
    loss = triplet_loss(distance, rho, margin, 0.05, mining)
    assert loss.item() == pytest.approx(slow(distance, rho, margin, 0.05, mining), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("n", [1, 4, 30, BATCH_ALL + 8])
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
def test_counting_by_sorting_changes_nothing(n, margin):
    distance, rho = some(n, "classes")
    distance = (distance * 16).round() / 16  # many are equally far, and those are not active without a margin
    given = distance.clone().requires_grad_(), distance.clone().requires_grad_()
    losses = [
        triplet_loss(given[0], rho, margin, mining="all"),
        triplet_loss(given[1], rho, margin, classes=True),
    ]
    assert torch.equal(*losses)
    sum(losses).backward()
    assert torch.equal(given[0].grad, given[1].grad)
    share = active_share(distance, rho, margin)
    assert torch.equal(share, active_share(distance, rho, margin, classes=True))
    if n >= 30 and margin == 0.2:
        assert 0 < share < 1


def test_classes_are_the_usual_triplet_loss():
    distance, rho = some(12, "classes", unknown=False)
    same = rho == 0
    values = [
        distance[a, p] - distance[a, n] + 0.2
        for a in range(12)
        for p in range(12)
        for n in range(12)
        if p != a and same[a, p] and not same[a, n]
    ]
    expected = torch.stack([v for v in values if v > 0]).mean()
    torch.testing.assert_close(triplet_loss(distance, rho, 0.2), expected)


def test_hard_triplets_of_classes_are_the_farthest_positive_and_the_nearest_negative():
    distance, rho = some(20, "classes", unknown=False)
    values = []
    for a in range(20):
        positive = [distance[a, p] for p in range(20) if p != a and rho[a, p] == 0]
        negative = [distance[a, n] for n in range(20) if rho[a, n] == 1]
        if positive and negative:
            values.append(max(positive) - min(negative) + 0.2)
    expected = torch.stack([v for v in values if v > 0]).mean()
    torch.testing.assert_close(triplet_loss(distance, rho, 0.2, mining="hard"), expected)


def test_large_batches_are_mined():
    distance, rho = some(BATCH_ALL + 1, "classes")
    assert torch.equal(triplet_loss(distance, rho), triplet_loss(distance, rho, mining="hard"))
    inside = distance[:-1, :-1], rho[:-1, :-1]
    assert torch.equal(triplet_loss(*inside), triplet_loss(*inside, mining="all"))
    assert not torch.isclose(triplet_loss(*inside), triplet_loss(*inside, mining="hard"))


@pytest.mark.parametrize("form", ["activation", "gram", "pooled"])
def test_distances_are_symmetric_bounded_and_zero_to_oneself(form):
    d = distances(torch.randn(9, 5, 3, 3).relu(), form)
    torch.testing.assert_close(d, d.T)
    torch.testing.assert_close(d.diagonal(), torch.zeros(9), atol=1e-6, rtol=0)
    assert (d >= 0).all()
    assert (d <= 2).all()
    assert d.max() > 0.01


@pytest.mark.parametrize("form", ["activation", "gram", "pooled"])
def test_scale_of_an_image_is_no_matter(form):
    maps = torch.rand(8, 4, 3, 3)
    rho = class_distance(torch.arange(8) % 2)
    scaled = maps * torch.logspace(-1, 3, 8)[:, None, None, None]
    torch.testing.assert_close(
        triplet_loss(distances(scaled, form), rho),
        triplet_loss(distances(maps, form), rho),
        rtol=1e-4,
        atol=0,
    )


def test_what_the_forms_keep():
    maps = torch.rand(2, 4, 3, 3)
    moved = maps.flatten(2).flip(2).reshape(maps.shape)  # the same activations at other sites
    assert not torch.allclose(activation_matrix(maps), activation_matrix(moved))
    for form in ("gram", "pooled"):
        torch.testing.assert_close(activation_matrix(maps, form), activation_matrix(moved, form))
    gram = torch.stack([m.flatten(1) @ m.flatten(1).T for m in maps])
    torch.testing.assert_close(
        activation_matrix(maps, "gram"), (gram / gram.norm(dim=(1, 2), keepdim=True)).flatten(1)
    )
    pooled = maps.mean((2, 3))
    torch.testing.assert_close(activation_matrix(maps, "pooled"), pooled / pooled.norm(dim=1, keepdim=True))
    assert [activation_matrix(maps, f).shape[1] for f in ("activation", "gram", "pooled")] == [36, 16, 4]


@pytest.mark.parametrize("form", ["activation", "gram", "pooled"])
@pytest.mark.parametrize("mining", ["all", "hard"])
@pytest.mark.parametrize("kind", ["classes", "valence_arousal"])
def test_gradient(form, mining, kind):
    torch.manual_seed(0)
    maps = torch.rand(7, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    rho = some(7, kind)[1].double()
    assert triplet_loss(distances(maps, form), rho, 1.0, mining=mining) > 0
    assert torch.autograd.gradcheck(lambda x: triplet_loss(distances(x, form), rho, 1.0, mining=mining), maps)


@pytest.mark.parametrize("mining", [None, "hard", "classes"])
@pytest.mark.parametrize("label", [[3], [-1, -1, -1], [0, 0, 0], [0, 1, 2], [0, 0, -1], [-1, 1, 2, -1]])
def test_no_triplet_gives_zero_and_a_zero_gradient(label, mining):
    maps = torch.rand(len(label), 3, 2, 2, requires_grad=True)
    rho = class_distance(torch.tensor(label, dtype=torch.int64))
    options = {"classes": True} if mining == "classes" else {"mining": mining}
    loss = triplet_loss(distances(maps), rho, **options)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(maps.grad, torch.zeros_like(maps))


def test_an_empty_batch_has_no_loss():
    for classes in (False, True):
        assert triplet_loss(torch.zeros(0, 0), torch.zeros(0, 0), classes=classes).item() == 0


@pytest.mark.parametrize("mining", ["all", "hard"])
def test_images_of_unknown_label_change_nothing(mining):
    maps = torch.rand(9, 3, 2, 2, requires_grad=True)
    label = torch.tensor([0, 1, -1, 0, 1, -1, 2, 2, -1])
    loss = triplet_loss(distances(maps), class_distance(label), 1.0, mining=mining)
    known = label >= 0
    alone = triplet_loss(distances(maps[known]), class_distance(label[known]), 1.0, mining=mining)
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert torch.equal(maps.grad.abs().sum((1, 2, 3)) > 0, known)


def test_an_image_without_activation_stays_finite():
    maps = torch.rand(4, 3, 2, 2)
    maps[1] = 0
    maps.requires_grad_()
    loss = triplet_loss(distances(maps), class_distance(LABEL), 1.0)
    loss.backward()
    assert loss.isfinite()
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("form", ["activation", "gram"])
def test_half_precision_is_computed_in_float32(form):
    maps = torch.rand(6, 4, 3, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        d = distances(maps, form)
    assert d.dtype == torch.float32
    torch.testing.assert_close(d, distances(maps.float(), form))
