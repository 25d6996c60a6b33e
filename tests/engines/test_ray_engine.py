"""Searches on Ray have the bytes of local ones, for any number of actors, whatever becomes of them.

One Ray and three actors serve the whole file, on this machine alone.
"""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import scans
import torch
from deadly import DeadlyLosses
from test_cli import PROGRAM
from test_run_folder import SMALL, essence, family, only_the_subset, without_plots

from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.engines import ray_actors, ray_session, worker
from metaloss.engines.local import Local
from metaloss.engines.ray import Ray
from metaloss.engines.settings import EngineSettings
from metaloss.errors import Interrupted, NoWorkers, SettingsError
from metaloss.losses.base import CrossEntropies
from metaloss.search import program

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
CPU = torch.device("cpu")
TINY = """
dataset = "fashionmnist"
ways = 3
shots = 2
val = 3
classifier = {{ {classifier} }}
inner = {{ steps = 3, lr = 0.1 }}
"""
MLP = 'kind = "mlp", hidden = [8]'
GP = {"kind": "gp", "mu": 2, "lambda_": 2}
TREE = {"kind": "tree", "max_size": 12, "max_height": 4, "first_height": 3}
GRAPH = {"kind": "graph"}
REGULARIZED = {
    "kind": "regularized",
    "population": 2,
    "initial": 3,
    "batch": 2,
    "tournament": 2,
}
SEARCHES = {
    "mln": (MLP, {}),
    "tree": (MLP, {"genome": TREE, "strategy": GP}),
    "graph": (MLP, {"genome": GRAPH, "strategy": REGULARIZED}),
    "targets": (MLP, {"genome": {"kind": "targets"}}),
    "cnn": ('kind = "cnn", filters = [3]', {}),
    "metric": (MLP, {"metric": {"kind": "balanced_accuracy"}, "guard": {"accuracy": 50.0}}),
}
TRAINING = """
kind = "training"
seeds = 2
[training]
data = "folder:{folder}"
model = "convnet"
steps = 4
epoch_steps = 2
batch = 4
validation = 0.3
lr = 0.05
rates = [0.02, 0.05]
"""
FULL = {
    "tasks_per_generation": 1,
    "genome": GRAPH,
    "strategy": REGULARIZED,
    "generations": 2,
    "finalists": 1,
}


class Listener(Reporter):
    """Keeps what is said of actors."""

    def __init__(self):
        self.warnings = []
        self.counts = []

    def on_warning(self, text):
        self.warnings.append(text)

    def on_actors(self, counts):
        self.counts.append(counts)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A Ray of this machine, with room for one actor more than the three that all tests share."""
    session = ray_session.Session("local", 4)
    yield session
    session.close()


@pytest.fixture(scope="module")
def shared(cluster):
    """An engine with three actors."""
    with Ray(CPU, settings=EngineSettings(kind="ray", actors=3)) as engine:
        yield engine


@pytest.fixture
def engine(shared):
    """That engine, as it was."""
    shared.halvings = 0
    shared.stop = lambda: False
    shared.on_progress = lambda steps: None
    shared.reporter = Listener()
    wanted(shared, 3)
    return shared


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)


def wanted(engine, actors):
    """Have the engine keep so many actors from now on."""
    pool = engine.pool
    pool.settings = replace(pool.settings, actors=actors)
    pool.looked = -1e9
    for number in list(pool.actors)[actors:]:
        if pool.kill(number):
            engine.scheduler.left(number)


def everyone_is_there(engine, actors):
    """Wait for the actors that are wanted."""
    until = time.monotonic() + 120
    while engine.pool.alive < actors and time.monotonic() < until:
        engine._look_after_actors()
        engine._next_results()
    assert engine.pool.alive == actors


@contextlib.contextmanager
def on(engine):
    """Searches within the block train there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "open_engine", lambda *_, **__: contextlib.nullcontext(engine))
        yield


def pid_of(actor):
    return int(actor.place.rpartition("pid ")[2].rstrip(")"))


def search(tmp_path, out, name, **more):
    classifier, changes = SEARCHES[name]
    tasks = family(tmp_path, text=TINY.format(classifier=classifier))
    return program.evolve(tasks, out=tmp_path / out, **{**SMALL, **changes, **more}).folder


# --- equal bits ---


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_has_the_bytes_of_a_local_one(engine, tmp_path, name):
    local = essence(search(tmp_path, "local", name))
    with on(engine):
        assert essence(search(tmp_path, "ray", name)) == local


@pytest.mark.parametrize("actors", [1, 2])
def test_the_number_of_actors_makes_no_difference(engine, tmp_path, actors):
    wanted(engine, actors)
    everyone_is_there(engine, actors)
    with on(engine):
        assert essence(search(tmp_path, "ray", "mln")) == essence(search(tmp_path, "local", "mln"))


def test_a_search_with_full_trainings_has_the_bytes_of_a_local_one(engine, tmp_path):
    scans.written(tmp_path)
    tasks = family(tmp_path, text=TRAINING.format(folder=tmp_path / "scans"))
    options = {**SMALL, **FULL}
    local = program.evolve(tasks, out=tmp_path / "local", **options).folder
    for actors in (1, 2, 3):
        wanted(engine, actors)
        everyone_is_there(engine, actors)
        with on(engine):
            found = program.evolve(tasks, out=tmp_path / f"ray-{actors}", **options).folder
        assert essence(found) == essence(local)


def test_a_search_goes_on_elsewhere(engine, tmp_path):
    whole = essence(search(tmp_path, "whole", "mln"))

    class Stopping(Reporter):
        stopped = False

        def on_generation(self, record, seconds, trainings):
            self.stopped = True

    for first in (engine, None):
        here = on(engine) if first else contextlib.nullcontext()
        there = contextlib.nullcontext() if first else on(engine)
        out = "begun-on-ray" if first else "begun-here"
        listener = Stopping()
        engine.stop = lambda heard=listener: heard.stopped
        with here, pytest.raises(Interrupted):
            search(tmp_path, out, "mln", reporter=listener, stop=engine.stop)
        engine.stop = lambda: False
        (folder,) = (tmp_path / out).iterdir()
        with there:
            assert essence(program.resume(folder).folder) == whole


def test_the_provenance_says_where_a_run_trained(engine, tmp_path):
    folder = search(tmp_path, "runs", "mln", generations=1)
    with on(engine):
        program.resume(folder, changes={"generations": 2})
    kinds = [x["kind"] for x in program.find(folder).provenance()["engines"]]
    assert kinds == ["local", "ray"]


# --- faults ---


@pytest.mark.nodekill
def test_actors_that_are_killed_change_nothing(engine, tmp_path):
    everyone_is_there(engine, 3)
    local = essence(search(tmp_path, "local", "mln"))
    done = threading.Event()

    def kill_some():
        for _ in range(3):
            if done.wait(0.3):
                return
            for actor in [x for x in list(engine.pool.actors.values()) if x.place][:2]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid_of(actor), signal.SIGKILL)

    killer = threading.Thread(target=kill_some)
    killer.start()
    try:
        with on(engine):
            assert essence(search(tmp_path, "ray", "mln")) == local
    finally:
        done.set()
        killer.join()
    assert engine.scheduler.lost


@pytest.mark.nodekill
def test_an_actor_that_hangs_is_overtaken(engine, tmp_path):
    everyone_is_there(engine, 3)
    local = essence(search(tmp_path, "local", "mln", generations=1))
    hanging = pid_of(next(iter(engine.pool.actors.values())))
    os.kill(hanging, signal.SIGSTOP)
    try:
        with on(engine):
            assert essence(search(tmp_path, "ray", "mln", generations=1)) == local
    finally:
        os.kill(hanging, signal.SIGKILL)


@pytest.mark.nodekill
def test_a_candidate_that_ends_every_actor_fails_alone(cluster, engine, episodes):
    keys = [Stream(0).at("task")]
    plain = CrossEntropies(torch.tensor([0.0, 0.1, 0.2, 0.3]))
    deadly = torch.tensor([False, False, True, False])
    losses = DeadlyLosses(plain.smoothing, deadly=deadly)
    cluster.ray.cloudpickle.register_pickle_by_value(sys.modules["deadly"])
    found = engine.score(losses, episodes, episodes.sample(keys), keys)
    with Local() as local:
        expected = local.score(plain, episodes, episodes.sample(keys), keys)
    assert found[:, 0].isnan().tolist() == deadly.tolist()
    assert torch.equal(found[~deadly], expected[~deadly])


def test_where_no_actor_comes_the_run_says_so_and_resumes(tmp_path):
    hasty = {"kind": "ray", "actors": 1, "patience": 0.05}
    with pytest.raises(NoWorkers, match="no actor of Ray has taken work"):
        search(tmp_path, "runs", "mln", engine=hasty)
    assert not (tmp_path / "runs").exists()
    folder = search(tmp_path, "runs", "mln", generations=1)
    with pytest.raises(NoWorkers, match=f"metaloss evolve --resume {folder} goes on"):
        program.resume(folder, changes={"generations": 2}, engine=hasty)
    found = program.resume(folder, changes={"generations": 2}).folder
    assert essence(found) == essence(search(tmp_path, "whole", "mln", generations=2))


def test_another_kind_of_device_is_refused(cluster, monkeypatch):
    ours = worker.conditions(CPU)
    monkeypatch.setattr(ray_actors, "conditions", lambda device: {**ours, "device": "cpu AVX9"})
    with pytest.raises(SettingsError, match=r"one kind of device .*device: cpu .* there, cpu AVX9"):
        Ray(CPU, settings=EngineSettings(kind="ray", actors=1))


# --- the cluster ---


def test_where_nobody_listens_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=f"nobody listens at {place}"):
        ray_session._listening(place).__enter__()


def test_a_ray_that_listens_on_loopback_alone_is_found_there(monkeypatch):
    services = pytest.importorskip("ray._private.services")
    monkeypatch.setattr(services, "resolve_ip_for_localhost", lambda host: "127.0.0.2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        with ray_session._listening(place):
            assert services.canonicalize_bootstrap_address(place) == place
        assert services.canonicalize_bootstrap_address(place) != place


def test_a_cluster_that_asks_for_a_token_is_said_to(monkeypatch):
    def refused(*_, **__):
        try:
            raise RuntimeError("Last connection error: ray.exceptions.AuthenticationError: no")
        except RuntimeError as error:
            raise ConnectionError("Failed to connect") from error

    session = object.__new__(ray_session.Session)
    session.ray = SimpleNamespace(init=refused)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(SettingsError, match=r"asks for its token.*RAY_AUTH_MODE=token"),
    ):
        session._join(f"127.0.0.1:{server.getsockname()[1]}")


# --- the command ---


def test_the_command_trains_there(metaloss, tmp_path):
    tasks = family(tmp_path, text=TINY.format(classifier=MLP))
    sizes = ("generations=2", "tasks_per_generation=2", "baseline_tasks=2")
    sizes += ("winner_tasks=2", "test_tasks=2", "rates=[0.1]", "engine.actors=1")
    options = [part for size in sizes for part in ("--set", size)]
    code, out, err = metaloss(
        *("evolve", "--tasks", tasks, "--out", str(tmp_path), "--engine", "ray"), *options
    )
    assert code == 0, err
    assert "ray, 1 actor of 1 machine, cpu" in out


def processes_with(mark):
    """The processes that were started, by however many others, with this in their environment."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found.add(int(path.name))
    return found


@pytest.mark.nodekill
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_ctrl_c_leaves_a_run_that_goes_on_and_no_process_of_ray(metaloss, tmp_path):
    mark = f"STARTED_BY={tmp_path}"
    tasks = family(tmp_path, text=TINY.format(classifier=MLP))
    sizes = ("generations=2000", "tasks_per_generation=2", "baseline_tasks=2", "rates=[0.1]")
    sizes += ("winner_tasks=2", "test_tasks=2", "engine.actors=1")
    options = ["--tasks", tasks, "--out", str(tmp_path / "runs"), "--engine", "ray", "-v"]
    options += [part for size in sizes for part in ("--set", size)]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "evolve", *options],
        env={**os.environ, **dict([mark.split("=", 1)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        generations = (line for line in process.stdout if re.match(r" +\d+  ", line))
        next(generations)
        assert len(processes_with(mark.encode())) > 2  # this one, its Ray and an actor
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    line = err.splitlines()[-1]
    assert line.startswith("interrupted; go on with: metaloss evolve --resume ")
    until = time.monotonic() + 30
    while (left := processes_with(mark.encode())) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "loss").exists()
    code, _, err = metaloss(*shlex.split(line)[5:], "--time-limit", "0")  # the winner alone
    assert code == 0, err
    assert (folder / "loss" / "loss.json").exists()


def test_settings_of_actors_alone_are_refused(metaloss, tmp_path):
    code, _, err = metaloss("evolve", "--set", "engine.actors=2", "--out", str(tmp_path))
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert "actors is of kind = 'ray' alone" in err
