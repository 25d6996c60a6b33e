import errno
import itertools
import json
import os
import random
import re
import shutil
import tempfile
import tomllib
from pathlib import Path

import pytest

from metaloss import cli, storage
from metaloss.core.reporting import Reporter
from metaloss.data.datasets import Dataset, fashionmnist
from metaloss.errors import DamagedFile, DiskError, RunInUse, SettingsError
from metaloss.search import program, run_folder, settings
from metaloss.storage import environment
from metaloss.storage.folders import file_name, slug

TINY = """
dataset = "fashionmnist"
ways = 3
shots = 2
val = 3
classifier = { kind = "mlp", hidden = [8] }
inner = { steps = 3, lr = 0.1 }
"""
GENOME = {"kind": "mln", "start": "random", "features": 2, "hidden": 2}
SMALL = {
    **{
        "generations": 3,
        "tasks_per_generation": 2,
        "baseline_tasks": 2,
        "winner_tasks": 2,
        "test_tasks": 2,
    },
    **{
        "rates": (0.1, 0.3),
        "genome": GENOME,
        "strategy": {"kind": "mu_plus_lambda", "mu": 2, "lambda_": 2},
    },
}


def only_the_subset(patch, folder):
    """No other data than the embedded subset of Fashion-MNIST is to be seen."""
    patch.setattr(fashionmnist, "SYSTEM", folder / "no-such-folder")
    patch.setenv("METALOSS_DATA", str(folder / "no-data"))


def without_plots(patch):
    """Figures, and cross-entropy's trainings of 200 steps, are most of a tiny run's time."""
    patch.setattr("metaloss.tasks.step_counts.STEPS", (20,))
    for name in ("fitness", "phenotype", "front"):
        patch.setattr(f"metaloss.evaluation.plots.{name}", lambda *args: None)


def family(folder, name="tiny", text=TINY):
    """The path of a tiny task family."""
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


def evolved(folder, out="runs", **changes):
    """A finished small run under folder/out."""
    return program.evolve(family(folder), out=folder / out, **{**SMALL, **changes})


def essence(folder):
    """What no interruption may change: a run's history, its winner and its newest state."""
    newest = max(
        (folder / "checkpoint").iterdir(), key=lambda path: int(path.stem.partition("-")[2])
    )
    files = [folder / "history.jsonl", newest, *(folder / "loss").iterdir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def tree(folder):
    """Every file below a folder but the lock."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "lock"
    }


def code(*args):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(arg) for arg in args])
    return caught.value.code


class Listener(Reporter):
    """Keeps warnings."""

    def __init__(self):
        self.warnings = []

    def on_warning(self, text):
        self.warnings.append(text)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three generations that tests copy; with its figures."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        return evolved(folder).folder


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished run, to be damaged or resumed; its name is the same."""
    return Path(shutil.copytree(finished, tmp_path / "copies" / finished.name))


@pytest.fixture
def chosen(tmp_path):
    return settings.resolve({**SMALL, "tasks": (family(tmp_path),)})


def test_a_run_is_named_after_tasks_genome_strategy_and_seed(chosen):
    assert run_folder.default_name(chosen) == "tiny-mln-mu_plus_lambda-0"


def test_families_are_joined_by_a_plus_sign(tmp_path):
    tasks = (family(tmp_path, "one"), family(tmp_path, "two"))
    both = settings.resolve({**SMALL, "tasks": tasks, "seed": 7})
    assert run_folder.default_name(both) == "one+two-mln-mu_plus_lambda-7"


def test_two_families_of_one_name_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(SettingsError, match="two task families are named 'tiny'"):
        settings.resolve({**SMALL, "tasks": (family(tmp_path), family(tmp_path / "a"))})


@pytest.mark.parametrize(
    "name", ["My Tasks!", "Größe", "a'b\"c", "x" * 100, "näh;rm -rf $HOME", "-q"]
)
def test_a_run_s_name_is_safe_whatever_its_family_is_called(tmp_path, name):
    chosen = settings.resolve({**SMALL, "tasks": (family(tmp_path, name),)})
    made = run_folder.create(tmp_path / "runs", chosen, {})
    assert re.fullmatch(r"[\w+.-]+", made.name)
    assert made.name == made.name.lower()
    assert made.folder.parent == tmp_path / "runs"


def test_a_name_that_is_taken_gets_the_next_number_and_nothing_is_overwritten(tmp_path, chosen):
    folders = [run_folder.create(tmp_path / "runs", chosen, {"number": i}).folder for i in range(3)]
    assert [folder.name.removeprefix("tiny-mln-mu_plus_lambda-0") for folder in folders] == [
        "",
        "-2",
        "-3",
    ]
    assert [
        json.loads((folder / "provenance.json").read_text())["number"] for folder in folders
    ] == [0, 1, 2]
    assert run_folder.runs(tmp_path / "runs") == sorted(folders)


def test_a_folder_that_is_no_run_keeps_its_name_too(tmp_path, chosen):
    taken = tmp_path / "runs" / run_folder.default_name(chosen)
    taken.mkdir(parents=True)
    assert run_folder.create(tmp_path / "runs", chosen, {}).name == f"{taken.name}-2"
    assert not list(taken.iterdir())


@pytest.mark.parametrize("fails", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_a_run_that_cannot_be_made_leaves_nothing(tmp_path, chosen, monkeypatch, fails, error):
    calls = itertools.count()

    def guarded(call):
        def instead(*args, **kwargs):
            if next(calls) == fails:
                raise error
            return call(*args, **kwargs)

        return instead

    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(storage.creation, "write", guarded(storage.creation.write))
    monkeypatch.setattr(tempfile, "mkdtemp", guarded(tempfile.mkdtemp))
    monkeypatch.setattr(Path, "replace", guarded(Path.replace))

    def create_twice():
        for _ in range(2):
            run_folder.create(tmp_path / "runs", chosen, {})
            shutil.rmtree(tmp_path / "runs" / run_folder.default_name(chosen))

    with pytest.raises((OSError, KeyboardInterrupt)):  # DiskError is an OSError
        create_twice()
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_parent_that_cannot_be_written_is_a_disk_error_that_names_it(
    tmp_path, chosen, monkeypatch, reason
):
    def refuse(*args, **kwargs):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(DiskError, match=f"{tmp_path}.*{os.strerror(reason)}"):
        run_folder.create(tmp_path / "runs", chosen, {})


def test_a_parent_that_is_a_file_is_a_disk_error(tmp_path, chosen):
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(DiskError, match="runs"):
        run_folder.create(tmp_path / "runs", chosen, {})
    assert (tmp_path / "runs").read_text() == "mine"


def test_a_missing_parent_is_made(tmp_path, chosen):
    assert run_folder.create(tmp_path / "a" / "b", chosen, {}).folder.parent == tmp_path / "a" / "b"


def test_the_folder_holds_what_the_documentation_says_and_no_scratch(finished):
    assert {path.name for path in finished.iterdir()} == {
        *(
            "config.toml",
            "provenance.json",
            "history.jsonl",
            "timing.jsonl",
            "summary.json",
            "lock",
        ),
        *("checkpoint", "loss", "plots", "images.json", "places.json"),
    }
    assert {path.name for path in (finished / "loss").iterdir()} == {
        *("loss.json", "weights.safetensors", "card.md", "images.json")
    }
    assert {path.name for path in (finished / "plots").iterdir()} == {
        *("fitness.png", "fitness.pdf", "phenotype.png", "phenotype.pdf")
    }
    assert [path.name for path in finished.parent.iterdir()] == [finished.name]


def test_only_the_last_three_states_are_kept(tmp_path):
    folder = evolved(tmp_path, generations=5).folder
    assert [path.name for path in states(folder)] == [
        f"state-{i:06}.safetensors" for i in (5, 4, 3)
    ]


def test_config_toml_reproduces_the_run(finished, tmp_path):
    assert code("evolve", "--config", finished / "config.toml", "--out", tmp_path, "-q") == 0
    assert essence(tmp_path / finished.name) == essence(finished)
    assert (tmp_path / finished.name / "config.toml").read_bytes() == (
        finished / "config.toml"
    ).read_bytes()


def test_flags_win_over_config_toml(finished, tmp_path):
    flags = ("--generations", 1, "--set", "inner.lr=0.2", "strategy.sigma=0.5")
    assert (
        code("evolve", "--config", finished / "config.toml", "--out", tmp_path, "-q", *flags) == 0
    )
    table = tomllib.loads((tmp_path / finished.name / "config.toml").read_text())
    assert (
        table["generations"],
        table["families"][0]["inner"]["lr"],
        table["strategy"]["sigma"],
    ) == (1, 0.2, 0.5)
    assert (table["strategy"]["mu"], table["families"][0]["ways"]) == (2, 3)


def test_config_toml_needs_neither_the_family_s_file_nor_the_working_folder(
    finished, tmp_path, monkeypatch
):
    text = (finished / "config.toml").read_text()
    monkeypatch.chdir(tmp_path)
    Path("config.toml").write_text(text.replace(str(finished.parent.parent), "/nowhere"))
    assert code("evolve", "--config", "config.toml", "--out", "there", "-q") == 0
    assert essence(tmp_path / "there" / finished.name) == essence(finished)


def test_provenance_names_versions_device_seed_data_and_pools(finished):
    table = json.loads((finished / "provenance.json").read_text())
    assert table["seed"] == 0
    assert {"metaloss", "python", "torch", "numpy", "device", "data tiny"} <= table[
        "conditions"
    ].keys()
    assert table["conditions"]["device"].startswith("cpu ")
    assert re.fullmatch("[0-9a-f]{64}", table["conditions"]["data tiny"])
    data = table["data"]["tiny"]
    assert data["dataset"] == "fashionmnist"
    assert "embedded subset" in data["origin"]
    assert data["pools"].keys() == {"train", "validation", "test"}
    assert sum(pool["images"] for pool in data["pools"].values()) == 10_000
    assert len({pool["sha256"] for pool in data["pools"].values()}) == 3


CHANGES = {
    "seed": {"seed": 1},
    "validation": {"validation": 2},
    "strategy.mu": {"strategy": {"mu": 3}},
    "strategy.kind": {"strategy": {"kind": "random_search"}},
    "genome.features": {"genome": {"features": 3}},
    "families.tiny.inner.lr": {"inner": {"lr": 0.3}},
    "families.tiny.classifier.hidden": {"classifier": {"hidden": [9]}},
    "families.tiny.shots": {"shots": 3},
    "tasks": {"tasks": ("fashionmnist",)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_resume_with_another_setting_is_refused_and_names_it(copy, name):
    before = tree(copy)
    with pytest.raises(
        SettingsError, match=rf"{re.escape(name)}: the run has .*, given "
    ) as caught:
        program.resume(copy, changes=CHANGES[name])
    assert "\n" not in str(caught.value)
    assert tree(copy) == before


def test_a_resume_with_the_same_settings_given_again_is_welcome(copy):
    before = essence(copy)
    program.resume(copy, changes={"seed": 0, "strategy": {"mu": 2}, "inner": {"lr": 0.1}})
    assert essence(copy) == before


def test_a_finished_run_that_is_resumed_stays_what_it_is(copy):
    before = tree(copy)
    assert len(program.resume(copy).history) == 3
    assert tree(copy) == before


def test_raised_generations_go_on_as_if_they_had_been_asked_for_at_once(copy, tmp_path):
    long = evolved(tmp_path, generations=5)
    assert program.resume(copy, changes={"generations": 5}).history == long.history
    assert essence(copy) == essence(long.folder)


def test_raised_generations_are_remembered(copy):
    program.resume(copy, changes={"generations": 5}, time_limit=0.0)
    assert tomllib.loads((copy / "config.toml").read_text())["generations"] == 5
    assert len(program.resume(copy).history) == 5


@pytest.mark.parametrize("fewer", [1, 2])
def test_fewer_generations_are_refused(copy, fewer):
    with pytest.raises(SettingsError, match=f"generations: the run has 3, {fewer} is less"):
        program.resume(copy, changes={"generations": fewer})


def test_other_versions_are_refused_and_named(copy, monkeypatch):
    before = tree(copy)
    monkeypatch.setattr(environment, "__version__", "99.1")
    with pytest.raises(SettingsError, match=r"metaloss: was .*, is 99\.1.*--allow-changes"):
        program.resume(copy)
    assert tree(copy) == before


def test_other_data_are_refused_and_named(copy, monkeypatch):
    monkeypatch.setattr(Dataset, "fingerprint", lambda self: "f" * 64)
    with pytest.raises(SettingsError, match=r"data tiny: was .*, is ffff"):
        program.resume(copy)


def test_changes_that_are_allowed_are_told_and_put_on_record(copy, monkeypatch):
    monkeypatch.setattr(environment, "__version__", "99.1")
    listener = Listener()
    program.resume(copy, changes={"generations": 4}, allow_changes=True, reporter=listener)
    assert len(listener.warnings) == 1
    assert "99.1" in listener.warnings[0]
    table = json.loads((copy / "provenance.json").read_text())
    assert table["conditions"]["metaloss"] != "99.1"
    assert [row["metaloss"] for row in table["resumed"]] == ["99.1"]
    program.resume(copy)  # what was allowed once need not be allowed again
    assert json.loads((copy / "provenance.json").read_text()) == table


def test_a_run_in_use_is_refused_with_its_holder(copy, capsys):
    with storage.Lock(copy):
        before = tree(copy)
        with pytest.raises(RunInUse, match=f"pid {os.getpid()} on "):
            program.resume(copy)
        assert code("evolve", "--resume", copy) == 3
        assert tree(copy) == before
    assert capsys.readouterr().err.count("\n") == 1
    program.resume(copy)  # free again


def flip(path, seed, n=1):
    """Another value of n random bits of a file."""
    data = bytearray(path.read_bytes())
    draw = random.Random(seed)
    for _ in range(n):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def states(folder):
    """Files of the states, newest first."""
    return sorted(
        (folder / "checkpoint").iterdir(), key=lambda p: int(p.stem.partition("-")[2]), reverse=True
    )


@pytest.mark.parametrize("damaged", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_damaged_states_are_named_and_an_older_one_gives_the_same_result(
    copy, finished, seed, damaged
):
    for path in states(copy)[:damaged]:
        flip(path, seed)
    listener = Listener()
    program.resume(copy, reporter=listener)
    assert len(listener.warnings) == damaged
    assert all("state-" in text and "\n" not in text for text in listener.warnings)
    assert essence(copy) == essence(finished)


@pytest.mark.parametrize("how", ["flipped", "empty", "cut", "gone"])
def test_where_all_states_are_damaged_the_run_says_so_and_keeps_everything(copy, capsys, how):
    for path in states(copy):
        if how == "flipped":
            flip(path, seed=0, n=3)
        elif how == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: 200 if how == "cut" else 0])
    before = tree(copy)
    with pytest.raises(DamagedFile, match=str(copy)):
        program.resume(copy)
    assert code("evolve", "--resume", copy) == 4
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "checkpoint" in error
    assert tree(copy) == before


@pytest.mark.parametrize("name", ["history.jsonl", "provenance.json", "config.toml"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff{", b"[]", b"null"])
def test_any_other_damaged_file_is_named_and_kept(copy, capsys, name, content):
    (copy / name).write_bytes(content)
    before = tree(copy)
    outcome = code("evolve", "--resume", copy)
    error = capsys.readouterr().err
    assert (outcome, error.count("\n")) == (4, 1)
    assert name in error
    assert "bug" not in error
    assert tree(copy) == before


def test_a_run_is_found_by_path_and_by_name(finished):
    assert run_folder.find(finished).folder == finished
    assert run_folder.find(finished.name, finished.parent).folder == finished
    assert run_folder.find(finished).name == finished.name
    with pytest.raises(SettingsError, match="no run 'other'"):
        run_folder.find("other", finished.parent)


def test_a_finished_run_has_a_summary_and_a_new_one_none(finished, tmp_path, chosen):
    assert run_folder.find(finished).summary()["test"]["tiny"]["tasks"] == 2
    assert run_folder.create(tmp_path / "runs", chosen, {}).summary() is None


def test_a_damaged_summary_is_said_to_be_damaged(copy):
    (copy / "summary.json").write_text("{")
    with pytest.raises(DamagedFile, match=r"summary\.json"):
        run_folder.find(copy).summary()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Fashion MNIST-mln-0", "fashion_mnist-mln-0"),
        ("Hautkrebs-Fälle", "hautkrebs-fälle"),
        ("Ha\u0308user", "häuser"),  # a and its dots apart, as macOS writes them
        ("Straße/İzmir", "strasse_i\u0307zmir"),
        ("皮膚-画像", "皮膚-画像"),
        ("Снимки \u202e\x07", "снимки_"),
        ("a:b\\c*?", "a_b_c_"),
    ],
)
def test_names_of_folders_keep_the_letters_of_every_script(tmp_path, name, expected):
    found = slug(name)
    assert found == expected
    (tmp_path / found).mkdir()
    assert slug(found) == found


def test_a_name_of_which_nothing_stays_is_replaced():
    assert file_name("../..", "run") == "run"


def test_settings_that_were_changed_are_refused_on_resuming_and_taken_from_a_copy(
    copy, capsys, tmp_path
):
    path = copy / "config.toml"
    changed = path.read_text().replace("generations = 3", "generations = 4")
    path.write_text(changed)
    assert code("evolve", "--resume", copy, "-q") == 4
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{path} is damaged or was changed after it was written" in error
    assert f"begin a new one from it with --config {path}" in error
    assert path.read_text() == changed
    assert code("evolve", "--config", path, "--out", tmp_path / "new", "-q") == 0
    (made,) = (tmp_path / "new").iterdir()
    assert run_folder.find(made).settings.generations == 4


@pytest.mark.parametrize("missing", ["choice", "test", "choice.generation", "test.tiny.ce"])
def test_a_sealed_summary_without_what_is_needed_is_damaged(copy, capsys, missing):
    table = storage.read_record(copy / "summary.json")
    *path, last = missing.split(".")
    within = table
    for name in path:
        within = within[name]
    del within[last]
    storage.write_record(copy / "summary.json", table)
    for command in (("evolve", "--resume", copy), ("show", copy)):
        assert code(*command) == 4
        error = capsys.readouterr().err
        assert f"summary.json is damaged: {missing}: field required" in error
        assert error.count("\n") == 1
