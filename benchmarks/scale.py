"""What a generation costs on many actors: constants measured here, and a simulation of clusters.

    python benchmarks/scale.py measure [--out chunk-times.json]    # needs the extra [ray]
    python benchmarks/scale.py simulate [--times chunk-times.json] [--send 0.001 ...]

`measure` runs chunks of half a second on two actors and on two threads, in turns, and prints the
ratio; and what a call costs the process that asks: processor time, bytes, a round trip. `simulate`
replays measured times of chunks through the scheduler that the engine has, on a clock that is made
up, with stragglers and lost actors.
"""

import argparse
import heapq
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from metaloss.engines.orders import Cancel, Kill, Limits, Piece, Send
from metaloss.engines.scheduling import Scheduler

PAIRS = 5
CHUNK = 0.5  # seconds of a chunk when overhead is measured
SMALL_CALLS = 100
ROUNDS = 12  # of them; other work on the machine disturbs some
CANDIDATES, TASKS = 256, 64  # of the generation that is simulated


@dataclass(frozen=True)
class Cluster:
    """What a simulation is told.

    Attributes:
        send: seconds of the asking process to write and send a call.
        receive: seconds of it for an answer.
        latency: seconds of a message on its way.
        step: seconds until an actor hears that it is to drop a call.
        stragglers: share of calls that take `slow` times as long.
        slow: how much longer.
        failures: share of calls over which their actor is lost.
        restart: seconds until another is in its place.
    """

    send: float
    receive: float
    latency: float
    step: float = 0.05
    stragglers: float = 0.01
    slow: float = 10.0
    failures: float = 0.0
    restart: float = 20.0


class Outcome(NamedTuple):
    """What a generation came to.

    Attributes:
        seconds: that it took.
        efficiency: work over what the actors could have done in that time.
        driver: share of the time that the asking process was at work.
        resent: calls sent again.
        lost: actors.
    """

    seconds: float
    efficiency: float
    driver: float
    resent: int
    lost: int


class Simulation:
    """One generation on a cluster that is made up.

    Args:
        seconds: of each chunk, undisturbed.
        actors: how many.
        cluster: what it is like.
        per_call: seconds of work that a call may have.
        seed: of stragglers and failures.
        measured: calls that have gone before, so that it is known what to expect.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        actors: int,
        cluster: Cluster,
        per_call: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.work = seconds
        self.actors = actors
        self.cluster = cluster
        self.draw = random.Random(seed)
        self.scheduler = Scheduler(Limits(seconds=per_call))
        self.names = itertools.count()
        self.order = itertools.count()
        self.events: list[tuple[float, int, str, int, int, float]] = []
        self.running: dict[int, int] = {}  # the call that an actor works on
        self.free = 0.0  # when the asking process has time again
        self.at_work = 0.0  # how long it had none

    def run(self) -> Outcome:
        """Play it to its end."""
        for _ in range(self.actors):
            self.scheduler.joined(next(self.names))
        # Generations before this one have shown what a chunk takes.
        mean = statistics.fmean(self.work)
        self._warm(mean)
        self.scheduler.add(Piece(n, mean) for n in range(len(self.work)))
        self._obey(0.0)
        while self.scheduler.unfinished:
            look = self.scheduler.next_look()
            if look is not None and (not self.events or look < self.events[0][0]):
                self.free = max(look, self.free)
            else:
                self.free = max(self.free, self.events[0][0])
            # As the engine does: all that has come is heard, then orders are given.
            while self.events and self.events[0][0] <= self.free:
                self._hear(*heapq.heappop(self.events))
            self._obey(self.free)
        total = sum(self.work)
        end = self.free
        scheduler = self.scheduler
        return Outcome(
            end, total / (self.actors * end), self.at_work / end, scheduler.resent, scheduler.lost
        )

    def _warm(self, mean: float) -> None:
        for _ in range(self.scheduler.limits.measured):
            self.scheduler.add([Piece(0, mean)])
            for order in self.scheduler.orders(0.0):
                if isinstance(order, Send):
                    self.scheduler.answered(order.worker, order.call, mean)
        self.scheduler.orders(0.0)
        self.scheduler.resent = 0

    def _hear(
        self, when: float, _place: int, what: str, actor: int, call: int, seconds: float
    ) -> None:
        """An event reaches the asking process."""
        if what in ("answer", "drop") and self.running.get(actor) != call:
            return  # it was told to drop the call before it was done, or is no more
        now = max(when, self.free)
        self._spend(now, self.cluster.receive)
        if what == "join":
            self.scheduler.joined(actor)
        elif what == "lost":
            self.running.pop(actor, None)
            self.scheduler.left(actor)
            self._later(now + self.cluster.restart, "join", next(self.names))
        else:
            del self.running[actor]
            self.scheduler.answered(actor, call, seconds if what == "answer" else None)

    def _obey(self, now: float) -> None:
        cluster = self.cluster
        for order in self.scheduler.orders(now):
            if isinstance(order, Send):
                self._spend(max(now, self.free), cluster.send)
                self._begin(order)
            elif isinstance(order, Cancel):
                if self.running.get(order.worker) == order.call:
                    heard = self.free + cluster.latency + cluster.step
                    self._later(heard + cluster.latency, "drop", order.worker, order.call)
            elif isinstance(order, Kill):
                self._later(self.free, "lost", order.worker)

    def _begin(self, order: Send) -> None:
        cluster = self.cluster
        seconds = sum(self.work[n] for n in order.pieces)
        if self.draw.random() < cluster.stragglers:
            seconds *= cluster.slow
        arrived = self.free + cluster.latency
        self.running[order.worker] = order.call
        if self.draw.random() < cluster.failures:
            gone = arrived + self.draw.random() * seconds
            self._later(gone + cluster.latency, "lost", order.worker)
        else:
            done = arrived + seconds + cluster.latency
            self._later(done, "answer", order.worker, order.call, seconds)

    def _later(
        self, when: float, what: str, actor: int, call: int = -1, seconds: float = 0.0
    ) -> None:
        heapq.heappush(self.events, (when, next(self.order), what, actor, call, seconds))

    def _spend(self, now: float, seconds: float) -> None:
        self.free = now + seconds
        self.at_work += seconds


def simulate(arguments: argparse.Namespace) -> None:
    """Print a table of efficiencies."""
    times = json.loads(arguments.times.read_text())["relative"] if arguments.times else [1.0]
    cluster = Cluster(
        arguments.send,
        arguments.receive,
        arguments.latency,
        stragglers=arguments.stragglers,
        slow=arguments.slow,
        failures=arguments.failures,
    )
    print(f"{cluster}; {len(times)} measured times of chunks")
    print("chunk s  chunks  actors  seconds  efficiency  driver  sent again  actors lost")
    for chunk in arguments.chunk:
        count = CANDIDATES * arguments.tasks
        count = round(count / chunk) if arguments.same_work else count
        draw = random.Random(1)
        work = [chunk * draw.choice(times) for _ in range(count)]
        for actors in arguments.actors:
            x = Simulation(work, actors, cluster, arguments.per_call).run()
            print(
                f"{chunk:7g} {count:7} {actors:7} {x.seconds:8.1f} {x.efficiency:10.1%} "
                f"{x.driver:7.0%} {x.resent:11} {x.lost:12}"
            )


def measure(arguments: argparse.Namespace) -> None:
    """Print what is measured here, and keep the times of chunks."""
    import torch

    from metaloss.core import registry
    from metaloss.core.streams import Stream
    from metaloss.engines.local import Local
    from metaloss.engines.ray import Ray
    from metaloss.engines.settings import EngineSettings
    from metaloss.tasks import episodic, episodic_family

    episodes = episodic.open_episodes(episodic_family.read("fashionmnist", {}))
    genome: Any = registry.build("genomes", {"kind": "mln"})
    start = genome.sample(16, Stream(0))
    population = genome.mutate(start, torch.full((16, genome.size), 0.3), Stream(1))
    losses = genome.losses(population)
    keys = [Stream(0).at("task", t) for t in range(8)]
    tasks = episodes.sample(keys)
    cpu = torch.device("cpu")
    local = Local(cpu, workers=2)
    with local, Ray(cpu, settings=EngineSettings(kind="ray", actors=2)) as ray:
        while ray.pool.alive < 2:
            ray._look_after_actors()
            ray._next_results()
        plan = local.plan(episodes, episodes.family.inner, 16, 8, losses.tasks_per_call)
        steps = _steps_of_half_a_second(local, losses, episodes, tasks, keys, plan)
        inner = _with_steps(episodes.family.inner, steps)
        print(f"{plan}; {steps} steps")
        ratios, times = [], []
        for engine in (local, ray):
            engine.score(losses, episodes, tasks, keys, inner)
        for _ in range(PAIRS):
            seconds = [_timed(x, losses, episodes, tasks, keys, inner) for x in (local, ray)]
            ratios.append(seconds[1] / seconds[0])
            print(f"two threads {seconds[0]:.2f} s, two actors {seconds[1]:.2f} s", flush=True)
        print(f"median of {PAIRS} ratios: {statistics.median(ratios):.3f}")
        times = _call_times(ray, losses, episodes, tasks, keys, inner)
        relative = [x / statistics.median(times) for x in times]
        print(f"a chunk: {statistics.median(times):.2f} s (median of {len(times)})")
        arguments.out.write_text(json.dumps({"seconds": times, "relative": relative}))
        _print_cost_of_calls(ray, losses, episodes, tasks, keys)


def _with_steps(inner: Any, steps: int) -> Any:
    from dataclasses import replace

    return replace(inner, steps=steps)


def _timed(engine: Any, *trainings: Any) -> float:
    began = time.perf_counter()
    engine.score(*trainings)
    return time.perf_counter() - began


def _steps_of_half_a_second(
    local: Any, losses: Any, episodes: Any, tasks: Any, keys: Any, plan: Any
) -> int:
    """How many steps make a chunk of half a second on a thread of its own."""
    chunks = len(tasks) / plan.tasks * len(losses) / plan.candidates
    local.score(losses, episodes, tasks, keys)
    seconds = min(_timed(local, losses, episodes, tasks, keys) for _ in range(3))
    per_chunk = seconds * local.workers / chunks
    return max(1, round(episodes.family.inner.steps * CHUNK / per_chunk))


def _call_times(ray: Any, *trainings: Any) -> list[float]:
    """Seconds of single chunks, as the actors measure them."""
    found: list[float] = []
    answered = ray.scheduler.answered

    def noted(actor: int, call: int, seconds: float | None = None) -> bool:
        if seconds is not None and call in ray.pieces:
            found.append(seconds / len(ray.pieces[call]))
        return bool(answered(actor, call, seconds))

    ray.scheduler.answered = noted
    for _ in range(4):
        ray.score(*trainings)
    ray.scheduler.answered = answered
    return found


def _print_cost_of_calls(ray: Any, losses: Any, episodes: Any, tasks: Any, keys: Any) -> None:
    """Processor time of this process for a call, its bytes, and a round trip."""
    from metaloss.engines.blocks import works_of
    from metaloss.engines.ray_actors import Request
    from metaloss.inner.observers import scores
    from metaloss.tasks.protocols import EpisodeTrainings

    inner = _with_steps(episodes.family.inner, 1)
    trainings = EpisodeTrainings([losses], episodes, tasks, keys, scores, inner, [None], (1,))
    (block,) = ray._blocks(works_of(trainings))
    column = block.column(block.columns[0])
    chunk = block.works[0].chunk(block.rows[0], column)
    writing = _least(lambda: [ray._request([("bench", chunk)], [0]) for _ in range(SMALL_CALLS)])
    columns, message = ray._request([("bench", chunk)], [0]).arguments
    ray.written.cache_clear()
    print(
        f"bytes of a call: {len(columns['bench']) + len(message)}, of which its column, written "
        f"once: {len(columns['bench'])}; written in {writing:.2f} ms of processor time"
    )
    cloudpickle = ray.session.ray.cloudpickle
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    # As many bytes as that call has, for a family that does nothing with them.
    family = cloudpickle.dumps((Nothing, (columns["bench"],), ""))
    pieces = [Piece(n, 1.0, None, n) for n in range(SMALL_CALLS)]

    def request(numbers: Sequence[int]) -> Any:
        return Request("attempt", (family, ray._bytes([message] * len(numbers))))

    sending = _least(lambda: list(ray._done(pieces, request)))
    print(f"sent, and its answer read: {sending:.2f} ms of processor time")
    handle = next(x.handle for x in ray.pool.actors.values() if x.place)
    trips = []
    for _ in range(200):
        began = time.perf_counter()
        ray.session.ray.get(handle.place.remote())
        trips.append(time.perf_counter() - began)
    print(f"a round trip: {1000 * statistics.median(trips):.2f} ms (median of {len(trips)})")


def _least(calls: Callable[[], object]) -> float:
    """Milliseconds of processor time for one of `SMALL_CALLS`, the least of some rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        calls()
        times.append(time.process_time() - began)
    return 1000 * min(times) / SMALL_CALLS


class Nothing:
    """A family whose trainings do nothing.

    Args:
        column: that a call of episodes would have.
    """

    fingerprint = ""

    def __init__(self, column: bytes) -> None:
        self.column = column

    def attempt(self, job: Any, stop: Any) -> float:
        """What a training gives."""
        return 0.0


def main() -> None:
    """Read the arguments, and measure or simulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("measure")
    one.add_argument("--out", type=Path, default=Path("chunk-times.json"))
    one.set_defaults(run=measure)
    other = commands.add_parser("simulate")
    other.add_argument("--times", type=Path)
    other.add_argument("--chunk", type=float, nargs="*", default=[1.0])
    other.add_argument("--actors", type=int, nargs="*", default=[1, 10, 100, 300, 1000])
    other.add_argument("--tasks", type=int, default=TASKS)
    other.add_argument("--same-work", action="store_true", help="as many chunks as make the work")
    for name, value in (("send", 0.0005), ("receive", 0.0003), ("latency", 0.001)):
        other.add_argument(f"--{name}", type=float, default=value)
    other.add_argument("--stragglers", type=float, default=0.01)
    other.add_argument("--slow", type=float, default=10.0)
    other.add_argument("--failures", type=float, default=0.0)
    other.add_argument("--per-call", type=float, default=1.0)
    other.set_defaults(run=simulate)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
