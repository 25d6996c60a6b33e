"""Is everything here that metaloss needs, and if not, what to do about it."""

import importlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from metaloss import kernels
from metaloss._version import __version__
from metaloss.core import installation
from metaloss.core.formatting import counted
from metaloss.data import datasets
from metaloss.errors import MetalossError
from metaloss.kernels import cache

LEARN2LEARN = 'pip install --config-settings="--build-option=build_ext" learn2learn==0.2.0'


@dataclass(frozen=True)
class CheckResult:
    """One thing looked at; `advice` is empty where nothing needs doing."""

    name: str
    found: str
    advice: str = ""
    fatal: bool = False


def examine() -> list[CheckResult]:
    """Versions, device, torchvision, data sets and optional extras."""
    threads = torch.get_num_threads()
    return [
        CheckResult("metaloss", __version__),
        CheckResult("python", platform.python_version()),
        CheckResult("torch", torch.__version__, *_old_torch()),
        _torchvision(),
        CheckResult(
            "cpu",
            f"{counted(threads, 'thread')}, {torch.backends.cpu.get_cpu_capability()}",
        ),
        _gpu(),
        *(_optional(name, advice) for name, advice in _OPTIONAL.items()),
        *([_cluster()] if find_spec("ray") else []),
        *([_compiled_code()] if kernels.available() else []),
        *(_data(name) for name in datasets.names() if name not in ("file", "folder")),
    ]


EXTRAS = ("fast", "train", "tensorboard", "pcam", "timm", "rivals", "ray")
_OPTIONAL = {  # with the line that installs an extra in place of its name
    "numba": "for faster searches on a CPU: {fast}",
    "lightning": "for full-size training, metaloss train: {train}",
    "tensorboard": "for metaloss train --tensorboard: {tensorboard}",
    "h5py": "for the data set pcam: {pcam}",
    "timm": "for features of its pretrained networks: {timm}",
    "sklearn": "for the data set digits, and for what compare sets beside losses: {rivals}",
    "ray": "for searches on many machines, --engine ray: {ray}",
    "learn2learn": f"in an environment of its own, as it needs numpy below 2: {LEARN2LEARN}",
}


def _old_torch() -> tuple[str, bool]:
    # Two numbers are enough: a local version such as 2.11.0+cpu does not end in one.
    major, minor = (int(x) for x in torch.__version__.split(".")[:2])
    return (
        ("", False)
        if (major, minor) >= (2, 11)
        else ("2.11 or newer is needed: pip install -U torch torchvision", True)
    )


def _torchvision() -> CheckResult:
    try:
        module = importlib.import_module("torchvision")
    except Exception as error:  # a torchvision built for another torch fails in many ways
        advice = "install both together and from one index: pip install torch torchvision"
        return CheckResult(
            "torchvision",
            f"does not import: {str(error).splitlines()[0] if str(error) else error!r}",
            advice,
            True,
        )
    return CheckResult("torchvision", str(module.__version__))


def _gpu() -> CheckResult:
    if torch.cuda.is_available():
        return CheckResult("gpu", torch.cuda.get_device_name())
    return CheckResult(
        "gpu", "none", "not needed; with one, --device cuda runs the whole search on it"
    )


def _optional(name: str, advice: str) -> CheckResult:
    try:
        # The name to install is not always the name to import.
        return CheckResult(name, version({"sklearn": "scikit-learn"}.get(name, name)))
    except PackageNotFoundError:
        lines = {extra: installation.command(extra) for extra in EXTRAS}
        return CheckResult(name, "not installed", advice.format(**lines))


def _cluster() -> CheckResult:
    """The Ray cluster that this machine belongs to."""
    from metaloss.engines.ray_session import cluster_in_words

    try:
        return CheckResult("ray cluster", cluster_in_words())
    except MetalossError:
        return CheckResult(
            "ray cluster", "none here", "not needed; --engine ray starts one for its own time"
        )


def _compiled_code() -> CheckResult:
    """Where compiled loops are kept between commands."""
    try:
        cache.entry()
        place = cache.folder()
    except cache.Unusable as error:
        advice = (
            "set METALOSS_CACHE to a folder that can be written: every command compiles its "
            "loops anew"
        )
        return CheckResult("compiled code", f"not kept: {error}", advice)
    return CheckResult("compiled code", f"{place}, {cache.size(place) / 1e6:.1f} MB")


def _data(name: str) -> CheckResult:
    try:
        data = datasets.scenes(name) or datasets.files(name) or datasets.load(name)
        return CheckResult(f"data {name}", data.origin)
    except MetalossError as error:
        return CheckResult(f"data {name}", "not here", str(error))
