"""The tables of a comparison, as lines of text."""

from typing import Any

from metaloss.core.formatting import percent, probability
from metaloss.core.metric_scale import MetricScale
from metaloss.core.records import loss_name, training_in_words
from metaloss.core.tables import record_table


def comparison_lines(summary: dict[str, Any], width: int | None = None) -> list[str]:
    """A comparison's tables and sentences, for a terminal of this width; None: as they are."""
    lines: list[str] = []
    for family in summary["families"]:
        scale = MetricScale.of(family)
        of_family = [row for row in summary["rows"] if row["family"] == family["name"]]
        rows = [_standing(row, scale) for row in of_family if row["kind"] == "loss"]
        rivals = [_rival(row, scale) for row in of_family if row["kind"] != "loss"]
        about = training_in_words(family)
        lines.append(f"{family['name']}: {about}; Δ against {summary['baseline']}")
        lines += record_table(rows, width)
        if rivals:
            lines.append("no losses, on the same tasks:")
            lines += record_table(rivals, width)
        lines += [x["text"] for x in summary["sentences"] if x["family"] == family["name"]]
    if install := summary["without_rivals"]:
        lines.append(f"What is no loss stands beside these with scikit-learn: {install}")
    return lines


def _standing(row: dict[str, Any], scale: MetricScale) -> dict[str, str]:
    """One line of such a table."""
    at = row["at"]
    against = row["against"]
    best = row["at_best"]
    test = against["test"] if against else {}
    return {
        "loss": loss_name(row),
        "lr": f"{row['setting']['lr']:g}" if row["setting"] else "",
        scale.title: scale.spread(at),
        **({} if scale.is_accuracy else {"accuracy": percent(at["accuracy"])}),
        "Δ [95 % CI]": scale.decisive(against) if against else "",
        "win/tie/loss": f"{test['wins']}/{test['ties']}/{test['losses']}" if against else "",
        "p (Holm)": probability(against["p"]) if against else "",
        "F1": f"{at['f1']:.3f}".removeprefix("0"),
        "worst decile": scale.text(at["worst_decile"]),
        "at own rate": scale.text(row["plain"][scale.kind]) if row["plain"] else "",
        "at best steps": f"{scale.text(best[scale.kind])} ({_best_steps(row)})" if best else "",
        "diverged": percent(at["diverged"]) if at["diverged"] else "",
        "data": row["data"] if row["data"].endswith("classes") else "",  # of evolved losses
    }


def _best_steps(row: dict[str, Any]) -> str:
    """The best number of steps, and the parameters that were chosen with it, if others."""
    name = loss_name(row, "best")
    other = "" if name == loss_name(row) else f", {name}"
    return f"{row['best']['steps']}{other}"


def _rival(row: dict[str, Any], scale: MetricScale) -> dict[str, str]:
    """The line of what is no loss."""
    standing = _standing({**row, "setting": None}, scale)
    setting = ", ".join(f"{name} = {value:.3g}" for name, value in (row["setting"] or {}).items())
    del standing["loss"]
    return {"no loss": row["loss"], "kind": row["kind"], "chosen": setting, **standing}
