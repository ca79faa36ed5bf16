import pytest
import torch

from fer_lightning.methods.sser.coupling import accept, couple, image_evidence, smooth, stratified
from fer_lightning.pseudo_labels import sharpen

UNIFORM = torch.full((7,), 1 / 7)
COUPLINGS = ["product", "mean", "agreement", "model", "image"]


def peak(p, emotion=0):
    """(1, 7) probabilities: p on one emotion and the rest alike on the others."""
    row = torch.full((1, 7), (1 - p) / 6)
    row[0, emotion] = p
    return row


def random_pair(rows=6):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(rows, 7, generator=generator).mul(2).softmax(-1) for _ in range(2)]


@pytest.mark.parametrize(
    ("p", "coupled"),
    [(0.9, 0.9976), (0.8, 0.9888), (0.7, 0.9687), (0.6, 0.9286), (0.645, 0.95), (0.75, 0.98)],
)
def test_golden_agreement(p, coupled):
    # The last two are given as "about".
    tolerance = 5e-5 if p not in (0.645, 0.75) else 2e-3
    assert couple(peak(p), peak(p), UNIFORM)[0, 0].item() == pytest.approx(coupled, abs=tolerance)


def test_golden_disagreement_and_no_evidence():
    against = couple(peak(0.9, 2), peak(0.9, 5), UNIFORM)
    assert against[0, [2, 5]].tolist() == pytest.approx([0.476, 0.476], abs=5e-4)
    assert couple(peak(0.7), UNIFORM[None], UNIFORM)[0, 0].item() == pytest.approx(0.6944, abs=5e-5)


def test_product_equals_a_slow_reference():
    p_mod, p_img = random_pair()
    prior = torch.tensor([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
    coupled = couple(p_mod, p_img, prior, smoothing=0.05)
    for b in range(len(p_mod)):
        joint = [
            (0.95 * float(m) + 0.05 / 7) * (0.95 * float(i) + 0.05 / 7) / float(pi)
            for m, i, pi in zip(p_mod[b], p_img[b], prior, strict=True)
        ]
        assert coupled[b].tolist() == pytest.approx([j / sum(joint) for j in joint], rel=1e-5)


def test_prior_is_evidence_counted_once():
    """A source that equals the prior changes nothing."""
    prior = torch.tensor([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    p, _ = random_pair()
    torch.testing.assert_close(couple(p, prior.expand_as(p), prior, smoothing=1e-6), p, rtol=1e-3, atol=1e-5)


def test_product_is_symmetric_for_a_uniform_prior_and_a_uniform_source_leaves_the_other():
    p_mod, p_img = random_pair()
    torch.testing.assert_close(couple(p_mod, p_img, UNIFORM), couple(p_img, p_mod, UNIFORM))
    alone = couple(p_mod, UNIFORM.expand_as(p_mod), UNIFORM, smoothing=0.01)
    torch.testing.assert_close(alone, smooth(p_mod, 0.01))
    assert torch.equal(alone.argmax(-1), p_mod.argmax(-1))


def test_other_couplings():
    p_mod, p_img = random_pair()
    m, i = smooth(p_mod, 0.01), smooth(p_img, 0.01)
    expected = {"mean": (m + i) / 2, "agreement": m, "model": m, "image": i}
    for coupling, p in expected.items():
        assert torch.equal(couple(p_mod, p_img, UNIFORM, coupling), p)
        assert not torch.allclose(couple(p_mod, p_img, UNIFORM, "product"), p)
    # A mean is never above its larger source; a product of two that agree is.
    top = torch.maximum(m, i).max(-1).values
    assert (couple(p_mod, p_img, UNIFORM, "mean").max(-1).values <= top).all()


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_couplings_are_probabilities_even_of_contradictions(coupling):
    for pair in (random_pair(), (peak(1.0, 2), peak(1.0, 5))):
        p = couple(*pair, UNIFORM, coupling)
        assert (p > 0).all()
        torch.testing.assert_close(p.sum(-1), torch.ones(len(p)))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_acceptance_needs_confidence_and_of_two_sources_agreement(coupling):
    p_mod = torch.cat([peak(0.9, 2), peak(0.9, 2), peak(0.4, 2)])
    p_img = torch.cat([peak(0.9, 2), peak(0.9, 5), peak(0.4, 2)])
    p_ci = couple(p_mod, p_img, UNIFORM, coupling)
    both = coupling in ("product", "mean", "agreement")
    # At .47 even the product of a contradiction, .476 twice, is confident enough.
    expected = [True, not both, coupling == "product"]
    assert accept(p_ci, p_mod, p_img, 0.47, coupling).tolist() == expected
    assert accept(p_ci, p_mod, p_img, float(p_ci[0].max()), coupling)[0]  # reached at equality
    assert not accept(p_ci, p_mod, p_img, 1.0, coupling).any()


def test_sharpened_coupled_labels_are_no_less_certain():
    p_ci = couple(*random_pair(50), UNIFORM)

    def h(p):
        return -(p * p.log()).sum(-1)

    assert (h(sharpen(p_ci, 0.5)) < h(p_ci)).all()
    torch.testing.assert_close(sharpen(p_ci, 1.0), p_ci)


def slow_evidence(query, bank, label, k, t):
    rows = []
    for u in query:
        d = sorted((float(((u - row) ** 2).sum()), n) for n, row in enumerate(bank))[:k]
        w = torch.tensor([-each / t for each, _ in d]).softmax(0)
        rows.append(sum(w[j] * label[n] for j, (_, n) in enumerate(d)))
    return torch.stack(rows)


@pytest.mark.parametrize("k", [1, 3, 20])
def test_image_evidence_equals_a_slow_reference(k):
    generator = torch.Generator().manual_seed(0)
    query, bank = (torch.rand(n, 12, generator=generator) for n in (5, 8))
    query, bank = (torch.nn.functional.normalize(rows, dim=1) for rows in (query, bank))
    label = torch.rand(8, 7, generator=generator).softmax(-1)
    evidence = image_evidence(query, bank, label, k, 0.1)
    torch.testing.assert_close(evidence, slow_evidence(query, bank, label, k, 0.1), rtol=1e-4, atol=1e-6)
    half = image_evidence(query, bank.half(), label, k, 0.1)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, evidence, rtol=0.02, atol=2e-3)


def test_a_face_of_the_bank_is_its_own_nearest_neighbor():
    bank = torch.nn.functional.normalize(torch.rand(6, 9), dim=1)
    label = torch.eye(7)[:6]
    torch.testing.assert_close(image_evidence(bank, bank, label, 1), label)
    with torch.autocast("cpu", torch.bfloat16):  # which would round every distance here to 0
        near = torch.nn.functional.normalize(bank[:1] + 1e-3 * torch.rand(6, 9), dim=1)
        torch.testing.assert_close(image_evidence(near, near, label, 1), label)


def test_stratified_choice_keeps_the_proportions_and_never_an_unknown():
    label = torch.tensor([0] * 60 + [1] * 30 + [-1] * 20 + [2] * 10)[torch.randperm(120)]
    chosen = stratified(label, 20)
    assert torch.bincount(label[chosen], minlength=3).tolist() == [12, 6, 2]
    assert torch.equal(chosen, stratified(label, 20))
    assert torch.equal(stratified(label, 100), label >= 0)
    assert torch.equal(stratified(label, 4096), label >= 0)
    assert stratified(label, 1).sum() == 1
    assert not stratified(torch.tensor([-1, -1]), 5).any()
