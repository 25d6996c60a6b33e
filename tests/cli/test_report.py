import contextlib
import io
import json
import shutil
import struct
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console as Terminal
from test_run_folder import SMALL, evolved, family, only_the_subset

from metaloss import console
from metaloss.cli import doctor, listing, showing
from metaloss.core import installation, registry
from metaloss.core.metric_scale import MetricScale
from metaloss.core.streams import Stream
from metaloss.data.datasets import names
from metaloss.errors import DamagedFile, DiskError, SettingsError
from metaloss.evaluation import plots
from metaloss.genomes._filters import examine
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.search import elimination_results, estimate, run_folder, settings
from metaloss.search.estimate import estimate_cost, estimate_text, example_losses
from metaloss.search.task_course import TaskCourse


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with its figures."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        return evolved(folder, report_every=2).folder


NOWHERE = Path("nowhere")


def size(path):
    """Width and height of a PNG."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def check_figure(path, columns):
    """A PNG of the right size that shows something, and beside it a PDF of lines and letters."""
    assert size(path) == (round(4.8 * 150) * columns, round(3.4 * 150))
    assert path.stat().st_size > 8_000
    check_vector(path.with_suffix(".pdf"))


def check_vector(path):
    """A PDF without a bitmap, and with TrueType letters: some publishers refuse those of type 3."""
    data = path.read_bytes()
    assert data.startswith(b"%PDF")
    assert data.rstrip().endswith(b"%%EOF")
    assert b"/Subtype /Image" not in data
    assert b"/Type3" not in data
    assert b"/FontFile2" in data


def test_a_run_leaves_its_figures(finished):
    check_figure(finished / "plots" / "fitness.png", 1)
    check_figure(finished / "plots" / "phenotype.png", 3)


def record(generation, best=0.5, **more):
    return {
        "generation": generation,
        "best": best,
        "mean": best,
        "diverged": 0,
        "candidates": 4,
        **more,
    }


HELD = {"held_out": {"accuracy": 0.6, "gain": 0.01, "error": 0.002}}
HISTORIES = {
    "one generation": [record(1)],
    "many": [record(i, **(HELD if i % 10 == 0 else {})) for i in range(1, 31)],
    "failures": [record(1), record(2, None), record(3)],
    "nothing but failures": [record(1, None)],
    "nothing": [],
}


@pytest.mark.parametrize("what", HISTORIES)
def test_every_history_can_be_drawn(tmp_path, what):
    plots.fitness(HISTORIES[what], tmp_path / "fitness.png")
    check_figure(tmp_path / "fitness.png", 1)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e30])
@pytest.mark.parametrize("architecture", ["equivariant", "figure3"])
def test_every_phenotype_can_be_drawn(tmp_path, architecture, scale):
    genome = MetaLossNetwork(architecture=architecture, start="random", fixed_classes=4)
    wild = genome.sample(1, Stream(0))
    losses = genome.losses(wild.from_vectors(wild.vectors() * scale))
    plots.phenotype(losses, "wild", genome.classes, tmp_path / "phenotype.png")
    check_figure(tmp_path / "phenotype.png", 3)


def test_figures_are_drawn_again_in_their_place_and_leave_no_scratch(tmp_path):
    (tmp_path / "fitness.png").write_text("old")
    drawn = set()
    for _ in range(2):
        plots.fitness(HISTORIES["many"], tmp_path / "fitness.png")
        drawn.add(tuple(path.read_bytes() for path in sorted(tmp_path.iterdir())))
    assert len(drawn) == 1, "the same figure has the same bytes"
    assert {path.name for path in tmp_path.iterdir()} == {"fitness.png", "fitness.pdf"}
    check_figure(tmp_path / "fitness.png", 1)


def test_a_figure_that_cannot_be_written_is_a_disk_error(tmp_path):
    with pytest.raises(DiskError, match="nowhere"):
        plots.fitness(HISTORIES["many"], tmp_path / "nowhere" / "fitness.png")


def test_plots_leave_pyplot_alone():
    assert "matplotlib.pyplot" not in vars(plots)


def test_what_there_is_is_listed_with_its_first_line():
    for kind in registry.KINDS:
        rows = listing.rows(kind, NOWHERE)
        assert [row["name"] for row in rows] == registry.names(kind)
        assert all(row["about"].endswith(".") for row in rows)
    assert [row["name"] for row in listing.rows("data", NOWHERE)] == names()


def test_task_families_are_listed_with_their_sizes_and_broken_ones_too(tmp_path):
    (tmp_path / "tasks").mkdir()
    family(tmp_path / "tasks", "mine")
    family(tmp_path / "tasks", "broken", "ways = ")
    rows = {row["name"]: row for row in listing.rows("tasks", NOWHERE)}
    assert rows["mine"]["about"].startswith("3-way 2-shot on fashionmnist, mlp, 3 steps")
    assert (rows["mine"]["ways"], rows["mine"]["shots"]) == (3, 2)
    assert rows["broken"]["about"].startswith("cannot be read: ")
    assert "fashionmnist" in rows
    json.dumps(list(rows.values()))


def test_an_unknown_list_is_refused():
    with pytest.raises(SettingsError, match=r"unknown list 'genome'\. Did you mean 'genomes'\?"):
        listing.rows("genome", NOWHERE)


def test_runs_are_listed_finished_unfinished_and_damaged(finished, tmp_path):
    out = finished.parent
    chosen = settings.resolve({**SMALL, "tasks": (family(tmp_path),), "seed": 5})
    made = run_folder.create(out, chosen, {})
    (out / "zzz").mkdir()
    (out / "zzz" / "config.toml").write_text("families = 3")
    (out / "not-a-run").mkdir()
    try:
        done, new, damaged = listing.rows("runs", out)
    finally:
        for path in (*made.folder.iterdir(), out / "zzz" / "config.toml"):
            path.unlink()
        for folder in (made.folder, out / "zzz", out / "not-a-run"):
            folder.rmdir()
    assert done["name"] == finished.name
    assert done["about"].startswith("3/3 generations; points over tuned")
    assert done["summary"]["test"].keys() == {"tiny"}
    assert new["about"] == f"0/3 generations, unfinished: metaloss evolve --resume {made.folder}"
    assert damaged["about"].startswith("damaged: ")


def test_a_run_is_described_with_all_that_matters(finished):
    table = showing.describe(str(finished), finished.parent)
    assert table["run"] == str(finished)
    assert table["summary"]["test"].keys() == {"tiny"}
    lines = showing.text(table).splitlines()
    assert lines[0].split() == ["run", str(finished)]
    assert any(line.startswith("loss ") and "30 weights" in line for line in lines)
    assert any(line.startswith("test    tiny") for line in lines)
    assert lines[-1].split() == ["phenotype", str(finished / "plots" / "phenotype.png")]
    json.dumps(table)


def test_a_loss_alone_is_described_and_drawn_here(finished, tmp_path):
    table = showing.describe(str(finished / "loss"), tmp_path)
    assert "run" not in table
    assert "30 weights" in table["loss"]
    check_figure(tmp_path / table["phenotype"], 3)
    assert table["about"]["run"] == finished.name


def test_an_unfinished_run_is_described_with_what_to_do(tmp_path):
    chosen = settings.resolve({**SMALL, "tasks": (family(tmp_path),)})
    made = run_folder.create(tmp_path / "runs", chosen, {})
    table = showing.describe(made.name, tmp_path / "runs")
    assert table["loss"] is None
    assert (
        showing.text(table).splitlines()[-1]
        == f"no winner yet: metaloss evolve --resume {made.folder}"
    )


def test_a_damaged_summary_is_said_to_be_damaged(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "summary.json").write_text("{")
    with pytest.raises(DamagedFile, match=r"summary\.json"):
        showing.describe(str(copy), tmp_path)


def test_the_estimate_counts_what_the_run_will_train(tmp_path, finished):
    chosen = settings.resolve(settings.read(finished / "config.toml"))
    table = estimate_cost(chosen)
    history = [json.loads(line) for line in (finished / "history.jsonl").read_text().splitlines()]
    assert table["trainings"] == history[-1]["trainings"]
    assert table["seconds"] >= 0
    assert table["memory_bytes"] == chosen.memory
    assert estimate_text(table).startswith("24 trainings, about ")


def searched(tmp_path, **parts):
    """The estimate of a search for formulas, and its candidates, generation by generation."""
    result = evolved(tmp_path, tries=1, **parts)
    chosen = settings.resolve(settings.read(result.folder / "config.toml"))
    return estimate_cost(chosen), sum(record["candidates"] for record in result.history)


def test_a_first_generation_that_is_larger_is_counted_once_and_so_is_the_control_of_one_epoch(
    tmp_path,
):
    strategy = {"kind": "regularized", "population": 4, "initial": 9, "batch": 3}
    table, population = searched(
        tmp_path, genome={"kind": "graph"}, strategy=strategy, generations=4
    )
    assert population == 9 + 3 * 3
    assert table["trainings"] == (population + 1) * SMALL["tasks_per_generation"]


def test_generations_that_score_the_living_again_are_counted_with_theirs(tmp_path):
    strategy = {"kind": "regularized", "population": 4, "initial": 9, "batch": 3, "refresh": 2}
    table, population = searched(
        tmp_path, genome={"kind": "graph"}, strategy=strategy, generations=5
    )
    assert population == 9 + 3 + 4 + 3 + 4
    assert table["trainings"] == (population + 3) * SMALL["tasks_per_generation"]


def test_fresh_tasks_have_a_control_each(tmp_path):
    parts = {
        "genome": {"kind": "tree"},
        "strategy": {"kind": "gp", "mu": 3, "lambda_": 2},
        "generations": 3,
    }
    table, population = searched(tmp_path, **parts)
    assert population == 3 * 5
    assert table["trainings"] == (population + 3) * SMALL["tasks_per_generation"]


@pytest.mark.parametrize("generations", [1, 2])
def test_a_short_search_is_counted_too(tmp_path, generations):
    strategy = {"kind": "regularized", "population": 4, "initial": 9, "batch": 3, "refresh": 1}
    table, population = searched(
        tmp_path, genome={"kind": "tree"}, strategy=strategy, generations=generations
    )
    assert table["trainings"] == (population + generations) * SMALL["tasks_per_generation"]


def test_formulas_are_timed_as_a_search_would_train_them():
    genome = registry.build("genomes", {"kind": "tree"})
    losses = example_losses(genome, 30, Stream(0))
    assert len(losses) == estimate.TIMED
    assert genome.valid(genome.sample(8, Stream(0).at("examples"))).any()
    assert not any(examine(f.expression, genome.filters).reason for f in losses.formulas)


def gain(mean, low, high):
    return {"mean": mean, "low": low, "high": high, "error": 0.001, "tasks": 200}


SUMMARY = {
    "choice": {
        "generation": 140,
        "origin": "the population's centre",
        "accuracy": 0.64,
        "tasks": 200,
    },
    "trainings": 36000,
    "test": {
        "fashionmnist": {
            "accuracy": 0.634,
            "tasks": 200,
            "classes": 10,
            "ce": {
                "lr": 0.1,
                "steps": 20,
                "accuracy": 0.6,
                "gain": gain(0.034, 0.03, 0.038),
                "low": 0.02,
                "high": 0.048,
                "p": 1e-9,
                "verdict": "better",
            },
            "ce_steps": {
                "lr": 0.05,
                "steps": 120,
                "accuracy": 0.65,
                "gain": gain(-0.016, -0.02, -0.012),
                "low": -0.033,
                "high": 0.001,
                "p": 1e-3,
                "verdict": "too few images to tell",
            },
        }
    },
}


def test_the_summary_says_winner_test_and_both_rivals():
    winner, *test = console.summary_lines(SUMMARY)
    assert winner == "winner  the population's centre, chosen on 200 fresh meta-validation tasks"
    assert test == [
        "test    fashionmnist, 200 meta-test tasks: 63.4 %",
        "        CE at its best rate (0.1) 60.0 %: better, paired +3.4 [+2.0, +4.8]",
        "        CE at its best rate (0.05) and number of steps (120) 65.0 %: "
        "too few images to tell, "
        "paired -1.6 [-3.3, +0.1]",
    ]


def test_a_result_that_is_hardly_a_guess_is_said_to_be_one():
    row = {**SUMMARY["test"]["fashionmnist"], "accuracy": 0.118}
    assert console.summary_lines({**SUMMARY, "test": {"tiny": row}})[1].endswith(
        "11.8 % (near chance: 10 classes, 10.0 %)"
    )


def test_strategies_have_their_usual_names():
    assert console.label({"kind": "mu_plus_lambda", "mu": 16, "lambda_": 32}) == "(16+32)-ES"
    assert console.label({"kind": "openai_es"}) == "openai_es"


def told(capsys, quiet, verbose, history):
    """What a console prints of a history."""
    with console.Console(quiet, verbose) as talk:
        talk.total = 30
        talk.course = TaskCourse(8, 1.0, 30, 1, epoch=lambda number: number)
        talk.on_baseline([SimpleNamespace(lr=0.1, score=0.6, relative=False)], 64)
        for each in history:
            talk.on_generation(each, 0.5, 100)
    return capsys.readouterr()


def test_a_generation_is_a_line_under_its_heading(capsys):
    out, err = told(capsys, False, False, HISTORIES["many"])
    start, header, first, *others = out.splitlines()
    assert (
        start == "start   cross-entropy at its best learning rate (0.1): 60.0 % "
        "on 64 meta-validation tasks"
    )
    assert err == ""
    assert [line.split()[0] for line in others] == ["10", "20", "30"]
    assert first.split() == ["1", "50.0", "50.0", "0/4", "200", "14s"]
    assert others[0].split() == [
        "10",
        "50.0",
        "50.0",
        "60.0",
        "+1.0",
        "±",
        "0.2",
        "0/4",
        "200",
        "10s",
    ]
    for word in ("best", "diverged", "left"):  # columns end where their headings do
        assert header.index(word) + len(word) <= len(first) + 2
    assert len({len(line) for line in (first, *others)}) == 1


def test_a_generation_in_which_all_fail_is_always_told(capsys):
    out, _ = told(capsys, False, False, [record(1), record(2), record(3, None, diverged=4)])
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["1", "3"]
    assert "4/4" in out
    assert "–" in out


def test_verbose_tells_all_and_quiet_nothing(capsys):
    assert len(told(capsys, False, True, HISTORIES["many"]).out.splitlines()) == 2 + 30
    assert told(capsys, True, False, HISTORIES["many"]) == ("", "")


@pytest.mark.parametrize("entered", [True, False])
def test_a_bar_is_there_only_where_someone_takes_it_down(entered):
    talk = console.Console()
    talk.terminal = Terminal(file=io.StringIO(), force_terminal=True)
    talk.total = 3
    with talk if entered else contextlib.nullcontext():
        talk.on_baseline([], 1)
        assert (talk.bar is not None) == entered
    assert talk.bar is None


def test_events_are_warnings_on_stderr_even_when_quiet(capsys):
    out, err = told(capsys, True, False, [record(1, events=["out of memory: chunks cut to 1/2"])])
    assert (out, err) == ("", "warning: out of memory: chunks cut to 1/2\n")


def test_names_are_never_markup(capsys):
    with console.Console() as talk:
        talk.say("[red]tiny[/red] [bold]x :smile:")
        talk.on_warning("[link=http://x]y[/link]")
    out, err = capsys.readouterr()
    assert out == "[red]tiny[/red] [bold]x :smile:\n"
    assert "[link=http://x]y[/link]" in err


def test_the_doctor_finds_what_is_here():
    findings = {finding.name: finding for finding in doctor.examine()}
    assert {
        "metaloss",
        "python",
        "torch",
        "torchvision",
        "cpu",
        "gpu",
        "sklearn",
    } <= findings.keys()
    assert findings["data fashionmnist"].found.startswith("embedded subset")
    assert not any(finding.fatal for finding in findings.values())
    missing = findings["data mnist"]
    assert missing.found == "not here"
    assert "metaloss data fetch mnist" in missing.advice
    assert {"data voc", "data imagenet"} <= findings.keys()
    assert all("\n" not in finding.found for finding in findings.values())


def test_the_doctor_says_what_to_do_about_what_is_missing(monkeypatch):
    def load(name):
        if name == "torchvision":
            raise ImportError("torchvision: undefined symbol\nsecond line")
        return import_module(name)

    monkeypatch.setattr(doctor, "importlib", SimpleNamespace(import_module=load))
    monkeypatch.setattr(torch, "__version__", "1.13.1+cu117")
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["torchvision"].fatal
    assert "undefined symbol" in findings["torchvision"].found
    assert all("\n" not in finding.found for finding in findings.values())
    assert findings["torch"].fatal
    assert "pip install -U torch" in findings["torch"].advice


def test_the_doctor_says_how_to_get_the_extras_of_full_size_training(monkeypatch):
    here = {finding.name: finding for finding in doctor.examine()}
    assert here["lightning"] == doctor.CheckResult("lightning", version("lightning"))

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", missing)
    findings = {finding.name: finding for finding in doctor.examine()}
    for name, extra in (("lightning", "train"), ("tensorboard", "tensorboard"), ("h5py", "pcam")):
        found = findings[name]
        assert (found.found, found.fatal) == ("not installed", False)
        assert found.advice.endswith(installation.command(extra))


@pytest.mark.parametrize(
    ("version", "fatal"),
    [("2.11.0", False), ("2.11.0+cpu", False), ("3.0.0", False), ("2.10.1", True), ("2.9.0", True)],
)
def test_an_old_torch_is_told_from_a_new_one(monkeypatch, version, fatal):
    monkeypatch.setattr(torch, "__version__", version)
    assert doctor._old_torch()[1] is fatal


@pytest.mark.parametrize(
    ("spec", "warned"), [("ce", False), ("-logp*(y + 1)", True), ("label_smoothing", True)]
)
def test_a_loss_that_gives_masked_classes_a_share_is_warned_of(spec, warned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = showing.describe(spec, tmp_path)["warnings"]
    assert any("masked by a logit of -inf" in line for line in found) == warned


def test_what_is_shown_stands_in_one_column():
    table = {"loss": "a network", "about": {"evolved on": "fashionmnist", "source": "metaloss"}}
    assert showing.text(table).splitlines() == [
        "loss       a network",
        "evolved on fashionmnist",
        "source     metaloss",
    ]


def test_numbers_of_another_metric_than_accuracy_carry_its_name(capsys):
    scale = MetricScale("cost", "cost", maximise=False, in_percent=False, failed=5.0)
    talk = console.Console()
    record = {
        "asked": {"stage": 1, "keep": 1, "steps": 2, "scale": 1, "tasks": 4, "repeats": 1},
        "accuracy": [0.75, 0.5],
        "score": [4.5, 4.25],
        "reference": {"accuracy": 0.625, "score": 4.0},
        "tau": None,
        **scale.entry(),
    }
    talk.on_elimination_stage(elimination_results.row(record))
    ranking = [{"formula": "-logp", "cost": 0.5, "accuracy": 0.75}]
    talk.on_elimination_end(Path("there"), {"ranking": ranking, **scale.entry()})
    gain = {"mean": -0.25, "low": -0.5, "high": -0.125, "tasks": 3}
    accuracy = {"before": 0.5, "after": 0.625}
    row = {"before": 0.5, "after": 0.25, "accuracy": accuracy, "gain": gain, **scale.entry()}
    talk.on_refine_end({"before": "a", "after": "b", "families": {"tiny": row}})
    talk.scale = scale
    talk.total = 3
    talk.on_baseline([SimpleNamespace(lr=0.2, score=4.25, relative=False)], 64)
    talk.__exit__()
    stage, winner, _, _, _, refined, start, table, head = capsys.readouterr().out.splitlines()
    assert stage.split()[:8] == ["1", "2", "2x", "1x", "4", "1", "0.500", "1.000"]
    assert stage.endswith("  cost, accuracy 75.0 %, CE 62.5 %")
    assert winner == "winner  -logp: cost 0.500 (accuracy 75.0 %) in the last stage"
    assert refined.endswith(
        "cost 0.500 before, 0.250 after: paired -0.250 [-0.500, -0.125] "
        "(accuracy 50.0 % before, 62.5 % after)"
    )
    assert start.endswith("(0.2): cost 0.750 on 64 meta-validation tasks")
    assert table == "table   best, mean, held-out: cost"
    assert head.endswith("   left   acc [%]")
    held_out = {"cost": 0.5, "accuracy": 0.75, "gain": -0.25, "error": 0.125}
    record = {"generation": 2, "candidates": 4, "diverged": 0, "best": 0.5, "mean": 0.75}
    line = console.text.generation_line(record | {"held_out": held_out}, [(1.0, 8)], 2.0, scale)
    assert " 0.500  -0.250 ± 0.125 " in line
    assert len(line) == len(head)
    assert line.endswith("75.0")
