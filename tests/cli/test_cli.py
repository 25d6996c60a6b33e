import contextlib
import gc
import gzip
import io
import json
import os
import pty
import random
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest
from test_run_folder import SMALL, essence, evolved, family, only_the_subset, tree, without_plots

from metaloss import cli, storage
from metaloss.search import program, settings

COMMANDS = (
    "evolve",
    "compare",
    "reproduce",
    "eliminate",
    "refine",
    "show",
    "list",
    "data",
    "data fetch",
    "data verify",
)
COMMANDS += ("train", "study", "study rank", "recommend", "doctor")
# The command, with no other data than the embedded subset, and steps as few as in this process.
PROGRAM = """
import sys
from pathlib import Path
from metaloss.data.datasets import fashionmnist
from metaloss.tasks import step_counts
fashionmnist.SYSTEM = Path("no-such-folder")
step_counts.STEPS = (20,)
from metaloss.cli import main
main()
"""
# It never finishes its first commit. Short naps: a signal that comes right after another wakes no
# sleeping thread.
STUCK = """
import time
from metaloss import storage
storage.commit = lambda *args: print("stuck", flush=True) or [time.sleep(0.01) for _ in range(6000)]
"""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def metaloss(capsys):
    """Runs a command line in this process; gives exit code, stdout and stderr."""

    def run(text, *more):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main([*shlex.split(text), *map(str, more)])
        return (caught.value.code, *capsys.readouterr())

    return run


def check_one_line(outcome, exit_code, *words):
    """The command failed with one line on stderr that holds these words, and nothing on stdout."""
    code, out, err = outcome
    assert (code, out, err.count("\n")) == (exit_code, "", 1), outcome
    assert err.startswith("error: ")
    assert "bug" not in err
    assert "Traceback" not in err
    for word in words:
        assert word in err


@pytest.fixture
def config(tmp_path):
    """A config.toml of a small run."""
    path = tmp_path / "small.toml"
    path.write_bytes(settings.toml(settings.resolve({**SMALL, "tasks": (family(tmp_path),)})))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        return evolved(folder).folder


def test_the_program_s_help_names_every_command(metaloss):
    code, out, _ = metaloss("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS if " " not in command)
    assert "..." not in out.partition("Commands:")[2]  # each one's first sentence fits the line


def test_every_command_that_a_module_defines_belongs_to_the_program():
    modules = [
        import_module(f"metaloss.cli.{path.stem}")
        for path in Path(cli.__file__).parent.glob("[!_]*.py")
    ]
    defined = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, click.Command)
    }
    ours = set(cli.cli.commands.values())
    ours |= {
        command
        for group in ours
        if isinstance(group, click.Group)
        for command in group.commands.values()
    }
    assert defined == ours
    assert len(modules) > 1


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(metaloss, command, flag):
    code, out, err = metaloss(f"{command} {flag}")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: metaloss {command} ")


def test_the_version_is_told(metaloss):
    code, out, _ = metaloss("--version")
    assert code == 0
    assert re.search(r"\d+\.\d+\.\d+", out)


@pytest.mark.parametrize("command", ["", "data"])
def test_without_a_command_the_help_is_shown(metaloss, command):
    code, out, err = metaloss(command)
    assert code == 2
    assert (out + err).startswith("Usage: ")


def test_help_is_there_before_torch(tmp_path):
    program = (
        "import sys; from metaloss.cli import main\n"
        "try: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "evolve" in done.stdout


def test_a_command_leaves_its_objects_alone_as_it_ends(metaloss, monkeypatch):
    registered = []
    monkeypatch.setattr(cli.atexit, "register", registered.append)
    assert metaloss("list", "strategies")[0] == 0
    assert gc.freeze in registered, "a last look for cycles takes seconds after torch"


WRONG = {
    "evolve --tasks fashonmnist": (
        "unknown task family 'fashonmnist'. Did you mean 'fashionmnist'?",
        "metaloss list tasks",
    ),
    "evolve --tasks nowhere/x.toml": ("nowhere/x.toml", "No such file"),
    "evolve --tasks folder:nowhere": ("nowhere",),
    "evolve --genome mlm": ("unknown genome 'mlm'. Did you mean 'mln'?",),
    "evolve --strategy openai": ("unknown strategy 'openai'. Did you mean 'openai_es'?",),
    "evolve --preset qick": ("unknown preset 'qick'. Did you mean 'quick'?",),
    "evolve --init cee": ("unknown loss 'cee'", "Did you mean 'ce'?"),
    "evolve --set generatoins=3": ("unknown setting 'generatoins'. Did you mean 'generations'?",),
    "evolve --set strategy.sgima=1": ("unknown setting 'sgima'. Did you mean 'sigma'?",),
    "evolve --set genome.hiden=1": ("unknown setting 'hiden'. Did you mean 'hidden'?",),
    "evolve --set inner.lrr=1": ("lrr",),
    "evolve --set classifier.hiddn=[1]": ("hiddn",),
    "evolve --set classifier.kind=mpl": ("unknown classifier 'mpl'. Did you mean 'mlp'?",),
    "evolve --set name=mine": ("unknown setting 'name'",),
    "evolve --set origin=here": ("unknown setting 'origin'",),
    "evolve --set strategy=openai_es": ("strategy", "'openai_es'"),
    "evolve --set genome=3": ("genome", "3"),
    "evolve --set inner=3": ("inner", "3"),
    "evolve --set inner.lr": ("--set takes path.to.setting=value, got 'inner.lr'",),
    "evolve --set inner.lr=-1": ("error: tasks of fashionmnist: inner.lr", "greater than 0", "-1"),
    "evolve --set inner.lr=nan": ("inner.lr", "nan"),
    "evolve --set strategy.sigma=inf": ("sigma", "inf"),
    "evolve --set rates=[]": ("rates",),
    "evolve --set strategy.mu=0": ("mu", "0"),
    "evolve --set genome.kernel=9 genome.architecture=figure3": (
        "kernel must be at most features = 8, got 9",
    ),
    "evolve --strategy openai_es --set strategy.population=3": ("population", "must be even"),
    "evolve --strategy openai_es --mu 3": ("unknown setting 'mu'",),
    "evolve --generations 0": ("generations", "greater than or equal to 1"),
    "evolve --generations few": ("few",),
    "evolve --seed -1": ("seed",),
    "evolve --device tpu": ("device", "tpu"),
    "evolve --time-limit soon": ("--time-limit takes a number and s, m or h, got 'soon'",),
    "evolve --time-limit -5": ("--time-limit takes a number from 0 on and s, m or h, got '-5'",),
    "evolve --time-limit nan": ("--time-limit takes a number from 0 on",),
    "evolve --tasks folder:": ("data source 'folder:' needs the path of a folder: folder:PATH",),
    "evolve --task x": ("--task", "Did you mean"),
    "evolve extra": ("extra",),
    "evolve --config nowhere.toml": (
        "nowhere.toml",
        "No such file",
        "--config takes a file of settings in TOML",
        "metaloss evolve --dry-run prints one",
    ),
    "evolve --config .": (". is a folder", "--config takes a file of settings in TOML"),
    "recommend --data fashionmnist --losses ce": ("leaves nothing to choose between",),
    "compare ce -x": ("No such option '-x'",),
    "evolve --resume nothing": ("no run 'nothing'", "metaloss list runs"),
    "evolve --tasks .": ("unknown task family '.'. It is a folder; its images are folder:.",),
    "recommend --data .": ("unknown task family '.'. It is a folder; its images are folder:.",),
    "evolve --resume x --config small.toml": ("--resume keeps the run's settings",),
    "evolve --resume x --dry-run": ("--resume keeps the run's settings",),
    "evolve --objective median": ("objective", "'mean', 'robust', 'wins' or 'regret'"),
    "evolve --set ways=11": ("11-way needs 11 classes, found 10", "This fits: ways = 10"),
    "evolve --set ways=1": ("ways", "greater than or equal to 2"),
    "evolve --set shots=0": ("shots",),
    "evolve --metric recall_at_precision --set metric.at=2": ("metric: at: ", "got 2"),
    "evolve --metric macrof1": ("unknown metric 'macrof1'. Did you mean 'macro_f1'?",),
    "evolve --set shots=9999": ("shots + val", "This fits: ways = 10, shots = "),
    "evolve --set val=9999": ("shots + val", "This fits: ways = 10, shots = 5, val = "),
    "evolve --genome tree --set genome.past=true inner.batch=8": (
        "fashionmnist has inner.batch = 8",
    ),
    "refine -(.5*y+.5*past)*logp --set inner.batch=8": ("inner.batch = 8", "a loss without `past`"),
    "compare -y*logp*past --set inner.batch=8": ("fashionmnist has inner.batch = 8",),
    "train --loss -y*logp*past --augment mixup": ("augment = 'mixup', which mixes images",),
    "evolve --genome mln --set ways=5 genome.architecture=figure3": ("10 classes alone",),
    "list taks": ("unknown list 'taks'. Did you mean 'tasks'?",),
    "list": ("KIND", "tasks|genomes"),
    "show nothing": ("no loss 'nothing'",),
    "data verify fashonmnist": ("Did you mean 'fashionmnist'?",),
    "data fetch folder": ("nothing to fetch",),
    "data verify mnist": ("mnist",),
    "evovle": ("evovle",),
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_input_gets_one_line_exit_2_and_leaves_nothing(metaloss, tmp_path, config, text):
    before = tree(tmp_path)
    words = WRONG[text] if text != "list" else ()
    check_one_line(metaloss(text), 2, *words)
    assert tree(tmp_path) == before
    assert not (tmp_path / "runs").exists()


def test_a_formula_that_begins_with_a_minus_is_no_option_even_with_a_misspelt_name(metaloss):
    for text in ("-y*logq", "-(y*logq)"):
        code, out, err = metaloss("compare ce", text)
        assert (code, out) == (2, "")
        assert err.startswith("error: unknown name 'logq'. Did you mean 'logp'?")


def test_a_folder_in_place_of_a_config_names_the_file_within(metaloss, config, tmp_path):
    (tmp_path / "run").mkdir()
    config.rename(tmp_path / "run" / "config.toml")
    check_one_line(metaloss("evolve --config run"), 2, "run is a folder", "run/config.toml")


def test_values_that_are_proposed_do_fit(metaloss, config):
    _, _, error = metaloss("evolve --set ways=11 shots=9999")
    proposal = error.split("This fits: ")[1].strip()
    chosen = [part.replace(" ", "") for part in proposal.split(",")]
    assert metaloss("evolve --dry-run --config small.toml --set", *chosen)[0] == 0


def test_wrong_toml_is_named(metaloss, tmp_path):
    for text, word in (
        ("ways = ", "Invalid"),
        ('ways = 3\nname = "x"', "name"),
        ("ways = 3\nshot = 1", "shots"),
        ("ways = 3", "dataset"),
    ):
        (tmp_path / "mine.toml").write_text(text)
        check_one_line(metaloss("evolve --tasks mine.toml"), 2, "mine.toml", word)


DAMAGE = {
    "cut": lambda data: gzip.compress(data[:-5]),
    "magic": lambda data: gzip.compress(b"\0\0\x08\x03" + data[4:]),
    "labels": lambda data: gzip.compress(data[:-1] + b"\xff"),
    "stream": lambda data: gzip.compress(data)[:-20],
    "nothing": lambda data: b"",
}


def full_set(folder, n=40):
    """Four IDX files like those of the full set, of n images each."""
    folder.mkdir(parents=True)
    draw = random.Random(0)
    for split in ("train", "t10k"):
        pixels = (
            (0x803).to_bytes(4, "big")
            + b"".join(k.to_bytes(4, "big") for k in (n, 28, 28))
            + draw.randbytes(n * 784)
        )
        labels = (0x801).to_bytes(4, "big") + n.to_bytes(4, "big") + bytes(i % 10 for i in range(n))
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_data_is_named_before_anything_is_made(metaloss, tmp_path, config, what):
    full_set(tmp_path / "no-data" / "fashionmnist")
    path = tmp_path / "no-data" / "fashionmnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(DAMAGE[what](gzip.decompress(path.read_bytes())))
    for text in ("evolve --config small.toml", "evolve --dry-run", "data verify fashionmnist"):
        check_one_line(metaloss(text), 2, str(path), "found", "expected")
    assert not (tmp_path / "runs").exists()


def test_missing_data_is_named(metaloss, tmp_path, config):
    full_set(tmp_path / "no-data" / "fashionmnist")
    path = tmp_path / "no-data" / "fashionmnist" / "t10k-images-idx3-ubyte.gz"
    path.unlink()
    check_one_line(metaloss("evolve --config small.toml"), 2, str(path))


def test_a_config_that_is_no_toml_is_a_mistake_of_the_user(metaloss, tmp_path):
    (tmp_path / "bad.toml").write_bytes(b"\xff\x00")
    check_one_line(metaloss("evolve --config bad.toml"), 2, "bad.toml", "not TOML")


def plan(metaloss, text):
    """The settings that a dry run resolves to."""
    code, out, _ = metaloss(f"{text} --dry-run --json")
    assert code == 0
    return json.loads(out)["settings"]


def test_several_families_can_follow_one_flag(metaloss, tmp_path, config):
    family(tmp_path, "two")
    for text in (
        "--tasks tiny.toml two.toml",
        "--tasks tiny.toml --tasks two.toml",
        "--tasks=tiny.toml --tasks two.toml",
    ):
        table = plan(metaloss, f"evolve --config small.toml {text} --seed 3")
        assert [each["name"] for each in table["families"]] == ["tiny", "two"]
        assert table["seed"] == 3


def test_any_setting_is_set_by_its_path(metaloss, config):
    sets = (
        "inner.lr=0.3 classifier.hidden=[4] strategy.sigma=0.5 genome.context=mean rates=[0.2] "
        "report_every=2"
    )
    table = plan(metaloss, f"evolve --config small.toml --set {sets} --set ways=2")
    assert table["families"][0]["inner"] == {**table["families"][0]["inner"], "lr": 0.3, "steps": 3}
    assert table["families"][0]["classifier"] == {
        **table["families"][0]["classifier"],
        "kind": "mlp",
        "hidden": [4],
    }
    assert (table["families"][0]["ways"], table["rates"], table["report_every"]) == (2, [0.2], 2)
    assert (table["strategy"]["sigma"], table["strategy"]["mu"]) == (0.5, 2)
    assert (table["genome"]["context"], table["genome"]["features"]) == ("mean", 2)


def test_flags_are_settings(metaloss, config):
    flags = (
        "--generations 5 --mu 3 --lambda 4 --tasks-per-generation 6 --init random --seed 7 "
        "--device cpu"
    )
    table = plan(
        metaloss, f"evolve --tasks tiny.toml --set genome.features=2 --objective wins {flags}"
    )
    assert (
        table["generations"],
        table["tasks_per_generation"],
        table["seed"],
        table["device"],
    ) == (5, 6, 7, "cpu")
    assert (table["strategy"]["kind"], table["strategy"]["mu"], table["strategy"]["lambda_"]) == (
        "mu_plus_lambda",
        3,
        4,
    )
    assert (table["genome"]["kind"], table["genome"]["start"], table["objective"]) == (
        "mln",
        "random",
        "wins",
    )


@pytest.mark.parametrize("name", ["mean", "robust", "wins"])
def test_every_objective_goes_with_a_formula_search(metaloss, config, name):
    table = plan(
        metaloss, f"evolve --tasks tiny.toml --genome tree --mu 3 --lambda 4 --objective {name}"
    )
    assert (table["objective"], table["strategy"]["mu"], table["strategy"]["lambda_"]) == (
        name,
        3,
        4,
    )


def test_another_strategy_drops_the_settings_of_the_first(metaloss, config):
    table = plan(
        metaloss, "evolve --config small.toml --strategy openai_es --set strategy.population=4"
    )
    assert table["strategy"]["kind"] == "openai_es"
    assert "mu" not in table["strategy"]


@pytest.mark.parametrize("name", ["smoke", "quick", "long"])
def test_a_preset_gives_way_to_flags(metaloss, config, name):
    table = plan(
        metaloss, f"evolve --preset {name} --tasks tiny.toml --init random --generations 7"
    )
    assert table["generations"] == 7


def test_a_dry_run_prints_a_configuration_and_an_estimate_and_makes_nothing(
    metaloss, tmp_path, config
):
    code, out, err = metaloss("evolve --config small.toml --dry-run")
    assert (code, err) == (0, "")
    assert settings.resolve(tomllib.loads(out)) == settings.resolve(settings.read(config))
    assert re.search(r"24 trainings, about \d+s .* GiB", out)
    assert not (tmp_path / "runs").exists()
    estimate = json.loads(metaloss("evolve --config small.toml --dry-run --json")[1])["estimate"]
    assert estimate["trainings"] == 24
    assert estimate["memory_bytes"] > 0


def test_json_stands_alone_on_stdout(metaloss, tmp_path, config):
    code, out, err = metaloss("evolve --config small.toml --json")
    assert (code, err) == (0, "")
    table = json.loads(out, parse_constant=pytest.fail)
    assert Path(table["run"]) == Path("runs/tiny-mln-mu_plus_lambda-0")
    assert table["test"]["tiny"]["tasks"] == 2


def test_json_is_strict_even_where_everything_diverged(metaloss, config):
    huge = "--set strategy.sigma=1e38 genome.activation=relu --generations 2"
    code, out, _ = metaloss(f"evolve --config small.toml {huge} --json")
    assert code == 0
    json.loads(out, parse_constant=pytest.fail)


def test_quiet_prints_nothing(metaloss, config):
    assert metaloss("evolve --config small.toml -q") == (0, "", "")


def test_the_run_tells_what_it_does(metaloss, config):
    code, out, err = metaloss("evolve --config small.toml")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert "\r" not in out
    words = [
        "metaloss ",
        "mln (30 weights)",
        "(2+2)-ES",
        "seed 0",
        "tasks   tiny",
        "3-way 2-shot",
        "embedded subset",
    ]
    words += [
        "start   cross-entropy at its best learning rate",
        " gen   best",
        "winner  ",
        "test    tiny, 2 meta-test tasks",
    ]
    words += ["saved   runs/tiny-mln-mu_plus_lambda-0/", "next: metaloss "]
    places = [out.find(word) for word in words]
    assert -1 not in places, words[places.index(-1)]
    assert places == sorted(places)


def test_verbose_prints_every_generation(metaloss, config):
    _, out, _ = metaloss("evolve --config small.toml -v")
    assert len(re.findall(r"^ +\d+  +\d+\.\d ", out, re.MULTILINE)) == 3


def test_a_resume_by_name_tells_the_same_end(metaloss, config):
    _, first, _ = metaloss("evolve --config small.toml")
    code, again, _ = metaloss("evolve --resume tiny-mln-mu_plus_lambda-0")
    assert code == 0
    assert [line for line in first.splitlines() if line.startswith("test")] == [
        line for line in again.splitlines() if line.startswith("test")
    ]


def test_a_resume_with_other_settings_is_refused(metaloss, config):
    metaloss("evolve --config small.toml -q")
    for flags, word in (
        ("--seed 1", "seed"),
        ("--mu 3", "strategy.mu"),
        ("--generations 2", "generations"),
        ("--set inner.lr=1", "inner.lr"),
    ):
        check_one_line(
            metaloss(f"evolve --resume tiny-mln-mu_plus_lambda-0 {flags}"),
            2,
            f"{word}: the run has ",
        )


def test_a_time_limit_ends_with_a_winner_that_can_be_resumed(metaloss, config):
    assert metaloss("evolve --config small.toml -q --time-limit 0")[0] == 0
    assert "1/3 generations" in metaloss("list runs")[1]
    assert metaloss("evolve -q --resume tiny-mln-mu_plus_lambda-0 --time-limit 1h")[0] == 0
    assert "3/3 generations" in metaloss("list runs")[1]


LISTS = {
    "tasks": ("fashionmnist", "10-way 5-shot on fashionmnist, mlp, 20 steps"),
    "genomes": ("mln", "Meta-Loss Network"),
    "strategies": ("openai_es", "evolution strategy"),
    "classifiers": ("mlp", ""),
    "data": ("fashionmnist", "Fashion-MNIST"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_every_kind_of_thing_is_listed(metaloss, kind):
    name, about = LISTS[kind]
    code, out, err = metaloss(f"list {kind}")
    assert (code, err) == (0, "")
    assert re.search(rf"^{name} +.*{re.escape(about)}", out, re.MULTILINE)
    rows = json.loads(metaloss(f"list {kind} --json")[1])
    assert len(rows) == out.count("\n")
    assert all(row["name"] and row["about"] for row in rows)


def test_a_pattern_is_a_part_of_a_name(metaloss):
    assert [line.split()[0] for line in metaloss("list strategies RANDOM")[1].splitlines()] == [
        "random_search"
    ]
    assert metaloss("list strategies nothing") == (
        0,
        "",
        "no strategies with 'nothing' in their names\n",
    )
    assert metaloss("list runs --runs nowhere") == (0, "", "no runs under nowhere\n")


def test_runs_are_listed_and_shown_by_name_and_by_path(metaloss, finished):
    out = finished.parent
    _, listed, _ = metaloss("list runs --runs", out)
    assert re.fullmatch(
        rf"{finished.name}  3/3 generations; points over tuned cross-entropy: tiny [+-].*\n", listed
    )
    code, by_name, _ = metaloss("show", finished.name, "--runs", out)
    assert code == 0
    assert metaloss("show", finished)[1] == by_name
    for word in (
        str(finished),
        "3/3 generations",
        "Meta-Loss Network",
        "winner  ",
        "test    tiny",
        "phenotype",
    ):
        assert word in by_name
    table = json.loads(metaloss("show --json", finished)[1])
    assert table["summary"]["test"].keys() == {"tiny"}


def test_no_runs_are_no_error(metaloss):
    assert metaloss("list runs")[0] == 0


def test_a_loss_is_shown_too(metaloss, finished):
    code, out, _ = metaloss("show", finished / "loss")
    assert code == 0
    assert "Meta-Loss Network" in out


def test_an_unfinished_run_is_listed_and_shown_with_what_to_do(
    metaloss, config, tmp_path, monkeypatch
):
    monkeypatch.setattr(program, "finish_search", lambda runner, progress: sys.exit(9))
    assert metaloss("evolve --config small.toml -q")[0] == 9
    again = "metaloss evolve --resume runs/tiny-mln-mu_plus_lambda-0"
    assert f"3/3 generations, unfinished: {again}" in metaloss("list runs")[1]
    code, out, _ = metaloss("show tiny-mln-mu_plus_lambda-0")
    assert code == 0
    assert f"no winner yet: {again}" in out


def test_a_damaged_run_is_listed_among_the_others(metaloss, config):
    metaloss("evolve --config small.toml -q")
    Path("runs/broken").mkdir()
    Path("runs/broken/config.toml").write_text("=")
    _, out, _ = metaloss("list runs")
    assert re.search(r"^broken +damaged: .*config.toml", out, re.MULTILINE)
    assert "3/3 generations" in out


def test_damaged_losses_are_refused_by_show(metaloss, config):
    metaloss("evolve --config small.toml -q")
    (Path("runs") / "tiny-mln-mu_plus_lambda-0" / "loss" / "weights.safetensors").write_bytes(b"")
    check_one_line(metaloss("show tiny-mln-mu_plus_lambda-0"), 4, "weights.safetensors")


def test_what_a_stranger_s_loss_says_does_not_reach_the_terminal_raw(metaloss, finished, tmp_path):
    table = storage.read_record(finished / "loss" / "loss.json")
    table["about"] = {"\x1b[2Jname": "\x1b]0;owned\x07\nerror: none"}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "loss.json").write_text(json.dumps(table))
    (tmp_path / "theirs" / "weights.safetensors").write_bytes(
        (finished / "loss" / "weights.safetensors").read_bytes()
    )
    code, out, _ = metaloss("show theirs")
    assert code == 0
    assert "owned" in out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\nerror" not in out


def test_data_are_verified(metaloss):
    code, out, err = metaloss("data verify fashionmnist")
    assert (code, err) == (0, "")
    assert "10000 images" in out
    assert re.search(r"^Ankle boot +700 +300$", out, re.MULTILINE)
    assert re.search(r"^fingerprint [0-9a-f]{64}$", out, re.MULTILINE)


def test_the_doctor_looks_at_everything(metaloss):
    code, out, err = metaloss("doctor")
    assert (code, err) == (0, "")
    for name in (
        "metaloss",
        "python",
        "torch",
        "torchvision",
        "cpu",
        "gpu",
        "data fashionmnist",
        "data mnist",
    ):
        assert re.search(rf"^{name} +\S", out, re.MULTILINE)
    assert all(
        {"name", "found", "advice", "fatal"} == row.keys()
        for row in json.loads(metaloss("doctor --json")[1])
    )


def test_debug_shows_where_an_error_came_from(metaloss, monkeypatch):
    code, _, err = metaloss("show nothing --debug")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("  (metaloss list losses)\n")
    monkeypatch.setattr(program, "start", lambda *args, **how: 1 / 0)
    check = metaloss("evolve")
    assert check[0] == 1
    assert "a bug of metaloss; --debug shows where" in check[2]
    assert "Traceback" not in check[2]


@pytest.fixture
def started():
    """Starts the command in a process of its own, which does not outlive the test."""
    with contextlib.ExitStack() as stack:

        def start(*args, program=PROGRAM, **how):
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
            process = subprocess.Popen(
                [sys.executable, "-c", program, *map(str, args)], text=True, **streams
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


LONG = ("--generations", 40, "--tasks-per-generation", 4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that no one interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        only_the_subset(patch, folder)
        without_plots(patch)
        return evolved(folder, generations=40, tasks_per_generation=4).folder


def check_it_goes_on(metaloss, command, whole, tmp_path):
    """The command that was printed finishes the run, and the run is the uninterrupted one."""
    program, *args = shlex.split(command)
    assert program == "metaloss"
    assert metaloss(shlex.join(args), "-q") == (0, "", "")
    assert essence(tmp_path / "runs" / whole.name) == essence(whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_run_that_goes_on_as_if_it_had_never_come(
    metaloss, started, config, whole, tmp_path, number, code
):
    process = started("evolve", "--config", config, *LONG, "-v")
    generations = (line for line in process.stdout if re.match(r" +\d+  ", line))
    for _ in range(3):
        next(generations)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "saved" not in out
    heard, line = err.splitlines()
    assert heard == "stopping after the chunk in hand; press again to stop at once"
    assert line.startswith("interrupted; go on with: metaloss evolve --resume ")
    check_it_goes_on(metaloss, line.split("go on with: ")[1], whole, tmp_path)


def test_a_second_signal_ends_at_once_and_the_run_goes_on_later(
    metaloss, started, config, whole, tmp_path
):
    process = started("evolve", "--config", config, *LONG, "-v", program=STUCK + PROGRAM)
    assert "stuck\n" in process.stdout
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    check_it_goes_on(metaloss, f"metaloss evolve --resume runs/{whole.name}", whole, tmp_path)


def test_a_terminal_gets_a_live_bar(started, config):
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    process = started("evolve", "--config", config, *LONG, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    text = b"".join(iter(lambda: read(ours), b"")).decode()
    os.close(ours)
    assert process.wait(timeout=60) == 0, text
    assert "\x1b[" in text
    assert re.search(r"generation \d+/40", text)
    assert "winner  " in text
    assert "saved   runs/" in text
    assert text.rindex("\x1b[?25h") > text.index("generation ")  # the cursor is back


def read(descriptor):
    """What a terminal shows next; nothing once its last user is gone."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


def test_a_pipe_gets_plain_lines(started, config):
    process = started("evolve", "--config", config)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert all(line.isprintable() for line in out.split("\n"))


# --- any terminal ---


def written(monkeypatch, encoding, args, terminal=False, width=80):
    """The bytes that a command prints into streams of this encoding, and its exit code."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)
    )
    out.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as end:
        cli.main(shlex.split(args))
    return end.value.code, out.buffer.getvalue(), err.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
@pytest.mark.parametrize(
    "args", ["list strategies", "list losses taylor", "study rank --help", "show τüx"]
)
def test_output_is_in_the_streams_own_encoding_and_stops_at_no_character(
    monkeypatch, encoding, args
):
    code, out, err = written(monkeypatch, encoding, args)
    assert code == (2 if "show" in args else 0)
    text = (out + err).decode(encoding)
    if encoding != "utf-8":
        assert "τ" not in text
        assert "list" in args or "tau" in text
    assert ("show" in args) == err.startswith(b"error: ")


@pytest.mark.parametrize("width", [60, 100])
def test_lines_are_cut_at_a_terminals_width_and_nowhere_else(monkeypatch, width):
    _, plain, _ = written(monkeypatch, "utf-8", "list losses")
    _, cut, _ = written(monkeypatch, "utf-8", "list losses", terminal=True, width=width)
    words = [line.split() for line in cut.decode().splitlines()]
    assert plain.decode().split() == [word for line in words for word in line]
    assert all(len(line) <= width or len(line.split()) == 1 for line in cut.decode().splitlines())
    _, table, _ = written(monkeypatch, "utf-8", "list losses ce --json", terminal=True, width=width)
    assert json.loads(table), "what programs read is never cut"


def test_a_wide_table_goes_on_below_beside_its_first_column():
    from metaloss.core.tables import table

    rows = [["loss", "accuracy", "p"], ["mse", "50.0 %", ".030"]]
    assert table(rows) == ["loss  accuracy  p", "mse   50.0 %    .030"]
    assert table(rows, 15) == ["loss  accuracy", "mse   50.0 %", "", "loss  p", "mse   .030"]


def test_a_narrow_terminal_gets_fewer_columns_of_the_generations(monkeypatch):
    from metaloss.console import HEADER, Console

    talk = Console()
    said = []
    monkeypatch.setattr(talk, "say", said.append)
    monkeypatch.setattr(Console, "width", 70)
    talk._row(HEADER)
    monkeypatch.setattr(Console, "width", 200)
    talk._row(HEADER)
    assert said[0].endswith("trainings/s") or said[0].endswith("diverged")
    assert len(said[0]) <= 70
    assert said[1] == HEADER


def test_what_may_take_long_is_said_when_it_begins(metaloss, config):
    _, out, _ = metaloss("evolve", "--config", config)
    begins = [line.strip() for line in out.splitlines() if line.endswith(" …")]
    assert [line.split()[0] for line in begins] == ["tuning", "choosing"]


# --- losses by name and by formula ---


def test_a_published_loss_is_shown_with_its_formula_its_pull_and_its_source(metaloss, tmp_path):
    code, out, err = metaloss("show A2")
    assert (code, err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["loss"] == "sum(y / i0e(ln(p)))"
    assert lines["latex"].startswith(r"\sum_{c=1}^{C}")
    assert r"\hat{y}" in lines["latex"]
    assert lines["source"].startswith("Morgan and Hougen 2024")
    assert lines["name"] == "A2"
    assert "at 2 classes" in lines["gain"]
    assert "at 1000 classes" in lines["gain"]
    assert "minimum" in lines
    assert (lines["phenotype"], lines["surface"]) == (
        "A2-phenotype.png",
        "A2-surface.png",
    )
    assert Path("A2-surface.png").is_file()
    assert Path("A2-surface.pdf").is_file()


def test_a_loss_that_anti_learns_or_looks_collapsed_is_shown_with_a_warning(metaloss):
    assert "warning    anti-learns" in metaloss("show c1_printed")[1]
    assert "warning    looks collapsed" in metaloss("show m1")[1]
    assert "warning" not in metaloss("show ce")[1]


@pytest.mark.parametrize("text", ["-y*logp", "-logp * y", "-(y*logp)", "- y*logp"])
def test_a_formula_may_begin_with_a_minus(metaloss, text):
    for command in ("show", "show --json", "show --runs elsewhere"):
        code, out, err = metaloss(command, text)
        assert (code, err) == (0, ""), err
        assert "logp" in out.splitlines()[0] or json.loads(out)["loss"].startswith("sum(-")
    assert metaloss("export", text, "-o", "loss.tex")[0] == 0
    assert r"\ln \hat{y}" in Path("loss.tex").read_text()


def test_a_shown_loss_is_json_too(metaloss):
    code, out, err = metaloss("show --json", "focal(gamma=1)")
    assert (code, err) == (0, "")
    table = json.loads(out, parse_constant=pytest.fail)
    assert table["loss"] == "sum(-y * (1.0 - p) ** 1.0 * logp)"
    assert table["about"]["name"] == "focal(gamma=1)"
    assert table["about"]["source"] == "Lin 2017"
    assert list(table["gain"]) == list(table["minimum"]) == ["2", "10", "100", "1000"]
    assert table["warnings"] == []
    assert table["latex"]


def test_losses_and_primitives_are_listed_with_what_they_are(metaloss):
    from metaloss.criterion import loss_io
    from metaloss.losses import zoo
    from metaloss.losses.language.primitives import PRIMITIVES

    for kind, names in (("losses", [*loss_io.shipped(), *zoo.names()]), ("primitives", PRIMITIVES)):
        code, out, err = metaloss(f"list {kind}")
        assert (code, err) == (0, "")
        assert [line.split()[0] for line in out.splitlines()] == list(names)
        assert [row["name"] for row in json.loads(metaloss(f"list {kind} --json")[1])] == list(
            names
        )
    assert metaloss("list losses POLY")[1].startswith(
        "poly1  sum(-y*logp + epsilon*y*(1 - p))  (epsilon=1)  [Leng 2022]"
    )
    rows = {row["name"]: row for row in json.loads(metaloss("list losses --json")[1])}
    assert not rows["r2"]["verified"]
    assert rows["c1"]["reading"] == "corrected"
    assert rows["neuroloss1"]["formula"] is None
    assert "3 arguments" in metaloss("list primitives clip")[1]


EXPORTS = {
    "loss.py": lambda path: "import torch" in path.read_text(),
    "loss.tex": lambda path: path.read_text().startswith(r"\sum"),
    "loss.pt2": lambda path: path.read_bytes()[:2] == b"PK",
    "mine/loss.json": lambda path: json.loads(path.read_text())["formula"] == "sum(square(p - y))",
}


@pytest.mark.parametrize("name", EXPORTS)
def test_a_loss_is_exported_in_the_form_that_the_suffix_says(metaloss, name):
    assert metaloss("export mse -o", name) == (0, f"wrote {name}\n", "")
    assert EXPORTS[name](Path(name))


def test_a_run_s_winner_is_exported_and_loads_again(metaloss, finished):
    for name in ("loss.py", "mine/loss.json"):
        assert metaloss("export", finished.name, "--runs", finished.parent, "-o", name)[0] == 0
    assert "Meta-Loss Network" in metaloss("show mine")[1]


WRONG_LOSSES = {
    "show focl": ("no loss 'focl'", "Did you mean 'focal'?", "metaloss list losses"),
    "show 'focal(gama=1)'": ("unknown parameter 'gama'. Did you mean 'gamma'?",),
    "show neuroloss1": ("its formula was not",),
    "show nowhere/loss": ("no loss 'nowhere/loss'",),
    "export focl -o x.py": ("no loss 'focl'",),
    "export ce -o x.txt": ("x.txt", ".py, .tex, .pt2, .json"),
    "export ce -o mine.json": ("mine/loss.json",),
    "export ce": ("Missing option '-o'",),
    "list loses": ("unknown list 'loses'. Did you mean 'losses'?",),
}


@pytest.mark.parametrize("text", WRONG_LOSSES)
def test_a_loss_that_is_wrong_is_one_line_and_exit_code_2(metaloss, text):
    check_one_line(metaloss(text), 2, *WRONG_LOSSES[text])
    assert not [
        path for path in Path().iterdir() if path.suffix in (".py", ".json", ".png", ".pdf")
    ]


@pytest.mark.parametrize("text", ["-y*lgop + p", "p +", "sum(p) + 1", "-p $", "(" * 70 + "p"])
def test_a_mistake_in_a_formula_is_pointed_at_and_exit_code_2(metaloss, text):
    for command in (["show"], ["export", "-o", "loss.py"]):
        code, out, err = metaloss(" ".join(command), text)
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        said, shown, caret = err.splitlines()
        assert said.startswith("error: ")
        assert ", at character " in said
        assert shown.strip() in text
        assert caret.strip() == "^"
        assert len(caret) <= len(shown) + 1
    assert not Path("loss.py").exists()


def test_a_name_that_is_a_path_too_is_said_to_be_the_published_loss(metaloss):
    assert metaloss("export", "p*y", "-o", "ce/loss.json")[0] == 0
    code, out, err = metaloss("show ce")
    assert (code, err) == (0, "'ce' is the loss of that name; ./ce means the path\n")
    assert "sum(-y * logp)" in out
    code, out, err = metaloss("show ./ce")
    assert (code, err) == (0, "")
    assert "sum(p * y)" in out


def test_a_strangers_name_for_a_loss_is_drawn_as_it_is(metaloss):
    metaloss("export", "p*y", "-o", "theirs/loss.json")
    table = storage.read_record(Path("theirs/loss.json"))
    Path("theirs/loss.json").write_text(json.dumps({**table, "about": {"name": r"_$\frac{$"}}))
    code, out, err = metaloss("show ./theirs")
    assert code == 0
    unsealed = (
        f"{Path('theirs/loss.json').absolute()} holds no digest: whether it is as it was written "
        "cannot be told"
    )
    assert err == f"warning: {unsealed}\n"
    assert "theirs-phenotype.png" in out


TERMS = " + ".join(f"-y*logp*{i}.0001*(1-p)" for i in range(1, 1 + 30))  # more than a path may have


def test_pictures_of_two_losses_never_have_one_name_and_none_begins_with_a_dash(monkeypatch):
    from metaloss.cli import showing

    specs = (
        "-y*logp",
        "-y/logp",
        "ce",
        "./ce",
        "a/loss",
        "b/loss",
        TERMS,
        f"{TERMS} + 1",
        "focal(gamma=2)",
        "---",
    )
    names = [showing._stem(spec) for spec in specs]
    assert len(set(names)) == len(specs)
    assert all(re.fullmatch(r"[\w+][\w.+-]{,60}", name) for name in names)


def test_a_long_formula_is_shown_as_any_other(metaloss):
    code, out, err = metaloss("show", TERMS)
    assert (code, err) == (0, "")
    assert re.search(r"^phenotype +y_logp_1.0001[\w.+-]*-phenotype.png$", out, re.MULTILINE)


# --- a search of formulas ---

TINY_SEARCH = (
    "--generations 2 --tasks-per-generation 2 --set baseline_tasks=2 winner_tasks=2 test_tasks=2 "
    "rates=[0.1,0.3] "
    "strategy.mu=3 strategy.lambda_=3"
)


def test_a_formula_is_evolved_shown_loaded_and_exported(metaloss, tmp_path, monkeypatch):
    import metaloss as package
    from metaloss.losses.language.formula import Formula

    monkeypatch.undo()
    only_the_subset(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    family(tmp_path)
    code, out, err = metaloss(
        f'evolve --tasks tiny.toml --genome tree --init "ce,focal(gamma=2)" {TINY_SEARCH}'
    )
    assert (code, err) == (0, "")
    folder = tmp_path / "runs" / "tiny-tree-gp-0"
    table = tomllib.loads((folder / "config.toml").read_text())
    assert table["genome"]["start"] == "ce,focal(gamma=2)"
    assert table["strategy"]["kind"] == "gp"
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [text for text, _ in history[0]["losses"]][:2] == [
        "sum(-y * logp)",
        "sum(-y * (1.0 - p) ** 2.0 * logp)",
    ]
    assert {path.stem for path in (folder / "plots").glob("*.pdf")} == {
        "fitness",
        "phenotype",
        "front",
    }
    assert {path.stem for path in (folder / "plots").glob("*.png")} == {
        "fitness",
        "phenotype",
        "front",
    }
    assert json.loads((folder / "summary.json").read_text())["front"]
    text = package.load(folder).describe()
    formula = Formula.parse(text)
    assert "winner  " in out
    code, out, err = metaloss("show", folder)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (code, err) == (0, "")
    assert (lines["loss"], lines["latex"]) == (text, formula.latex())
    assert metaloss("export", folder, "-o", "loss.py")[0] == 0
    assert "import torch" in Path("loss.py").read_text()
    assert metaloss("export tiny-tree-gp-0 -o loss.tex")[0] == 0
    assert Path("loss.tex").read_text().strip() == formula.latex()


def test_an_init_that_no_search_can_start_from_is_one_line(metaloss):
    outcome = metaloss('evolve --genome tree --init "temperature(tau=2)"')
    check_one_line(outcome, 2, "temperature(tau=2): its temperature is no part of an expression")
    assert not Path("runs").exists()


def test_what_a_name_tells_the_terminal_is_spelt_out_in_errors(metaloss, tmp_path):
    code, out, err = metaloss("evolve", "--tasks", f"folder:{tmp_path}/\x1b[2Jscans")
    assert (code, out) == (2, "")
    assert r"\x1b[2Jscans" in err
    assert err.removesuffix("\n").isprintable()
