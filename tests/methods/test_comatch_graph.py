import math

import pytest
import torch
from torch.nn.functional import normalize

from fer_lightning.methods.comatch import graph_contrastive, pseudo_label_graph

P = torch.tensor([[0.9, 0.1], [0.85, 0.15], [0.05, 0.95]])
Z = torch.tensor([[1.0, 0], [0.8, 0.6], [0, 1]])


def slow(first, second, graph, temperature):
    """The equation, one pair at a time."""
    total, n = 0.0, len(first)
    for i in range(n):
        exp = [math.exp(float(first[i] @ second[j]) / temperature) for j in range(n)]
        total -= sum(float(graph[i, j]) * math.log(exp[j] / sum(exp)) for j in range(n))
    return total / n


def draw(rows=6, dtype=torch.float64):
    torch.manual_seed(0)
    first, second = (normalize(torch.randn(rows, 4, dtype=dtype), dim=-1) for _ in range(2))
    return first, second, torch.randn(rows, 3, dtype=dtype).mul(3).softmax(-1)


class TestGraph:
    def test_golden_values(self):
        q = pseudo_label_graph(P, 0.7)
        expected = torch.tensor([[0.5618, 0.4382, 0], [0.4382, 0.5618, 0], [0, 0, 1]])
        torch.testing.assert_close(q, expected, rtol=0, atol=5e-5)

    def test_equals_the_slow_reference(self):
        _, _, p = draw()
        q, n = pseudo_label_graph(p, 0.4), len(p)
        for i in range(n):
            w = [1.0 if i == j else float(p[i] @ p[j]) for j in range(n)]
            w = [x if x >= 0.4 else 0.0 for x in w]
            assert q[i].tolist() == pytest.approx([x / sum(w) for x in w])
        assert 0 < ((q > 0).sum() - n) < n * (n - 1)  # the reference met both cases

    def test_edge_is_kept_at_equality(self):
        p = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
        assert (pseudo_label_graph(p, 0.5) > 0).all()
        assert torch.equal(pseudo_label_graph(p, 0.51), torch.eye(2))

    def test_over_one_every_face_is_alone_and_no_faces_are_no_graph(self):
        assert torch.equal(pseudo_label_graph(torch.eye(3)[[0, 0, 1]], 1.1), torch.eye(3))
        assert pseudo_label_graph(torch.zeros(0, 3), 0.8).shape == (0, 0)


class TestContrast:
    def test_golden_value(self):
        loss = graph_contrastive(Z, Z, pseudo_label_graph(P, 0.7), 0.2)
        assert loss.item() == pytest.approx(0.57834, abs=1e-5)

    @pytest.mark.parametrize("temperature", [0.1, 0.5])
    def test_equals_the_slow_reference(self, temperature):
        first, second, p = draw()
        graph = pseudo_label_graph(p, 0.4)
        loss = graph_contrastive(first, second, graph, temperature)
        assert loss.item() == pytest.approx(slow(first, second, graph, temperature), rel=1e-9)

    def test_faces_alone_are_cross_entropy_against_the_other_view(self):
        first, second, _ = draw()
        expected = torch.nn.functional.cross_entropy(first @ second.T / 0.2, torch.arange(6))
        torch.testing.assert_close(graph_contrastive(first, second, torch.eye(6).double(), 0.2), expected)

    def test_order_of_faces_does_not_matter(self):
        first, second, p = draw()
        order = torch.randperm(6)
        losses = [
            graph_contrastive(a, b, pseudo_label_graph(q, 0.4), 0.2)
            for a, b, q in ((first, second, p), (first[order], second[order], p[order]))
        ]
        torch.testing.assert_close(*losses)

    def test_gradient_reaches_both_views(self):
        first, second, p = draw(rows=4)
        first.requires_grad_(), second.requires_grad_()
        graph = pseudo_label_graph(p, 0.4)
        assert torch.autograd.gradcheck(lambda a, b: graph_contrastive(a, b, graph, 0.3), (first, second))
        graph_contrastive(first, second, graph, 0.3).backward()
        assert first.grad.abs().sum() > 0
        assert second.grad.abs().sum() > 0

    def test_no_faces_give_zero(self):
        none = torch.zeros(0, 4, requires_grad=True)
        loss = graph_contrastive(none, none, torch.zeros(0, 0), 0.2)
        loss.backward()
        assert loss.item() == 0

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, dtype):
        first, second, p = draw(dtype=torch.float32)
        first, second = first.to(dtype), second.to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            graph = pseudo_label_graph(p, 0.4)
            loss = graph_contrastive(first, second, graph, 0.1)
        assert torch.equal(graph, pseudo_label_graph(p, 0.4))
        assert loss.dtype == torch.float32
        assert torch.equal(loss, graph_contrastive(first.float(), second.float(), graph, 0.1))

    def test_small_temperatures_stay_finite(self):
        first = torch.tensor([[1.0, 0], [-1, 0]], requires_grad=True)
        loss = graph_contrastive(first, torch.tensor([[-1.0, 0], [1, 0]]), torch.eye(2), 1e-3)
        loss.backward()
        assert loss.item() == pytest.approx(2000)
        assert first.grad.isfinite().all()
