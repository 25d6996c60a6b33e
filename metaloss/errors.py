"""Errors a user can cause, each with the exit code the command line gives it."""

import errno

# Messages of torch, of the loader of libraries and of the C++ library, which raise no class of
# their own when memory runs out.
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
    """The work was stopped because the user asked for it; not a failure."""


class SettingsError(MetalossError, ValueError):
    """An unknown name, or a setting that is not allowed."""

    exit_code = 2


class DataError(MetalossError, ValueError):
    """Images or labels that are missing, damaged or not what the task family needs."""

    exit_code = 2


class DataNotFound(DataError):
    """A data set by name that is not on this machine."""


class DataWarning(UserWarning):
    """Something about images or labels that a user should know.

    The command line prints it as a line.
    """


class RunInUse(MetalossError):
    """Another process is writing to this run."""

    exit_code = 3


class ProcessLost(MetalossError):
    """A process on another device has ended.

    The training continues from its checkpoint.
    """


class NoWorkers(MetalossError):
    """No worker of a cluster is left, and none has come; the job goes on where it stopped."""


class WorkersLost(MetalossError):
    """Several workers were lost over the same training, which is then taken for their end."""


class DamagedFile(MetalossError):
    """A file of a run or of a loss fails its check: it is damaged, missing or was changed."""

    exit_code = 4


class DiskError(MetalossError, OSError):
    """The disk is full, read-only or gone."""

    exit_code = 5


def out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out: by this error, or by one of those that caused it.

    Python, numpy, torch and the system each report it in another way.
    """
    while error is not None:
        if isinstance(error, MemoryError) or (
            isinstance(error, OSError) and error.errno == errno.ENOMEM
        ):
            return True
        # torch's class is compared by its name, as nothing here imports torch.
        if type(error).__name__ == "OutOfMemoryError" or any(
            text in str(error) for text in _NO_MEMORY
        ):
            return True
        error = error.__cause__
    return False
