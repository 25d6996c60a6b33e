"""A comparison as one HTML file."""

import json
import shlex
from collections.abc import Sequence
from typing import Any

from metaloss.core import webpage
from metaloss.core.formatting import percent, probability, signed, tuned_quantities
from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.plot_style import Picture
from metaloss.core.records import loss_name, training_in_words
from metaloss.data.shapes import described

NOTES = (
    "Accuracy: mean ± standard deviation of the tasks, a training that diverged counting as 0; "
    "worst decile: mean of the worst tenth of the tasks. Δ: paired difference; the first interval "
    "is over tasks (95 %, bootstrap), the second one over tasks and images, which tasks share. p: "
    "Wilcoxon's signed-rank test, Holm's correction over all rows. Effect: matched-pairs "
    "rank-biserial correlation. “Better” and “worse” are said where the second interval and the "
    "test agree. NLL and calibration error (15 bins) are of the trainings that did not diverge. "
    "Its data: what a family's images and classes are beside those that a loss has learned from; "
    "published formulas may have learned elsewhere. What is no loss: methods fitted to each task's "
    "images, their constants tuned on the same meta-validation tasks, and changes of a network's "
    "logits after training; Holm's correction is over their rows alone."
)
REPRODUCE = (
    "With the versions above, on the same kind of processor, every number comes out the same. "
    "results.csv, per_task.csv and summary.json beside this file hold all of them."
)
COLUMNS = (
    "loss",
    "lr",
    "accuracy",
    "Δ [tasks] [tasks and images]",
    "win/tie/loss",
    "p (Holm)",
    "effect",
    "F1",
    "worst decile",
    "NLL",
    "calibration",
    "diverged",
    "at the family's rate",
    "best steps",
    "its data",
)


def page(summary: dict[str, Any], pictures: Sequence[Picture]) -> str:
    """The report."""
    names = ", ".join(f["name"] for f in summary["families"])
    settings = {"settings": summary["settings"], "conditions": summary["conditions"]}
    sentences = [f"{x['family']}: {x['text']}" for x in summary["sentences"]]
    tables = [_standings(summary, family) for family in summary["families"]]
    losses = webpage.table(("loss", "formula", "about"), [_loss(x) for x in summary["losses"]])
    provenance = webpage.preformatted(json.dumps(settings, indent=1, ensure_ascii=False))
    parts = [
        webpage.paragraph(introduction(summary)),
        webpage.section("What the numbers allow one to say", webpage.bullets(sentences)),
        webpage.section("Results", *tables, webpage.note(NOTES)),
        webpage.section("Figures", *map(webpage.figure, pictures)),
        webpage.section("Losses", losses),
        webpage.section("Settings and provenance", _families(summary["families"]), provenance),
        webpage.section(
            "How to reproduce",
            webpage.preformatted(shlex.join(summary["command"])),
            webpage.note(REPRODUCE),
        ),
    ]
    return webpage.page(f"metaloss compare: {names}", parts)


def introduction(summary: dict[str, Any]) -> str:
    """How the comparison was made, in a line."""
    settings = summary["settings"]
    return (
        f"{settings['test_tasks']} meta-test tasks · same tasks and initial weights for every "
        f"loss · {tuned_quantities(settings['tune'])} tuned per loss on "
        f"{settings['tuning_tasks']} meta-validation tasks"
    )


def cells(row: dict[str, Any], scale: MetricScale = ACCURACY) -> list[str]:
    """A loss's result as the texts of its columns."""
    tuned = row["at"]
    difference = row["against"]
    best = row["at_best"]
    return [
        loss_name(row),
        _setting(row),
        scale.spread(tuned),
        *([] if scale.is_accuracy else [percent(tuned["accuracy"])]),
        *(_against(difference, scale) if difference else ["", "", "", ""]),
        f"{tuned['f1']:.3f}",
        scale.text(tuned["worst_decile"]),
        _number(tuned["nll"]),
        _number(tuned["calibration"]),
        f"{tuned['diverged']:.1%}",
        scale.text(row["plain"][scale.kind]) if row["plain"] else "",
        f"{scale.text(best[scale.kind])} ({_best_setting(row)})" if best else "",
        row["data"] + (f"; {row['seen']}" if row["seen"] else ""),
    ]


def _setting(row: dict[str, Any]) -> str:
    """The rate of a loss, or what was chosen for something else."""
    if row["kind"] == "loss":
        return f"{row['setting']['lr']:g}"
    return ", ".join(f"{name} = {value:.3g}" for name, value in (row["setting"] or {}).items())


def _best_setting(row: dict[str, Any]) -> str:
    """The best number of steps with its rate, and the parameters chosen with them, if others."""
    best = row["best"]
    name = loss_name(row, "best")
    other = "" if name == loss_name(row) else f", {name}"
    return f"{best['steps']} steps, lr {best['lr']:g}{other}"


def _against(difference: dict[str, Any], scale: MetricScale) -> list[str]:
    test = difference["test"]
    ends = scale.ends(difference["low"], difference["high"])
    intervals = f"{scale.interval(difference['gain'])} {ends}"
    counts = f"{test['wins']}/{test['ties']}/{test['losses']}"
    return [intervals, counts, probability(difference["p"]), signed(test["effect"], 2)]


def _number(x: float | None) -> str:
    return "–" if x is None else f"{x:.3f}"


def _standings(summary: dict[str, Any], family: dict[str, Any]) -> str:
    scale = MetricScale.of(family)
    of_family = [row for row in summary["rows"] if row["family"] == family["name"]]
    losses = [cells(row, scale) for row in of_family if row["kind"] == "loss"]
    rivals = [[*cells(row, scale)[:-1], row["kind"]] for row in of_family if row["kind"] != "loss"]
    columns: tuple[str, ...] = COLUMNS
    if not scale.is_accuracy:
        place = COLUMNS.index("accuracy")
        columns = (*COLUMNS[:place], scale.title, *COLUMNS[place:])
    about = webpage.text(f"{family['name']} ({training_in_words(family)})")
    tables = f"<h3>{about}</h3>" + webpage.table(columns, losses)
    if "by_kind" in family:
        tables += "<h4>Gain at each kind of tasks</h4>" + _by_kind(family["by_kind"], scale)
    if not rivals:
        return tables
    of_rivals = ("no loss", "chosen", *columns[2:-1], "kind")
    return tables + "<h4>No losses, on the same tasks</h4>" + webpage.table(of_rivals, rivals)


def _by_kind(rows: Sequence[dict[str, Any]], scale: MetricScale) -> str:
    """What losses gain at each kind of tasks of a mixture."""
    losses = list(rows[0]["gains"])
    columns = ("kind", "tasks", "best rate of CE", f"spread{scale.unit_label}", *losses)
    cells = [
        (
            row["description"],
            str(row["tasks"]),
            f"{row['ce_lr']:g}",
            f"{scale.number(row['spread']):.{scale.digits}f}",
            *(scale.signed(row["gains"][loss]) for loss in losses),
        )
        for row in rows
    ]
    return webpage.table(columns, cells)


def _families(families: Sequence[dict[str, Any]]) -> str:
    columns = ("family", "tasks", "classifier", "images", "fingerprint", "file")
    rows = [
        (
            f["name"],
            described(f["ways"], f["shots"], f["val"]) if "shots" in f else _ranges(f["ranges"]),
            json.dumps(f["classifier"]) if "classifier" in f else "mlp, of the kind",
            f"{f['data']}; {f['test_images']} to test on",
            f["fingerprint"][:16],
            f["origin"],
        )
        for f in families
    ]
    return webpage.table(columns, rows)


def _ranges(ranges: dict[str, Any]) -> str:
    """The ranges of a mixture, in a few words."""
    numbers = {k: v for k, v in ranges.items() if k != "augment"}
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in numbers.items())


def _loss(loss: dict[str, Any]) -> list[str]:
    # What is nested stands in summary.json; a cell takes plain texts alone.
    about = {k: v for k, v in loss["about"].items() if isinstance(v, str)}
    return [loss["loss"], loss["formula"], "; ".join(f"{k}: {v}" for k, v in about.items())]
