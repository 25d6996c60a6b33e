"""What an elimination found, as tables, a text and a picture."""

from itertools import pairwise
from pathlib import Path
from typing import Any

from metaloss.core.formatting import percent
from metaloss.core.metric_scale import MetricScale
from metaloss.core.records import StageRow
from metaloss.criterion.formula import FormulaCriterion
from metaloss.search.elimination_stage import StageRecord, order_of, scores_of


def row(record: StageRecord) -> StageRow:
    """A stage in one row."""
    budget = record["asked"]
    scale = MetricScale.of(record)
    scores = scores_of(record)
    reference = record["reference"]
    # Of those within the guard, unless none is.
    kept = [i for i, x in enumerate(record.get("excess", [])) if not x] or range(len(scores))
    best = max(kept, key=lambda i: scores[i])
    table: StageRow = {
        "stage": budget["stage"],
        "keep": budget["keep"],
        "steps": budget["steps"],
        "scale": budget["scale"],
        "tasks": budget["tasks"],
        "repeats": budget["repeats"],
        "losses": len(scores),
        "best": scale.value(scores[best]),
        "ce": scale.value(reference.get("score", reference["accuracy"])),
        "tau": record["tau"],
    }
    if "excess" in record:
        table["outside"] = sum(x > 0 for x in record["excess"])
    if not scale.is_accuracy:
        table["best_accuracy"] = record["accuracy"][best]
        table["ce_accuracy"] = reference["accuracy"]
        table["metric_scale"] = scale.entry()["metric_scale"]
    return table


def ranked(record: StageRecord) -> list[dict[str, Any]]:
    """The losses of a stage as rows, the best first, with accuracy beside another metric."""
    scale = MetricScale.of(record)
    excess = record.get("excess")
    return [
        {
            "formula": record["asked"]["losses"][i],
            **({} if scale.is_accuracy else {"accuracy": record["accuracy"][i]}),
            scale.kind: scale.value(record["worth"][i]),
            **({} if excess is None else {"outside": excess[i] > 0}),
        }
        for i in order_of(record["worth"], excess)
    ]


def card(run: str, best: FormulaCriterion, names: str, rows: list[StageRow]) -> str:
    """What a reader should know about the winner of a run's elimination, in Markdown."""
    lines = [
        f"# {run}, after elimination",
        f"{best.describe()}, the last of {rows[0]['losses']} on {names}.",
    ]
    for x in rows:
        scale = MetricScale.of(x)
        named = "" if scale.is_accuracy else f"{scale.title}, "
        reached, of_ce = scale.text(x["best"]), scale.text(x["ce"])
        if "best_accuracy" in x:
            reached += f" (accuracy {percent(x['best_accuracy'])})"
            of_ce += f" (accuracy {percent(x['ce_accuracy'])})"
        outside = f"; {x['outside']} outside the guard" if "outside" in x else ""
        lines.append(
            f"Stage {x['stage']}: {x['losses']} losses, {x['steps']} times the steps, "
            f"{x['scale']} times the width, {x['tasks']} meta-validation tasks, "
            f"{x['repeats']} time(s); {named}best {reached}, cross-entropy at its best rate {of_ce}"
            f"{outside}."
        )
    lines.append(
        "The best of many on the tasks that chose it is over-optimistic: nothing here is a test."
    )
    return "\n\n".join(lines) + "\n"


def plot(records: list[StageRecord], path: Path) -> None:
    """What losses reached in a stage against the stage before, for those that both scored."""
    from metaloss.evaluation import plots

    pairs = []
    for earlier, later in pairwise(records):
        known = dict(zip(earlier["asked"]["losses"], scores_of(earlier), strict=True))
        before = [known[text] for text in later["asked"]["losses"]]
        scale = MetricScale.of(later)
        pairs.append(
            {
                "stage": later["asked"]["stage"],
                "before": [scale.value(x) for x in before],
                "after": [scale.value(x) for x in scores_of(later)],
                "tau": later["tau"],
                **scale.entry(),
            }
        )
    if pairs:
        plots.ranks(pairs, path)
