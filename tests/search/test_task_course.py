"""Late generations may have more tasks: along a course that resuming and extending keep."""

import json

import pytest
from test_run_folder import SMALL, essence, evolved, family, only_the_subset, without_plots

from metaloss.core.reporting import Reporter
from metaloss.errors import Interrupted, SettingsError
from metaloss.search import estimate, program, settings
from metaloss.search.task_course import TaskCourse

GROWING = {"growth": 3.0, "generations": 3}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)


def course(first=8, growth=4.0, generations=5, whole=1, epoch=lambda number: number):
    return TaskCourse(first, growth, generations, whole, epoch)


def numbers(of, generations):
    return [of.of_generation(number) for number in range(1, generations + 1)]


def tasks_of(folder):
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [json.loads(line)["tasks"] for line in lines]


def test_tasks_grow_geometrically_and_then_stay():
    assert numbers(course(), 7) == [8, 11, 16, 23, 32, 32, 32]
    assert numbers(course(growth=1.0), 3) == [8, 8, 8]
    assert numbers(course(generations=1), 2) == [8, 8]


def test_of_a_mixture_there_are_whole_kinds():
    assert numbers(course(whole=4), 5) == [8, 12, 16, 24, 32]
    assert numbers(course(first=1, growth=2.0, whole=4), 2) == [4, 4], "one kind at least"


def test_within_an_epoch_the_number_stays():
    of = course(epoch=lambda number: 1 + (number - 1) // 2)
    assert numbers(of, 6) == [8, 8, 16, 16, 32, 32]


def test_what_is_left_is_counted_in_generations_of_this_ones_size():
    assert course().generations_left(3, 5) == pytest.approx((23 + 32) / 16)
    assert course().generations_left(5, 5) == 0
    assert course(growth=1.0).generations_left(2, 5) == 3
    exact = course(generations=1000)
    tasks = sum(numbers(exact, 1000)[1:])
    assert exact.generations_left(1, 1000) == pytest.approx(tasks / 8, rel=0.02)


def test_the_history_says_how_many_tasks_a_generation_had_and_an_estimate_counts_them(tmp_path):
    result = evolved(tmp_path, **GROWING)
    assert tasks_of(result.folder) == [2, 3, 6]
    assert [record["trainings"] for record in result.history] == [8, 8 + 12, 8 + 12 + 24]
    chosen = settings.resolve(settings.read(result.folder / "config.toml"))
    assert chosen.growth_generations == 3
    assert estimate.estimate_cost(chosen)["trainings"] == 44


def test_a_generation_s_first_tasks_are_those_it_would_have_without_growth(tmp_path):
    plain, growing = (
        evolved(tmp_path, out=name, generations=1, growth_generations=2, growth=growth)
        for name, growth in (("plain", 1.0), ("growing", 3.0))
    )
    assert plain.history == growing.history


@pytest.mark.parametrize("strategy", ["mu_plus_lambda", "regularized"])
def test_a_search_that_is_resumed_equals_the_uninterrupted_one(tmp_path, strategy):
    changes = {**GROWING, "generations": 4}
    if strategy == "regularized":
        # Epochs of two generations: the second begins with scores that the checkpoint holds.
        sizes = {"population": 3, "initial": 4, "batch": 2, "refresh": 2}
        tree = {"kind": "tree", "max_size": 12, "max_height": 4, "first_height": 3}
        changes |= {"strategy": {"kind": strategy, **sizes}, "genome": tree}
    whole = evolved(tmp_path, out="whole", **changes)
    assert tasks_of(whole.folder) == (
        [2, 3, 4, 6] if strategy == "mu_plus_lambda" else [2, 2, 4, 4]
    )

    class Stopper(Reporter):
        stopped = False

        def on_generation(self, record, seconds, trainings):
            self.stopped = record["generation"] == 3

    stopper = Stopper()
    with pytest.raises(Interrupted):
        evolved(tmp_path, reporter=stopper, stop=lambda: stopper.stopped, **changes)
    folder = tmp_path / "runs" / whole.folder.name
    assert len(tasks_of(folder)) == 3
    program.resume(folder)
    assert essence(folder) == essence(whole.folder)


def test_a_run_that_is_extended_keeps_its_course(tmp_path):
    folder = evolved(tmp_path, **GROWING).folder
    program.resume(folder, changes={"generations": 4})
    assert tasks_of(folder) == [2, 3, 6, 6]
    whole = evolved(tmp_path, out="whole", **{**GROWING, "generations": 4, "growth_generations": 3})
    assert essence(folder) == essence(whole.folder)
    with pytest.raises(SettingsError, match="growth"):
        program.resume(folder, changes={"growth": 2.0})


def test_where_all_generations_have_the_same_tasks_their_number_cannot_grow(tmp_path):
    table = {**SMALL, "tasks": (family(tmp_path),), "growth": 2.0, "genome": {"kind": "tree"}}
    with pytest.raises(
        SettingsError, match=r"growth = 2: all generations of .* 'regularized' have"
    ):
        settings.resolve({**table, "strategy": {"kind": "regularized"}})
    fresh = {"kind": "regularized", "refresh": 2}
    assert settings.resolve({**table, "strategy": fresh}).growth_generations == 3
    assert settings.resolve({**table, "growth": 1.0}).growth_generations is None
