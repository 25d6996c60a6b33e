"""What does chunks and trainings in a process of its own; the process that asks holds all state."""

import hashlib
import os
import pickle
import platform
import signal
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

import metaloss
from metaloss.core import plugins
from metaloss.engines.blocks import Chunk, Column, bound_tasks
from metaloss.engines.isolation import result_or_error
from metaloss.engines.threads import one_torch_thread
from metaloss.engines.transfer import loads
from metaloss.errors import DataWarning, Interrupted, SettingsError, out_of_memory
from metaloss.inner.classifiers import Bound
from metaloss.storage.environment import describe_environment

READY = 2  # columns that a worker keeps made ready
PACKAGES = ("torchvision", "lightning", "timm")  # that full trainings depend on, where installed

# What a call gives: seconds of work and a result or error for each piece; or why there is none.
Answer = tuple[float, list[Any]] | Exception


class Dropped(Exception):
    """The call was cancelled."""


class Worker:
    """Does chunks of episodes, and full trainings; one call at a time.

    Args:
        device: "cpu" or "cuda".
        tf32: let a GPU multiply with mantissas of 10 bits instead of 23.
        folders: of the user's own parts, which must lie there on this machine, too.
    """

    def __init__(self, device: str, tf32: bool, folders: Sequence[str]) -> None:
        self.device = torch.device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        warnings.simplefilter("ignore", DataWarning)  # who asks has said them
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is not for a worker to hear
        # Whoever starts it may hold the folders open; here they stay for good.
        if folders:
            os.environ[plugins.VARIABLE] = os.pathsep.join(folders)
            plugins.make_importable()
        self.tensors: dict[int, Tensor] = {}
        self.ready: OrderedDict[str, tuple[Column, Bound]] = OrderedDict()
        self.families: dict[bytes, Any] = {}
        self.cancelled: set[int] = set()

    def describe(self) -> dict[str, str]:
        """What must be the same for results to be."""
        return conditions(self.device)

    def place(self) -> str:
        """The machine and process, for messages."""
        return f"{platform.node()} (pid {os.getpid()})"

    def load(self, number: int, array: Shaped[np.ndarray, "..."]) -> None:
        """Keep the images that chunks call by this number."""
        with warnings.catch_warnings():
            # It may lie in memory that processes share, and is only read.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.tensors[number] = torch.from_numpy(array).to(self.device)

    def forget(self, numbers: Sequence[int]) -> None:
        """Drop images that nobody will call any more."""
        for number in numbers:
            self.tensors.pop(number, None)

    def cancel(self, call: int) -> None:
        """Drop a call after its next step; may be called by another thread."""
        self.cancelled.add(call)

    def observe(self, call: int, columns: Mapping[str, bytes], message: bytes) -> Answer:
        """What chunks show, each an array or the exception that it raised.

        Args:
            call: its number, which no other call has.
            columns: those of the chunks, by their names (`transfer.dumps`).
            message: each chunk's column and the rest of it.
        """

        def work(stop: Callable[[], bool]) -> list[Any]:
            def seen(name: str, own: Sequence[Any]) -> Any:
                column, bound = self._ready(name, columns[name])
                chunk = Chunk(column, *own)
                return _sendable(result_or_error(lambda: chunk.observe(bound, stop)))

            return [seen(*each) for each in loads(message, self.tensors.__getitem__)]

        return self._answer(call, work)

    def attempt(self, call: int, family: bytes, message: bytes) -> Answer:
        """What full trainings give, each a number, an array or an exception.

        Args:
            call: its number.
            family: what opens it, its arguments, and the digest that its images must have.
            message: the trainings.
        """

        def work(stop: Callable[[], bool]) -> list[Any]:
            opened = self._opened(family)
            jobs = loads(message, self.tensors.__getitem__)
            return [_sendable(opened.attempt(job, stop)) for job in jobs]

        return self._answer(call, work)

    def _answer(self, call: int, work: Callable[[Callable[[], bool]], list[Any]]) -> Answer:
        if self.device.type == "cpu":
            one_torch_thread()
        began = time.perf_counter()
        try:
            results = work(lambda: call in self.cancelled)
        except Interrupted:
            return Dropped()
        except ImportError as error:
            return SettingsError(
                f"{self.place()} cannot import what a training needs: {error}; it must be "
                "installed there, too"
            )
        except Exception as error:
            return _plain(error)
        else:
            return time.perf_counter() - began, results
        finally:
            # In place: another thread may be adding to them.
            self.cancelled.difference_update([n for n in list(self.cancelled) if n <= call])

    def _ready(self, name: str, written: bytes) -> tuple[Column, Bound]:
        """A column, and its tasks made ready; those of the last few are kept."""
        if name not in self.ready:
            while len(self.ready) >= READY:
                self.ready.popitem(last=False)
            column = loads(written, self.tensors.__getitem__)
            self.ready[name] = column, _bind(column, self.device)
        self.ready.move_to_end(name)
        return self.ready[name]

    def _opened(self, family: bytes) -> Any:
        """A family of full trainings, its images read on this machine."""
        if family not in self.families:
            make, arguments, expected = pickle.loads(family)
            opened = make(*arguments)
            if opened.fingerprint != expected:
                raise SettingsError(
                    f"{self.place()} has other images under the same name: "
                    f"{opened.fingerprint} in place of {expected}"
                )
            self.families[family] = opened
        return self.families[family]


def conditions(device: torch.device) -> dict[str, str]:
    """What must be equal on two machines for a training to have equal bits on both."""
    installed = [name for name in PACKAGES if _installed(name)]
    return {
        **describe_environment(device, ("torch", "numpy", *installed)),
        "metaloss's code": _code(),
    }


def misfit(machine: str, expected: dict[str, str], found: dict[str, str]) -> str:
    """Why results on a machine would not be those of this one; empty where they would.

    Args:
        machine: its name.
        expected: the conditions here.
        found: those there.
    """
    different = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
    if not different:
        return ""
    listed = "; ".join(
        f"{key}: {found.get(key, 'none')} there, {expected.get(key, 'none')} here"
        for key in different
    )
    why = "one run needs one kind of device and the same versions, as others round differently"
    return f"{machine} is left out: {why} ({listed})"


@cache
def _code() -> str:
    """A digest of the package's own files: checkouts of one version may differ."""
    root = Path(metaloss.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _bind(column: Column, device: torch.device) -> Bound:
    """Tasks made ready; on a CPU one by one, so that each one's images stay in the cache."""
    if device.type != "cpu":
        return bound_tasks(column)
    singles = [slice(t, t + 1) for t in range(len(column.tasks))]
    return Bound.join([bound_tasks(column[t]) for t in singles])


def _sendable(result: Any) -> Any:
    """A result as numbers, or an exception that another process can read."""
    if isinstance(result, Tensor):
        return result.numpy()
    return _plain(result) if isinstance(result, Exception) else result


def _plain(error: Exception) -> Exception:
    """An exception that another process can read, and that tells a lack of memory as such."""
    if out_of_memory(error):
        return MemoryError(str(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
