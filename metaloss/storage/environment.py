"""What a result depends on besides its settings: versions, the device, the images."""

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
    """Versions and the device, by name.

    numba is among them: compiled loops round in another way than torch does.
    """
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
    """The digest that identifies a set of images, by their rows, in a run's provenance."""
    return hashlib.sha256(rows.sort().values.numpy().tobytes()).hexdigest()


class PoolDigest(TypedDict):
    """The number of a pool's images and a digest of their rows."""

    images: int
    sha256: str


class ImageDigests(TypedDict):
    """The pools of a family's images that a run has used."""

    pools: dict[str, PoolDigest]


class Recorded(TypedDict):
    """What is read again of every `provenance.json`: the conditions at the start and later."""

    conditions: dict[str, str]
    resumed: NotRequired[list[dict[str, str]]]


class Provenance(Recorded):
    """What is read again of a run's, which also says what images it used."""

    data: dict[str, ImageDigests]
    engines: NotRequired[list[dict[str, str]]]
