import math

import pytest
import torch
from torch import nn

from fer_lightning.data.batch import Target
from fer_lightning.data.mixup import mix
from fer_lightning.losses.classification import soft_cross_entropy
from fer_lightning.methods.scl_uerm_arm.uncertainty import (
    EntropyHead,
    ImportanceHead,
    RelativeHead,
    mixed_with_partners,
    relative_share,
    uncertain_head,
)
from fer_lightning.task import Output, Task

BOTH = Task.of("both", "basic7")


def output(head, features):
    logits, valence_arousal = BOTH.split(head(features))
    return Output(logits, valence_arousal, features, features, features[:, :0])


def test_importance_golden_values():
    """Three faces; the importance is made 0.9, 0.4 and 0.3 by features of their own."""
    z = torch.tensor([[2.0, 1, 0], [2, 1.8, 0], [0, 3, 0]])
    a = torch.tensor([0.9, 0.4, 0.3])
    head = ImportanceHead(4, 3, classes=3)
    with torch.no_grad():
        head.classify.weight.copy_(torch.eye(3, 4))
        head.importance.weight.copy_(torch.tensor([[0.0, 0, 0, 1]]))
        head.classify.bias.zero_()
        head.importance.bias.zero_()
    features = torch.cat([z, a.logit()[:, None]], 1)
    weighted = head(features)
    golden = [[0.6362, 0.2587, 0.1052], [0.4215, 0.3891, 0.1894], [0.2242, 0.5515, 0.2242]]
    torch.testing.assert_close(weighted.softmax(-1), torch.tensor(golden), atol=6e-5, rtol=0)
    y = torch.eye(3)[torch.tensor([0, 1, 0])]
    assert soft_cross_entropy(weighted, y).item() == pytest.approx(0.963749, abs=2e-6)
    torch.testing.assert_close(head.certainty(Output(weighted, z, features, z, z)), a)


def test_importance_sharpens_and_leaves_the_likeliest_emotion_and_valence_arousal():
    head, features = ImportanceHead(5, 9, classes=7), torch.randn(20, 5)
    raw = head.classify(features)
    out = head(features)
    assert torch.equal(out[:, :7].argmax(1), raw[:, :7].argmax(1))
    assert torch.equal(out[:, 7:], raw[:, 7:])
    assert (out[:, :7].abs() < raw[:, :7].abs()).all()


def test_relative_share_golden_values():
    mu, s = torch.tensor([[1.0, 0], [0, 2]]), torch.tensor([0.2, 0.6])
    order = torch.tensor([1, 0])
    share = relative_share(-s.log(), order)
    torch.testing.assert_close(share, torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(mix(mu, share[:, None], order), torch.tensor([[0.25, 1.5], [0.25, 1.5]]))


def test_mixing_logits_is_mixing_means():
    head, order = RelativeHead(5, 7).eval(), torch.randperm(6)
    features = torch.randn(6, 5)
    share = relative_share(head.certainty(output(head, features)), order)[:, None]
    of_means = head.classify(mix(head.mu(features), share, order))
    torch.testing.assert_close(mix(head(features), share, order), of_means)


def test_relative_certainty_is_of_the_mean_variance():
    head, features = RelativeHead(5, 9).eval(), torch.randn(6, 5)
    s = head.log_variance(features).exp().mean(-1)
    torch.testing.assert_close(head.certainty(output(head, features)), -s.log())


def test_entropy_certainty():
    head = EntropyHead(5, 9)
    logits = torch.zeros(3, 7)
    logits[1, 0], logits[2, :2] = 100.0, 100.0
    certainty = head.certainty(Output(logits, logits, logits, logits, logits))
    torch.testing.assert_close(
        certainty, torch.tensor([0.0, 1.0, 1 - math.log(2) / math.log(7)]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("uncertainty", "kind"),
    [("scn", ImportanceHead), ("rul", RelativeHead), ("entropy", EntropyHead), ("none", nn.Linear)],
)
def test_heads_by_name(uncertainty, kind):
    head = uncertain_head(uncertainty, 5, BOTH)
    assert type(head) is kind
    out = output(head, torch.randn(4, 5))
    assert out.logits.shape == (4, 7)
    assert out.valence_arousal.shape == (4, 2)
    if uncertainty != "none":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            certainty = head.certainty(out)
        assert certainty.shape == (4,)
        assert certainty.dtype == torch.float32
        assert certainty.requires_grad


def test_mixtures_have_the_share_of_the_uncertain_and_half_of_each_target():
    torch.manual_seed(0)
    logits, certainty = torch.randn(6, 3), torch.randn(6)
    target = Target(torch.eye(3).repeat(2, 1), torch.full((6, 2), torch.nan))
    torch.manual_seed(4)
    mixed, learnt = mixed_with_partners(Output(logits, logits, logits, logits, logits), target, certainty)
    torch.manual_seed(4)
    order = torch.randperm(6)
    assert (order != torch.arange(6)).any()
    for i, j in enumerate(order.tolist()):
        s_i, s_j = (-certainty[i]).exp(), (-certainty[j]).exp()
        share = s_i / (s_i + s_j)
        torch.testing.assert_close(mixed.logits[i], share * logits[i] + (1 - share) * logits[j])
        torch.testing.assert_close(learnt.emotion[i], (target.emotion[i] + target.emotion[j]) / 2)
    assert torch.equal(mixed.features, logits)
