"""What is printed of settings and results, as lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaloss._version import __version__
from metaloss.core.event_protocols import (
    OpenFamily,
    ReportedBaseline,
    ReportedEngine,
    ReportedFolds,
    SearchRun,
    TaskCounts,
)
from metaloss.core.formatting import clock, counted, percent, signed, tuned_quantities
from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.records import GenerationRecord, StageRow
from metaloss.data.shapes import described
from metaloss.evaluation.family_evaluation import OWN_RATES
from metaloss.evaluation.guard import Guard, guard_lines
from metaloss.tasks.uneven import fitted_as_is, is_uneven, proportions_in_words

# The table of a search's generations.
HEADER = " gen   best   mean   held-out  vs CE        diverged   trainings/s   left"
BESIDE = "   acc [%]"  # of the held-out tasks, where losses are scored by another metric
# Where the table may end on narrow terminals: after its last column, after the one before it, …
ENDS = (len(HEADER + BESIDE), *(len(HEADER) - n for n in (0, 7, 21, 31)))


def cut_row(text: str, width: int | None) -> str:
    """A line of the generations' table, with as many columns as a terminal has room for."""
    width = width or ENDS[0]
    return text[: next((end for end in ENDS if end <= width), ENDS[-1])].rstrip()


def task(opened: Any) -> str:
    """What a task of a family is."""
    family = opened.family
    if hasattr(family, "ranges"):
        return str(family.describe())
    if hasattr(family, "training"):
        training = family.training
        images = {name: len(rows) for name, rows in opened.shares.items()}
        return (
            f"{training.model}, {opened.steps} steps, augmentation {training.augment.kind}, "
            f"{images['train']} validation images for fitness, {images['validation']} for the "
            "choice of the winner"
        )
    noise = "" if family.noise is None else f", {family.noise}"
    versions = "" if family.augment is None else f", {family.augment}"
    view = "" if family.view is None else f", {family.view} pixels"
    return described(family.ways, family.shots, family.val) + view + noise + versions


def proportions(opened: Any) -> list[str]:
    """Why a family's tasks are as uneven as its classes, where it was made so; else nothing."""
    if not hasattr(opened.family, "shots") or not fitted_as_is(opened.family):
        return []
    dataset = opened.dataset
    counts = dataset.labels[~dataset.test].bincount(minlength=len(dataset.classes)).tolist()
    smallest = min(len(rows) for pool in opened.pools.values() for rows in pool)
    if not is_uneven(counts):
        return []
    return [f"        {proportions_in_words(dataset.classes, counts, smallest)}"]


def search_lines(
    run: SearchRun, engine: ReportedEngine, families: Sequence[OpenFamily], genome: object
) -> list[str]:
    """The settings of a search in a few lines, and where everything goes."""
    settings = run.settings
    size = f" ({genome.size} weights)" if hasattr(genome, "size") else ""
    kind = settings.genome["kind"]
    return [
        f"metaloss {__version__} · {kind}{size} · {label(settings.strategy)} · "
        f"seed {settings.seed} · {engine.description}",
        *(
            line
            for opened in families
            for line in (
                f"tasks   {opened.family.name} ({opened.family.origin}): {task(opened)}; "
                f"data: {opened.data_origin}",
                *proportions(opened),
            )
        ),
        *_genome(settings.genome, families),
        *_metric(families[0].scale),
        *([f"guard   {Guard(settings.guard).text()}"] if settings.guard else []),
        f"run     {run.folder}",
    ]


def _genome(genome: Mapping[str, Any], families: Sequence[OpenFamily]) -> list[str]:
    """That losses may see the classes' shares, where tasks are as uneven as the classes."""
    if not genome.get("prior") or not any(map(proportions, families)):
        return []
    return ["genome  sees the share of each class (--set genome.prior=false: not)"]


def _metric(scale: MetricScale) -> list[str]:
    """What losses are scored by, where that is not accuracy."""
    direction = "more" if scale.maximise else "less"
    return [] if scale.is_accuracy else [f"metric  {scale.title}, {direction} is better"]


def baseline_line(baseline: ReportedBaseline, tasks: int, scale: MetricScale) -> str:
    """What cross-entropy reaches at its best learning rate on so many tasks."""
    rate = " for each kind of task" if baseline.relative else f" ({baseline.lr:g})"
    return (
        f"start   cross-entropy at its best learning rate{rate}: "
        f"{scale.named(scale.value(baseline.score))} on {tasks} meta-validation tasks"
    )


def generation_line(
    record: GenerationRecord,
    speed: Sequence[tuple[float, int]],
    generations_left: float,
    scale: MetricScale = ACCURACY,
) -> str:
    """A generation's row of the table.

    Args:
        record: its line of the history.
        speed: seconds and trainings of each of the last generations.
        generations_left: how many of its size are still to come.
        scale: how values are shown.
    """

    def points(value: float | None) -> str:
        return "  –  " if value is None else f"{scale.number(value):5.{scale.digits}f}"

    held = record.get("held_out")
    seconds = sum(s for s, _ in speed)
    rate = sum(n for _, n in speed) / seconds
    left = seconds / len(speed) * generations_left
    diverged = f"{record['diverged']}/{record['candidates']}"
    held_out = points(held[scale.kind]) if held else "     "
    gain = _gain(held, scale) if held else ""
    accuracy = "" if scale.is_accuracy or not held else f"{100 * held['accuracy']:11.1f}"
    return (
        f"{record['generation']:4}  {points(record['best'])}  {points(record['mean'])}     "
        f"{held_out}  {gain}{diverged:>{21 - len(gain)}}   {rate:11.0f}   {clock(left):>4}"
        f"{accuracy}"
    )


def _gain(held: Mapping[str, float], scale: MetricScale) -> str:
    """A gain on held-out tasks with its standard error."""
    return f"{scale.signed(held['gain']):>5} ± {scale.number(held['error']):.{scale.digits}f}"


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The winner and its test, in the words of every command."""
    choice = summary["choice"]
    lines = [
        f"winner  {choice['origin']}, chosen on {choice['tasks']} fresh meta-validation tasks"
        + _rounds(choice.get("finalists", []))
    ]
    if formula := summary.get("formula"):
        lines.append(f"loss    {formula}")
    if refused := summary.get("refused"):
        listed = ", ".join(f"{reason} {n}" for reason, n in refused.items())
        lines.append(f"filters refused before any training: {listed}")
    if saved := summary.get("screened_trainings"):
        lines.append(f"screen  {saved} trainings saved")
    if noise := summary.get("noise"):
        lines.append(
            f"noise   in fitness the best of a generation was {noise['lead']:.2g} above its mean; "
            f"standard error {noise['error']:.2g} (over the last {noise['generations']})"
        )
    scale = MetricScale.of(summary)
    if front := summary.get("front"):
        lines.append(
            "front   "
            + ", ".join(f"{row['size']} nodes {scale.text(row[scale.kind])}" for row in front)
        )
    for name, row in summary["test"].items():
        lines.append(f"test    {name}, {row['tasks']} meta-test tasks: {scale.tested(row)}")
        lines += [f"        {text}" for text in _rivals_in_test(row, scale)]
    return lines + [f"guard   {line}" for line in guard_lines(summary)]


def _rounds(finalists: Sequence[Mapping[str, int]]) -> str:
    """Of an election in rounds, how many finalists met how many tasks."""
    if len(finalists) < 2:
        return ""
    counts = ", ".join(f"{x['losses']} on {x['tasks']}" for x in finalists)
    return f"; finalists: {counts}"


def _rivals_in_test(row: Mapping[str, Any], scale: MetricScale) -> list[str]:
    """What cross-entropy reached on a family's test tasks, and how the winner differs from it."""
    ce = row["ce"]
    reached = f"{scale.reached(ce)}: {scale.verdict(ce)}"
    if ce.get("relative"):
        lines = [f"CE at its best rate for each kind of task {reached}"]
        if own := row.get(OWN_RATES):  # finished searches of before lack it
            lines.append(f"CE at the winner's rates {scale.reached(own)}: {scale.verdict(own)}")
        return lines
    steps = row["ce_steps"]
    return [
        f"CE at its best rate ({ce['lr']:g}) {reached}",
        f"CE at its best rate ({steps['lr']:g}) and number of steps ({steps['steps']}) "
        f"{scale.reached(steps)}: {scale.verdict(steps)}",
    ]


def stage_line(row: StageRow) -> str:
    """A stage of an elimination as a row of the table."""
    scale = MetricScale.of(row)
    tau = "" if row["tau"] is None else signed(row["tau"], 2)
    budget = f"{row['steps']:>5}x {row['scale']:>5}x {row['tasks']:>6} {row['repeats']:>6}"
    best, ce = (f"{scale.number(row[key]):6.{scale.digits}f}" for key in ("best", "ce"))
    notes = [] if scale.is_accuracy else [scale.axis]
    if "best_accuracy" in row:
        notes.append(f"accuracy {percent(row['best_accuracy'])}, CE {percent(row['ce_accuracy'])}")
    if "outside" in row:
        notes.append(f"{row['outside']} outside the guard")
    line = f"{row['stage']:5} {row['losses']:7} {budget} {best} {ce}    {tau:5}  {', '.join(notes)}"
    return line.rstrip()


def elimination_lines(summary: Mapping[str, Any]) -> list[str]:
    """The winner of an elimination, and the guard that it was chosen by."""
    first = summary["ranking"][0]
    reached = MetricScale.of(summary).reached(first)
    guard = summary.get("guard")
    return [
        f"winner  {first['formula']}: {reached} in the last stage",
        *([f"guard   {Guard(guard).text()}"] if guard else []),
    ]


def refinement_line(family: str, row: Mapping[str, Any]) -> str:
    """What other constants gained on a family's tasks, with accuracy beside another metric."""
    scale = MetricScale.of(row)
    beside = ""
    if "accuracy" in row:
        before, after = (percent(row["accuracy"][key]) for key in ("before", "after"))
        beside = f" (accuracy {before} before, {after} after)"
    return (
        f"gain    {family}, {row['gain']['tasks']} fresh meta-validation tasks: "
        f"{scale.named(row['before'])} before, {scale.text(row['after'])} after: "
        f"paired {scale.interval(row['gain'])}{beside}"
    )


def recommendation_lines(settings: TaskCounts, images: ReportedFolds, losses: int) -> list[str]:
    """What is about to be tried on a user's images."""
    family = images.family
    n = sum(map(len, images.rows))
    steps = "cross-entropy's best number of" if images.usual_steps else family.inner.steps
    tasks = described(family.ways, family.shots, family.val)
    groups = (
        f"groups  {images.group_count}, each whole in one fold and on one side of a task; "
        "intervals count groups"
    )
    metric = "metric  balanced accuracy, as classes are uneven (--metric NAME: another)"
    return [
        f"data    {family.name}: {images.dataset.origin}",
        f"folds   {images.folds} parts of {n} images, each held out once: "
        f"{counted(losses, 'loss')} tuned in {tuned_quantities(settings.tune)} and one chosen on "
        f"{settings.tuning_tasks} tasks of the others, judged on {settings.test_tasks} of the part",
        *([groups] if images.group_count else []),
        f"tasks   small trainings, each {tasks}, {family.ways * images.val} held out; "
        f"{family.classifier['kind']}, {steps} steps",
        *([metric] if images.usual_metric else []),
    ]


def refinement_lines(table: dict[str, Any]) -> list[str]:
    """A formula before and after its constants were tuned, and what other constants gained."""
    better = table["after"] != table["before"]
    return [
        f"before  {table['before']}",
        f"after   {table['after']}" if better else "after   no better was found",
        *(refinement_line(name, row) for name, row in table["families"].items()),
    ]


def comparison_heading(settings: TaskCounts, families: Sequence[OpenFamily]) -> list[str]:
    """What is about to be compared, on which tasks."""
    return [
        f"{settings.test_tasks} meta-test tasks · same tasks and initial weights for every "
        f"loss · {tuned_quantities(settings.tune)} tuned per loss on {settings.tuning_tasks} "
        "meta-validation tasks",
        *(
            line
            for episodes in families
            for line in (
                f"tasks   {episodes.family.name} ({episodes.family.origin}); "
                f"data: {episodes.data_origin}",
                *proportions(episodes),
            )
        ),
    ]


def label(strategy: Mapping[str, Any]) -> str:
    """A strategy's usual name."""
    if strategy["kind"] == "mu_plus_lambda":
        return f"({strategy['mu']}+{strategy['lambda_']})-ES"
    if strategy["kind"] == "gp":
        return f"({strategy['mu']}+{strategy['lambda_']})-GP"
    if strategy["kind"] == "cma_es":
        return f"CMA-ES of {strategy['population']}"
    return str(strategy["kind"])
