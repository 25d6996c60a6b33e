import errno
import hashlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import socket
from pathlib import Path

import pytest
import torch
from test_run_folder import (
    GENOME,
    SMALL,
    code,
    essence,
    evolved,
    family,
    only_the_subset,
    tree,
    without_plots,
)

import metaloss
from metaloss import storage
from metaloss.core import registry
from metaloss.core.config import merge_tables
from metaloss.core.reporting import Reporter
from metaloss.criterion import loss_io
from metaloss.engines.local import Local
from metaloss.errors import DiskError, Interrupted, MetalossError, SettingsError
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.search import program, runner, settings
from metaloss.tasks.episodic import Episodes

MU_PLUS_LAMBDA = SMALL["strategy"]
STRATEGIES = {
    "mu_plus_lambda": MU_PLUS_LAMBDA,
    "openai_es": {"kind": "openai_es", "population": 4},
    "random_search": {"kind": "random_search", "population": 3},
    "gp": {"kind": "gp", "mu": 2, "lambda_": 2, "store": 1.0, "recall": 1.0},
    "regularized": {"kind": "regularized", "population": 3, "initial": 4, "batch": 2, "refresh": 2},
}
# Steps this large make numbers overflow that no bounded activation holds back.
HUGE = {"genome": {**GENOME, "activation": "relu"}, "strategy": {**MU_PLUS_LAMBDA, "sigma": 1e30}}
GENOMES = {
    "mln": GENOME,
    "tree": {"kind": "tree", "max_size": 12, "max_height": 4, "first_height": 3},
}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)


class Recorder(Reporter):
    """Keeps what it is told, and asks to stop after a generation."""

    def __init__(self, last=math.inf):
        self.last = last
        self.records = []
        self.warnings = []

    def on_generation(self, record, seconds, trainings):
        self.records.append(record)

    def on_warning(self, text):
        self.warnings.append(text)

    def stop(self):
        return len(self.records) >= self.last


def same(a, b):
    """Whether two runs cannot be told apart."""
    return essence(a) == essence(b)


@pytest.mark.parametrize("strategy", registry.names("strategies"))
@pytest.mark.parametrize("genome", registry.names("genomes"))
def test_every_genome_goes_with_every_strategy_or_is_refused_with_the_reason(
    tmp_path, genome, strategy
):
    parts = {
        "genome": GENOMES.get(genome, {"kind": genome}),
        "strategy": STRATEGIES.get(strategy, strategy),
    }
    try:
        registry.build("genomes", parts["genome"])
    except SettingsError as error:
        pytest.skip(f"needs settings: {error}")
    needs = (
        registry.part("strategies", strategy).needs_vectors
        and not registry.part("genomes", genome).vector
    )
    if needs:
        with pytest.raises(SettingsError, match=f"strategy '{strategy}' needs real vectors"):
            evolved(tmp_path, **parts)
        assert not (tmp_path / "runs").exists()
        return
    result = evolved(tmp_path, **parts)
    assert [record["generation"] for record in result.history] == [1, 2, 3]
    assert result.best(torch.randn(4, 5), torch.arange(4)).isfinite()
    assert same(result.folder, evolved(tmp_path, out="again", **parts).folder)


def test_a_strategy_that_needs_vectors_refuses_a_genome_without_them(tmp_path, monkeypatch):
    monkeypatch.setattr(registry.part("genomes", "mln"), "vector", False)
    with pytest.raises(
        SettingsError, match="strategy 'openai_es' needs real vectors and genome 'mln' has none"
    ):
        evolved(tmp_path, strategy="openai_es")
    assert not (tmp_path / "runs").exists()


def test_another_seed_gives_another_run(tmp_path):
    one, other = (evolved(tmp_path, seed=seed) for seed in (0, 1))
    assert one.history != other.history
    assert (one.best.values != other.best.values).any()


def test_the_history_holds_no_clock_and_no_host(tmp_path):
    folder = evolved(tmp_path, generations=2, report_every=1).folder
    text = (folder / "history.jsonl").read_text()
    assert socket.gethostname() not in text
    assert str(tmp_path) not in text
    keys = {
        "generation",
        "candidates",
        "best",
        "mean",
        "lead",
        "diverged",
        "failed_trainings",
        "tasks",
        "trained",
        "trainings",
        "held_out",
    }
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(line.keys() == keys | {"sha256"} for line in lines)
    assert all(line["held_out"].keys() == {"accuracy", "gain", "error"} for line in lines)
    assert len((folder / "timing.jsonl").read_text().splitlines()) == 2


def test_a_run_s_files_hold_no_number_that_is_not_finite(tmp_path):
    folder = evolved(tmp_path, **HUGE).folder
    for path in (*folder.glob("*.json*"), folder / "loss" / "loss.json"):
        assert "NaN" not in path.read_text()
        assert "Infinity" not in path.read_text()


def test_trainings_are_counted(tmp_path):
    history = evolved(tmp_path).history
    assert [record["trainings"] for record in history] == [8, 16, 24]  # 4 candidates, 2 tasks
    assert [record["candidates"] for record in history] == [4, 4, 4]


def test_candidates_that_diverge_are_counted_and_their_neighbours_go_on(tmp_path):
    result = evolved(tmp_path, generations=4, **HUGE)
    assert sum(record["diverged"] for record in result.history) > 0
    assert any(record["best"] is not None for record in result.history)
    assert all(record["failed_trainings"] >= record["diverged"] for record in result.history)


def fail(patch, tasks=slice(None)):
    """Let every training on a family's training pool end in NaN."""
    score = LossEvaluation.search_scores

    def evaluator(self, *args):
        scores, numbers = score(self, *args)
        scores[:, tasks] = torch.nan
        return scores, numbers

    patch.setattr(LossEvaluation, "search_scores", evaluator)


def test_finalists_that_never_train_make_no_winner(tmp_path, monkeypatch):
    monkeypatch.setattr(
        LossEvaluation,
        "validation_scores",
        lambda self, losses, role, tasks, beside=(), first=0: torch.full(
            (len(losses), tasks), torch.nan
        ),
    )
    with pytest.raises(MetalossError, match="none of the 5 finalists trains without failing"):
        evolved(tmp_path)
    assert not list((tmp_path / "runs").glob("*/loss"))


def test_one_failed_training_among_many_costs_a_finalist_one_task(tmp_path, monkeypatch):
    def held_out(self, losses, role, tasks, beside=(), first=0):
        score = torch.full((len(losses), tasks), 0.5)
        score[0], score[0, 0] = 0.9, torch.nan  # the best of all, but for one task
        return score

    monkeypatch.setattr(LossEvaluation, "validation_scores", held_out)
    choice = evolved(tmp_path, winner_tasks=4).summary["choice"]
    assert choice["origin"] == "best of generation 1"
    assert choice["accuracy"] == pytest.approx(0.9 * 3 / 4)


def test_a_run_in_which_all_candidates_fail_says_so_and_stops(tmp_path, monkeypatch, capsys):
    fail(monkeypatch)
    with pytest.raises(
        MetalossError,
        match=f"no candidate trained .* in the last {runner.MAX_FAILED_GENERATIONS} generations",
    ):
        evolved(tmp_path, generations=20)
    (folder,) = (tmp_path / "runs").iterdir()
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert len(lines) == runner.MAX_FAILED_GENERATIONS
    assert all((line["best"], line["mean"], line["diverged"]) == (None, None, 4) for line in lines)
    assert not (folder / "loss").exists()
    assert code("evolve", "--resume", folder, "-q") == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_one_failed_training_is_a_failed_candidate(tmp_path, monkeypatch):
    fail(monkeypatch, slice(0, 1))
    record = evolved(tmp_path, generations=1).history[0]
    assert (record["diverged"], record["failed_trainings"], record["best"]) == (4, 4, None)


def test_a_time_limit_ends_early_with_a_winner_and_the_rest_can_follow(tmp_path):
    short = evolved(tmp_path, time_limit=0.0)
    assert len(short.history) == 1
    assert short.summary["choice"]["generation"] == 1
    assert short.best(torch.randn(4, 5), torch.arange(4)).isfinite()
    assert len(program.resume(short.folder).history) == 3
    assert same(short.folder, evolved(tmp_path, out="whole").folder)


def test_no_time_limit_is_no_limit(tmp_path):
    assert len(evolved(tmp_path, time_limit=None).history) == 3


class Stopper(Recorder):
    """Presses stop in these moments: a number of generations, or "warning" for a second time."""

    def __init__(self, *moments):
        super().__init__()
        self.moments = moments

    def on_generation(self, record, seconds, trainings):
        super().on_generation(record, seconds, trainings)
        self.press(len(self.records))

    def on_warning(self, text):
        super().on_warning(text)
        self.press("warning")

    def press(self, moment):
        if moment in self.moments:
            raise KeyboardInterrupt


@pytest.mark.parametrize("genome", GENOMES)
def test_stop_in_python_gives_the_result_so_far_and_the_rest_can_follow(tmp_path, genome):
    parts = {
        "genome": GENOMES[genome],
        "strategy": STRATEGIES["gp" if genome == "tree" else "mu_plus_lambda"],
    }
    stopper = Stopper(2)
    short = evolved(tmp_path, **parts, reporter=stopper)
    assert len(short.history) == 2
    assert short.summary["choice"]["generation"] == 2
    assert len(stopper.warnings) == 1
    assert "stopped after generation 2" in stopper.warnings[0]
    assert same(short.folder, evolved(tmp_path, **parts, generations=2, out="two").folder)
    assert len(program.resume(short.folder).history) == 3
    assert same(short.folder, evolved(tmp_path, **parts, out="whole").folder)


def test_stop_within_a_generation_gives_the_result_of_those_before(tmp_path, monkeypatch):
    whole = evolved(tmp_path, out="whole")
    save = storage.Checkpoints.save

    def stopped(self, generation, *args):
        if generation == 2:  # its line of history is already written
            raise KeyboardInterrupt
        return save(self, generation, *args)

    with monkeypatch.context() as patch:
        patch.setattr(storage.Checkpoints, "save", stopped)
        short = evolved(tmp_path)
    assert [record["generation"] for record in short.history] == [1]
    assert short.summary["choice"]["generation"] == 1
    program.resume(short.folder)
    assert same(short.folder, whole.folder)


def test_stop_before_the_first_generation_and_a_second_stop_leave_a_run_and_say_how_to_go_on(
    tmp_path, monkeypatch
):
    whole = evolved(tmp_path, out="whole")
    for name, moments in (("first", ()), ("second", (2, "warning"))):
        with monkeypatch.context() as patch:
            if not moments:
                patch.setattr(runner, "generation", lambda *args: Stopper(0).press(0))
            with pytest.raises(KeyboardInterrupt, match=r"metaloss\.resume\('.*'\) goes on"):
                evolved(tmp_path, out=name, reporter=Stopper(*moments))
        folder = tmp_path / name / whole.folder.name
        assert not (folder / "loss").exists()
        program.resume(folder)
        assert same(folder, whole.folder)


def test_the_winner_is_chosen_on_meta_validation_and_tested_once_it_is_written(
    tmp_path, monkeypatch
):
    pools = []
    evaluate = Episodes.evaluate

    def watched(self, engine, populations, pool, *args, **kwargs):
        written = [path.parent for path in (tmp_path / "runs").rglob("loss.json")]
        pools.append((pool, bool(written)))
        if written:  # complete, and what it will stay
            metaloss.load(written[0])
            pools[-1] = (
                *pools[-1],
                hashlib.sha256((written[0] / "loss.json").read_bytes()).hexdigest(),
            )
        return evaluate(self, engine, populations, pool, *args, **kwargs)

    monkeypatch.setattr(Episodes, "evaluate", watched)
    folder = evolved(tmp_path).folder
    before = {pool for pool, written, *_ in pools if not written}
    after = [(pool, *digest) for pool, written, *digest in pools if written]
    assert before == {"train", "validation"}
    assert "train" not in {pool for pool, *_ in after}
    assert "test" in {pool for pool, *_ in after}
    assert {digest for _, digest in after} == {
        hashlib.sha256((folder / "loss/loss.json").read_bytes()).hexdigest()
    }


def test_what_the_test_says_feeds_nothing_back(tmp_path, monkeypatch):
    honest = evolved(tmp_path)
    sound = Episodes.evaluate

    def reversed_on_test(self, engine, populations, pool, *args, **kwargs):
        scores = sound(self, engine, populations, pool, *args, **kwargs)
        return [1 - x for x in scores] if pool == "test" else scores

    monkeypatch.setattr(Episodes, "evaluate", reversed_on_test)
    other = evolved(tmp_path, out="other")
    assert other.summary["test"] != honest.summary["test"]
    assert other.history == honest.history
    assert other.summary["choice"] == honest.summary["choice"]
    assert (other.best.values == honest.best.values).all()


def test_both_cross_entropies_are_tuned_before_the_test(tmp_path):
    row = evolved(tmp_path, rates=(0.1, 0.3)).summary["test"]["tiny"]
    assert row["ce"]["lr"] in (0.1, 0.3)
    assert row["ce"]["steps"] == 3
    assert row["ce_steps"]["lr"] in (0.1, 0.3)
    assert row["ce_steps"]["steps"] >= 3
    for rival in (row["ce"], row["ce_steps"]):
        assert rival["gain"]["tasks"] == row["tasks"] == 2
        assert rival["gain"]["mean"] == pytest.approx(row["accuracy"] - rival["accuracy"], abs=1e-6)
        assert (
            rival["low"]
            <= rival["gain"]["low"]
            <= rival["gain"]["mean"]
            <= rival["gain"]["high"]
            <= rival["high"]
        )
        assert rival["verdict"] != "better", "two tasks are too few for any test to tell"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path, monkeypatch, strategy):
    folders = []
    for workers in (1, 2, 3):
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda pid, n=workers: set(range(n)), raising=False
        )
        settled = {"strategy": STRATEGIES[strategy], "tasks_per_generation": 5, "baseline_tasks": 5}
        folders.append(evolved(tmp_path, out=f"workers{workers}", **settled).folder)
    assert same(folders[0], folders[1])
    assert same(folders[0], folders[2])


def test_the_number_of_workers_is_that_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7}, raising=False)
    with Local() as engine:
        assert engine.workers == 3


def test_an_interrupted_run_equals_the_uninterrupted_one_wherever_it_stopped(tmp_path):
    """Stopped before the first chunk of work, before the last, and at many places between them."""
    whole = evolved(tmp_path, out="whole", generations=2)
    asked = 0

    def count():
        nonlocal asked
        asked += 1
        return False

    folder = evolved(tmp_path, out="counted", generations=2, stop=count).folder
    assert same(folder, whole.folder)
    for n in range(0, asked, asked // 8):
        left = iter(range(n))
        with pytest.raises(Interrupted):
            evolved(
                tmp_path,
                out=f"stop{n}",
                generations=2,
                stop=lambda left=left: next(left, None) is None,
            )
        folder = tmp_path / f"stop{n}" / whole.folder.name
        program.resume(folder)
        assert same(folder, whole.folder)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_resumed_after_every_generation_equals_the_uninterrupted_one(tmp_path, strategy):
    parts = {"strategy": STRATEGIES[strategy], "generations": 4, "report_every": 2}
    whole = evolved(tmp_path, out="whole", **parts)
    recorder = Recorder(last=1)
    with pytest.raises(Interrupted):
        evolved(tmp_path, **parts, reporter=recorder, stop=recorder.stop)
    folder = tmp_path / "runs" / whole.folder.name
    for _ in range(2):
        recorder = Recorder(last=1)
        with pytest.raises(Interrupted):
            program.resume(folder, reporter=recorder, stop=recorder.stop)
    program.resume(folder)
    assert same(folder, whole.folder)


def in_another_process(path, folder, resumed, done):
    """Start a run or go on with it, in a process that will be killed, and count its generations."""

    class Teller(Reporter):
        def on_generation(self, record, seconds, trainings):
            done.value = record["generation"]

    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        without_plots(patch)
        if resumed:
            program.resume(next((folder / "runs").glob("[!.]*")), reporter=Teller())
        else:
            program.evolve(path, out=folder / "runs", reporter=Teller(), **LONG)


LONG = {**SMALL, "generations": 24, "report_every": 4, "tasks_per_generation": 3}


@pytest.fixture(scope="module")
def processes():
    """Processes that start with metaloss imported; forked from one that has never used a thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["metaloss.search.program", "pytest"])
    return context


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that no one killed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        without_plots(patch)
        return evolved(folder, **LONG).folder


@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_at_random_instants_and_resumed_equals_the_uninterrupted_one(
    tmp_path, processes, whole, seed
):
    draw = random.Random(seed)
    path = family(tmp_path)
    folder = tmp_path / "runs" / whole.name
    ends = []
    for last in sorted(draw.sample(range(LONG["generations"]), 4)):
        done = processes.Value("i", 0)
        process = processes.Process(
            target=in_another_process, args=(path, tmp_path, folder.exists(), done)
        )
        process.start()
        while process.is_alive() and done.value < last:
            process.join(0.001)
        process.join(draw.random() * 0.05)  # somewhere within the next generations
        process.kill()
        process.join()
        ends.append(process.exitcode)
        check_little_is_lost(folder, tmp_path / "look", done.value)
    program.resume(folder)
    assert same(folder, whole)
    assert -signal.SIGKILL in ends
    assert set(ends) <= {-signal.SIGKILL, 0}


def check_little_is_lost(folder, scratch, told):
    """A killed run has to do at most one generation again, and none that it had reported."""
    if not folder.exists():
        return
    shutil.copytree(folder, scratch)
    lines = (folder / "history.jsonl").read_bytes().count(b"\n")
    kept = storage.recover(scratch)
    shutil.rmtree(scratch)
    generation = kept.generation if kept else 0
    assert not kept or not kept.warnings
    assert generation >= told
    assert lines - generation in (0, 1)


def test_a_kill_before_the_first_generation_leaves_a_run_that_can_be_resumed(tmp_path):
    chosen = settings.resolve({**SMALL, "tasks": (family(tmp_path),)})
    families = [program.open_family(each) for each in chosen.families]
    record = program.provenance(chosen, families, torch.device("cpu"))
    images = program.image_record.join_records(
        [program.image_record.record_of(e.dataset) for e in families]
    )
    made = program.create(tmp_path / "runs", chosen, record, images)
    program.resume(made.folder)
    assert same(made.folder, evolved(tmp_path, out="whole").folder)


class Disk:
    """Fails from one call on as a full disk does; a disk with room again is a new one."""

    def __init__(self, patch, sound, reason):
        self.left = sound
        self.reason = reason
        patch.setattr(os, "write", self.guard(os.write))
        patch.setattr(Path, "replace", self.guard(Path.replace))
        patch.setattr(Path, "mkdir", self.guard(Path.mkdir))

    def guard(self, call):
        def guarded(*args, **kwargs):
            self.left -= 1
            if self.left < 0:
                raise OSError(self.reason, os.strerror(self.reason), str(args[0]))
            return call(*args, **kwargs)

        return guarded


def calls(tmp_path, patch):
    """How many calls of a sound disk a run makes."""
    disk = Disk(patch, 10**6, errno.ENOSPC)
    evolved(tmp_path, out="sound", generations=2)
    return 10**6 - disk.left


def test_a_disk_that_fails_gives_one_line_and_the_run_goes_on_later(tmp_path, capsys):
    path = family(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        n = calls(tmp_path, patch)
    whole = tmp_path / "sound" / "tiny-mln-mu_plus_lambda-0"
    chosen = settings.resolve({**SMALL, "tasks": (path,), "generations": 2})
    (tmp_path / "config.toml").write_bytes(settings.toml(chosen))
    outcomes = set()
    for i, sound in enumerate(range(0, n, n // 10)):
        out = tmp_path / f"full{sound}"
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, sound, (errno.ENOSPC, errno.EROFS)[i % 2])
            outcomes.add(code("evolve", "--config", tmp_path / "config.toml", "--out", out, "-q"))
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1, error
        assert "bug" not in error
        assert str(tmp_path) in error
        if not (out / whole.name / "config.toml").exists():
            assert not out.exists() or not list(out.iterdir())
            continue
        assert code("evolve", "--resume", out / whole.name, "-q") == 0
        assert same(out / whole.name, whole)
    assert outcomes == {5}


def test_a_disk_that_is_full_while_the_run_goes_on_keeps_the_previous_state(tmp_path, monkeypatch):
    commit = storage.commit
    recorder = Recorder()

    def full(folder, generation, record, payload):
        if generation == 3:
            raise DiskError(f"cannot write {folder}: the disk is full")
        return commit(folder, generation, record, payload)

    monkeypatch.setattr(storage, "commit", full)
    with pytest.raises(DiskError, match="disk is full"):
        evolved(tmp_path, reporter=recorder)
    assert [record["generation"] for record in recorder.records] == [1, 2]
    monkeypatch.undo()
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    recorder = Recorder()
    program.resume(next((tmp_path / "runs").iterdir()), reporter=recorder)
    assert [record["generation"] for record in recorder.records] == [3]


def test_every_started_run_is_locked_and_free_afterwards(tmp_path, monkeypatch):
    held = []

    class Watch(Recorder):
        def on_generation(self, record, seconds, trainings):
            (folder,) = (tmp_path / "runs").iterdir()
            try:
                storage.Lock(folder).__enter__()
            except MetalossError as error:
                held.append(str(error))

    folder = evolved(tmp_path, reporter=Watch()).folder
    assert len(held) == 3
    assert str(os.getpid()) in held[0]
    with storage.Lock(folder):
        pass


def scans(folder, classes=("round", "square"), images=20):
    """A folder of small grey images, one sub-folder per class."""
    from PIL import Image

    draw = random.Random(0)
    for level, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(images):
            pixels = bytes(min(255, 90 * level + draw.randrange(60)) for _ in range(64))
            Image.frombytes("L", (8, 8), pixels).save(folder / name / f"{i:03}.png")
    return f"folder:{folder}"


def test_a_folder_of_images_is_a_family(tmp_path):
    result = program.evolve(
        scans(tmp_path / "My Scans"),
        out=tmp_path / "runs",
        **{**SMALL, "classifier": {"kind": "mlp", "hidden": (4,)}},
    )
    assert result.folder.name == "my_scans-mln-mu_plus_lambda-0"
    row = result.summary["test"]["My Scans"]
    assert row["accuracy"] > 0.4
    assert row["tasks"] == 2
    assert result.best(torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])).isfinite()
    (tmp_path / "My Scans" / "round" / "000.png").unlink()
    with pytest.raises(SettingsError, match="data My Scans: was"):
        program.resume(result.folder, changes={"generations": 4})


def test_too_few_images_are_refused_before_a_run_s_folder_is_made(tmp_path):
    with pytest.raises(MetalossError, match="This fits: ways = 2"):
        program.evolve(scans(tmp_path / "scans"), out=tmp_path / "runs", **{**SMALL, "ways": 5})
    assert not (tmp_path / "runs").exists()


def test_families_with_different_numbers_of_classes_are_searched_together(tmp_path):
    two = family(
        tmp_path,
        "two",
        'dataset = "fashionmnist"\nways = 2\nshots = 1\nval = 4\ninner = { steps = 2 }',
    )
    result = program.evolve((family(tmp_path), two), out=tmp_path / "runs", **SMALL)
    assert result.folder.name == "tiny+two-mln-mu_plus_lambda-0"
    assert result.summary["test"].keys() == {"tiny", "two"}
    assert result.history[-1]["trainings"] == 2 * 24
    again = program.evolve((family(tmp_path), two), out=tmp_path / "again", **SMALL)
    assert same(result.folder, again.folder)


def ten_ways(folder):
    return family(
        folder,
        "ten",
        'dataset = "fashionmnist"\nways = 10\nshots = 1\nval = 2\ninner = { steps = 2 }',
    )


FIGURE3 = {"kind": "mln", "architecture": "figure3", "start": "random", "features": 3, "hidden": 3}


def test_the_network_of_figure_3_is_searched_on_ten_classes(tmp_path):
    result = program.evolve(
        ten_ways(tmp_path), out=tmp_path / "runs", **{**SMALL, "genome": FIGURE3}
    )
    assert result.best(torch.randn(4, 10), torch.arange(4)).isfinite()
    with pytest.raises(ValueError, match="made for 10 classes, got 9"):
        result.best(torch.randn(4, 9), torch.arange(4))


def test_the_network_of_figure_3_is_refused_where_it_has_other_classes(tmp_path):
    with pytest.raises(SettingsError, match="works for 10 classes alone, and tiny has 3-way tasks"):
        evolved(tmp_path, genome=FIGURE3)
    assert not (tmp_path / "runs").exists()


def test_a_search_can_start_from_cross_entropy(tmp_path):
    strategy = {**MU_PLUS_LAMBDA, "sigma": 1e-6}
    result = evolved(
        tmp_path, generations=1, genome={"kind": "mln", "start": "ce"}, strategy=strategy
    )
    logits = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.arange(64) % 5
    losses = (result.best, torch.nn.CrossEntropyLoss())
    ours, theirs = (
        torch.autograd.grad(loss(logits, target), logits)[0].flatten() for loss in losses
    )
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.9


def test_presets_grow():
    counts = [
        settings.resolve(settings.preset(name)).generations for name in ("smoke", "quick", "long")
    ]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("preset", ["smoke", "quick", "long"])
@pytest.mark.parametrize("strategy", registry.names("strategies"))
def test_every_preset_goes_with_every_strategy(preset, strategy):
    table = {"strategy": {"kind": strategy}}
    assert (
        settings.resolve(merge_tables(settings.preset(preset), table)).strategy["kind"] == strategy
    )


def test_wrong_arguments_of_evolve_are_refused_by_name(tmp_path):
    for wrong, name in (
        ({"generatoins": 3}, "generatoins"),
        ({"genome": "mlm"}, "mlm"),
        ({"preset": "qick"}, "qick"),
    ):
        with pytest.raises(SettingsError, match=f"'{name}'. Did you mean"):
            evolved(tmp_path, **wrong)
    assert not (tmp_path / "runs").exists()


def test_a_genome_s_or_strategy_s_settings_need_no_kind_beside_them(tmp_path):
    table = settings.resolve(
        {"tasks": (family(tmp_path),), "genome": {"features": 3}, "strategy": {"mu": 5}}
    ).table()
    assert (table["genome"]["kind"], table["genome"]["features"]) == ("mln", 3)
    assert (table["strategy"]["kind"], table["strategy"]["mu"]) == ("mu_plus_lambda", 5)


def test_cuda_is_refused_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="no GPU is to be seen"):
        evolved(tmp_path, device="cuda")
    assert not (tmp_path / "runs").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_whole_job_runs_on_a_gpu(tmp_path):
    result = evolved(tmp_path, device="cuda", report_every=1)
    assert len(result.history) == 3
    loss = result.best.to("cuda")
    assert (
        loss(torch.randn(4, 5, device="cuda"), torch.arange(4, device="cuda")).device.type == "cuda"
    )
    assert len(program.resume(result.folder, changes={"generations": 4}).history) == 4
    assert isinstance(loss_io.load(result.folder), metaloss.Criterion)
    assert tree(result.folder)
