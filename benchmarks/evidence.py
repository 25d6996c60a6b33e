"""Makes the tables of the manual's results again. Everything is tuned on meta-validation tasks.

    python benchmarks/evidence.py seeds RUN...
    python benchmarks/evidence.py steps RUN [--families fashionmnist]
    python benchmarks/evidence.py transfer RUN [--families fashionmnist-1shot ...]
    python benchmarks/evidence.py zoo RUN...
    python benchmarks/evidence.py control RUN...

`seeds` prints the runs' own meta-test lines.

`steps` compares the winner with cross-entropy, plain and with label smoothing 0.2, at equal numbers
of steps and at each one's best; both sides are tuned in learning rate at each number. `transfer`
compares it at the family's own learning rate and at its best one, each against tuned cross-entropy.
All differences are paired over the same meta-test tasks and initial weights, with 95 % bootstrap
intervals over tasks.

`zoo` tunes every published loss in learning rate and in its own parameter at the family's number of
steps, then takes the best row to the runs' own meta-test tasks. `control` sets runs that differ in
strategy alone beside each other, seed by seed.
"""

import argparse
import json
from pathlib import Path

import torch

from metaloss.core.metric_scale import ACCURACY
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.engines.local import Local
from metaloss.evaluation.family_evaluation import BASELINE, FamilyEvaluation
from metaloss.evaluation.paired_comparison import PairedComparison
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.evaluation.tuning import Tuned
from metaloss.losses import zoo
from metaloss.losses.base import CrossEntropies, Losses
from metaloss.losses.formulas import Formulas
from metaloss.losses.zoo_entries import ENTRIES
from metaloss.search.run_folder import find
from metaloss.search.settings import RATES
from metaloss.tasks import episodic, episodic_family

STEPS = (10, 20, 40, 80, 160)
TRANSFER = (
    "fashionmnist",
    "fashionmnist-1shot",
    "fashionmnist-10shot",
    "fashionmnist-20shot",
    "fashionmnist-5way",
    "digits",
    "fashionmnist-cnn",
)


def seeds(runs: list[str]) -> None:
    """What each run found on its own meta-test tasks, and the mean over the runs."""
    print(
        "run | winner | CE, best rate | difference [95 %] | CE, best rate and steps | difference "
        "[95 %] | minutes"
    )
    gains = []
    for spec in runs:
        run = find(spec)
        summary = run.summary()
        assert summary is not None, f"{run.folder} is not finished"
        timing = [
            json.loads(line) for line in (run.folder / "timing.jsonl").read_text().splitlines()
        ]
        minutes = sum(row["seconds"] for row in timing) / 60
        for row in summary["test"].values():
            ce = row["ce"]
            steps = row["ce_steps"]
            gains.append(100 * ce["gain"]["mean"])
            print(
                f"{run.name} | {row['accuracy']:.1%} | "
                f"{ce['accuracy']:.1%} (lr {ce['lr']:g}) | {ACCURACY.interval(ce['gain'])} | "
                f"{steps['accuracy']:.1%} (lr {steps['lr']:g}, {steps['steps']} steps) | "
                f"{ACCURACY.interval(steps['gain'])} | "
                f"{minutes:.1f}"
            )
    spread = torch.tensor(gains)
    print(
        f"mean over {len(gains)} runs: {spread.mean():+.2f}, standard deviation {spread.std():.2f}"
    )


def against(versus: PairedComparison) -> str:
    """The same from a comparison."""
    return ACCURACY.interval(vars(versus.gain))


def steps(trials: LossEvaluation, losses: Losses, tuning: int, tasks: int) -> None:
    """Equal numbers of steps, then each loss at its best one."""
    evaluation = trials.each[0]
    rivals = {
        "winner": losses,
        "ce": CrossEntropies.of(1),
        "ce, smoothing 0.2": CrossEntropies.of(1, 0.2),
    }
    print(
        "steps | winner (lr) | CE (lr) | winner − CE | CE smoothing 0.2 (lr) | winner − CE "
        "smoothing 0.2"
    )
    found: dict[str, list[Tuned]] = {name: [] for name in rivals}
    for count in (*STEPS, 0):
        row = [
            evaluation.tune([one], RATES, tuning, (count,), BASELINE)[0]
            if count
            else best(found[name])
            for name, one in rivals.items()
        ]
        for name, tuned in zip(rivals, row, strict=True):
            found[name].append(tuned)
        score = [evaluation.test_scores(tuned, tasks) for tuned in row]
        means = [
            f"{float(s.double().nan_to_num().mean()):.1%} "
            f"({t.lr:g}{'' if count else f', {t.steps} steps'})"
            for s, t in zip(score, row, strict=True)
        ]
        gains = [against(evaluation.compare(score[0], other)) for other in score[1:]]
        print(
            f"{count or 'best'} | {means[0]} | {means[1]} | {gains[0]} | {means[2]} | {gains[1]}",
            flush=True,
        )


def best(tuned: list[Tuned]) -> Tuned:
    """The best on the meta-validation tasks."""
    return max(tuned, key=lambda t: t.score)


def transfer(trials: LossEvaluation, losses: Losses, tuning: int, tasks: int) -> None:
    """Each family's own number of steps.

    The winner at the family's rate and at its own best one.
    """
    print(
        "family | CE, best rate | winner at the family's rate | difference | winner at its best "
        "rate | difference"
    )
    for evaluation in trials.each:
        episodes = evaluation.family
        own = episodes.family.inner
        # Convolutions cost thirty times as much here.
        small = 2 if "cnn" in episodes.family.name else 1
        n = tuning // small
        m = tasks // small
        ce, tuned = evaluation.tune([CrossEntropies.of(1), losses], RATES, n, role=BASELINE)
        rival = evaluation.test_scores(ce, m)
        fixed = evaluation.compare(
            evaluation.test_scores(Tuned(losses, own.lr, own.steps, rival), m), rival
        )
        free = evaluation.compare(evaluation.test_scores(tuned, m), rival)
        print(
            f"{episodes.family.name} (n = {m}) | {free.baseline_score:.1%} ({ce.lr:g}) | "
            f"{fixed.score:.1%} ({own.lr:g}) | "
            f"{against(fixed)} | {free.score:.1%} ({tuned.lr:g}) | {against(free)}",
            flush=True,
        )


def published() -> list[str]:
    """Every published loss with a formula, with each choice of its own parameters."""
    return [spec for entry in ENTRIES.values() if entry.text for spec in entry.variants]


def best_published(trials: LossEvaluation, tuning: int) -> dict[str, list[Tuned]]:
    """The five best published losses of each family, at their best rates, chosen on fresh tasks."""
    names = published()
    rates = torch.tensor(RATES)
    grid = Formulas.of([zoo.read(name) for name in names for _ in RATES])
    found = {}
    for evaluation in trials.each:
        episodes = evaluation.family
        score = evaluation.scores(
            grid, "validation", trials.key.at("zoo"), tuning, lr=rates.repeat(len(names))
        )
        reached, rate = score[0].double().nan_to_num().mean(1).unflatten(0, (-1, len(RATES))).max(1)
        top = reached.argsort(descending=True)[:5].tolist()
        for i in top:
            print(
                f"{episodes.family.name} | {names[i]} (lr {RATES[rate[i]]:g}) | {reached[i]:.2%}",
                flush=True,
            )
        again = FamilyEvaluation(trials.engine, episodes, trials.key.at("again"))
        ones = [Formulas.of([zoo.read(names[i])]) for i in top]
        tuned = [
            again.tune([one], (RATES[rate[i]],), 3 * tuning, role=BASELINE)[0]
            for i, one in zip(top, ones, strict=True)
        ]
        found[episodes.family.name] = sorted(tuned, key=lambda t: -t.score)
    return found


def against_zoo(runs: list[str], engine: Local, tuning: int) -> None:
    """Each winner at its family's own rate against the best published loss.

    Both are scored on the run's own meta-test tasks.
    """
    opened = {
        f.name: episodic.open_episodes(f) for spec in runs for f in find(spec).settings.families
    }
    zoo_best = best_published(LossEvaluation(engine, list(opened.values()), Stream(1_000)), tuning)
    print("run | winner | best published loss, tuned | difference [95 %]")
    for spec in runs:
        run = find(spec)
        loss = loss_io.load(Path(spec))
        trials = LossEvaluation(
            engine, [opened[f.name] for f in run.settings.families], Stream(run.settings.seed)
        )
        for evaluation in trials.each:
            episodes = evaluation.family
            rival = zoo_best[episodes.family.name][0]
            own = episodes.family.inner
            tasks = run.settings.test_tasks
            ours = evaluation.test_scores(
                Tuned(loss.losses(), own.lr, own.steps, rival.scores), tasks
            )
            versus = evaluation.compare(ours, evaluation.test_scores(rival, tasks))
            name = f"{rival.losses.formulas[0]} at lr {rival.lr:g}"
            print(
                f"{run.name} | {versus.score:.1%} | {name}: {versus.baseline_score:.1%} | "
                f"{against(versus)}",
                flush=True,
            )


def control(runs: list[str]) -> None:
    """Meta-test accuracies of runs that differ in strategy and seed alone.

    Also the difference between the strategies for each seed.
    """
    found: dict[str, dict[int, float]] = {}
    for spec in runs:
        run = find(spec)
        summary = run.summary()
        assert summary is not None, f"{run.folder} is not finished"
        reached = [row["accuracy"] for row in summary["test"].values()]
        kind = run.settings.strategy["kind"]
        found.setdefault(kind, {})[run.settings.seed] = 100 * sum(reached) / len(reached)
        print(
            f"{run.name} | {kind} | {summary['trainings']} trainings | "
            f"{found[kind][run.settings.seed]:.2f}"
        )
    for kind, by_seed in found.items():
        other = found["random_search"]
        gains = torch.tensor(
            [by_seed[seed] - other[seed] for seed in sorted(by_seed.keys() & other.keys())]
        )
        if kind != "random_search":
            listed = ", ".join(f"{gain:+.1f}" for gain in gains.tolist())
            print(
                f"{kind} - random_search: {listed}; mean {gains.mean():+.2f}, standard deviation "
                f"{gains.std():.2f}"
            )


def main() -> None:
    """Read the arguments and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=("seeds", "steps", "transfer", "zoo", "control"))
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--families", nargs="+", default=None)
    parser.add_argument("--tuning-tasks", type=int, default=64)
    parser.add_argument("--test-tasks", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.table == "seeds":
        return seeds(arguments.runs)
    if arguments.table == "control":
        return control(arguments.runs)
    if arguments.table == "zoo":
        with Local() as engine:
            return against_zoo(arguments.runs, engine, arguments.tuning_tasks)
    losses = loss_io.load(Path(arguments.runs[0])).losses()
    names = arguments.families or (TRANSFER if arguments.table == "transfer" else ("fashionmnist",))
    with Local() as engine:
        trials = LossEvaluation(
            engine,
            [episodic.open_episodes(episodic_family.read(name)) for name in names],
            Stream(1_000),
        )
        table = transfer if arguments.table == "transfer" else steps
        table(trials, losses, arguments.tuning_tasks, arguments.test_tasks)


if __name__ == "__main__":
    main()
