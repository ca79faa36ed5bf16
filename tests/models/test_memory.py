import math

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize, one_hot

from fer_lightning.data.batch import Evaluated, Target
from fer_lightning.models import memory
from fer_lightning.models.memory import FaceMemory, Queue, aggregate, similarity, similarity_logits, unfold


def rows(count, width=3, classes=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = normalize(torch.randn(count, width, generator=generator), dim=-1)
    return features, torch.rand(count, classes, generator=generator).softmax(-1)


def another_rank(monkeypatch, *theirs):
    """As if another rank had brought these rows."""
    monkeypatch.setattr(
        memory, "gather", lambda *ours: [torch.cat(both) for both in zip(ours, theirs, strict=True)]
    )


class TestFaceMemory:
    def test_rows_are_written_where_they_belong(self):
        bank = FaceMemory(3, 2)
        bank.resize(5)
        z, p = rows(2)
        bank.write(torch.tensor([3, 0]), z, p)
        assert bank.written.tolist() == [True, False, False, True, False]
        assert torch.equal(bank.features[[3, 0]], z)
        assert torch.equal(bank.probability[[3, 0]], p)
        assert bank.features[[1, 2, 4]].abs().sum() == bank.probability[[1, 2, 4]].sum() == 0
        bank.write(torch.tensor([3]), -z[:1], p[1:])
        assert torch.equal(bank.features[3], -z[0])
        assert torch.equal(bank.probability[3], p[1])
        assert torch.equal(bank.features[0], z[1])

    def test_last_row_of_a_repeated_face_counts(self):
        """Slow reference: one assignment after the other."""
        torch.manual_seed(0)
        bank, index = FaceMemory(3, 2), torch.randint(0, 6, (40,))
        bank.resize(7)
        z, p = rows(40)
        bank.write(index, z, p)
        expected = torch.zeros(7, 3)
        for i, row in zip(index.tolist(), z, strict=True):
            expected[i] = row
        assert torch.equal(bank.features, expected)
        assert bank.written.tolist() == [True] * 6 + [False]

    def test_every_row_of_a_repeated_face_writes_the_same(self):
        """A GPU leaves open which of them is written last."""
        bank, seen = FaceMemory(3, 2), []
        bank.resize(2)
        bank.features = bank.features.as_subclass(Watched)
        bank.features.seen = seen
        bank.write(torch.tensor([1, 0, 1]), *rows(3))
        [(index, written)] = seen
        assert torch.equal(written[index == 1][0], written[index == 1][1])

    def test_ranks_write_into_each_other(self, monkeypatch):
        z, p = rows(2)
        another_rank(monkeypatch, torch.tensor([1, 0]), -z, p)
        bank = FaceMemory(3, 2)
        bank.resize(3)
        bank.write(torch.tensor([2, 0]), z, p)
        assert torch.equal(bank.features, torch.stack([-z[1], -z[0], z[0]]))

    def test_takes_half_precision_and_keeps_no_graph(self):
        bank = FaceMemory(3, 2)
        bank.resize(2)
        z = torch.randn(1, 3, dtype=torch.bfloat16, requires_grad=True)
        bank.write(torch.tensor([0]), z * 2, torch.ones(1, 2, dtype=torch.float64))
        assert bank.features.dtype == bank.probability.dtype == torch.float32
        assert not bank.features.requires_grad
        assert torch.equal(bank.features[0], (z * 2)[0].float())

    def test_indices_outside_are_refused(self):
        bank = FaceMemory(3, 2)
        bank.resize(2)
        for index in (-1, 2):
            with pytest.raises((RuntimeError, IndexError), match="out of"):
                bank.write(torch.tensor([index]), *rows(1))

    def test_resize_forgets(self):
        bank = FaceMemory(3, 2)
        bank.resize(2)
        bank.write(torch.tensor([0]), *rows(1))
        bank.resize(4)
        assert {name: tuple(b.shape) for name, b in bank.named_buffers()} == {
            "features": (4, 3),
            "probability": (4, 2),
            "written": (4,),
        }
        assert not any(buffer.any() for buffer in bank.buffers())

    def test_takes_the_size_of_the_checkpoint_inside_any_module(self):
        bank = FaceMemory(3, 2)
        bank.resize(4)
        bank.write(torch.tensor([1, 3]), *rows(2))
        fresh = nn.ModuleDict({"bank": FaceMemory(3, 2)})
        fresh.load_state_dict(nn.ModuleDict({"bank": bank}).state_dict())
        for name, buffer in bank.named_buffers():
            assert torch.equal(fresh["bank"].get_buffer(name), buffer)


class Watched(torch.Tensor):
    def __setitem__(self, index, value):
        self.seen.append((index, value))
        super().__setitem__(index, value)


def slow_queue(length, batches):
    """A list, newest batch first."""
    held = []
    for z, p, member in batches:
        held = [(a, b) for a, b, m in zip(z, p, member, strict=True) if m] + held
        held = held[:length]
    return held


class TestQueue:
    @pytest.mark.parametrize("length", [1, 5, 8, 30])
    def test_equals_a_list(self, length):
        torch.manual_seed(0)
        queue, batches = Queue(length, 3, 2), []
        for seed in range(5):
            z, p = rows(6, seed=seed)
            batches.append((z, p, torch.rand(6) < 0.6))
            queue.push(*batches[-1])
            held = slow_queue(length, batches)
            assert queue.written.tolist() == [i < len(held) for i in range(length)]
            for i, (a, b) in enumerate(held):
                assert torch.equal(queue.features[i], a)
                assert torch.equal(queue.probability[i], b)
            assert queue.features[len(held) :].abs().sum() == queue.probability[len(held) :].sum() == 0

    def test_without_members_all_are_kept(self):
        queue = Queue(4, 3, 2)
        queue.push(*rows(3))
        assert queue.written.tolist() == [True, True, True, False]

    def test_unknown_rows_leave_no_trace(self):
        queue = Queue(4, 3, 2)
        z, p = rows(3)
        p[1] = math.nan
        queue.push(z, p, ~p.isnan().any(-1))
        assert queue.written.sum() == 2
        assert queue.probability.isfinite().all()
        queue.push(z, p, torch.zeros(3, dtype=torch.bool))
        assert queue.written.sum() == 2

    def test_ranks_push_into_each_other(self, monkeypatch):
        z, p = rows(2)
        another_rank(monkeypatch, -z, p, torch.tensor([False, True]))
        queue = Queue(5, 3, 2)
        queue.push(z, p, torch.tensor([True, False]))
        assert queue.written.tolist() == [True, True, False, False, False]
        assert torch.equal(queue.features[:2], torch.stack([z[0], -z[1]]))

    def test_keeps_no_graph_and_its_own_precision(self):
        queue = Queue(2, 3, 2)
        z = torch.randn(1, 3, dtype=torch.bfloat16, requires_grad=True)
        queue.push(z * 2, torch.ones(1, 2, dtype=torch.float64))
        assert queue.features.dtype == queue.probability.dtype == torch.float32
        assert not queue.features.requires_grad

    def test_survives_a_checkpoint_and_takes_its_size(self):
        queue, fresh = Queue(0, 3, 2), Queue(0, 3, 2)
        queue.resize(4)
        queue.push(*rows(3))
        fresh.load_state_dict(queue.state_dict())
        for one in (queue, fresh):
            one.push(*rows(2, seed=1))
        assert torch.equal(queue.features, fresh.features)


class TestSimilarity:
    def test_golden_values(self):
        """Three remembered faces at a temperature of 0.1."""
        bank = torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1]])
        s = similarity(normalize(torch.tensor([[0.9, 0.1]]), dim=-1), bank, 0.1)
        assert s[0].tolist() == pytest.approx([0.95643, 0.04343, 0.00014], abs=1e-5)

    def test_equals_the_slow_reference(self):
        query, _ = rows(4)
        features, _ = rows(7, seed=1)
        written = torch.arange(7) % 3 > 0
        s = similarity(query, features, 0.3, written)
        for b in range(4):
            exp = [
                math.exp(float(query[b] @ f) / 0.3) * bool(w) for f, w in zip(features, written, strict=True)
            ]
            assert s[b].tolist() == pytest.approx([e / sum(exp) for e in exp], rel=1e-5)

    def test_nothing_written_is_nothing_similar(self):
        query = rows(2)[0].requires_grad_()
        nothing = torch.zeros(4, dtype=torch.bool)
        s = similarity(query, torch.zeros(4, 3), 0.1, nothing)
        assert torch.equal(s, torch.zeros(2, 4))
        (
            s.sum() + similarity_logits(query, torch.zeros(4, 3), 0.1, nothing).log_softmax(-1).mean()
        ).backward()
        assert torch.equal(query.grad, torch.zeros(2, 3))
        assert similarity(query, torch.zeros(0, 3), 0.1).shape == (2, 0)

    def test_unwritten_rows_are_as_if_they_were_not_there(self):
        query, _ = rows(4)
        features, _ = rows(6, seed=1)
        written = torch.tensor([True, False, True, True, False, True])
        s = similarity(query, features, 0.1, written)
        torch.testing.assert_close(s[:, written], similarity(query, features[written], 0.1))
        assert s[:, ~written].sum() == 0

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, dtype):
        query, features = rows(3)[0].to(dtype), rows(5, seed=1)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            s = similarity(query, features, 0.07)
        assert s.dtype == torch.float32
        assert torch.equal(s, similarity(query.float(), features, 0.07))

    def test_gradient(self):
        query = rows(3)[0].double().requires_grad_()
        features = rows(4, seed=1)[0].double()
        written = torch.tensor([True, True, False, True])
        goal = one_hot(torch.tensor([0, 1, 3]), 4)
        assert torch.autograd.gradcheck(lambda q: similarity(q, features, 0.5, written), query)
        assert torch.autograd.gradcheck(
            lambda q: (similarity_logits(q, features, 0.5, written).log_softmax(-1) * goal)[goal > 0], query
        )


class TestMatching:
    """Golden values: three labeled faces, and a face whose similarities and probabilities disagree."""

    bank = torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1]])
    labels = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    p = torch.tensor([[0.7, 0.3]])

    def similarities(self):
        return similarity(normalize(torch.tensor([[0.9, 0.1]]), dim=-1), self.bank, 0.1)

    def test_unfold_golden_values(self):
        unfolded = unfold(self.similarities(), self.labels, self.p)
        assert unfolded[0].tolist() == pytest.approx([0.95651, 0.04343, 0.00006], abs=1e-5)

    def test_aggregate_golden_values(self):
        p = 0.9 * self.p + 0.1 * aggregate(self.similarities(), self.labels)
        assert p[0].tolist() == pytest.approx([0.72999, 0.27001], abs=1e-5)

    def test_equal_the_slow_reference_for_soft_labels_too(self):
        torch.manual_seed(0)
        s, labels, p = (
            torch.rand(4, 6).softmax(-1),
            torch.rand(6, 3).softmax(-1),
            torch.rand(4, 3).softmax(-1),
        )
        for b in range(4):
            weighted = [float(s[b, n]) * float(p[b] @ labels[n]) for n in range(6)]
            expected = [w / sum(weighted) for w in weighted]
            assert unfold(s, labels, p)[b].tolist() == pytest.approx(expected, rel=1e-5)
            mean = sum(float(s[b, n]) * labels[n] for n in range(6))
            torch.testing.assert_close(aggregate(s, labels)[b], mean)

    def test_even_probabilities_unfold_nothing(self):
        s = self.similarities()
        torch.testing.assert_close(unfold(s, self.labels, torch.tensor([[0.5, 0.5]])), s)

    def test_nothing_written_or_probable_is_zero(self):
        s = self.similarities()
        assert torch.equal(unfold(s * 0, self.labels, self.p), s * 0)
        assert torch.equal(unfold(s, self.labels, self.p * 0), s * 0)
        assert torch.equal(aggregate(s * 0, self.labels), self.p * 0)
        empty = torch.zeros(1, 0)
        assert unfold(empty, torch.zeros(0, 2), self.p).shape == (1, 0)
        assert torch.equal(aggregate(empty, torch.zeros(0, 2)), self.p * 0)

    def test_computed_in_float32_under_autocast(self):
        s = self.similarities()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            unfolded, mean = unfold(s, self.labels, self.p), aggregate(s, self.labels)
        assert torch.equal(unfolded, unfold(s, self.labels, self.p))
        assert torch.equal(mean, aggregate(s, self.labels))


def test_filling_leaves_out_what_fills_a_batch():
    kept = FaceMemory(2, 3)
    kept.resize(3)
    images = torch.arange(4.0)[:, None].expand(4, 2)
    emotion = torch.eye(3)[[0, 1, 2, 2]]
    emotion[1] = torch.nan
    target = Target(emotion, torch.full((4, 2), torch.nan))
    kept.fill([Evaluated(images, target, torch.tensor([2, 0, 1, -1]), torch.full((4,), -1))], lambda x: x + 1)
    assert kept.written.all()
    assert kept.features.tolist() == [[2, 2], [3, 3], [1, 1]]
    assert kept.probability.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0]]
