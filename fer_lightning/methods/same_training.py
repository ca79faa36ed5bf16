"""Compare a checkpoint with the method that is to go on with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_lightning.errors import CheckpointError

MAY_DIFFER = {"emotions", "pretrained", "weights", "partial_weights", "compile", "channels_last"}
"""Hyper-parameters that a trained model no longer depends on; its emotions are compared by name."""


def check_same_method(checkpoint: Mapping[str, Any], method: str, hparams: Mapping[str, Any]) -> None:
    """Refuse the checkpoint of another method, or one trained with other hyper-parameters.

    Lightning would take over its weights, optimizer and schedule, and ignore without a word what was asked
    for.

    Args:
        checkpoint: as it was read.
        method: class of the method at hand, with its module.
        hparams: its hyper-parameters.

    Raises:
        CheckpointError: naming what differs.
    """
    name = method.rpartition(".")[2]
    if checkpoint["method"] != method:
        raise CheckpointError(
            f"the checkpoint is of {checkpoint['method'].rpartition('.')[2]}, and the method here is {name}: "
            "give the config.yaml beside the checkpoint",
            option="model",
        )
    theirs = checkpoint.get("hyper_parameters", {})
    differ = [
        key
        for key in theirs.keys() & hparams.keys() - MAY_DIFFER
        if _plain(theirs[key]) != _plain(hparams[key])
    ]
    if differ:
        listed = "; ".join(f"{key} {theirs[key]} there, {hparams[key]} here" for key in sorted(differ))
        raise CheckpointError(
            f"the checkpoint was trained with other options ({listed}): leave them as they were, with the "
            "config.yaml beside the checkpoint, or start anew from its weights to train with others",
            option=f"model.{sorted(differ)[0]}",
        )


def _plain(value: Any) -> Any:
    """Return a value as YAML would give it back."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
