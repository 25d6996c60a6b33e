"""Inner loops as machine code for a CPU, by numba, where it is installed (the extra `fast`).

torch's operations each walk through memory, and its products pack their operands anew each time. On
matrices as small as these, and on the many steps of a loss between them, that is half of the time.
The loops here keep one classifier's numbers in a core's own cache. They give what torch gives, up
to rounding. A classifier's result does not depend on which others are in the batch. Where numba is
not installed, or a loop does not know a setting, everything runs on torch.
"""

import functools
from importlib.metadata import PackageNotFoundError, version

__all__ = ["LANES", "UNITS", "VECTOR", "available", "compiler"]

# Numbers that a register of the widest kind holds; smaller ones are taken several at a time.
VECTOR = 16
UNITS = 8  # layers of a compiled Meta-Loss Network are as wide as a multiple of these
LANES = 32  # images for which a loss's gradient is computed at once


@functools.cache
def compiler() -> str:
    """numba's version, or "none"."""
    try:
        return version("numba")
    except PackageNotFoundError:
        return "none"


def available() -> bool:
    """Whether there is anything to compile with."""
    return compiler() != "none"
