"""Errors a user can cause, each with the exit code the command line gives it."""


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
