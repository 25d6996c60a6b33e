"""The tables of `held_out_kinds.py`, and how they stand to what was asked for, from its rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from held_out_cells import CE, RIVALS
from held_out_tasks import LATE
from timing import table

from metaloss.core.metric_scale import ACCURACY
from metaloss.evaluation.statistics import direction, holm

Row = Mapping[str, Any]
MAIN = (
    "episodes",
    "features",
    "digits",
    "cnn",
)  # the parts of the table that Holm's correction counts
LOWEST = -0.003  # an upper limit below is as bad as being behind


def cells_of(rows: Sequence[Row], loss: str) -> list[Row]:
    """A loss's cells, each once: that with the most tasks, of equal ones the newest."""
    best: dict[tuple[str, int], Row] = {}
    for row in rows:
        if row["what"] == "cell" and row["loss"] == loss:
            key = row["kind"], row["steps"]
            best[key] = max(row, best.get(key, row), key=lambda x: x["tasks"])
    return list(best.values())


def signs(cells: Sequence[Row], versus: str) -> dict[tuple[str, int], int]:
    """Of every cell 1 for ahead, -1 for behind, 0 for neither, after Holm's correction for all.

    Args:
        cells: of one table.
        versus: what the loss is set beside.
    """
    other = [x["versus"][versus] for x in cells]
    corrected = holm([x["p"] for x in other])
    return {
        (cell["kind"], cell["steps"]): direction(p, (x["low"], x["high"]))
        for cell, x, p in zip(cells, other, corrected, strict=True)
    }


def report(rows: Sequence[Row], loss: str) -> str:
    """Everything that is known of a loss, in Markdown."""
    cells = cells_of(rows, loss)
    main = [x for x in cells if x["part"] in MAIN]
    noise = [x for x in cells if x["part"] == "noise"]
    changes = changes_of(rows, loss)
    sections = [f"## {loss}", _budget(cells)]
    equal = "Gain over cross-entropy at its best rate for the same number of steps"
    free = "Gain over cross-entropy at its best rate and number of steps up to that number"
    for title, some in (("", main), ("Wrong labels: ", noise)):
        if some:
            sections += [
                f"### {title}{equal}",
                grid(some, _gain("ce", some)),
                f"### {title}{free}",
                grid(some, _gain("ce_steps", some)),
                f"### {title}Reached, and cross-entropy at the same number of steps (rates)",
                grid(some, _reached),
            ]
    beside = [x for x in cells if "published" in x["versus"]]
    if beside:
        sections += ["### Gain over rivals", _rivals(beside)]
    if changes:
        sections += [
            "### Change of a loss's own accuracy at other rates than its best",
            _changed(rows, loss),
        ]
    sections += ["### Bars", bars(main, noise, changes)]
    return "\n\n".join(sections)


def _budget(cells: Sequence[Row]) -> str:
    """How much was measured, in a sentence."""
    of = sorted({(x["tasks"], x["tuning"]) for x in cells}, reverse=True)
    edges = sum(x["edge"] for x in cells)
    counts = "; ".join(f"{tasks} and {tuning}" for tasks, tuning in of)
    return (
        f"Meta-test tasks and tuning tasks of a kind: {counts}. Differences in points of accuracy "
        "with 95 % intervals over tasks and images; bold: ahead or behind after Holm's correction "
        f"for all cells of the table. In {edges} of {len(cells)} cells the loss's rate is the "
        "least or the largest that was tried."
    )


def grid(cells: Sequence[Row], text: Callable[[Row], str]) -> str:
    """A table with a row for each kind and a column for each number of steps."""
    steps = sorted({x["steps"] for x in cells})
    by_kind: dict[str, dict[int, Row]] = {}
    for x in cells:
        by_kind.setdefault(x["kind"], {})[x["steps"]] = x
    rows = [
        [kind, *(text(found[n]) if n in found else "" for n in steps)]
        for kind, found in by_kind.items()
    ]
    return table(["", *(f"{n} steps" for n in steps)], rows, markdown=True)


def _gain(versus: str, cells: Sequence[Row]) -> Callable[[Row], str]:
    sign = signs(cells, versus)

    def text(cell: Row) -> str:
        x = cell["versus"][versus]
        mean = ACCURACY.signed(x["mean"])
        shown = f"**{mean}**" if sign[cell["kind"], cell["steps"]] else mean
        return f"{shown} {ACCURACY.ends(x['low'], x['high'])}"

    return text


def _interval(change: Row) -> str:
    return ACCURACY.interval({k: change[k] for k in ("mean", "low", "high")})


def _reached(cell: Row) -> str:
    ce = cell["versus"]["ce"]
    return (
        f"{100 * cell['score']:.1f} ({cell['setting']['lr']:g}), "
        f"{100 * ce['score']:.1f} ({ce['setting']['lr']:g})"
    )


def _rivals(cells: Sequence[Row]) -> str:
    head = ["", "steps", "label smoothing, tuned", "gain", "best published", "gain"]
    by_rival = {rival: _gain(rival, cells) for rival in RIVALS}
    return table(
        head,
        [
            [
                x["kind"],
                x["steps"],
                *(
                    part
                    for rival, gain in by_rival.items()
                    for part in (_spec(x["versus"][rival]["setting"]), gain(x))
                ),
            ]
            for x in cells
        ],
        markdown=True,
    )


def _spec(setting: Row) -> str:
    return f"{setting['spec']}, rate {setting['lr']:g}"


def changes_of(rows: Sequence[Row], loss: str) -> list[Row]:
    """The changes of a loss's accuracy at other rates; of each kind those of most tasks."""
    best: dict[str, Row] = {}
    for row in rows:
        if row["what"] == "changed" and row["loss"] == loss:
            known = best.get(row["kind"], row)
            best[row["kind"]] = max(row, known, key=lambda x: x["tasks"])
    return [{"kind": kind, **x} for kind, row in best.items() for x in row["changes"]]


def _changed(rows: Sequence[Row], loss: str) -> str:
    found: dict[tuple[str, int, str], dict[str, str]] = {}
    for name in (loss, CE):
        for x in changes_of(rows, name):
            factor = "a third" if x["factor"] < 1 else "three times"
            found.setdefault((x["kind"], x["steps"], factor), {})[name] = _interval(x)
    head = ["", "steps", "rate", loss, CE]
    body = [[*key, texts.get(loss), texts.get(CE)] for key, texts in found.items()]
    return table(head, body, markdown=True)


# --- bars ---


@dataclass(frozen=True)
class Bar:
    """What was asked for, and what was reached.

    Attributes:
        title: what is measured.
        least: what must be reached.
        aim: what should be.
        reached: in the same unit; None: it was not measured.
        text: the same in words, with an interval where it has one.
        less: whether less is better.
    """

    title: str
    least: float
    aim: float
    reached: float | None
    text: str
    less: bool = False

    @property
    def verdict(self) -> str:
        """Whether the bar is met."""
        if self.reached is None:
            return "not measured"
        sign = -1 if self.less else 1
        if sign * self.reached >= sign * self.aim:
            return "aim reached"
        return "met" if sign * self.reached >= sign * self.least else "missed"

    def row(self) -> list[str]:
        """As cells of a table."""
        signed = "≤ {:g}" if self.less else "{:+g}"
        return [
            self.title,
            signed.format(self.least),
            signed.format(self.aim),
            self.text,
            self.verdict,
        ]


def bars(main: Sequence[Row], noise: Sequence[Row], changes: Sequence[Row]) -> str:
    """All bars, those that were not measured among them."""
    some = [x for x in main if x["network"] != "linear head"]
    early = [x for x in some if x["steps"] <= 50 and 5 <= x["shots"] <= 20]
    late = [x for x in main if x["steps"] in LATE]
    linear = [x for x in main if x["network"] == "linear head"]
    rivals = [x for x in late if "published" in x["versus"]]
    found = [
        _behind(main),
        _mean("mean gain at 10, 20 and 50 steps, MLP and CNN, 5 and 20 images", 4, 6, early),
        _mean("mean gain of the linear head", 0, 0.5, linear),
        _mean("mean gain at 200 and 400 steps, all networks", 0.7, 1.5, late),
        _mean(
            "mean gain at 200 and 400 steps, MLP and CNN",
            0.7,
            1.5,
            [x for x in some if x["steps"] in LATE],
        ),
        _mean(
            "mean gain over the stronger rival of each cell, 200 and 400 steps",
            0.3,
            1.0,
            rivals,
            _stronger_rival,
        ),
        _largest_loss(changes),
        Bar("full-size training", 0, 1, None, "see `metaloss train`"),
        _mean(
            "wrong labels, mean gain over cross-entropy at its best rate and steps",
            1.5,
            3,
            noise,
            lambda x: x["versus"]["ce_steps"],
        ),
    ]
    note = (
        "A mean's interval has the means of the cells' ends: it is at least as wide as the mean's "
        "own. The stronger rival is the one of the two that is ahead on the meta-test tasks "
        "themselves. Means of the MLP are over Fashion-MNIST and digits."
    )
    head = ["", "at least", "aim", "reached", ""]
    return f"{table(head, [x.row() for x in found], markdown=True)}\n\n{note}"


def _behind(cells: Sequence[Row]) -> Bar:
    title = "kinds behind cross-entropy at that number of steps, or with an upper limit below -0.3"
    if not cells:
        return Bar(title, 0, 0, None, "", less=True)
    sign = signs(cells, "ce")
    behind = [
        f"{x['kind']}, {x['steps']} steps"
        for x in cells
        if sign[x["kind"], x["steps"]] < 0 or x["versus"]["ce"]["high"] < LOWEST
    ]
    named = f": {'; '.join(behind)}" if behind else ""
    return Bar(title, 0, 0, len(behind), f"{len(behind)} of {len(cells)}{named}", less=True)


def _mean(
    title: str,
    least: float,
    aim: float,
    cells: Sequence[Row],
    gain: Callable[[Row], Row] = lambda x: x["versus"]["ce"],
) -> Bar:
    if not cells:
        return Bar(title, least, aim, None, "")
    gains = [gain(x) for x in cells]
    mean, low, high = (sum(x[k] for x in gains) / len(gains) for k in ("mean", "low", "high"))
    interval = _interval({"mean": mean, "low": low, "high": high})
    lowest = ACCURACY.signed(min(x["mean"] for x in gains))
    text = f"{interval} ({len(gains)} cells, the least {lowest})"
    return Bar(title, least, aim, 100 * mean, text)


def _stronger_rival(cell: Row) -> Row:
    return min((cell["versus"][x] for x in RIVALS), key=lambda x: x["mean"])


def _largest_loss(changes: Sequence[Row]) -> Bar:
    title = (
        "most of its own accuracy that it loses at a third or three times its best rate, 100 steps "
        "and more"
    )
    if not changes:
        return Bar(title, 1, 0.5, None, "", less=True)
    worst = min(changes, key=lambda x: x["mean"])
    text = f"{_interval(worst)} ({worst['kind']}, {worst['steps']} steps)"
    return Bar(title, 1, 0.5, -100 * worst["mean"], text, less=True)
