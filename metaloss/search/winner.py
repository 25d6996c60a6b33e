"""The end of a search: the winner is chosen, written, and only then tested."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import geometric_mean
from typing import Any

from metaloss import storage
from metaloss._version import __version__
from metaloss.core.metric_scale import MetricScale
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.data import image_record
from metaloss.evaluation.family_evaluation import OWN_RATES
from metaloss.evaluation.guard import guard_lines
from metaloss.evaluation.paired_comparison import PairedComparison
from metaloss.evaluation.tuning import Tuned
from metaloss.losses.base import Losses
from metaloss.search.election import choose_winner
from metaloss.search.finalists import choose_finalists, size_front
from metaloss.search.run_folder import Progress
from metaloss.search.runner import SearchRunner
from metaloss.tasks.opening import Mixture, OpenFamily

LAST = 10  # generations that the noise of fitness is told of


def finish_search(runner: SearchRunner, progress: Progress) -> None:
    """Choose the winner on meta-validation tasks, write it, and only then test it."""
    tasks = max(runner.evaluation.task_counts(runner.run.settings.winner_tasks))
    runner.reporter.on_work(f"choosing the winner on {tasks} tasks, and testing it")
    finalists = choose_finalists(runner.genome, progress, runner.trained_losses)
    objective = runner.plain_objective if runner.weighs_kinds else None
    elected = choose_winner(finalists.losses, runner.evaluation, tasks, runner.baselines, objective)
    if elected.outside:
        runner.reporter.on_warning("no finalist keeps the guard: the one nearest to it is taken")
    choice = {
        "generation": progress.generation,
        "origin": finalists.origins[elected.row],
        runner.scale.kind: runner.scale.value(elected.score),
        "tasks": tasks,
        "finalists": [{"tasks": x.end, "losses": x.losses} for x in elected.rounds],
    }
    about = _provenance_of_loss(runner, choice)
    steps = usual_steps(runner.evaluation.families)
    loss = finalists.criterion(elected.row, about, steps, runner.run.settings.unit_gain)
    card = card_head(runner.run.name, loss)
    loss_io.save(runner.run.folder / "loss", loss, card, image_record.read(runner.run.folder))
    # The winner is written: only now may the meta-test tasks be looked at.
    test = _test(runner, loss.losses())
    sizes = []
    if runner.trained_losses:
        sizes = size_front(finalists, elected.reached, runner.scale, elected.all_outside)
    summary = {
        **runner.scale.entry(),
        "choice": choice,
        "trainings": progress.trainings,
        **_noise(runner),
        **_not_trained(runner),
        "front": sizes,
        "test": test,
        **_guard(runner, loss.losses()),
    }
    if sizes:
        runner.run.write("front.json", {"front": sizes})
    if finalists.formulas:
        summary["formula"] = loss.describe()
    # Only now can the card tell of the test; the first one was written before it.
    storage.write(runner.run.folder / "loss" / "card.md", (card + card_results(summary)).encode())
    _plot(runner, loss.losses_told(), sizes)
    runner.run.write("summary.json", summary)  # last: it says that the run is finished


def usual_steps(families: Sequence[OpenFamily]) -> int:
    """The geometric mean of families' numbers of steps; a mixture has that of its kinds."""
    steps = [
        geometric_mean(kind.steps for kind in x.kinds) if isinstance(x, Mixture) else x.steps
        for x in families
    ]
    return round(geometric_mean(steps))


def _provenance_of_loss(runner: SearchRunner, choice: dict[str, Any]) -> dict[str, Any]:
    """What a winner's file says of where it comes from; no paths, because a loss is shared."""
    return {
        "evolved on": ", ".join(family.name for family in runner.run.settings.families),
        "classes": sorted({n for x in runner.evaluation.families for n in x.class_counts}),
        "run": runner.run.name,
        "choice": choice,
        "metaloss": __version__,
    }


def _noise(runner: SearchRunner) -> dict[str, Any]:
    """By how much the best of the last generations led, and how much of that their tasks made."""
    history = runner.run.history()
    leads = [record["lead"] for record in history if "lead" in record][-LAST:]
    if not leads:
        return {}
    mean = sum(lead["mean"] for lead in leads) / len(leads)
    error = sum(lead["error"] for lead in leads) / len(leads)
    return {"noise": {"lead": mean, "error": error, "generations": len(leads)}}


def _not_trained(runner: SearchRunner) -> dict[str, Any]:
    """What was not trained.

    How often each filter refused a formula, and how many trainings the screening saved.
    """
    history = runner.run.history()
    tasks = sum(runner.evaluation.task_counts(runner.run.settings.tasks_per_generation))
    refused = sum((Counter(record.get("refused", {})) for record in history), Counter[str]())
    # Histories of before do not say how many tasks there were.
    saved = sum(record.get("screened", 0) * record.get("tasks", tasks) for record in history)
    return {"refused": dict(refused.most_common()), "screened_trainings": saved}


def _test(runner: SearchRunner, losses: Losses) -> dict[str, Any]:
    """The winner at the family's own rate against tuned cross-entropy, on meta-test tasks."""
    settings = runner.run.settings
    # Cross-entropy may also train for longer: a loss that is merely faster must not look better.
    strongest = runner.evaluation.tune_baseline_steps(
        settings.rates, settings.baseline_tasks, runner.baselines
    )
    baselines = {"ce": runner.baselines, "ce_steps": strongest}
    compared = runner.evaluation.test(losses, baselines, settings.test_tasks)
    result = dict[str, Any]()
    for number, family in enumerate(runner.evaluation.families):
        first = compared[number]["ce"]
        result[family.family.name] = {
            **_reached(runner.scale, first.score, first.accuracy),
            "tasks": first.gain.tasks,
            # Guesses at tasks of several kinds have no one accuracy.
            **({"classes": family.class_counts[0]} if family.kind_count == 1 else {}),
            **{
                kind: {
                    **(_setting(baselines[kind][number]) if kind in baselines else {}),
                    **_reached(runner.scale, x.baseline_score, x.baseline_accuracy),
                    **_difference(runner.scale, x),
                }
                for kind, x in compared[number].items()
            },
        }
    return result


def _setting(baseline: Tuned) -> dict[str, Any]:
    """The rate and the number of steps of a tuned baseline."""
    relative = {"relative": True} if baseline.relative else {}
    return {"lr": baseline.lr, "steps": baseline.steps, **relative}


def _guard(runner: SearchRunner, losses: Losses) -> dict[str, Any]:
    """Whether the winner lies within the guard on the meta-test tasks; nothing without a guard."""
    evaluation = runner.evaluation
    guard = evaluation.guard
    if guard is None:
        return {}
    tasks = runner.run.settings.test_tasks
    measured, of_ce = evaluation.beside_baselines(losses, runner.baselines, "test", "test", tasks)
    index = evaluation.family_index(tasks)
    test = dict[str, Any]()
    for number, family in enumerate(evaluation.families):
        ours, theirs = (
            x[index == number].double().nan_to_num(nan=0.0).mean(0)[1:].tolist()
            for x in (measured[0], of_ce)
        )
        test[family.family.name] = {
            scale.kind: {
                **scale.entry(),
                "winner": scale.value(one),
                "ce": scale.value(ce),
                "kept": scale.number(ce - one) <= guard.allowed[scale.kind],
            }
            for scale, one, ce in zip(guard.scales(family), ours, theirs, strict=True)
        }
    return {"guard": {"allowed": dict(guard.allowed), "test": test}}


def _reached(scale: MetricScale, score: float, accuracy: float | None) -> dict[str, float]:
    """What a loss reached by the metric and, where that is another one, its accuracy."""
    beside = {} if accuracy is None else {"accuracy": accuracy}
    return {scale.kind: scale.value(score), **beside}


def _difference(scale: MetricScale, comparison: PairedComparison) -> dict[str, Any]:
    """The paired difference and its verdict, in the metric's own sign."""
    gain = {"gain": scale.difference(asdict(comparison.gain))}
    ends = scale.difference({"low": comparison.low, "high": comparison.high})
    return {**gain, **ends, "p": comparison.p, "verdict": comparison.verdict}


def _plot(runner: SearchRunner, loss: Losses, front: list[dict[str, Any]]) -> None:
    from metaloss.evaluation import plots

    folder = runner.run.folder / "plots"
    folder.mkdir(exist_ok=True)
    plots.fitness(runner.run.history(), folder / "fitness.png", runner.scale)
    plots.phenotype(loss, "evolved", runner.genome.classes, folder / "phenotype.png")
    if front:
        plots.front(front, folder / "front.png", runner.scale)


def setting_in_words(baseline: Mapping[str, Any]) -> str:
    """The rate and the number of steps of a row of the test."""
    if "lr" not in baseline:
        return "the kinds' own rates, which are the loss's, and numbers of steps"
    if baseline.get("relative"):
        return "its best rate for each kind of task and the kind's number of steps"
    return f"lr {baseline['lr']} and {baseline['steps']} steps"


def card_head(title: str, loss: Criterion) -> str:
    """The beginning of a card: what the loss is, and what it was evolved on."""
    head = f"# {title}\n\n{loss.describe()}, evolved on {loss.about['evolved on']}.\n"
    return head + "".join(f"\n{note}\n" for note in loss.notes)


def card_results(summary: Mapping[str, Any]) -> str:
    """What the winner's card says of its choice and its test."""
    lines = [
        f"\nChosen on {summary['choice']['tasks']} fresh meta-validation tasks "
        f"({summary['choice']['origin']})."
    ]
    scale = MetricScale.of(summary)
    for name, row in summary["test"].items():
        several_kinds = row["ce"].get("relative", False)
        over = "kinds and tasks" if several_kinds else "tasks and images"
        for kind in ("ce", OWN_RATES if several_kinds else "ce_steps"):
            baseline = row[kind]
            lines.append(
                f"{name}, {row['tasks']} meta-test tasks: {scale.tested(row)}; "
                f"cross-entropy at {setting_in_words(baseline)} "
                f"{scale.reached(baseline)}: {scale.verdict(baseline)}{scale.unit} "
                f"(95 % interval over {over})."
            )
    lines += [f"Guard {line}." for line in guard_lines(summary)]
    return "\n\n".join(lines) + "\n"
