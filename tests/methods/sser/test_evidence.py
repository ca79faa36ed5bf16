import pytest
import torch
from torch import nn

from fer_lightning.data.batch import Evaluated, Target
from fer_lightning.methods.sser.coupling import image_evidence
from fer_lightning.methods.sser.evidence import Evidence
from fer_lightning.methods.sser.triplet import activation_matrix
from fer_lightning.models.network import FaceNetwork
from fer_lightning.task import Task


class Backbone(nn.Module):
    """One convolution."""

    num_features = 4

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, 4)

    def forward_features(self, x):
        return self.convolution(x).relu()


def network(seed=0):
    torch.manual_seed(seed)
    return FaceNetwork(Backbone(), Task.of("classes", ["anger", "fear", "neutral"]))


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 255, (*shape, 3, 12, 12), dtype=torch.uint8, generator=generator)


LABEL = torch.tensor([0, 0, 1, 2, 2, 2])


def faces():
    """Six labeled faces in two batches, the last of which is filled with indices of -1."""
    pixels, target = images(8), torch.eye(3)[torch.cat([LABEL, LABEL[:2]])]
    index = torch.tensor([0, 1, 2, 3, 4, 5, -1, -1])
    for rows in (slice(0, 4), slice(4, 8)):
        valence_arousal = torch.full((4, 2), torch.nan)
        yield Evaluated(
            pixels[rows], Target(target[rows], valence_arousal), index[rows], torch.full((4,), -1)
        )


def begun(share=0.25, bank_size=100):
    evidence = Evidence(network(), "activation", share, neighbors=2, temperature=0.1, bank_size=bank_size)
    assert not evidence.begun
    evidence.begin(network(1), faces(), LABEL, torch.tensor([0.3, 0.2, 0.5]))
    return evidence


def test_begins_with_a_frozen_copy_and_the_labeled_faces_as_it_encodes_them():
    evidence, frozen = begun(), network(1).eval()
    assert evidence.begun
    with torch.no_grad():
        rows = activation_matrix(frozen.feature_maps(images(8)[:6]))
    torch.testing.assert_close(evidence.bank.rows.float(), rows, rtol=1e-2, atol=1e-3)
    assert torch.equal(evidence.bank.label, torch.eye(3)[LABEL])
    assert evidence.prior.tolist() == pytest.approx([0.3, 0.2, 0.5])
    assert not any(p.requires_grad for p in evidence.parameters())
    evidence.train()
    assert not any(module.training for module in evidence.snapshot.modules())


def test_a_small_bank_keeps_the_proportions_of_the_classes():
    assert begun(bank_size=3).bank.label.argmax(-1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_evidence_of_models_and_images_is_averaged_over_the_views(share):
    evidence, frozen, now = begun(share), network(1).eval(), network(2).eval()
    weak = images(2, 5, seed=3)
    with torch.no_grad():
        p_mod, p_img, valence_arousal = evidence(weak, now)
        models, neighbors = torch.zeros(5, 3), torch.zeros(5, 3)
        for view in weak:
            models += (
                share * frozen(view).logits.softmax(-1) + (1 - share) * now(view).logits.softmax(-1)
            ) / 2
            rows = activation_matrix(frozen(view).maps)
            neighbors += image_evidence(rows, evidence.bank.rows, evidence.bank.label, 2, 0.1) / 2
    torch.testing.assert_close(p_mod, models)
    torch.testing.assert_close(p_img, neighbors)
    assert valence_arousal.shape == (5, 0)
