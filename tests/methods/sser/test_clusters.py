import torch

from fer_lightning.methods.sser.clusters import ROUNDS, cluster_labels

UNIT = torch.nn.functional.normalize


def slow(rows, label, classes):
    """Lloyd's rounds, one face at a time."""
    members = {c: [n for n, y in enumerate(label.tolist()) if y == c] for c in range(classes)}
    for _ in range(ROUNDS):
        centers = {c: UNIT(sum(rows[n] for n in mine), dim=0) for c, mine in members.items() if mine}
        assigned = [max(centers, key=lambda c: float(row @ centers[c])) for row in rows]
        members = {c: [n for n, y in enumerate(assigned) if y == c] for c in centers}
    return assigned


def test_equals_slow_rounds():
    generator = torch.Generator().manual_seed(0)
    rows = UNIT(torch.rand(30, 6, generator=generator), dim=1)
    label = torch.arange(30) % 5 - 1  # a fifth unknown
    assert cluster_labels(rows, label, 4).tolist() == slow(rows, label, 4)


def test_groups_are_found_from_one_label_each():
    centers = torch.eye(3, 8)
    rows = UNIT(centers.repeat_interleave(5, 0) + 0.05 * torch.rand(15, 8), dim=1)
    label = torch.full((15,), -1)
    label[[0, 5, 10]] = torch.tensor([2, 0, 1])
    assert cluster_labels(rows, label, 3).tolist() == [2] * 5 + [0] * 5 + [1] * 5


def test_a_class_without_labels_has_no_cluster_and_no_labels_no_clusters():
    rows = UNIT(torch.rand(6, 4), dim=1)
    assert set(cluster_labels(rows, torch.tensor([0, 0, 2, -1, -1, 2]), 3).tolist()) <= {0, 2}
    assert cluster_labels(rows, torch.full((6,), -1), 3).tolist() == [-1] * 6
