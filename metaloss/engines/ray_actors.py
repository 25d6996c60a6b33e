"""The actors of a Ray cluster: asked for, let in where they fit, told what to do, put away."""

import contextlib
import itertools
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from metaloss.engines.ray_session import Session
from metaloss.engines.settings import EngineSettings
from metaloss.engines.worker import Worker, conditions, misfit
from metaloss.errors import SettingsError

LOOK = 2.0  # seconds between two looks at what the cluster has
BAD_STARTS = 3  # actors that do not start, where none ever has, after which none will


class Request(NamedTuple):
    """What an actor is asked for: a method of `Worker`, its arguments and the images it needs."""

    method: str
    arguments: tuple[Any, ...]
    images: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Counts:
    """How the actors fare.

    Attributes:
        alive: actors that take work.
        in_flight: chunks that are with them.
        resent: chunks sent again, since the engine was made.
    """

    alive: int
    in_flight: int
    resent: int


class Joined(NamedTuple):
    """An actor is ready."""

    actor: int


class Left(NamedTuple):
    """An actor is gone."""

    actor: int


class Answered(NamedTuple):
    """An actor has answered a call."""

    actor: int
    call: int
    answer: Any


Event = Joined | Left | Answered


@dataclass
class _Actor:
    """One of them.

    Attributes:
        handle: what Ray calls it by.
        place: its machine and process; empty before it has said so.
        tensors: the numbers of the images that it has.
        waiting: references that are waited for; Ray drops what nobody refers to.
    """

    handle: Any
    place: str = ""
    tensors: set[int] = field(default_factory=set)
    waiting: dict[str, Any] = field(default_factory=dict)


class ActorPool:
    """Keeps as many actors as are wanted and the cluster has room for.

    Args:
        session: the cluster.
        settings: how many, and what shares of GPUs they have.
        device: where they train.
        tf32: let a GPU multiply with mantissas of 10 bits instead of 23.
        folders: of the user's own parts.
        warn: is told of actors that do not fit.
    """

    def __init__(
        self,
        session: Session,
        settings: EngineSettings,
        device: Any,
        tf32: bool,
        folders: Sequence[str],
        warn: Callable[[str], None],
    ) -> None:
        self.session = session
        self.settings = settings
        self.device = device
        self.warn = warn
        self.expected = conditions(device)
        # A thread of its own for what is not work, so that a call can be cancelled.
        remote = session.ray.remote(concurrency_groups={"control": 1})(Worker)
        on_gpu = device.type == "cuda"
        self.slot = "GPU" if on_gpu else "CPU"
        share = {"num_gpus": 1 / settings.per_gpu} if on_gpu else {}
        fixed = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0, **share}
        self.make = lambda **where: remote.options(**fixed, **where).remote(
            device.type, tf32, list(folders)
        )
        self.actors: dict[int, _Actor] = {}
        self.alive = 0  # actors that take work
        self.numbers = itertools.count()
        self.events: queue.SimpleQueue[Callable[[], Event | None]] = queue.SimpleQueue()
        self.refused: dict[str, str] = {}  # why, by the names of the machines that do not fit
        self.where: dict[str, Any] = {}  # what keeps new actors from these machines
        self.starts = False  # whether an actor has ever come up; one lost later proves nothing
        self.bad_starts: list[str] = []
        self.looked = -LOOK
        self.wanted = 0

    def fill(self, now: float) -> None:
        """Ask for the actors that are missing.

        Raises:
            SettingsError: none of the cluster's machines fits, or no actor starts.
        """
        if len(self.bad_starts) >= BAD_STARTS:
            raise SettingsError(f"no actor starts: {self.bad_starts[-1]}")
        if now - self.looked >= LOOK:
            self.looked = now
            self._look()
        while len(self.actors) < self.wanted:
            number = next(self.numbers)
            actor = self.actors[number] = _Actor(self.make(**self.where))
            self._wait(number, "place", actor.handle.place.remote(), self._placed)

    def _look(self) -> None:
        """See which machines there are, and how many actors they are to have."""
        nodes = self.session.nodes
        unfit = [node for node in nodes if node["NodeManagerHostname"] in self.refused]
        slots = self._slots([node for node in nodes if node not in unfit])
        if unfit and not slots and not self.alive:
            why = {self.refused[node["NodeManagerHostname"]]: None for node in unfit}
            raise SettingsError("; ".join(why))
        self.where = {"scheduling_strategy": self.session.elsewhere(unfit)} if unfit else {}
        # Before the cluster has any machine, one is asked for.
        self.wanted = self.settings.actors or max(1, slots)

    def _slots(self, nodes: Sequence[dict[str, Any]]) -> int:
        """How many actors some machines have room for."""
        each = self.settings.per_gpu if self.slot == "GPU" else 1
        return int(sum(node["Resources"].get(self.slot, 0) for node in nodes) * each)

    def _wait(
        self, number: int, name: str, ref: Any, then: Callable[[int, Any], Event | None]
    ) -> None:
        """Have an answer turned into an event, by the thread that asks for events."""
        self.actors[number].waiting[name] = ref

        def came(future: Any) -> None:
            self.events.put(lambda: self._event(number, name, future, then))

        ref.future().add_done_callback(came)

    def _event(
        self, number: int, name: str, future: Any, then: Callable[[int, Any], Event | None]
    ) -> Event | None:
        actor = self.actors.get(number)
        if actor is None:  # which has been given up
            return None
        del actor.waiting[name]
        error = future.exception()
        return self._failed(number, error) if error else then(number, future.result())

    def _placed(self, number: int, place: str) -> None:
        """An actor runs; whether it fits is to be seen."""
        actor = self.actors[number]

        def described(number: int, found: dict[str, str]) -> Event | None:
            self.starts = True
            machine = place.partition(" (")[0]
            if why := misfit(machine, self.expected, found):
                self._refuse(number, machine, why)
                return None
            actor.place = place
            self.alive += 1
            return Joined(number)

        self._wait(number, "describe", actor.handle.describe.remote(), described)

    def _refuse(self, number: int, machine: str, why: str) -> None:
        self._end(number)
        if self.refused.get(machine) != why:
            self.warn(why)
        self.refused[machine] = why
        self.looked = -LOOK  # another in its place, elsewhere

    def _failed(self, number: int, error: BaseException) -> Event | None:
        """An actor has not answered."""
        joined = bool(self.actors[number].place)
        self._end(number)
        if joined:
            return Left(number)
        if not self.starts:
            self.bad_starts.append(_reason(error))
        return None

    def send(self, number: int, call: int, request: Request, images: dict[int, Any]) -> None:
        """Have an actor do a call.

        Args:
            number: the actor's.
            call: the call's.
            request: what it is to do.
            images: references to the images that it needs, by their numbers.
        """
        actor = self.actors[number]
        for tensor, ref in images.items():
            if tensor not in actor.tensors:
                actor.tensors.add(tensor)
                actor.handle.load.remote(tensor, ref)
        ref = getattr(actor.handle, request.method).remote(call, *request.arguments)
        self._wait(
            number, f"call {call}", ref, lambda number, answer: Answered(number, call, answer)
        )

    def cancel(self, number: int, call: int) -> None:
        """Tell an actor to drop a call."""
        if actor := self.actors.get(number):
            actor.handle.cancel.options(concurrency_group="control").remote(call)

    def forget(self, tensors: Sequence[int]) -> None:
        """Have all actors drop images that will not be called any more."""
        for actor in self.actors.values() if tensors else ():
            if known := actor.tensors.intersection(tensors):
                actor.tensors -= known
                actor.handle.forget.remote(sorted(known))

    def kill(self, number: int) -> Event | None:
        """Put an end to an actor."""
        if number not in self.actors:
            return None
        self._end(number)
        return Left(number)

    def _end(self, number: int) -> None:
        actor = self.actors.pop(number)
        self.alive -= bool(actor.place)
        with contextlib.suppress(Exception):  # it may be dead already
            self.session.ray.kill(actor.handle)

    def next_events(self, seconds: float) -> list[Event]:
        """What has happened, waiting so long for the first of it."""
        found: list[Event] = []
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            try:
                make = self.events.get(timeout=left) if left > 0 and not found else None
                make = make or self.events.get_nowait()
            except queue.Empty:
                return found
            if event := make():
                found.append(event)

    def close(self) -> None:
        """Put an end to all of them."""
        for number in list(self.actors):
            self._end(number)


def share(ray: Any, tensor: Tensor) -> Any:
    """A reference to a tensor's numbers, which machines fetch once."""
    return ray.put(tensor.cpu().numpy())


def _reason(error: BaseException) -> str:
    """The last line of what Ray says, which is the exception itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
