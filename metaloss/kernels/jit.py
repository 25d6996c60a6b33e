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
    """numba's cache of one function, that several processes may fill at once; a file it cannot use costs time alone."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The function's code for these types; None where there is none, or none that can be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling a damaged file leads to
            with contextlib.suppress(OSError), self._alone():
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the function's code for these types, if the disk lets us."""
        with contextlib.suppress(OSError), self._alone():
            super().save_overload(sig, data)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Numba reads a list of files, writes it and then the file: of two processes, one could name the other's."""
        with (Path(self.cache_path) / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code, kept in the entry of this code where one can be written, else for this process."""
    dispatcher = njit(**SETTINGS)(function)
    with contextlib.suppress(cache.Unusable, RuntimeError):  # RuntimeError: numba finds no folder
        kept = _cache_of(function, cache.entry())
        # Numba can be told to put all caches elsewhere.
        if cache.entry() in Path(kept.cache_path).parents:
            dispatcher._cache = kept
    return dispatcher


def _cache_of(function: Callable[..., Any], folder: Path) -> SafeCache:
    """The function's cache in this folder; other users of numba in this process keep theirs where they were."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        return SafeCache(function)
    finally:
        config.CACHE_DIR = before
