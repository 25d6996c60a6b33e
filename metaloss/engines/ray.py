"""Trainings on the actors of a Ray cluster; this process alone holds state.

A chunk goes to an actor as rows and keys and comes back as numbers, so which actor does it, how
often, and which of two answers comes first makes no difference to a result.
"""

import itertools
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from metaloss.core import plugins
from metaloss.core.formatting import clock, counted
from metaloss.core.reporting import Reporter
from metaloss.engines.blocks import Block, Chunk, Column
from metaloss.engines.chunked import ChunkedEngine, Columns
from metaloss.engines.orders import Cancel, Limits, Order, Piece, Send
from metaloss.engines.ray_actors import (
    ActorPool,
    Answered,
    Counts,
    Event,
    Joined,
    Request,
    share,
)
from metaloss.engines.ray_session import Session
from metaloss.engines.scheduling import Scheduler
from metaloss.engines.settings import EngineSettings
from metaloss.engines.threads import Threads, cores
from metaloss.engines.transfer import SharedTensors, dumps, images_of
from metaloss.engines.worker import Dropped
from metaloss.errors import Interrupted, NoWorkers, WorkersLost
from metaloss.tasks.protocols import SeparateTrainings

POLL = 0.2  # seconds between two looks at whether to stop
SOON = 30.0  # seconds without an actor after which that is said
REPORT = 1.0  # seconds between two reports of the actors
COLUMNS = 32  # that are kept as bytes

# Each with the name of its column, which its neighbours share.
Chunks = Sequence[tuple[str, Chunk]]


@dataclass
class Ray(ChunkedEngine):
    """Runs trainings on actors, as many as its settings say or the cluster has room for.

    `workers` are the actors that take work; they may become more or fewer at any time.

    Args:
        settings: the cluster, and how many actors.
        reporter: is told of the actors.
    """

    settings: EngineSettings = field(default_factory=lambda: EngineSettings(kind="ray"))
    reporter: Reporter = field(default_factory=Reporter)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.scheduler = Scheduler(Limits(silence=self.settings.silence))
        self.shared = SharedTensors()
        self.references: dict[int, Any] = {}  # to images, by their numbers
        self.pieces: dict[int, tuple[int, ...]] = {}  # of the calls that are with an actor
        self.names = itertools.count()  # of columns
        # A column is written down once: its chunks go out one after another.
        self.written = lru_cache(COLUMNS)(self._written)
        self.alone_since: float | None = None
        self.warned = False
        self.reported = (0.0, -1)
        where = "here" if self.settings.address == "local" else f"at {self.settings.address}"
        self.reporter.on_work(f"actors of Ray start {where}", plain=False)
        self.session = Session(self.settings.address, self.settings.actors)
        self.threads = Threads(cores(), alone=True)
        try:
            folders = [str(path) for path in plugins.folders()]
            warn = self.reporter.on_warning
            self.pool = ActorPool(
                self.session, self.settings, self.device, self.tf32, folders, warn
            )
            # What does not fit is said before any compute.
            while not self.scheduler.idle:
                self._look_after_actors()
                self._next_results()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "pool"):
            self.pool.close()
        self.session.close()
        self.threads.close()

    @property
    def description(self) -> str:
        """The actors and machines that there are now."""
        machines = counted(self.session.machines, "machine")
        return f"ray, {counted(self.pool.alive, 'actor')} of {machines}, {self.device.type}"

    @property
    def provenance(self) -> dict[str, str]:
        """Its kind, Ray's version, and where it was."""
        return {
            "kind": "ray",
            "ray": self.session.ray.__version__,
            "address": self.settings.address,
            "actors": str(self.pool.wanted),
            "machines": str(self.session.machines),
        }

    def map(self, f: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        """What a function gives for each of some jobs, on threads of this process.

        Raises:
            Interrupted: the user asked to stop, so jobs that had not begun are dropped.
        """
        return self.threads.map(f, jobs, self.stop)

    def train(self, waves: Sequence[Columns]) -> Iterator[None]:
        """Fill the parts of every block: all chunks at once, in the order of the waves."""
        places: list[tuple[Block, int, slice, slice]] = []
        chunks: list[tuple[str, Chunk]] = []
        for block, column in itertools.chain.from_iterable(waves):
            shared = block.column(column)
            name = str(next(self.names))
            for number, row in block.places_of_chunks:
                places.append((block, number, row, column))
                chunks.append((name, block.works[number].chunk(row, shared)))
        try:
            for place, result in self._observed(chunks):
                block, number, row, column = places[place]
                block.parts[number][row.start, column.start] = result
                self.on_progress(block.works[number].steps_of(row, column))
        finally:
            self.written.cache_clear()  # it holds the columns, and these their images
        yield from [None] * len(waves)

    def attempts(
        self, trainings: SeparateTrainings, jobs: Sequence[Any]
    ) -> Iterator[tuple[Any, Any]]:
        """Every job with its result, as it ends: a training, or an exception in its place."""
        family = pickle.dumps((*trainings.opener, trainings.fingerprint))

        def request(numbers: Sequence[int]) -> Request:
            message = self._bytes([jobs[number] for number in numbers])
            return Request("attempt", (family, message))

        kind = hash(family)
        pieces = [
            Piece(number, float(getattr(job, "steps", 1)), None, kind, endless=True)
            for number, job in enumerate(jobs)
        ]
        for number, result in self._done(pieces, request):
            yield jobs[number], result

    def attempts_at_once(self, trainings: SeparateTrainings) -> int:
        """How many of some trainings run at once: one on each actor."""
        return self.workers

    def _observed(self, chunks: Chunks) -> Iterator[tuple[int, Tensor | Exception]]:
        """Every chunk's number with what it shows, as it ends."""
        pieces = [
            Piece(number, chunk.cost, name, repr(chunk.column.model))
            for number, (name, chunk) in enumerate(chunks)
        ]
        for number, result in self._done(pieces, partial(self._request, chunks)):
            if isinstance(result, WorkersLost):
                yield number, self._without_culprits(*chunks[number], result)
            else:
                yield number, result if isinstance(result, Exception) else torch.tensor(result)

    def _without_culprits(self, name: str, chunk: Chunk, error: Exception) -> Tensor | Exception:
        """What a chunk shows over which several actors were lost.

        Each candidate trains by itself, and those that end actors again have NaN; their neighbours
        get what they get without them.
        """
        singles = dict(self._alone([(name, chunk.one(p)) for p in range(len(chunk.losses))]))
        bad = [isinstance(singles[p], WorkersLost) for p in range(len(chunk.losses))]
        if all(bad):
            return error
        good = bad.index(False)
        rows = torch.tensor([good if b else p for p, b in enumerate(bad)])
        ((_, result),) = self._alone([(name, replace(chunk, losses=chunk.losses[rows]))])
        if isinstance(result, Exception):
            return result
        seen = torch.tensor(result)
        seen[:, torch.tensor(bad)] = torch.nan
        return seen

    def _alone(self, chunks: Chunks) -> Iterator[tuple[int, Any]]:
        """Every chunk's number with its result; each is a call, and nobody is isolated."""
        pieces = [Piece(number, 1.0, None, number) for number in range(len(chunks))]
        return self._done(pieces, partial(self._request, chunks))

    def _request(self, chunks: Chunks, numbers: Sequence[int]) -> Request:
        """What an actor is asked for, so that it does some of the chunks."""
        some = [chunks[number] for number in numbers]
        columns = {name: chunk.column for name, chunk in some}
        written = {name: self.written(column) for name, column in columns.items()}
        own = self._bytes([(name, chunk.own) for name, chunk in some])
        return Request("observe", (written, own), list(images_of(columns.values())))

    def _written(self, column: Column) -> bytes:
        for tensor in images_of([column]):
            self.shared.number(tensor)
        return self._bytes(column)

    def _bytes(self, message: Any) -> bytes:
        """A message to an actor; images in it that have numbers are called by these."""
        return dumps(message, self.shared, self.session.ray.cloudpickle.CloudPickler)

    # --- the loop of events ---

    def _done(
        self, pieces: Sequence[Piece], request: Callable[[Sequence[int]], Request]
    ) -> Iterator[tuple[int, Any]]:
        """Every piece's number with its result, as it ends.

        Args:
            pieces: of work.
            request: what an actor is asked for, so that it does some of them.

        Raises:
            Interrupted: the user asked to stop.
            NoWorkers: there has been no actor for too long.
        """
        self.scheduler.add(pieces)
        given_up: list[int] = []
        try:
            while self.scheduler.unfinished:
                if self.stop():
                    raise Interrupted
                self._look_after_actors()
                for order in self.scheduler.orders(time.monotonic()):
                    self._obey(order, request)
                yield from self._next_results()
                given_up += self.scheduler.given_up
                self.scheduler.given_up.clear()
        finally:
            self._abandon()
        for number in given_up:
            lost = counted(self.scheduler.limits.failures, "actor")
            yield number, WorkersLost(f"{lost} were lost over one training, one after another")

    def _abandon(self) -> None:
        """Drop what is not done; nothing is left after a course without an error."""
        for worker in self.scheduler.abandon():
            self.pool.cancel(worker, self.scheduler.busy[worker])
        self.pieces.clear()
        self._report(now=True)

    def _look_after_actors(self) -> None:
        """Have actors where they are missing, and say so where there are none.

        Raises:
            NoWorkers: for too long.
        """
        now = time.monotonic()
        self.pool.fill(now)
        self.pool.forget(self.shared.gone)
        while self.shared.gone:
            self.references.pop(self.shared.gone.pop(), None)
        self._report()
        if self.pool.alive:
            self.alone_since, self.warned = None, False
            return
        self.alone_since = self.alone_since or now
        waited = now - self.alone_since
        patience = self.settings.patience
        if waited >= patience:
            raise NoWorkers(f"no actor of Ray has taken work for {clock(waited)}")
        if waited >= min(SOON, patience / 2) and not self.warned:
            self.warned = True
            self.reporter.on_warning(
                f"no actor of Ray takes work; waiting for one, {clock(patience)} at most"
            )

    def _obey(self, order: Order, request: Callable[[Sequence[int]], Request]) -> None:
        """Do what the scheduler says."""
        if isinstance(order, Send):
            self.pieces[order.call] = order.pieces
            asked = request(order.pieces)
            images = {self.shared.number(x): self._reference(x) for x in asked.images}
            self.pool.send(order.worker, order.call, asked, images)
        elif isinstance(order, Cancel):
            self.pool.cancel(order.worker, order.call)
        elif self.pool.kill(order.worker):
            self._lose(order.worker)

    def _reference(self, images: Tensor) -> Any:
        """What actors fetch images by, which are put into the cluster once."""
        number = self.shared.number(images)
        if number not in self.references:
            self.references[number] = share(self.session.ray, images)
        return self.references[number]

    def _next_results(self) -> list[tuple[int, Any]]:
        """The results that come next, within the time between two looks at whether to stop."""
        look = self.scheduler.next_look()
        wait = POLL if look is None else min(POLL, max(0.0, look - time.monotonic()))
        return [result for event in self.pool.next_events(wait) for result in self._take(event)]

    def _take(self, event: Event) -> list[tuple[int, Any]]:
        """The results that an event brings."""
        if isinstance(event, Joined):
            self.scheduler.joined(event.actor)
        elif isinstance(event, Answered):
            return self._results(event)
        else:
            self._lose(event.actor)
        self.workers = max(1, self.pool.alive)
        return []

    def _lose(self, actor: int) -> None:
        self.scheduler.left(actor)
        self.pool.looked = 0.0  # one in its place, at once

    def _results(self, event: Answered) -> list[tuple[int, Any]]:
        """The results of a call's pieces, where no other actor was first.

        Raises:
            Exception: what kept the actor from all of them, where that is not the actor's end.
        """
        answer = event.answer
        wanted = event.call in self.scheduler.calls
        if isinstance(answer, Exception):
            self.scheduler.answered(event.actor, event.call)
            if wanted and not isinstance(answer, Dropped):
                raise answer
            return []
        seconds, results = answer
        if not self.scheduler.answered(event.actor, event.call, seconds):
            return []
        return list(zip(self.pieces.pop(event.call), results, strict=True))

    def _report(self, now: bool = False) -> None:
        """Tell the reporter of the actors, where they are others or some time has gone by."""
        time_of, alive = self.reported
        if now or alive != self.pool.alive or time.monotonic() - time_of >= REPORT:
            self.reported = (time.monotonic(), self.pool.alive)
            scheduler = self.scheduler
            self.reporter.on_actors(Counts(self.pool.alive, scheduler.in_flight, scheduler.resent))
