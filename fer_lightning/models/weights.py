"""Load the weights of a backbone from a file of any usual layout, and report what matched."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fer_lightning.errors import InputError

log = logging.getLogger(__name__)

OPTION = "model.weights"

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "teacher", "ema")
_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "student.", "teacher.", "_orig_mod.")


class WeightsError(InputError):
    """A weight file is missing, unreadable or does not fit the network."""


def load_weights(network: nn.Module, path: str | Path, partial: bool = False) -> str:
    """Copy every tensor of the file whose name and shape fit into the network.

    Understands plain state dicts (``.pth``, ``.pt``, ``.tar``, ``.ckpt``, ``.safetensors``), the usual
    containers (``state_dict``, ``model`` ...) and the usual prefixes (``module.``, ``backbone.`` ...), alone
    or stacked.

    Args:
        network: filled in place.
        path: read with ``weights_only=True``: a file that carries code is refused.
        partial: accept a file from which fewer than half of the network's tensors are loaded, as long as
            one is.

    Returns:
        A sentence with the number of tensors that matched, were missing in the file and were left over; also
        logged.

    Raises:
        WeightsError: if the file is missing or unreadable, if nothing in it matches, or if less than half of
            the network does and ``partial`` is false; nothing is loaded then. Names the option ``weights``.
    """
    path = Path(path)
    found = {_bare(name): tensor for name, tensor in _tensors(path).items()}
    wanted = network.state_dict()
    matched = {name: found[name] for name, tensor in wanted.items() if _fits(found.get(name), tensor)}
    if not any(value.ndim for value in matched.values()):
        raise WeightsError(
            f"{path}: none of its {len(found)} tensors fits the network's {len(wanted)}.\n"
            f"  the file has   {', '.join(sorted(found)[:4])} ...\n"
            f"  the network has {', '.join(sorted(wanted)[:4])} ...\n"
            "Check that the file is of this backbone, and of its stem and in_channels.",
            option=OPTION,
        )
    misshapen = sorted(name for name in wanted if name in found and name not in matched)
    lacking = sorted(set(wanted) - set(found))
    left_over = sorted(set(found) - set(wanted))
    report = f"{path}: {len(matched)} of {len(wanted)} tensors loaded"
    for what, names in (
        ("of another shape", misshapen),
        ("not in the file", lacking),
        ("left over", left_over),
    ):
        if names:
            report += f"; {len(names)} {what} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
    # Counted without the counters of batches, which every batch norm of every network has and which fit.
    weights = [name for name, tensor in wanted.items() if tensor.ndim]
    if not partial and 2 * sum(name in matched for name in weights) < len(weights):
        raise WeightsError(
            f"{report}. That is less than half of the network: check that the file is of this backbone, or "
            "set partial_weights to true",
            option=OPTION,
        )
    network.load_state_dict(matched, strict=False)
    log.info(report)
    return report


def _fits(found: Tensor | None, wanted: Tensor) -> bool:
    return found is not None and found.shape == wanted.shape


def _tensors(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; weights is the path of a file of weights", option=OPTION)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path} cannot be read as weights: {error}", option=OPTION) from error
    for container in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    named = content.items() if isinstance(content, Mapping) else ()
    tensors = {name: value for name, value in named if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name, so it is not a state dict", option=OPTION)
    return tensors


def _bare(name: str) -> str:
    while prefix := next((p for p in _PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name
