import torch

from fer_lightning.methods.sit_fer.fusion import Fusion, unit
from fer_lightning.methods.sit_fer.levels import SETTINGS
from fer_lightning.task import Output

SETTING = SETTINGS["rafdb2000"]


def fusion(paper=True, levels=("semantic", "text", "instance"), **options):
    setting = (SETTING.as_in_paper() if paper else SETTING).only(levels)
    temperatures = {"text_temperature": 0.1, "instance_temperature": 0.2} | options
    return Fusion(3, 4, setting, paper, **temperatures, nearest=False, learned=False)


def scores(seed=0):
    return torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(seed))


def test_levels_get_features_of_unit_length():
    levels, none = fusion(), torch.zeros(1, 0)
    levels.text.anchors.copy_(torch.eye(3, 4))
    levels.instance.labeled.resize(1)
    levels.instance.labeled.write(torch.tensor([0]), torch.eye(4)[[2]], torch.eye(3)[[2]])
    features, logits = torch.tensor([[0.0, 3.0, 0.0, 4.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    semantic, text, instance = levels(Output(logits, none, features, none))
    assert torch.equal(semantic, logits)
    torch.testing.assert_close(text, torch.tensor([[0.0, 6.0, 0.0]]))  # a cosine of 0.6 over 0.1
    torch.testing.assert_close(instance.softmax(-1), torch.tensor([[0.0, 0.0, 1.0]]))


def test_p_hat_and_prediction_of_the_paper_are_means_of_probabilities():
    levels, logits = fusion(), scores()
    p = logits.softmax(-1)
    for done, expected in ((0.2, p[:2].mean(0)), (0.25, p.mean(0))):
        levels.progress.fill_(done)
        torch.testing.assert_close(levels.p_hat(logits), expected)
        torch.testing.assert_close(levels.predict(logits), expected)


def test_p_hat_of_the_code_mixes_logits_and_its_prediction_probabilities():
    levels, logits = fusion(paper=False), scores()
    levels.progress.fill_(1)
    (a, b, c), p = SETTING.weights, logits.softmax(-1)
    torch.testing.assert_close(
        levels.p_hat(logits), (a * logits[0] + b * logits[1] + c * logits[2]).softmax(-1)
    )
    torch.testing.assert_close(levels.predict(logits), a * p[0] + b * p[1] + c * p[2])
    assert levels.text.temperature == levels.instance.temperature == 1.0
    assert levels.instance.nearest


def test_without_the_instance_level_there_is_no_memory():
    assert fusion().remembers
    assert fusion(levels=["instance"]).remembers
    assert not fusion(levels=["semantic", "text"]).remembers


def test_progress_is_saved_and_the_weights_are_not():
    assert "progress" in fusion().state_dict()
    assert not {"weights", "test_weights"} & set(fusion().state_dict())


def test_unit_rows_are_float32():
    rows = unit(torch.tensor([[3.0, 4.0]], dtype=torch.bfloat16))
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8]]))
