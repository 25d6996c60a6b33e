"""Pretrained networks without their last layer: torchvision's, and timm's.

Weights are never downloaded here but by `fetch`. What lies in the caches of torch and of Hugging
Face is used after a check, and nothing is unpickled but tensors.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaloss.core import installation, registry
from metaloss.core.reading import open_regular
from metaloss.errors import DataError, SettingsError

KINDS = ("torchvision", "timm")
IMAGENET = 1000  # classes of the last layer
# What torchvision sets where it loads weights into these.
_WITH_WEIGHTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}


@dataclass(frozen=True, eq=False)
class PretrainedNetwork:
    """A network whose output are features.

    Attributes:
        module: from normalised images [N 3 h w] to features [N D].
        transform: from a Pillow image in RGB to a normalised one [3 h w], as its weights want it.
        identity: what decides its features, to be put on record: weights and preprocessing.
    """

    module: nn.Module
    transform: Callable[[Any], Tensor]
    identity: str


def is_network(spec: str) -> bool:
    """Whether a text names a pretrained network."""
    kind, _, name = spec.partition(":")
    return kind in KINDS and bool(name)


def open_network(spec: str) -> PretrainedNetwork:
    """The network that `torchvision:NAME` or `timm:NAME` means.

    Raises:
        SettingsError: there is no such network, or timm is not installed.
        DataError: its weights are not on this machine, or they are damaged; says how to get them.
    """
    kind, _, name = spec.partition(":")
    return _torchvision(name) if kind == "torchvision" else _timm(name)


def fetch(spec: str) -> str:
    """Download the weights of a network, check them, and say what to print.

    Raises:
        SettingsError: there is no such network, or timm is not installed.
        DataError: the download failed, or what came is damaged.
    """
    kind, _, name = spec.partition(":")
    path = _weights_path(name) if kind == "torchvision" else None
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(_weights(name).url, str(path), progress=False)
        else:
            _hub().hf_hub_download(_timm_source(name), "model.safetensors")
    # Downloads raise urllib's, requests' and the hub's own errors.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        where = f"; put {path.name} into {path.parent}" if path else ""
        raise DataError(f"{spec}: the weights cannot be downloaded ({reason}){where}") from None
    open_network(spec)
    return f"{spec}: weights are here"


def _missing(spec: str) -> DataError:
    return DataError(
        f"{spec}: its weights are not on this machine; get them with: metaloss data fetch {spec}"
    )


# --- torchvision ---


def _torchvision(name: str) -> PretrainedNetwork:
    import torchvision

    weights = _weights(name)
    path = _weights_path(name)
    if not path.is_file():
        raise _missing(f"torchvision:{name}")
    digest = checked_digest(path)
    extra = dict(_WITH_WEIGHTS.get(name, {}))
    if name.startswith("vit_"):
        extra["image_size"] = weights.meta["min_size"][0]
    module = torchvision.models.get_model(name, weights=None, **extra)
    try:
        module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: found no weights of {name} ({reason}); delete the file") from None
    remove_head(module)
    transform = weights.transforms()
    return PretrainedNetwork(module.eval(), transform, f"{name} {digest} {transform!r}")


def _weights(name: str) -> Any:
    """What torchvision says of a network's best weights."""
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise SettingsError(
            f"features: {registry.unknown_message('network of torchvision', name, known)}"
        )
    return torchvision.models.get_model_weights(name).DEFAULT


def _weights_path(name: str) -> Path:
    """Where torch keeps a network's weights."""
    file = str(_weights(name).url).rpartition("/")[2]
    return Path(torch.hub.get_dir()) / "checkpoints" / file


def checked_digest(path: Path) -> str:
    """The SHA-256 of a file of weights.

    Raises:
        DataError: it does not begin as the file's name says, so the file is damaged.
    """
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    expected = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if expected and not digest.startswith(expected[1]):
        raise DataError(
            f"{path}: is damaged: its SHA-256 is {digest[:10]}…, expected {expected[1]}…; "
            "delete it, then fetch it again"
        )
    return digest


def remove_head(module: nn.Module) -> None:
    """Replace every layer that gives ImageNet's classes by one that lets its input through."""
    for name, layer in list(module.named_modules()):
        linear = isinstance(layer, nn.Linear) and layer.out_features == IMAGENET
        if linear or (isinstance(layer, nn.Conv2d) and layer.out_channels == IMAGENET):
            parent = module.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], nn.Identity())


# --- timm ---


def _timm(name: str) -> PretrainedNetwork:
    timm = _package("timm")
    source = _timm_source(name)
    path = _hub().try_to_load_from_cache(source, "model.safetensors")
    if not isinstance(path, str):
        raise _missing(f"timm:{name}")
    with open_regular(Path(path)) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # From this file: nothing is asked of the network.
    overlay = {"file": path}
    module = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    config = timm.data.resolve_model_data_config(module)
    transform = timm.data.create_transform(**config, is_training=False)
    return PretrainedNetwork(module.eval(), transform, f"{name} {digest} {transform!r}")


def _timm_source(name: str) -> str:
    """The place on the hub where a network's weights lie."""
    timm = _package("timm")
    # A name without a tag means timm's usual weights.
    if not timm.models.is_model_pretrained(name):
        guess = registry.nearest(name, timm.list_models(pretrained=True))
        raise SettingsError(
            f"features: unknown pretrained network of timm '{name}'.{guess}  "
            "(timm.list_models(pretrained=True))"
        )
    about = timm.models.get_pretrained_cfg(name)
    if not about.hf_hub_id:
        raise SettingsError(f"features: timm has no weights of {name} on the hub")
    return str(about.hf_hub_id)


def _hub() -> Any:
    return _package("huggingface_hub")


def _package(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise SettingsError(
            f"features: timm:NAME needs timm: {installation.command('timm')}"
        ) from None
