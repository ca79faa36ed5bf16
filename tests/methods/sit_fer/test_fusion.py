import pytest
import torch

from fer_lightning.errors import InputError
from fer_lightning.methods.sit_fer.fusion import Fusion, unit
from fer_lightning.methods.sit_fer.levels import SETTINGS
from fer_lightning.task import Output

SETTING = SETTINGS["rafdb2000"]


def fusion(paper=True, levels=("semantic", "text", "instance"), **options):
    setting = (SETTING.as_in_paper() if paper else SETTING).only(levels)
    temperatures = {"temperature_text": 0.1, "temperature_instance": 0.2} | options
    return Fusion(3, 4, setting, paper, **temperatures, nearest=False, learned=False)


def scores(seed=0):
    return torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(seed))


def test_levels_are_asked_with_features_of_unit_length():
    levels, z = fusion(), torch.zeros(1, 0)
    levels.text.anchors.copy_(torch.eye(3, 4))
    levels.instance.labeled.resize(1)
    levels.instance.labeled.write(torch.tensor([0]), torch.eye(4)[[2]], torch.eye(3)[[2]])
    features, logits = torch.tensor([[0.0, 3.0, 0.0, 4.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    semantic, text, instance = levels(Output(logits, z, features, z, z))
    assert torch.equal(semantic, logits)
    torch.testing.assert_close(text, torch.tensor([[0.0, 6.0, 0.0]]))  # a cosine of 0.6 over 0.1
    torch.testing.assert_close(instance.softmax(-1), torch.tensor([[0.0, 0.0, 1.0]]))


def test_belief_and_answer_of_the_paper_are_means_of_probabilities():
    levels, said = fusion(), scores()
    p = said.softmax(-1)
    for done, expected in ((0.2, p[:2].mean(0)), (0.25, p.mean(0))):
        levels.done.fill_(done)
        torch.testing.assert_close(levels.believe(said), expected)
        torch.testing.assert_close(levels.answer(said), expected)


def test_belief_of_the_code_mixes_logits_and_its_answer_probabilities():
    levels, said = fusion(paper=False), scores()
    levels.done.fill_(1)
    (a, b, c), p = SETTING.w, said.softmax(-1)
    torch.testing.assert_close(levels.believe(said), (a * said[0] + b * said[1] + c * said[2]).softmax(-1))
    torch.testing.assert_close(levels.answer(said), a * p[0] + b * p[1] + c * p[2])
    assert levels.text.temperature == levels.instance.temperature == 1.0
    assert levels.instance.nearest


def test_without_instances_nothing_is_to_be_remembered():
    assert fusion().remembers
    assert fusion(levels=["instance"]).remembers
    assert not fusion(levels=["semantic", "text"]).remembers


@pytest.mark.parametrize("name", ["temperature_text", "temperature_instance"])
def test_a_temperature_of_0_is_refused(name):
    with pytest.raises(InputError, match=name):
        fusion(**{name: 0.0})


def test_how_far_the_run_is_is_saved_and_the_weights_are_not():
    assert "done" in fusion().state_dict()
    assert not {"weights", "tested"} & set(fusion().state_dict())


def test_unit_rows_are_float32():
    rows = unit(torch.tensor([[3.0, 4.0]], dtype=torch.bfloat16))
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8]]))
