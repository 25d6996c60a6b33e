"""What is printed while a search runs: plain lines, and a live bar on a terminal and in a notebook."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console as Terminal

from metaloss._version import __version__
from metaloss.bars import NotebookBar, TerminalBar
from metaloss.notation import clock, decided, interval, near_chance, percent, probability

HEADER = " gen   best   mean   held-out  vs CE        diverged   trainings/s   left"


class Console:
    """Prints a search's progress: the `reporter` of `evolve`, `resume`, `refine`, `eliminate` and `fit`.

    The table's lines stay. On a terminal a bar moves under them, where the console is entered: `with Console() as c`. A
    notebook shows one above them.

    Args:
        quiet: print nothing but warnings.
        verbose: a line for every generation, not only for those with a look at held-out tasks.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.verbose = verbose
        # Plain lines in a notebook too: there rich would make each of them a block of its own.
        plain: dict[str, Any] = {"highlight": False, "soft_wrap": True, "emoji": False, "force_jupyter": False}
        self.terminal, self.errors = Terminal(quiet=quiet, **plain), Terminal(stderr=True, **plain)
        self.folder: Any = None
        self.entered = False  # a bar that no one takes down when an error comes would spoil the terminal
        self.notebook = Terminal().is_jupyter
        self.bar: TerminalBar | NotebookBar | None = None
        self.speed: list[tuple[float, int]] = []

    def __enter__(self) -> "Console":
        self.entered = True
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bar()

    def started(self, run: Any, engine: Any, families: Sequence[Any], genome: Any) -> None:
        """The settings in a few lines, and where everything goes."""
        settings, self.folder = run.settings, run.folder
        self.total = settings.generations
        device = (
            f"cpu, {engine.workers} thread{'s' if engine.workers > 1 else ''}"
            if engine.device.type == "cpu"
            else str(engine.device)
        )
        size = f" ({genome.size} weights)" if hasattr(genome, "size") else ""
        kind, strategy = settings.genome["kind"], label(settings.strategy)
        self.say(f"metaloss {__version__} · {kind}{size} · {strategy} · seed {settings.seed} · {device}")
        for episodes in families:
            family = episodes.family
            self.say(f"tasks   {family.name} ({family.origin}): {_task(episodes)}; data: {episodes.dataset.origin}")
        self.say(f"run     {run.folder}")

    def baseline(self, rivals: Sequence[Any], tasks: int) -> None:
        """What is to be beaten."""
        for rival in rivals:
            self.say(
                f"start   cross-entropy at its best learning rate ({rival.lr:g}): {percent(rival.accuracy)} "
                f"on {tasks} meta-validation tasks"
            )
        self._start_bar("generation {task.completed}/{task.total}", "generation {done}/{total}", self.total)
        self.say(HEADER)

    def generation(self, record: dict[str, Any], seconds: float, trainings: int) -> None:
        """One line where held-out tasks were looked at, and for the first generation; the bar for every one."""
        number = record["generation"]
        self.speed = [*self.speed[-10:], (seconds, trainings)]
        if self.bar:
            self.bar.reach(number)
        for event in record.get("events", ()):
            self.warning(event)
        if self.verbose or number == 1 or "held_out" in record or record["best"] is None:
            self.say(self._line(record))

    def warning(self, text: str) -> None:
        """A line on stderr."""
        self.errors.print(f"warning: {text}", markup=False)

    def finished(self, run: Any, summary: dict[str, Any]) -> None:
        """The winner, what it reached, and what to do next."""
        self._stop_bar()
        for line in summary_lines(summary):
            self.say(line)
        self.say(f"saved   {run.folder}/        next: metaloss show {run.folder}")

    def eliminating(self, run: Any, losses: int) -> None:
        """What is about to be eliminated."""
        self.folder = run.folder
        self.say(f"metaloss {__version__} · the best {losses} losses of {run.name} · seed {run.settings.seed}")
        self.say("stage  losses  steps  width  tasks  times   best     CE    τ to the stage before")

    def stage(self, row: dict[str, Any]) -> None:
        """A stage of an elimination is over."""
        tau = "" if row["tau"] is None else f"{row['tau']:+.2f}"
        budget = f"{row['steps']:>5}x {row['scale']:>5}x {row['tasks']:>6} {row['repeats']:>6}"
        reached = f"{100 * row['best']:6.1f} {100 * row['ce']:6.1f}"
        self.say(f"{row['stage']:5} {row['losses']:7} {budget} {reached}    {tau}".rstrip())

    def eliminated(self, folder: Any, summary: dict[str, Any]) -> None:
        """Who is left."""
        first = summary["ranking"][0]
        self.say(f"winner  {first['formula']}: {percent(first['accuracy'])} in the last stage")
        self.say(f"saved   {folder}/        next: metaloss show {folder}")

    def refined(self, table: dict[str, Any]) -> None:
        """What other constants gained."""
        self.say(f"before  {table['before']}")
        self.say(f"after   {table['after']}" if table["after"] != table["before"] else "after   no better was found")
        for name, row in table["families"].items():
            self.say(
                f"gain    {name}, {row['gain']['tasks']} fresh meta-validation tasks: {percent(row['before'])} before, "
                f"{percent(row['after'])} after: paired {interval(row['gain'])}"
            )

    def comparing(self, chosen: Any, opened: Sequence[Any], work: int) -> None:
        """What is about to be compared, with a bar of the training steps."""
        self.say(
            f"{chosen.test_tasks} meta-test tasks · same tasks and initial weights for every loss · learning rate "
            f"tuned per loss on {chosen.tuning_tasks} meta-validation tasks"
        )
        for episodes in opened:
            self.say(f"tasks   {episodes.family.name} ({episodes.family.origin}); data: {episodes.dataset.origin}")
        self._start_bar("{task.percentage:3.0f} %", "{share:.0%}", work)

    def recommending(self, chosen: Any, images: Any, losses: int, work: int) -> None:
        """What is about to be tried on a user's images, with a bar of the training steps."""
        family, n = images.family, sum(map(len, images.rows))
        self.say(f"data    {family.name}: {images.dataset.origin}")
        if images.copies:
            self.warning(f"{images.copies} images are exact copies of others and are left out")
        self.say(
            f"folds   {images.folds} of {n} images; {losses} losses tuned and one chosen on {chosen.tuning_tasks} "
            f"tasks of the other folds, judged on {chosen.test_tasks} tasks of each fold"
        )
        self.say(
            f"tasks   {family.ways}-way {family.shots}-shot, {family.ways * family.val} validation images, "
            f"{family.ways * images.val} held out; {family.classifier['kind']}, {family.inner.steps} steps"
        )
        self._start_bar("{task.percentage:3.0f} %", "{share:.0%}", work)

    def recommended(self, advice: Any) -> None:
        """The table, the advice, and where all of it lies."""
        from metaloss.recommendation.findings import lines

        self._stop_bar()
        for line in lines(advice.summary):
            self.say(line)
        files = sorted(path.name for path in advice.folder.iterdir())
        self.say(f"wrote {advice.folder}/{{{', '.join(files)}}}")

    def advanced(self, work: int) -> None:
        """So many steps of training are done."""
        if self.bar:
            self.bar.advance(work)

    def compared(self, report: Any) -> None:
        """The table, what it allows one to say, and where all of it lies."""
        if self.bar:  # how much work there would be was only guessed
            self.bar.reach(self.bar.total)
        self._stop_bar()
        for line in comparison_lines(report.summary):
            self.say(line)
        files = sorted(path.name for path in report.folder.iterdir())
        self.say(f"wrote {report.folder}/{{{', '.join(files)}}}")

    def training(self, job: Any) -> None:
        """What is about to be trained at full size."""
        from metaloss.training import lines

        self.folder = job.folder
        for line in lines.heading(job):
            self.say(line)

    def epoch(self, record: dict[str, Any], epochs: int, seconds: float) -> None:
        """An epoch of such a training is over."""
        from metaloss.training import lines

        self.say(lines.epoch(record, epochs, seconds))

    def fitted(self, found: Any) -> None:
        """What the trainings came to on the test images."""
        from metaloss.training import lines

        for line in lines.table(found):
            self.say(line)
        self.say(f"saved   {found.folder}/")

    def studying(self, folder: Any, chosen: Any, regimes: Sequence[Any]) -> None:
        """What is about to be scored."""
        from metaloss.studies import lines

        self.folder = folder
        for line in lines.heading(folder, chosen, regimes):
            self.say(line)

    def under(self, setting: str) -> None:
        """All losses are about to be scored under a setting."""
        self.say(f"under   {setting}")

    def scored(self, loss: str, score: Any, place: tuple[int, int]) -> None:
        """A loss has its score under this setting."""
        from metaloss.studies import lines

        self.say(lines.scored(loss, score, *place))

    def studied(self, found: Any) -> None:
        """How alike the settings order the losses."""
        from metaloss.studies import lines

        for line in lines.result(found.summary):
            self.say(line)
        self.say(f"saved   {found.folder}/")

    def say(self, text: str) -> None:
        """A plain line; names from files are never markup."""
        self.terminal.print(text, markup=False)

    def _start_bar(self, on_terminal: str, in_notebook: str, total: int) -> None:
        if self.terminal.quiet:
            return
        if self.notebook:
            self.bar = NotebookBar(in_notebook, total)
        elif self.entered and self.terminal.is_terminal:
            self.bar = TerminalBar(self.terminal, on_terminal, total)

    def _stop_bar(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _line(self, record: dict[str, Any]) -> str:
        def points(x: float | None) -> str:
            return "  –  " if x is None else f"{100 * x:5.1f}"

        held = record.get("held_out")
        gain = f"{100 * held['gain']:+5.1f} ± {100 * held['error']:.1f}" if held else ""
        seconds = sum(s for s, _ in self.speed)
        rate = sum(n for _, n in self.speed) / seconds
        left = seconds / len(self.speed) * (self.total - record["generation"])
        diverged = f"{record['diverged']}/{record['candidates']}"
        held_out = points(held["accuracy"]) if held else "     "
        return (
            f"{record['generation']:4}  {points(record['best'])}  {points(record['mean'])}     "
            f"{held_out}  {gain:11}  {diverged:>8}   {rate:11.0f}   {clock(left):>4}"
        )


def _task(opened: Any) -> str:
    """What a task of a family is."""
    family = opened.family
    if hasattr(family, "training"):
        chosen, images = family.training, {name: len(rows) for name, rows in opened.shares.items()}
        return (
            f"{chosen.model}, {opened.steps} steps, augmentation {chosen.augment.kind}, {images['train']} validation "
            f"images for fitness, {images['validation']} for the choice of the winner"
        )
    return f"{family.ways}-way {family.shots}-shot, {family.ways * family.val} validation images"


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The winner and its test, in the words of every command."""
    choice = summary["choice"]
    lines = [f"winner  {choice['origin']}, chosen on {choice['tasks']} fresh meta-validation tasks"]
    if formula := summary.get("formula"):
        lines.append(f"loss    {formula}")
    if refused := summary.get("refused"):
        listed = ", ".join(f"{reason} {n}" for reason, n in refused.items())
        lines.append(f"filters refused before any training: {listed}")
    if saved := summary.get("screened_trainings"):
        lines.append(f"screen  {saved} trainings saved")
    if front := summary.get("front"):
        lines.append("front   " + ", ".join(f"{row['size']} nodes {percent(row['accuracy'])}" for row in front))
    for name, row in summary["test"].items():
        ce, steps = row["ce"], row["ce_steps"]
        near = near_chance(row["accuracy"], row["classes"])
        lines += [
            f"test    {name}, {row['tasks']} meta-test tasks: {percent(row['accuracy'])}{near}",
            f"        CE at its best rate ({ce['lr']:g}) {percent(ce['accuracy'])}: {decided(ce)}",
            f"        CE at its best rate ({steps['lr']:g}) and number of steps ({steps['steps']}) "
            f"{percent(steps['accuracy'])}: {decided(steps)}",
        ]
    return lines


def comparison_lines(summary: dict[str, Any]) -> list[str]:
    """A comparison's tables and sentences."""
    lines: list[str] = []
    for family in summary["families"]:
        rows = [_standing(row) for row in summary["rows"] if row["family"] == family["name"]]
        # What is empty for all losses needs no column.
        columns = [name for name in rows[0] if any(row[name] for row in rows)]
        table = [columns, *([row[name] for name in columns] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        about = f"{family['inner']['steps']} steps, own learning rate {family['inner']['lr']:g}"
        lines.append(f"{family['name']}: {about}; Δ against {summary['baseline']}")
        lines += ["  ".join(f"{x:{w}}" for x, w in zip(row, widths, strict=True)).rstrip() for row in table]
        lines += [x["text"] for x in summary["sentences"] if x["family"] == family["name"]]
    return lines


def widest(against: dict[str, Any]) -> dict[str, float]:
    """A difference with the wider ends of its interval over tasks and of that over tasks and images."""
    gain = against["gain"]
    ends = {"low": min(gain["low"], against["low"]), "high": max(gain["high"], against["high"])}
    return {"mean": gain["mean"], **ends}


def _standing(row: dict[str, Any]) -> dict[str, str]:
    """One line of such a table."""
    at, against, best = row["at"], row["against"], row["at_best"]
    test = against["test"] if against else {}
    return {
        "loss": row["loss"],
        "lr": f"{row['setting']['lr']:g}",
        "accuracy": f"{100 * at['accuracy']:.1f} ± {100 * at['std']:.1f} %",
        # The interval that decides: over tasks and, where that is wider, over tasks and images.
        "Δ [95 % CI]": interval(widest(against)) if against else "",
        "win/tie/loss": f"{test['wins']}/{test['ties']}/{test['losses']}" if against else "",
        "p (Holm)": probability(against["p"]) if against else "",
        "F1": f"{at['f1']:.3f}".removeprefix("0"),
        "worst decile": percent(at["worst_decile"]),
        "at own rate": percent(row["plain"]["accuracy"]),
        "at best steps": f"{percent(best['accuracy'])} ({row['best']['steps']})" if best else "",
        "diverged": percent(at["diverged"]) if at["diverged"] else "",
        "data": row["data"] if row["data"].endswith("classes") else "",  # of evolved losses
    }


def label(strategy: dict[str, Any]) -> str:
    """A strategy's usual name."""
    if strategy["kind"] == "mu_plus_lambda":
        return f"({strategy['mu']}+{strategy['lambda_']})-ES"
    if strategy["kind"] == "gp":
        return f"({strategy['mu']}+{strategy['lambda_']})-GP"
    if strategy["kind"] == "cma_es":
        return f"CMA-ES of {strategy['population']}"
    return str(strategy["kind"])
