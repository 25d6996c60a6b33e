"""What a scheduler of work is told, and what it orders."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Limits:
    """When a call is sent again, and when it or its worker is given up.

    Attributes:
        seconds: of work that a call should have at most; pieces are put together up to it.
        copies: workers that do the same call at once, at most.
        late: a call is late after so many times as long as expected, and is sent once more before
            any other.
        measured: calls after which one knows what to expect.
        failures: workers lost over a call after which it is given up.
        silence: seconds after which a worker is hung, ...
        hung: ... unless it was to be expected that its call takes more than this share of them.
    """

    seconds: float = 1.0
    copies: int = 3
    late: float = 2.0
    measured: int = 5
    failures: int = 3
    silence: float = 600.0
    hung: float = 0.1


class Piece(NamedTuple):
    """A piece of work.

    Attributes:
        number: its name.
        cost: about how much work it is, among pieces of its kind.
        group: pieces of one group, one after another, are best done by one worker.
        kind: of work; what one cost is worth is measured for each.
        endless: how long it takes cannot be known before the first of its kind is done.
    """

    number: int
    cost: float
    group: Hashable = None
    kind: Hashable = None
    endless: bool = False


class Send(NamedTuple):
    """Have a worker do a call."""

    worker: int
    call: int
    pieces: tuple[int, ...]


class Cancel(NamedTuple):
    """Tell a worker to drop a call; it still answers."""

    worker: int
    call: int


class Kill(NamedTuple):
    """Put an end to a worker that hangs; it is then to be reported as lost."""

    worker: int


Order = Send | Cancel | Kill
