"""The end of a search: the winner is chosen, written, and only then tested."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from metaloss import storage
from metaloss._version import __version__
from metaloss.core.formatting import near_chance, percent, verdict_text
from metaloss.criterion import loss_io
from metaloss.data import image_record
from metaloss.losses.base import Losses
from metaloss.search.finalists import choose_finalists, choose_winner, size_front
from metaloss.search.run_folder import Progress
from metaloss.search.runner import SearchRunner


def finish_search(runner: SearchRunner, progress: Progress) -> None:
    """Choose the winner on meta-validation tasks, write it, and only then test it."""
    tasks = runner.run.settings.winner_tasks
    runner.reporter.on_work(f"choosing the winner on {tasks} tasks, and testing it")
    finalists = choose_finalists(runner.genome, progress, runner.trained_losses)
    row, reached = choose_winner(finalists, runner.evaluation, tasks)
    choice = {
        "generation": progress.generation,
        "origin": finalists.origins[row],
        "accuracy": float(reached[row]),
        "tasks": max(runner.evaluation.task_counts(tasks)),
    }
    about = _provenance_of_loss(runner, choice)
    loss = finalists.criterion(row, about)
    card = f"# {runner.run.name}\n\n{loss.describe()}, evolved on {about['evolved on']}.\n"
    loss_io.save(runner.run.folder / "loss", loss, card, image_record.read(runner.run.folder))
    # The winner is written: only now may the meta-test tasks be looked at.
    test = _test(runner, loss.losses())
    sizes = size_front(finalists, reached) if runner.trained_losses else []
    summary = {
        "choice": choice,
        "trainings": progress.trainings,
        **_not_trained(runner),
        "front": sizes,
        "test": test,
    }
    if sizes:
        runner.run.write("front.json", {"front": sizes})
    if finalists.formulas:
        summary["formula"] = loss.describe()
    # Only now can the card tell of the test; the first one was written before it.
    storage.write(runner.run.folder / "loss" / "card.md", (card + _card(summary)).encode())
    _plot(runner, loss.losses(), sizes)
    runner.run.write("summary.json", summary)  # last: it says that the run is finished


def _provenance_of_loss(runner: SearchRunner, choice: dict[str, Any]) -> dict[str, Any]:
    """What a winner's file says of where it comes from; no paths, because a loss is shared."""
    return {
        "evolved on": ", ".join(family.name for family in runner.run.settings.families),
        "classes": sorted({family.ways for family in runner.evaluation.families}),
        "run": runner.run.name,
        "choice": choice,
        "metaloss": __version__,
    }


def _not_trained(runner: SearchRunner) -> dict[str, Any]:
    """What was not trained.

    How often each filter refused a formula, and how many trainings the screening saved.
    """
    history = runner.run.history()
    tasks = sum(runner.evaluation.task_counts(runner.run.settings.tasks_per_generation))
    refused = sum((Counter(record.get("refused", {})) for record in history), Counter[str]())
    screened = sum(record.get("screened", 0) for record in history)
    return {"refused": dict(refused.most_common()), "screened_trainings": screened * tasks}


def _test(runner: SearchRunner, losses: Losses) -> dict[str, Any]:
    """The winner at the family's own rate against tuned cross-entropy, on meta-test tasks."""
    settings = runner.run.settings
    # Cross-entropy may also train for longer: a loss that is merely faster must not look better.
    strongest = runner.evaluation.tune_baseline_steps(
        settings.rates, settings.baseline_tasks, runner.baselines
    )
    baselines = {"ce": runner.baselines, "ce_steps": strongest}
    result = dict[str, Any]()
    comparisons = runner.evaluation.test(losses, baselines, settings.test_tasks)
    for kind, compared in comparisons.items():
        for tasks, baseline, comparison in zip(
            runner.evaluation.families, baselines[kind], compared, strict=True
        ):
            row = {
                "accuracy": comparison.score,
                "tasks": comparison.gain.tasks,
                "classes": tasks.ways,
            }
            difference = asdict(comparison)
            del difference["score"], difference["baseline_score"]
            result.setdefault(tasks.family.name, row)[kind] = {
                "lr": baseline.lr,
                "steps": baseline.steps,
                "accuracy": comparison.baseline_score,
                **difference,
            }
    return result


def _plot(runner: SearchRunner, loss: Losses, front: list[dict[str, Any]]) -> None:
    from metaloss.evaluation import plots

    folder = runner.run.folder / "plots"
    folder.mkdir(exist_ok=True)
    plots.fitness(runner.run.history(), folder / "fitness.png")
    plots.phenotype(loss, "evolved", runner.genome.classes, folder / "phenotype.png")
    if front:
        plots.front(front, folder / "front.png")


def _card(summary: dict[str, Any]) -> str:
    """What the winner's card says of its choice and its test."""
    lines = [
        f"\nChosen on {summary['choice']['tasks']} fresh meta-validation tasks "
        f"({summary['choice']['origin']})."
    ]
    for name, row in summary["test"].items():
        for kind in ("ce", "ce_steps"):
            baseline = row[kind]
            near = near_chance(row["accuracy"], row["classes"])
            lines.append(
                f"{name}, {row['tasks']} meta-test tasks: {percent(row['accuracy'])}{near}; "
                f"cross-entropy at lr {baseline['lr']} and {baseline['steps']} steps "
                f"{percent(baseline['accuracy'])}: {verdict_text(baseline)} points "
                "(95 % bootstrap over tasks and images)."
            )
    return "\n\n".join(lines) + "\n"
