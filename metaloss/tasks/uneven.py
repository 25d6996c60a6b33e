"""Tasks of data that no family is written for: of uneven classes they are as uneven.

Even tasks of uneven classes would leave most images unused, and would be another problem than the
user's. So tasks are drawn in the classes' own proportions, and scored by a metric that counts
classes alike.
"""

from collections.abc import Sequence
from typing import Any

from metaloss.data.shapes import AS_IS, LongTail, ProportionalShots

FROM_DATA = ("folder:", "file:")  # beginnings of what a family is made to fit
# The largest class has so many times the images of the smallest: then tasks are as uneven.
UNEVEN = 2
METRIC = "balanced_accuracy"  # of uneven tasks, where none is named
# Of even tasks, at most.
SHOTS = 5
VAL = 200


def is_uneven(counts: Sequence[int]) -> bool:
    """Whether classes are so uneven that tasks are drawn as the data are.

    >>> is_uneven([120, 45, 18]), is_uneven([30, 25, 20])
    (True, False)
    """
    return max(counts) >= UNEVEN * min(counts)


def has_uneven_tasks(family: Any) -> bool:
    """Whether a task trains on more images of some classes than of others."""
    return isinstance(family.shots, ProportionalShots | LongTail)


def fitted_as_is(family: Any) -> bool:
    """Whether a family was made to fit some data and has the classes' own proportions."""
    return family.origin.startswith(FROM_DATA) and isinstance(family.shots, ProportionalShots)


def as_is_settings(ways: int, share: float | None = None) -> dict[str, Any]:
    """Settings of a family whose tasks have the classes' own proportions.

    Args:
        ways: classes of a task.
        share: of a class's images to train on; None: the usual one.
    """
    shots = AS_IS if share is None else {"kind": AS_IS, "share": share}
    return {"ways": ways, "shots": shots, "val": AS_IS, "metric": METRIC}


def even_shots(smallest: int) -> int:
    """Images of each class that even tasks train on: a third at most, so that enough validate.

    Args:
        smallest: images of the scarcest class in its smallest pool.
    """
    return min(SHOTS, max(1, smallest // 3))


def even_settings(ways: int, smallest: int, shots: Any = None) -> dict[str, Any]:
    """Settings of a family whose tasks have as many images of one class as of another.

    Args:
        ways: classes of a task.
        smallest: images of the scarcest class in its smallest pool.
        shots: how many of each class to train on, where that is named.
    """
    number = shots if isinstance(shots, int) else even_shots(smallest)
    return {"ways": ways, "shots": number, "val": max(1, min(VAL, smallest - number))}


def proportions_in_words(classes: Sequence[str], counts: Sequence[int], smallest: int) -> str:
    """Why tasks have the classes' own proportions, and how to get even ones.

    Args:
        classes: their names.
        counts: how many images each has.
        smallest: images of the scarcest class in its smallest pool.

    >>> proportions_in_words("ab", (45, 18), 4).partition("; ")[0]
    "in the classes' own proportions, as 'a' has 2.5 times the images of 'b'"
    """
    most, least = max(counts), min(counts)
    largest, rarest = (classes[counts.index(n)] for n in (most, least))
    times = f"{most / max(1, least):.1f}".removesuffix(".0")
    return (
        f"in the classes' own proportions, as '{largest}' has {times} times the images of "
        f"'{rarest}'; --set shots={even_shots(smallest)} draws even tasks"
    )
