"""What a result depends on besides its settings: versions, device, images."""

import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import NotRequired

import torch
from jaxtyping import Int
from torch import Tensor
from typing_extensions import TypedDict

from metaloss import kernels
from metaloss._version import __version__


def describe_environment(
    device: torch.device, packages: Sequence[str] = ("torch", "numpy")
) -> dict[str, str]:
    """Versions and the device; also whether loops are compiled, which rounds otherwise."""
    kind = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.backends.cpu.get_cpu_capability()
    )
    names = {
        "metaloss": __version__,
        "python": platform.python_version(),
        "device": f"{device.type} {kind}",
    }
    return {**names, **{name: version(name) for name in packages}, "numba": kernels.compiler()}


def digest_of_rows(rows: Int[Tensor, " N"]) -> str:
    """What stands for a set of images in a run's provenance."""
    return hashlib.sha256(rows.sort().values.numpy().tobytes()).hexdigest()


class PoolDigest(TypedDict):
    """Images of a pool, by their number and a digest."""

    images: int
    sha256: str


class ImageDigests(TypedDict):
    """What a run has seen of a family's images."""

    pools: dict[str, PoolDigest]


class Provenance(TypedDict):
    """What is needed of a run's `provenance.json`."""

    conditions: dict[str, str]
    resumed: NotRequired[list[dict[str, str]]]
    data: dict[str, ImageDigests]
