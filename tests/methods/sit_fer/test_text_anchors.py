import json
import os
import sys
import types

import pytest
import torch
import yaml
from every import EXPERIMENTS

from fer_lightning.emotions import BASIC_7, BASIC_8
from fer_lightning.errors import InputError
from fer_lightning.methods.sit_fer import text_anchors as module
from fer_lightning.methods.sit_fer.text_anchors import PROMPT, isometry, text_anchors

SEVEN = BASIC_7.emotions


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "cache"))


def cosines(anchors):
    torch.testing.assert_close(anchors.norm(dim=-1), torch.ones(len(anchors)))
    return (anchors @ anchors.T)[~torch.eye(len(anchors), dtype=torch.bool)]


@pytest.mark.parametrize("width", [6, 16, 512])
def test_simplex_puts_all_emotions_equally_far_apart(width):
    torch.testing.assert_close(cosines(text_anchors("simplex", SEVEN, width)), torch.full((42,), -1 / 6))


def test_simplex_uses_all_features():
    anchors = text_anchors("simplex", SEVEN, 512)
    assert (anchors.abs().amax(0) > 1e-3).float().mean() > 0.95


def test_random_anchors_are_alike_and_always_the_same():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    anchors = text_anchors("random", SEVEN, 512)
    assert torch.equal(torch.get_rng_state(), before)  # the run's own draws stay what they were
    found = cosines(anchors)
    assert found.min() > 0.5
    assert found.max() < 0.95
    assert torch.equal(anchors, text_anchors("random", SEVEN, 512))
    torch.testing.assert_close(cosines(text_anchors("random", SEVEN, 16)), found, rtol=0, atol=1e-5)


def test_isometry_keeps_every_scalar_product_at_any_width_that_suffices():
    rows = torch.randn(5, 40)
    for width in (5, 17, 40, 300):
        torch.testing.assert_close(
            isometry(rows, width) @ isometry(rows, width).T, rows @ rows.T, rtol=1e-4, atol=1e-4
        )
    assert isometry(rows, 40) is rows
    with pytest.raises(InputError, match=r"4 features .* 5 directions"):
        isometry(rows, 4)


def test_centred_anchors_have_no_mean():
    anchors = text_anchors("random", SEVEN, 512, center=True)
    assert cosines(anchors).mean() < 0.05
    assert cosines(text_anchors("random", SEVEN, 512)).mean() > 0.5


# open_clip, with a tiny model of random weights in a local folder or file

TINY_CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 8, "layers": 1, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    clip = open_clip.create_model(f"local-dir:{folder}").eval()
    torch.save(clip.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def expected(folder, sentences):
    import open_clip

    model = f"local-dir:{folder}"
    clip = open_clip.create_model(model).eval()
    with torch.no_grad():
        return clip.encode_text(open_clip.get_tokenizer(model)(sentences), normalize=True)


def test_open_clip_encodes_the_paper_s_prompt(clip_folder):
    anchors = text_anchors("open_clip", ["anger", "fear"], 12, model=f"local-dir:{clip_folder}")
    torch.testing.assert_close(
        anchors, expected(clip_folder, ["A face image of angry", "A face image of fear"])
    )


def test_prompts_and_phrases_are_averaged_at_unit_length(clip_folder):
    anchors = text_anchors(
        "open_clip",
        ["anger", "fear"],
        12,
        model=f"local-dir:{clip_folder}",
        prompts=["a {expression} face", "{expression}!"],
        phrases={"anger": ["angry", "furious"]},
    )
    anger = ["a angry face", "a furious face", "angry!", "furious!"]
    for row, sentences in zip(anchors, (anger, ["a fear face", "fear!"]), strict=True):
        mean = expected(clip_folder, sentences).mean(0)
        torch.testing.assert_close(row, mean / mean.norm())


def test_narrower_text_keeps_its_cosines_in_wider_features(clip_folder):
    of = {"model": f"local-dir:{clip_folder}"}
    torch.testing.assert_close(
        cosines(text_anchors("open_clip", SEVEN, 64, **of)),
        cosines(text_anchors("open_clip", SEVEN, 12, **of)),
        rtol=0,
        atol=1e-5,
    )


def test_weights_from_a_file_of_a_known_model(clip_folder, monkeypatch, tmp_path):
    import open_clip

    config = tmp_path / "tiny-clip-of-the-tests.json"
    config.write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(config)
    file = str(clip_folder / "open_clip_pytorch_model.bin")
    anchors = text_anchors("open_clip", SEVEN, 12, model=config.stem, pretrained=file)
    assert torch.equal(anchors, text_anchors("open_clip", SEVEN, 12, model=f"local-dir:{clip_folder}"))


def test_embeddings_are_encoded_once_for_each_model_prompt_and_emotions(clip_folder, monkeypatch, tmp_path):
    of = {"model": f"local-dir:{clip_folder}"}
    first = text_anchors("open_clip", SEVEN, 12, **of)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_open_clip", None)  # would be called
        assert torch.equal(text_anchors("open_clip", SEVEN, 12, **of), first)
    for other in ({"prompts": ["{expression}"]}, {"phrases": {"fear": ["afraid"]}}):
        assert not torch.equal(text_anchors("open_clip", SEVEN, 12, **of, **other), first)
    assert text_anchors("open_clip", BASIC_8.emotions, 12, **of).shape == (8, 12)
    files = sorted((tmp_path / "cache/text_anchors").iterdir())
    assert [file.suffix for file in files] == [".pt"] * 4
    assert all(set(torch.load(file, weights_only=True)) == {"embedding", "of"} for file in files)
    for file in files:
        file.write_bytes(b"cut off")
    assert torch.equal(text_anchors("open_clip", SEVEN, 12, **of), first)
    # Other weights under the same name are another model, even if they have the same size and time.
    weights = torch.load(clip_folder / "open_clip_pytorch_model.bin", weights_only=True)
    for name in ("one", "two"):
        torch.save(
            {k: v + (name == "two") * torch.randn_like(v) for k, v in weights.items()}, tmp_path / name
        )
    config = tmp_path / "another-tiny-clip.json"
    config.write_text(json.dumps(TINY_CLIP))
    sys.modules["open_clip"].add_model_config(config)
    file = tmp_path / "weights.bin"
    rows = []
    for name in ("one", "two"):
        (tmp_path / name).replace(file)
        os.utime(file, (0, 0))
        rows.append(text_anchors("open_clip", SEVEN, 12, model=config.stem, pretrained=str(file)))
    assert torch.equal(rows[0], first)
    assert not torch.equal(rows[1], first)


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({}, r"ViT-B-32-quickgelu, pretrained openai.*text_encoder.pretrained the file.*simplex"),
        ({"pretrained": "nowhere.pt"}, r"nowhere.pt.*Tags of the model: openai"),
        ({"model": "no-model"}, r"no-model.*simplex and random need no weights"),
        ({"model": "local-dir:nowhere"}, r"nowhere.*open_clip_config.json"),
        ({"prompts": ["a face"]}, r"prompts of text_encoder .*\{expression\}"),
        ({"prompts": []}, r"prompts of text_encoder"),
        ({"phrases": {"joy": ["glad"]}}, r"phrases of text_encoder name \['joy'\]"),
    ],
)
def test_what_cannot_be_loaded_is_named(of, message, monkeypatch):
    pytest.importorskip("open_clip")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=message):
        text_anchors("open_clip", SEVEN, 64, **of)


def test_folder_without_weights_is_refused(tmp_path):
    pytest.importorskip("open_clip")
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": {}})
    )
    with pytest.raises(InputError, match="could not be loaded"):
        text_anchors("open_clip", SEVEN, 64, model=f"local-dir:{tmp_path}")


def test_missing_packages_are_named(monkeypatch, tmp_path):
    for name in ("open_clip", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install open_clip_torch"):
        text_anchors("open_clip", SEVEN, 64)
    with pytest.raises(InputError, match="pip install sentence-transformers"):
        text_anchors("sentence", SEVEN, 64, model=str(tmp_path))
    monkeypatch.setattr(module, "SENTENCE_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="pip install no-such-package"):
        text_anchors("sentence", SEVEN, 64)
    with pytest.raises(InputError, match="nowhere is not the folder"):
        text_anchors("sentence", SEVEN, 64, model="nowhere")


def test_sentence_encoder_from_a_folder(monkeypatch, tmp_path):
    class SentenceTransformer:
        """Encodes a sentence by its letters."""

        def __init__(self, folder, device):
            assert (folder, device) == (str(tmp_path), "cpu")

        def encode(self, sentences, convert_to_tensor, show_progress_bar):
            assert convert_to_tensor
            assert not show_progress_bar
            return torch.tensor([[s.count(chr(i)) for i in range(97, 123)] for s in sentences]).float()

    fake = types.SimpleNamespace(SentenceTransformer=SentenceTransformer)
    monkeypatch.setitem(sys.modules, "sentence_transformers", fake)
    anchors = text_anchors("sentence", ["anger", "fear"], 26, model=str(tmp_path))
    letters = [sum(c == "e" for c in PROMPT.replace("{expression}", word)) for word in ("angry", "fear")]
    assert (anchors[:, 4] > 0).all()
    ratio = anchors[:, 4] / anchors[:, 5]  # of e to f, whatever the length
    torch.testing.assert_close(ratio, torch.tensor([letters[0] / 2, letters[1] / 3]))


def test_packaged_sentence_encoder():
    pytest.importorskip("sentence_transformers")
    pytest.importorskip(module.SENTENCE_PACKAGE)
    anchors = text_anchors("sentence", SEVEN, 384)
    angry, happy, sad = (anchors[SEVEN.index(e)] for e in ("anger", "happiness", "sadness"))
    assert angry @ sad > angry @ anchors[SEVEN.index("surprise")]
    assert 0 < happy @ sad < 1


def test_one_prompt_or_phrase_needs_no_list():
    listed = module._sentences(["fear"], ["a {expression} face"], {"fear": ["scared"]})
    assert module._sentences(["fear"], "a {expression} face", {"fear": "scared"}) == listed
    assert listed == [["a scared face"]]


def test_prompt_files_name_emotions_and_hold_templates():
    files = sorted((EXPERIMENTS / "prompts").glob("*.yaml"))
    assert files
    for file in files:
        of = yaml.safe_load(file.read_text())["model"]["init_args"]["text_encoder"]
        sentences = module._sentences(SEVEN, of["prompts"], of["phrases"])
        assert len({len(each) for each in sentences}) == 1  # every emotion is averaged over as many
