"""Makes the tables of the README again: seeds, steps, transfer. Everything is tuned on meta-validation tasks.

    python benchmarks/evidence.py seeds RUN...        # the runs' own meta-test lines
    python benchmarks/evidence.py steps RUN [--families fashionmnist]
    python benchmarks/evidence.py transfer RUN [--families fashionmnist-1shot ...]

`steps` compares the winner with cross-entropy, plain and with label smoothing 0.2, at equal numbers of steps and at
each one's best; both sides are tuned in learning rate at each number. `transfer` compares it at the family's own
learning rate and at its best one, each against tuned cross-entropy. All differences are paired over the same meta-test
tasks and initial weights, with 95 % bootstrap intervals over tasks.
"""

import argparse
import json
from pathlib import Path

import torch

from metaloss import catalogue, families
from metaloss.console import interval
from metaloss.engines.local import Local
from metaloss.losses import CrossEntropies, Losses
from metaloss.run import find
from metaloss.settings import RATES
from metaloss.streams import Stream
from metaloss.trials import Trials, Tuned, Versus

STEPS = (10, 20, 40, 80, 160)
TRANSFER = (
    "fashionmnist", "fashionmnist-1shot", "fashionmnist-10shot", "fashionmnist-20shot", "fashionmnist-5way", "digits",
    "fashionmnist-cnn",
)  # fmt: skip


def seeds(runs: list[str]) -> None:
    """What each run found on its own meta-test tasks, and the mean over the runs."""
    print("run | winner | CE, best rate | difference [95 %] | CE, best rate and steps | difference [95 %] | minutes")
    gains = []
    for spec in runs:
        run = find(spec)
        summary = run.summary()
        assert summary is not None, f"{run.folder} is not finished"
        timing = [json.loads(line) for line in (run.folder / "timing.jsonl").read_text().splitlines()]
        minutes = sum(row["seconds"] for row in timing) / 60
        for row in summary["test"].values():
            ce, steps = row["ce"], row["ce_steps"]
            gains.append(100 * ce["gain"]["mean"])
            print(
                f"{run.name} | {row['accuracy']:.1%} | "
                f"{ce['accuracy']:.1%} (lr {ce['lr']:g}) | {interval(ce['gain'])} | "
                f"{steps['accuracy']:.1%} (lr {steps['lr']:g}, {steps['steps']} steps) | {interval(steps['gain'])} | "
                f"{minutes:.1f}"
            )
    spread = torch.tensor(gains)
    print(f"mean over {len(gains)} runs: {spread.mean():+.2f}, standard deviation {spread.std():.2f}")


def against(versus: Versus) -> str:
    """The same from a comparison."""
    return interval(vars(versus.gain))


def steps(trials: Trials, losses: Losses, tuning: int, tasks: int) -> None:
    """Equal numbers of steps, then each loss at its best one."""
    episodes = trials.families[0]
    rivals = {"mln": losses, "ce": CrossEntropies.of(1), "ce, smoothing 0.2": CrossEntropies.of(1, 0.2)}
    print("steps | winner (lr) | CE (lr) | winner − CE | CE smoothing 0.2 (lr) | winner − CE smoothing 0.2")
    found: dict[str, list[Tuned]] = {name: [] for name in rivals}
    for count in (*STEPS, 0):
        row = [best(found[name]) if not count else trials.tune(episodes, one, RATES, tuning, (count,))
               for name, one in rivals.items()]  # fmt: skip
        for name, tuned in zip(rivals, row, strict=True):
            found[name].append(tuned)
        score = [trials.tested(episodes, tuned, tasks) for tuned in row]
        means = [f"{float(s.double().nan_to_num().mean()):.1%} ({t.lr:g}{'' if count else f', {t.steps} steps'})"
                 for s, t in zip(score, row, strict=True)]  # fmt: skip
        gains = [against(trials.versus(score[0], other)) for other in score[1:]]
        print(f"{count or 'best'} | {means[0]} | {means[1]} | {gains[0]} | {means[2]} | {gains[1]}", flush=True)


def best(tuned: list[Tuned]) -> Tuned:
    """The best on the meta-validation tasks."""
    return max(tuned, key=lambda t: t.accuracy)


def transfer(trials: Trials, losses: Losses, tuning: int, tasks: int) -> None:
    """Each family's own number of steps; the winner at the family's rate and at its own best one."""
    print("family | CE, best rate | winner at the family's rate | difference | winner at its best rate | difference")
    for episodes in trials.families:
        own = episodes.family.inner
        small = 2 if "cnn" in episodes.family.name else 1  # convolutions cost thirty times as much here
        n, m = tuning // small, tasks // small
        ce = trials.tune(episodes, CrossEntropies.of(1), RATES, n, (own.steps,))
        tuned = trials.tune(episodes, losses, RATES, n, (own.steps,))
        rival = trials.tested(episodes, ce, m)
        fixed = trials.versus(trials.tested(episodes, Tuned(losses, own.lr, own.steps, rival), m), rival)
        free = trials.versus(trials.tested(episodes, tuned, m), rival)
        print(
            f"{episodes.family.name} (n = {m}) | {free.rival:.1%} ({ce.lr:g}) | {fixed.accuracy:.1%} ({own.lr:g}) | "
            f"{against(fixed)} | {free.accuracy:.1%} ({tuned.lr:g}) | {against(free)}", flush=True,
        )  # fmt: skip


def main() -> None:
    """Read the arguments and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("seeds", "steps", "transfer"))
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--families", nargs="+", default=None)
    parser.add_argument("--tuning-tasks", type=int, default=64)
    parser.add_argument("--test-tasks", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.table == "seeds":
        return seeds(arguments.runs)
    loss = catalogue.load(Path(arguments.runs[0]))
    losses = loss.genome.losses(loss.candidate)
    names = arguments.families or (TRANSFER if arguments.table == "transfer" else ("fashionmnist",))
    with Local() as engine:
        trials = Trials(engine, [families.open_family(families.read(name)) for name in names], Stream(1_000))
        table = transfer if arguments.table == "transfer" else steps
        table(trials, losses, arguments.tuning_tasks, arguments.test_tasks)


if __name__ == "__main__":
    main()
