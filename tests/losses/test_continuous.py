import math

import pytest
import torch

from fer_lightning.losses.continuous import concordance, concordance_loss, pearson, squared_error

NAN = math.nan
TRUTH, GUESS = torch.tensor([0.1, 0.4, -0.2, 0.7]), torch.tensor([0.0, 0.5, -0.1, 0.4])


def slow_moments(x, y):
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    var_x, var_y = sum((a - mean_x) ** 2 for a in x) / n, sum((b - mean_y) ** 2 for b in y) / n
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    return mean_x, mean_y, var_x, var_y, covariance


def slow_concordance(x, y):
    mean_x, mean_y, var_x, var_y, covariance = slow_moments(x, y)
    return 2 * covariance / (var_x + var_y + (mean_x - mean_y) ** 2)


def slow_pearson(x, y):
    _, _, var_x, var_y, covariance = slow_moments(x, y)
    return covariance / math.sqrt(var_x * var_y)


def known(prediction, target, column):
    rows = [b for b in range(len(target)) if not math.isnan(float(target[b, column]))]
    return [float(prediction[b, column]) for b in rows], [float(target[b, column]) for b in rows]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    target = 2 * torch.rand(12, 2, generator=generator) - 1
    prediction = (target + 0.5 * torch.randn(12, 2, generator=generator)).tanh()
    target[3, 0], target[5], target[9, 1] = NAN, NAN, NAN  # known: 10 of valence, 10 of arousal
    return prediction, target


def test_golden_values():
    x, y = GUESS[:, None], TRUTH[:, None]
    assert concordance(x, y).item() == pytest.approx(0.833333, abs=1e-6)
    assert pearson(x, y).item() == pytest.approx(0.877058, abs=1e-6)
    assert squared_error(x, y).sqrt().item() == pytest.approx(0.173205, abs=1e-6)


def test_coefficients_equal_the_slow_references(batch):
    prediction, target = batch
    for column in range(2):
        x, y = known(prediction, target, column)
        assert concordance(prediction, target)[column].item() == pytest.approx(
            slow_concordance(x, y), abs=1e-6
        )
        assert pearson(prediction, target)[column].item() == pytest.approx(slow_pearson(x, y), abs=1e-6)


def test_concordance_depends_on_offset_and_scale_and_pearson_does_not():
    y = TRUTH[:, None]
    assert concordance(y, y).item() == pytest.approx(1, abs=1e-6)
    assert concordance(-y, y).item() < 0
    for moved in (y + 0.2, 0.5 * y):
        assert pearson(moved, y).item() == pytest.approx(1, abs=1e-6)
        assert concordance(moved, y).item() < 0.95


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1.0, 1e4])
def test_coefficients_do_not_depend_on_the_unit(scale):
    x, y = torch.tensor([[1.0], [2], [3], [4]]), torch.tensor([[0.1], [0.2], [0.3], [0.4]])
    assert pearson(x * scale, y).item() == pytest.approx(1, abs=1e-6)
    assert pearson(y, x * scale).item() == pytest.approx(1, abs=1e-6)
    guess, truth = GUESS[:, None], TRUTH[:, None]
    expected = slow_concordance(GUESS.tolist(), TRUTH.tolist())
    assert concordance(guess * scale, truth * scale).item() == pytest.approx(expected, rel=1e-5)
    guess = (guess * scale).requires_grad_()
    (concordance(guess, truth * scale) + pearson(guess, truth)).sum().backward()
    assert guess.grad.isfinite().all()
    assert guess.grad.abs().sum() > 0


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3])
@pytest.mark.parametrize("rows", [3, 7, 1000])
def test_rounding_of_the_mean_of_equal_values_is_no_spread(value, rows):
    same = torch.full((rows, 1), value, requires_grad=True)
    varied = torch.linspace(-1, 1, rows)[:, None]
    for other in (varied, torch.full((rows, 1), 0.9), same.detach()):
        assert pearson(same, other).item() == 0
        assert pearson(other, same).item() == 0
        assert concordance(same, other).item() == 0
        (pearson(same, other) + concordance(same, other)).sum().backward()
    assert same.grad.isfinite().all()


def test_a_dimension_without_labels_leaves_the_loss_finite(batch):
    prediction, target = batch
    for column in range(2):
        hidden = target.clone()
        hidden[:, column] = NAN
        guess = prediction.clone().requires_grad_()
        loss = concordance_loss(guess, hidden)
        loss.backward()
        ccc = concordance(prediction, target)[1 - column].item()
        assert loss.item() == pytest.approx(1 - ccc, abs=1e-6)
        assert guess.grad.isfinite().all()
        assert guess.grad[:, column].abs().sum() == 0


def test_squared_error_is_a_mean_over_the_known_values(batch):
    prediction, target = batch
    errors = [(a - b) ** 2 for c in range(2) for a, b in zip(*known(prediction, target, c), strict=True)]
    assert len(errors) == 20
    assert squared_error(prediction, target).item() == pytest.approx(sum(errors) / 20, rel=1e-5)


def test_weighted_squared_error_is_a_mean_over_all_rows(batch):
    prediction, target = batch
    weight = torch.linspace(0, 1, 12)
    total = 0.0
    for b in range(12):
        for c in range(2):
            if not math.isnan(float(target[b, c])):
                total += float(weight[b]) * float(prediction[b, c] - target[b, c]) ** 2
    assert squared_error(prediction, target, weight).item() == pytest.approx(total / 24, rel=1e-5)


def test_concordance_loss_averages_the_dimensions_that_are_known(batch):
    prediction, target = batch
    ccc = concordance(prediction, target)
    assert concordance_loss(prediction, target).item() == pytest.approx(1 - ccc.mean().item(), abs=1e-6)
    target[1:, 1] = NAN  # one label has no concordance
    assert concordance_loss(prediction, target).item() == pytest.approx(1 - ccc[0].item(), abs=1e-6)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_nothing_to_compare_gives_zero_and_a_zero_gradient(rows):
    prediction = torch.rand(rows, 2, requires_grad=True)
    target = torch.full((rows, 2), NAN)
    loss = squared_error(prediction, target) + concordance_loss(prediction, target)
    loss = loss + squared_error(prediction, target, torch.ones(rows)) + pearson(prediction, target).sum()
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(prediction.grad, torch.zeros(rows, 2))


def test_one_known_row_has_an_error_but_no_concordance():
    prediction = torch.tensor([[0.5, 0.0]], requires_grad=True)
    target = torch.tensor([[0.0, NAN]])
    loss = squared_error(prediction, target) + concordance_loss(prediction, target)
    loss.backward()
    assert loss.item() == pytest.approx(0.25)
    assert prediction.grad.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("truth", [0.3, 0.0])
def test_a_batch_without_spread_is_zero_with_a_finite_gradient(truth):
    prediction = torch.full((4, 2), 0.3, requires_grad=True)
    target = torch.full((4, 2), truth)
    (concordance(prediction, target).sum() + pearson(prediction, target).sum()).backward()
    assert concordance(prediction, target).tolist() == [0, 0]
    assert pearson(prediction, target).tolist() == [0, 0]
    assert prediction.grad.isfinite().all()


def test_gradients(batch):
    prediction, target = (part.double() for part in batch)
    prediction.requires_grad_()
    weight = torch.linspace(0, 1, 12).double()
    for loss in (
        lambda x: squared_error(x, target),
        lambda x: squared_error(x, target, weight),
        lambda x: concordance(x, target),
        lambda x: concordance_loss(x, target),
        lambda x: pearson(x, target),
    ):
        assert torch.autograd.gradcheck(loss, prediction)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(batch, dtype):
    prediction, target = batch[0].to(dtype), batch[1]
    for loss in (squared_error, concordance, pearson, concordance_loss):
        value = loss(prediction, target)
        assert value.dtype == torch.float32
        assert torch.equal(value, loss(prediction.float(), target))
