"""Which worker does which piece of work, where workers are lost, hang, or answer twice.

Nothing here knows of a network or a clock: events come in with their time, orders go out. So a
simulation runs the same code as a cluster.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from metaloss.engines.orders import Cancel, Kill, Limits, Order, Piece, Send


@dataclass
class _Call:
    """Pieces that a worker does at one go.

    Attributes:
        pieces: those.
        began: when each of the workers that do it got it.
        failures: workers lost over it.
    """

    pieces: tuple[Piece, ...]
    began: dict[int, float] = field(default_factory=dict)
    failures: int = 0


@dataclass
class _Speed:
    """What one unit of cost is worth."""

    seconds: float = 0.0
    cost: float = 0.0
    calls: int = 0

    def add(self, seconds: float, cost: float) -> None:
        """A call has taken so long; older ones count less and less."""
        self.seconds = 0.95 * self.seconds + seconds
        self.cost = 0.95 * self.cost + cost
        self.calls += 1


class Scheduler:
    """Hands out pieces of work, and keeps count of who does what.

    Args:
        limits: when a call is sent again or given up.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.idle: dict[int, None] = {}  # in the order in which they became so
        self.busy: dict[int, int] = {}  # with which call, be it done by another or dropped
        self.calls: dict[int, _Call] = {}  # not yet answered, by their numbers
        self.given_up: list[int] = []  # pieces over which too many workers were lost
        self.resent = 0
        self.lost = 0  # workers
        self._queue: deque[Piece] = deque()
        self._again: deque[int] = deque()  # calls that no worker does any more
        self._queued_cost = 0.0
        self._speeds: dict[Hashable, _Speed] = {}
        self._numbers = itertools.count()
        # (when it is late, the call, the worker) and (copies, begun, the call); entries that do not
        # hold any more are passed over.
        self._due: list[tuple[float, int, int]] = []
        self._spare: list[tuple[int, float, int]] = []
        self._late: deque[int] = deque()
        # When a worker is hung, and the call that it had then.
        self._hangs: list[tuple[float, int, int, int]] = []
        self._order_of_hangs = itertools.count()
        self._cancelled: list[Cancel] = []  # to be told

    # --- what happens ---

    def add(self, pieces: Iterable[Piece]) -> None:
        """More work, to be handed out in this order."""
        for piece in pieces:
            self._queue.append(piece)
            self._queued_cost += piece.cost

    def joined(self, worker: int) -> None:
        """A worker is ready."""
        self.idle[worker] = None

    def left(self, worker: int) -> None:
        """A worker is gone, and with it what it was doing."""
        self.idle.pop(worker, None)
        number = self.busy.pop(worker, None)
        self.lost += 1
        call = self.calls.get(number) if number is not None else None
        if call is None or call.began.pop(worker, None) is None:
            return
        assert number is not None
        call.failures += 1
        if call.began:
            self._offer(number, call)
        elif call.failures < self.limits.failures:
            self._again.append(number)
        else:
            self._give_up(number, call)

    def answered(self, worker: int, call: int, seconds: float | None = None) -> bool:
        """A worker has answered a call; says whether it is the first to do so.

        Args:
            worker: which.
            call: its number.
            seconds: that it took; None where it was dropped.
        """
        if self.busy.get(worker) == call:
            del self.busy[worker]
            self.idle[worker] = None
        if seconds is None or call not in self.calls:
            self.dropped(worker, call)
            return False
        done = self.calls.pop(call)
        done.began.pop(worker, None)
        speed = self._speeds.setdefault(done.pieces[0].kind, _Speed())
        speed.add(seconds, sum(piece.cost for piece in done.pieces))
        self._cancelled += [Cancel(other, call) for other in done.began]
        return True

    def dropped(self, worker: int, number: int) -> None:
        """A worker has dropped a call that nobody had told it to drop: it is done again."""
        call = self.calls.get(number)
        if call and call.began.pop(worker, None) is not None and not call.began:
            self._again.append(number)

    def abandon(self) -> list[int]:
        """Forget all work; the workers that are still busy with it."""
        self._queue.clear()
        self._again.clear()
        self._late.clear()
        self._queued_cost = 0.0
        self.calls.clear()
        self.given_up.clear()
        self._cancelled.clear()
        return list(self.busy)

    @property
    def unfinished(self) -> bool:
        """Whether there is work that has neither been answered nor given up."""
        return bool(self.calls or self._queue)

    @property
    def in_flight(self) -> int:
        """Pieces that are with a worker."""
        return sum(len(call.pieces) for call in self.calls.values() if call.began)

    def expected(self, pieces: Iterable[Piece]) -> float | None:
        """Seconds that pieces of one kind should take; None before that is known."""
        seconds = 0.0
        for piece in pieces:
            speed = self._speeds.get(piece.kind)
            if speed is None or speed.calls < self.limits.measured or not speed.cost:
                return None
            seconds += piece.cost * speed.seconds / speed.cost
        return seconds

    # --- what is to be done ---

    def orders(self, now: float) -> list[Order]:
        """What follows from all that has happened until now."""
        orders: list[Order] = [*self._cancelled, *self._kill_hung(now)]
        self._cancelled = []
        self._mark_late(now)
        while self.idle:
            number = self._next(now)
            if number is None:
                break
            worker = next(iter(self.idle))
            orders.append(self._send(worker, number, now))
        return orders

    def next_look(self) -> float | None:
        """When something will be late or hung, if nothing happens before."""
        times = [heap[0][0] for heap in (self._due, self._hangs) if heap]
        return min(times, default=None)

    def _send(self, worker: int, number: int, now: float) -> Send:
        call = self.calls[number]
        if call.began or call.failures:
            self.resent += 1
        del self.idle[worker]
        self.busy[worker] = number
        call.began[worker] = now
        expected = self.expected(call.pieces)
        if expected is not None:
            heapq.heappush(self._due, (now + self.limits.late * expected, number, worker))
        if expected is not None or not call.pieces[0].endless:
            until = now + max(self.limits.silence, (expected or 0.0) / self.limits.hung)
            place = next(self._order_of_hangs)
            heapq.heappush(self._hangs, (until, place, number, worker))
            if len(self._hangs) > 1000 + 4 * len(self.busy):  # most of them have long answered
                self._hangs = [x for x in self._hangs if self.busy.get(x[3]) == x[2]]
                heapq.heapify(self._hangs)
        self._offer(number, call)
        return Send(worker, number, tuple(piece.number for piece in call.pieces))

    def _offer(self, number: int, call: _Call) -> None:
        """Let idle workers do the call, too."""
        if len(call.began) < self.limits.copies:
            since = min(call.began.values())
            heapq.heappush(self._spare, (len(call.began), since, number))

    def _kill_hung(self, now: float) -> list[Kill]:
        kills = []
        while self._hangs and self._hangs[0][0] <= now:
            _, _, number, worker = heapq.heappop(self._hangs)
            if self.busy.get(worker) == number:
                kills.append(Kill(worker))
        return kills

    def _mark_late(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, number, worker = heapq.heappop(self._due)
            call = self.calls.get(number)
            # A second copy that is late as well says that the call is long, not its worker slow.
            if call and worker in call.began and len(call.began) == 1:
                self._late.append(number)

    def _next(self, now: float) -> int | None:
        """The call that an idle worker is to do."""
        while self._again:
            if (number := self._again.popleft()) in self.calls:
                return number
        while self._late:
            number = self._late.popleft()
            if number in self.calls and len(self.calls[number].began) == 1:
                return number
        if self._queue:
            return self._new_call()
        while self._spare:
            copies, since, number = heapq.heappop(self._spare)
            call = self.calls.get(number)
            holds = call and call.began and len(call.began) == copies
            if call and holds and min(call.began.values()) == since:
                return number
        return None

    def _new_call(self) -> int:
        """The next pieces of the queue, together as much work as a call should have."""
        first = self._queue[0]
        unit = self.expected([first])
        if unit is None:  # one group, until it is known how long that takes
            most = self._group_cost()
        else:
            # At least two calls for each worker, so that they come to their end together.
            share = self._queued_cost / (2 * (len(self.idle) + len(self.busy)))
            most = min(share, self.limits.seconds * first.cost / unit)
        taken = [self._take()]
        cost = taken[0].cost
        while self._queue and self._queue[0].kind == first.kind:
            following = self._queue[0]
            if following.group is not None and following.group == taken[-1].group:
                # Its end is worth some more work: another worker would begin the group anew.
                fits = cost + following.cost <= 1.5 * most
            else:
                fits = cost + self._group_cost() <= most
            if not fits:
                break
            taken.append(self._take())
            cost += following.cost
        number = next(self._numbers)
        self.calls[number] = _Call(tuple(taken))
        return number

    def _group_cost(self) -> float:
        """The cost of the pieces at the head of the queue that are of one group."""
        first = self._queue[0]
        if first.group is None:
            return first.cost
        same = itertools.takewhile(lambda piece: piece.group == first.group, self._queue)
        return sum(piece.cost for piece in same)

    def _take(self) -> Piece:
        piece = self._queue.popleft()
        self._queued_cost = self._queued_cost - piece.cost if self._queue else 0.0
        return piece

    def _give_up(self, number: int, call: _Call) -> None:
        """One piece at a time from now on; a piece by itself is given up."""
        del self.calls[number]
        if len(call.pieces) == 1:
            self.given_up.append(call.pieces[0].number)
            return
        for piece in call.pieces:
            new = next(self._numbers)
            self.calls[new] = _Call((piece,))
            self._again.append(new)
