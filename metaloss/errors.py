"""Errors a user can cause, each with the exit code the command line gives it."""

import errno

# What torch, the loader of libraries and the C++ library say; none of them has a class of its own
# for it.
_NO_MEMORY = (
    "can't allocate memory",
    "Cannot allocate memory",
    "CUDA out of memory",
    "bad_alloc",
    "failed to map segment",
)


class MetalossError(Exception):
    """A failure that one plain line explains."""

    exit_code = 1


class Interrupted(Exception):
    """The work was dropped because someone asked for it; not a failure."""


class SettingsError(MetalossError, ValueError):
    """An unknown name or a setting that cannot be."""

    exit_code = 2


class DataError(MetalossError, ValueError):
    """Images or labels that are missing, damaged or not what their family asks for."""

    exit_code = 2


class DataWarning(UserWarning):
    """Something about images or labels that a user should know; the command line prints it as a line."""


class RunInUse(MetalossError):
    """Another process writes this run."""

    exit_code = 3


class ProcessLost(MetalossError):
    """A process that worked on another device has ended; the training goes on from its checkpoint."""


class DamagedFile(MetalossError):
    """A file of a run or of a loss does not check out."""

    exit_code = 4


class DiskError(MetalossError, OSError):
    """The disk is full, read-only or gone."""

    exit_code = 5


def out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, as Python, numpy, torch or the system says it, or an error was raised because of that."""
    while error is not None:
        if isinstance(error, MemoryError) or (
            isinstance(error, OSError) and error.errno == errno.ENOMEM
        ):
            return True
        # torch's class by its name: nothing here imports torch.
        if type(error).__name__ == "OutOfMemoryError" or any(
            text in str(error) for text in _NO_MEMORY
        ):
            return True
        error = error.__cause__
    return False
