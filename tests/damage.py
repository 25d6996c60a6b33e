"""Folders of every kind that are read back, and what a flipped bit in each of their files does."""

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scans

import metaloss
from metaloss.core.plot_style import Picture
from metaloss.core.reporting import Reporter
from metaloss.criterion import loss_io
from metaloss.data import image_record
from metaloss.data.datasets import fashionmnist
from metaloss.errors import DamagedFile, Interrupted, MetalossError
from metaloss.experiments.reproduction import reproduce
from metaloss.search import program, refinement
from metaloss.tasks import training_cache
from metaloss.training import folders, module, session

TINY = """
dataset = "fashionmnist"
ways = 3
shots = 2
val = 3
classifier = { kind = "mlp", hidden = [8] }
inner = { steps = 3, lr = 0.1 }
"""
SMALL = {
    **{
        "generations": 2,
        "tasks_per_generation": 2,
        "baseline_tasks": 2,
        "winner_tasks": 2,
        "test_tasks": 2,
    },
    **{"rates": (0.1,), "tasks": "tiny.toml"},
}
NETWORK = {"kind": "mln", "start": "random", "features": 2, "hidden": 2}
TWO = {"kind": "mu_plus_lambda", "mu": 2, "lambda_": 2}
STAGES = {"start": 4, "stages": [{"keep": 2, "tasks": 2}, {"keep": 1, "tasks": 2}]}
TRAIN = {"steps": 4, "epoch_steps": 2, "batch": 4, "device": "cpu"}
RUN = ("*.toml", "*.json", "*.jsonl", "checkpoint/*", "loss/loss.json", "loss/weights.safetensors")
# Nothing reads these back: they are for people. Of the states the newest alone is read while it is
# sound.
UNREAD = (
    "*.csv",
    "*.png",
    "*.pdf",
    "*.html",
    "card.md",
    "timing.jsonl",
    "front.json",
    "lock",
    "elimination/summary.json",
)


@dataclass(frozen=True)
class Case:
    """A folder, and the command that reads it.

    Attributes:
        name: the kind of folder.
        folder: where it lies.
        read: reads it; gives the result, and whatever was said.
        files: patterns of those that this command reads.
    """

    name: str
    folder: Path
    read: Callable[[Any], Any]
    files: tuple[str, ...] = ("**/*",)

    def paths(self) -> list[Path]:
        """The files that are read."""
        found = {
            path for pattern in self.files for path in self.folder.glob(pattern) if path.is_file()
        }
        states = sorted(self.folder.glob("checkpoint/*"))[:-1]
        unread = UNREAD if self.files != RUN else (*UNREAD, "images.json")
        return sorted(
            path for path in found if not any(path.match(x) for x in unread) and path not in states
        )


class Listener(Reporter):
    """Keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.epochs = 0

    def on_epoch(self, *about: Any) -> None:
        """Count it."""
        self.epochs += 1

    def on_warning(self, text: str) -> None:
        """Note it."""
        self.warnings.append(text)


def surroundings(patch: Any, folder: Path) -> None:
    """Work in this folder, on small images, and draw nothing."""
    patch.chdir(folder)
    patch.setattr(fashionmnist, "SYSTEM", folder / "no-such-folder")
    patch.setenv("METALOSS_DATA", str(folder / "no-data"))
    for name in ("fitness", "phenotype", "front", "ranks"):
        patch.setattr(f"metaloss.evaluation.plots.{name}", lambda *args: None)
    patch.setattr(
        "metaloss.experiments.rank_study.figures.scatter",
        lambda found, pairs: Picture("x", "", b"", b""),
    )
    patch.setattr(module, "PAUSE", 0.0)
    patch.setattr(session, "PAUSE", 0.0)
    patch.setattr(session.figures, "curves", lambda *_: [])
    scans.written(folder, images=20)
    (folder / "tiny.toml").write_text(TINY)


def few(folder: Path, patch: Any) -> Iterator[Case]:
    """Folders that are soon made, and what reads them."""
    run = program.evolve(genome=NETWORK, strategy=TWO, **SMALL).folder
    yield Case("run", run, lambda told: _run(program.resume(run, reporter=told)), RUN)
    yield Case("images of a run", run, lambda told: image_record.read(run), ("images.json",))
    yield Case("loss", run / "loss", lambda told: _loss(run / "loss"))
    yield from _trainings(patch)
    yield _remembered(folder)


def cases(folder: Path, patch: Any) -> Iterator[Case]:
    """A folder of every kind, made here, and what reads it."""
    yield from few(folder, patch)
    formulas = program.evolve(
        genome="tree", strategy={"kind": "gp", "mu": 4, "lambda_": 4}, **SMALL
    ).folder
    yield Case(
        "run of formulas", formulas, lambda told: _run(program.resume(formulas, reporter=told)), RUN
    )
    metaloss.eliminate(formulas, changes=STAGES)
    stages = ("elimination/stage-*.json", "config.toml", "history.jsonl")
    yield Case(
        "elimination",
        formulas,
        lambda told: metaloss.eliminate(formulas, reporter=told, changes=STAGES).summary,
        stages,
    )
    refined = metaloss.refine("poly1", strategy=TWO, **SMALL).folder
    files = ("refinement.json", "loss/loss.json")
    yield Case(
        "refinement",
        refined,
        lambda told: refinement.compare(refined, told).comparison,
        files,
    )
    yield from _study()


def _trainings(patch: Any) -> Iterator[Case]:
    def again(where: Path) -> Callable[[Any], Any]:
        return lambda told: _model(metaloss.fit(resume=where, reporter=told))

    done = metaloss.fit("ce", "convnet", "folder:scans", **TRAIN).folder
    yield Case("training", done, again(done))
    with patch.context() as inner:  # all is trained and tested, but for the summary
        inner.setattr(folders, "finish", _stopped)
        with contextlib.suppress(Interrupted):
            metaloss.fit("ce", "convnet", "folder:scans", **TRAIN)
    untold = done.with_name(f"{done.name}-2")
    files = ("config.toml", "provenance.json", "losses/**/*", "state/**/*")
    yield Case("training before its summary", untold, again(untold), files)
    with contextlib.suppress(Interrupted):
        told = Listener()
        metaloss.fit(
            "ce", "convnet", "folder:scans", reporter=told, stop=lambda: told.epochs > 0, **TRAIN
        )
    stopped = done.with_name(f"{done.name}-3")
    assert list(stopped.glob("state/*/last.ckpt"))
    yield Case("interrupted training", stopped, again(stopped), ("state/*/last.ckpt",))


def _study() -> Iterator[Case]:
    study = metaloss.study(
        ["ce", "mse", "a2"], [scans.TASKS, scans.TRAIN], tasks=2, device="cpu"
    ).folder
    files = (
        "config.toml",
        "provenance.json",
        "losses/**/*",
        "scores/*/*.json",
        "scores/*/trainings/state/**/*",
    )
    yield Case(
        "study", study, lambda told: metaloss.study(resume=study, reporter=told).scores, files
    )
    yield Case(
        "findings of a study",
        study,
        lambda told: reproduce("morgan-tau", study=study).rows,
        ("taus.json", "config.toml"),
    )


def _remembered(folder: Path) -> Case:
    where = folder / "remembered"
    where.mkdir()
    file = training_cache.open_cache(where, {}).file
    assert file is not None
    for number in range(3):
        file.append(
            {"training": f"{number:032x}", "family": "tiny", "loss": "ce", "accuracy": number / 3}
        )
    return Case(
        "full trainings of a search", where, lambda told: training_cache.open_cache(where, {}).known
    )


def _stopped(*args: Any) -> None:
    raise Interrupted


def _loss(folder: Path) -> Any:
    found = metaloss.load(folder)
    return _numbers(found), loss_io.images_of(found)


def _run(result: Any) -> Any:
    return _numbers(result.best), result.history, result.summary


def _numbers(loss: Any) -> Any:
    return str(loss), [x.tolist() for x in loss.state_dict().values()], loss.about


def _model(fitted: Any) -> Any:
    return (
        fitted.accuracy,
        fitted.history,
        [x.tolist() for x in fitted.model().state_dict().values()],
    )


def flipped(case: Case, path: Path, draw: random.Random) -> str:
    """What becomes of one flipped bit; the folder is as it was afterwards.

    Returns:
        "refused" by a DamagedFile that names the file, with nothing changed; "said", where the run
        went on from a spare and came to the same; else what is wrong: "silent", "changed",
        "unnamed" or a traceback's last line.
    """
    sound = path.read_bytes()
    bit = draw.randrange(8 * len(sound))
    data = bytearray(sound)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    before = tree(case.folder)
    told = Listener()
    try:
        case.read(told)
        outcome = "said" if any(path.name in text for text in told.warnings) else "silent"
    except DamagedFile as error:
        outcome = "refused" if path.name in str(error) else f"unnamed: {error}"
        outcome = "changed" if tree(case.folder) != before else outcome
    except MetalossError as error:
        outcome = f"other: {error}"
    except Exception as error:
        outcome = f"traceback: {type(error).__name__} {error}"
    if tree(case.folder) != {**before, path: sound}:
        restore(case.folder, {**before, path: sound})
    return outcome


def tree(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder but the lock."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


def restore(folder: Path, files: dict[Path, bytes]) -> None:
    """Make the folder hold these files again, and no others."""
    shutil.rmtree(folder)
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
