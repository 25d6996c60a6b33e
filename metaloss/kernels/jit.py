"""Functions as machine code, kept between processes."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba import njit
from numba.core.caching import FunctionCache

from metaloss.kernels import cache

# "contract" alone: a multiplication and an addition may become one instruction, and NaN stays NaN.
SETTINGS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}


class SafeCache(FunctionCache):
    """numba's cache of one function, which several processes may fill at the same time.

    A file that cannot be used costs the time to compile again, and never an error.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The function's code for these types; None where none is there or none can be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling a damaged file leads to
            with contextlib.suppress(OSError), self._locked():
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the function's code for these types, if the disk lets us."""
        with contextlib.suppress(OSError), self._locked():
            super().save_overload(sig, data)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time change the cache.

        numba reads its index, writes it, and then writes the code: without a lock, the index of
        one process could name the code of another.
        """
        with (Path(self.cache_path) / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of single numbers that becomes part of the loops that call it.

    A loop that calls a function, instead, is not made of vector instructions.
    """
    return compiled(function, forceinline=True)


def compiled(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """The function as machine code.

    It is kept between processes where the cache can be written, else for this process alone.
    """
    dispatcher: Any = njit(**SETTINGS, **settings)(function)
    with contextlib.suppress(cache.Unusable, RuntimeError):  # RuntimeError: numba finds no folder
        function_cache = _cache_of(function, cache.entry())
        # A user's own setting of numba may put all caches elsewhere, where nothing is keyed by the
        # state of this package's files.
        if cache.entry() in Path(function_cache.cache_path).parents:
            dispatcher._cache = function_cache
    machine_code: Callable[..., Any] = dispatcher
    return machine_code


def _cache_of(function: Callable[..., Any], folder: Path) -> SafeCache:
    """The function's cache in this folder."""
    # numba takes the folder from a global setting. It is put back at once: other users of numba in
    # this process keep their caches where they were.
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        return SafeCache(function)
    finally:
        config.CACHE_DIR = before
