"""Actors are asked for where they fit, and again where they were lost; no Ray is needed for it."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch

from metaloss.engines.ray_actors import ActorPool, Joined, Left
from metaloss.engines.ray_session import Session
from metaloss.engines.settings import EngineSettings
from metaloss.engines.worker import conditions
from metaloss.errors import SettingsError

CPU = torch.device("cpu")


class Reference:
    """An answer that has come, or has yet to."""

    def __init__(self):
        self.answer = Future()

    def future(self):
        return self.answer


class Handle:
    """An actor that answers what it is asked, once it has a machine."""

    def __init__(self, cluster, away_from):
        self.cluster = cluster
        self.away_from = away_from
        self.machine = None
        self.waiting = []
        self.place = SimpleNamespace(remote=lambda: self.asked(lambda: f"{self.machine} (pid 1)"))
        self.describe = SimpleNamespace(remote=lambda: self.asked(self.conditions))

    def conditions(self):
        return {**conditions(CPU), **self.cluster.others.get(self.machine, {})}

    def asked(self, answer):
        reference = Reference()
        self.waiting.append((reference, answer))
        self.cluster.go_on()
        return reference

    def go_on(self):
        while self.machine and self.waiting:
            reference, answer = self.waiting.pop(0)
            reference.answer.set_result(answer())

    def die(self):
        self.machine = None
        self.cluster.handles.remove(self)
        for reference, _ in self.waiting:
            reference.answer.set_exception(RuntimeError("the actor died"))


class Cluster(Session):
    """A session of a Ray that is made up: machines with one core each.

    Args:
        names: of the machines; actors go to the first that has no other.
        others: in what some of them differ.
        frozen: whether actors do not get beyond their start.
    """

    def __init__(self, names, others=None, frozen=False):
        self.names = list(names)
        self.others = others or {}
        self.frozen = frozen
        self.handles = []
        self.ray = SimpleNamespace(remote=lambda **_: self.actors, kill=self.kill)

    @property
    def nodes(self):
        return [{"NodeManagerHostname": x, "Resources": {"CPU": 1.0}} for x in self.names]

    def elsewhere(self, nodes):
        return {node["NodeManagerHostname"] for node in nodes}

    def actors(self, _worker):
        def options(scheduling_strategy=(), **_):
            return SimpleNamespace(remote=lambda *_: self.made(scheduling_strategy))

        return SimpleNamespace(options=options)

    def made(self, away_from):
        self.handles.append(Handle(self, away_from))
        return self.handles[-1]

    def kill(self, handle):
        if handle in self.handles:
            self.handles.remove(handle)

    def go_on(self):
        for handle in [] if self.frozen else list(self.handles):
            taken = {x.machine for x in self.handles if x is not handle}
            free = [x for x in self.names if x not in taken and x not in handle.away_from]
            handle.machine = handle.machine or next(iter(free), None)
            handle.go_on()


def pool(cluster, actors=0, warnings=None):
    warn = (warnings if warnings is not None else []).append
    return ActorPool(cluster, EngineSettings(kind="ray", actors=actors), CPU, False, [], warn)


def events(pool, rounds=8, now=0.0):
    """What happens within so many looks."""
    happened = []
    for number in range(rounds):
        pool.fill(now + 10.0 * number)
        pool.session.go_on()
        happened += pool.next_events(0.0)
    return happened


def machines(pool):
    return sorted(actor.place.partition(" ")[0] for actor in pool.actors.values() if actor.place)


def test_every_core_has_an_actor_and_new_ones_too():
    cluster = Cluster(["a", "b"])
    there = pool(cluster)
    assert sorted(events(there)) == [Joined(0), Joined(1)]
    cluster.names.append("c")
    assert events(there, now=100.0) == [Joined(2)]
    assert machines(there) == ["a", "b", "c"]


def test_a_machine_of_another_kind_is_left_out_and_others_do_the_work():
    warnings = []
    cluster = Cluster(["old", "a", "b"], {"old": {"numba": "0.1"}})
    there = pool(cluster, actors=2, warnings=warnings)
    events(there)
    assert machines(there) == ["a", "b"]
    (warning,) = warnings
    assert warning.startswith("old is left out: one run needs one kind of device")
    assert "numba: 0.1 there" in warning


def test_the_actor_in_a_lost_ones_place_goes_to_a_machine_that_fits():
    cluster = Cluster(["old", "a"], {"old": {"torch": "0.1"}})
    there = pool(cluster)
    events(there)
    for turn in range(3):
        (number,) = there.actors
        assert there.kill(number) == Left(number)
        events(there, now=100.0 * (turn + 1))
        assert machines(there) == ["a"]


def test_where_no_machine_fits_it_is_refused():
    cluster = Cluster(["old", "older"], {"old": {"torch": "0.2"}, "older": {"torch": "0.1"}})
    with pytest.raises(SettingsError, match=r"torch: 0.2 there.*torch: 0.1 there"):
        events(pool(cluster))


def test_an_actor_that_dies_while_it_joins_is_replaced():
    cluster = Cluster(["a"], frozen=True)
    there = pool(cluster)
    assert events(there) == []
    (handle,) = cluster.handles
    handle.die()
    cluster.frozen = False
    assert events(there, now=100.0) == [Joined(1)]


def lose_all_that_start(pool, cluster):
    for turn in range(1, 9):
        events(pool, rounds=1, now=100.0 * turn)
        for handle in list(cluster.handles):
            handle.die()


def test_where_no_actor_ever_starts_that_is_said():
    cluster = Cluster(["a"], frozen=True)
    with pytest.raises(SettingsError, match="no actor starts: the actor died"):
        lose_all_that_start(pool(cluster), cluster)


def test_machines_that_are_lost_while_actors_start_are_waited_for():
    cluster = Cluster(["a"])
    there = pool(cluster)
    events(there)
    cluster.frozen = True
    (number,) = there.actors
    there.kill(number)
    lose_all_that_start(there, cluster)
    cluster.frozen = False
    assert [type(x) for x in events(there, now=1e4)] == [Joined]
