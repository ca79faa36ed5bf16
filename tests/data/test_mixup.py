import math

import pytest
import torch

from fer_lightning.data.mixup import beta_share, mix


def test_hand_computed():
    images = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    mixed = mix(images, torch.tensor(0.75), torch.tensor([1, 2, 0]))
    torch.testing.assert_close(mixed, torch.tensor([[0.25, 0.75], [0.875, 0.125], [0.375, 0.625]]))


def test_equals_the_slow_reference_on_images():
    torch.manual_seed(0)
    images, order, share = torch.rand(5, 3, 4, 4), torch.randperm(5), torch.tensor(0.6)
    mixed = mix(images, share, order)
    for i in range(5):
        torch.testing.assert_close(mixed[i], 0.6 * images[i] + 0.4 * images[order[i]])


def test_targets_stay_distributions_and_unknown_ones_stay_unknown():
    targets = torch.rand(4, 3).softmax(-1)
    targets[2] = math.nan
    mixed = mix(targets, torch.tensor(0.5), torch.tensor([2, 0, 1, 3]))
    assert mixed.isnan().any(-1).tolist() == [True, False, True, False]
    torch.testing.assert_close(mixed[[1, 3]].sum(-1), torch.ones(2))


def test_share_of_one_changes_nothing():
    rows = torch.rand(4, 2)
    assert torch.equal(mix(rows, torch.tensor(1.0), torch.tensor([3, 2, 1, 0])), rows)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 4.0])
def test_share_is_of_the_larger_part_and_follows_the_distribution(alpha):
    torch.manual_seed(0)
    shares = torch.stack([beta_share(alpha) for _ in range(2000)])
    assert shares.shape == (2000,)
    assert 0.5 <= shares.min() < shares.max() <= 1
    reference = torch.distributions.Beta(alpha, alpha).sample((20000,))
    expected = torch.maximum(reference, 1 - reference)
    assert shares.mean().item() == pytest.approx(expected.mean().item(), abs=0.01)
    assert shares.std().item() == pytest.approx(expected.std().item(), abs=0.01)


def test_share_follows_the_seed():
    torch.manual_seed(5)
    first = beta_share(0.5), beta_share(0.5)
    torch.manual_seed(5)
    assert (beta_share(0.5), beta_share(0.5)) == first
    assert first[0] != first[1]
