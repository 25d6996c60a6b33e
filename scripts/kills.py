"""Kills searches, trainings, studies and eliminations at random instants, goes on with them, and
compares the bytes.

    python scripts/kills.py --kills 40 [--seed 1]

What is left at the end must be what an uninterrupted one leaves, but for times, command lines and
pictures. What is not is printed, and the exit code is 1.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import tomli_w

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import damage
import scans

from metaloss import storage

SEARCH = {
    **damage.SMALL,
    "tasks": ["tiny.toml"],
    "generations": 12,
    "genome": {"kind": "tree"},
    "strategy": {"kind": "gp", "mu": 4, "lambda_": 4},
}
TRAIN = [
    "--loss",
    "ce",
    "mse",
    "--data",
    "folder:scans",
    "--model",
    "convnet",
    "--device",
    "cpu",
    "--batch",
    "4",
]
STUDY = [
    "--losses",
    "ce",
    "mse",
    "a2",
    "--device",
    "cpu",
    "--tasks",
    "2",
    "--settings",
    scans.TASKS,
    scans.TRAIN,
]
STAGES = ["--start", "4", "--set", "stages=[{keep=2, tasks=8}, {keep=1, tasks=8}]"]
# By the folder that holds what they make: how to begin, and how to go on with what lies there.
JOBS = {
    "runs": (["evolve", "--config", "search.toml"], ["evolve", "--resume"]),
    "trainings": (["train", *TRAIN, "--seeds", "2", "--steps", "12"], ["train", "--resume"]),
    "studies": (["study", "rank", *STUDY], ["study", "rank", "--resume"]),
    "elimination": (["eliminate", "./searched", *STAGES], ["eliminate", "./searched", *STAGES]),
}
UNEQUAL = ("timing.*", "provenance.json", "places.json", "lock", "*.png", "*.pdf", ".*")


def started(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """A command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "metaloss", *words, "-q"], cwd=folder, stderr=subprocess.PIPE
    )


def finished(words: list[str], folder: Path) -> None:
    """Carry a command through; a failure ends the script."""
    process = started(words, folder)
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}: {error.decode()}")


def contents(folder: Path) -> dict[str, bytes]:
    """All that must be equal, by its path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in files if not any(path.match(x) for x in UNEQUAL)]
    return {str(path.relative_to(folder)): _timeless(path) for path in kept}


def _timeless(path: Path) -> bytes:
    """A file's content; of a training's record without the seconds that it took."""
    if path.name != "done.json":
        return path.read_bytes()
    return json.dumps(
        {key: x for key, x in storage.read_record(path).items() if key != "seconds"}
    ).encode()


def made(job: str, folder: Path) -> list[Path]:
    """What a job has made, whatever it is called."""
    where = folder / "searched" / job if job == "elimination" else folder / job
    return [where] if job == "elimination" else sorted(where.glob("[!.]*"))


def killed(job: str, folder: Path, seconds: float) -> str:
    """Begin a job, kill it after so many seconds, and go on with it; what was left."""
    begin, again = JOBS[job]
    process = started(begin, folder)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    left = [path for path in made(job, folder) if path.exists()]
    resumed = again if job == "elimination" else [*again, str(left[0])] if left else begin
    finished(resumed, folder)
    return (
        "after its end"
        if process.returncode == 0
        else "at work"
        if left
        else "before there was a folder"
    )


def _different(ours: list[dict[str, bytes]], theirs: list[dict[str, bytes]]) -> list[str]:
    if len(ours) != len(theirs):
        return [f"the number of folders, {len(ours)},"]
    return [
        path
        for a, b in zip(ours, theirs, strict=True)
        for path in {**a, **b}
        if a.get(path) != b.get(path)
    ]


def main() -> int:
    """Read the arguments, kill, and print how many were not equal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    unequal = 0
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        start = Path(name) / "start"
        start.mkdir()
        damage.surroundings(patch, start)
        (start / "search.toml").write_text(tomli_w.dumps(SEARCH | {"rates": list(SEARCH["rates"])}))
        finished(["evolve", "--config", "search.toml"], start)
        (run,) = made("runs", start)
        shutil.move(run, start / "searched")
        shutil.rmtree(start / "runs")
        lengths = {}
        wholes = {}
        for number in range(arguments.kills):
            job = list(JOBS)[number % len(JOBS)]
            if job not in wholes:
                whole = Path(shutil.copytree(start, Path(name) / f"whole-{job}"))
                began = time.monotonic()
                finished(JOBS[job][0], whole)
                lengths[job], wholes[job] = (
                    time.monotonic() - began,
                    [contents(x) for x in made(job, whole)],
                )
            folder = Path(shutil.copytree(start, Path(name) / f"kill-{number}"))
            when = draw.uniform(0.3, 1.0) * lengths[job]
            left = killed(job, folder, when)
            equal = [contents(x) for x in made(job, folder)] == wholes[job]
            unequal += not equal
            for path in _different([contents(x) for x in made(job, folder)], wholes[job]):
                print(f"     {path} is not the same")
            print(
                f"{number + 1:4} {job:12} killed at {when:5.1f} s, {left}: "
                f"{'equal' if equal else 'NOT EQUAL'}",
                flush=True,
            )
            shutil.rmtree(folder)
        patch.undo()
    print(
        f"{arguments.kills} kills, {unequal} of them left something else than an uninterrupted one"
    )
    return int(unequal > 0)


if __name__ == "__main__":
    sys.exit(main())
