"""What a study has to say, as lines of text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaloss._version import __version__
from metaloss.core.event_protocols import StudyCondition, StudyScore, StudySettings
from metaloss.core.formatting import counted, percent, signed
from metaloss.core.metric_scale import MetricScale

NAME = 40  # characters of a loss


def heading(folder: Path, study: StudySettings, regimes: Sequence[StudyCondition]) -> list[str]:
    """What is about to be scored, how the rates are chosen, and where everything goes."""
    text = [
        f"metaloss {__version__} · {counted(len(study.losses), 'loss')} under "
        f"{counted(len(regimes), 'setting')} · seed {study.seed}"
    ]
    for x in regimes:
        rates = ", ".join(f"{lr:g}" for lr in x.rates)
        rate = (
            f"own rate {rates}" if len(x.rates) == 1 else f"the best of {rates}, on what is scored"
        )
        text.append(f"setting {x.name}: {x.scale.title}, mean over {x.unit}; {rate}")
    return [*text, f"folder  {folder}"]


def scored(loss: str, score: StudyScore, scale: MetricScale, number: int, of: int) -> str:
    """One score, by the setting's metric, with accuracy beside another one."""
    name = loss if len(loss) <= NAME else f"{loss[: NAME - 1]}…"
    failed = f"  {score.failed} of {score.n} failed" if score.failed else ""
    value = f"{scale.text(scale.value(score.score)):>7}"
    beside = "" if scale.is_accuracy else f"  (accuracy {percent(score.accuracy):>7})"
    return f"{number:>4}/{of}  {value}{beside}  {name:{NAME}}{failed}".rstrip()


def result(summary: dict[str, Any]) -> list[str]:
    """Kendall's τ of every pair, and what choosing by the cheaper setting costs."""
    scales = {name: MetricScale.of(x) for name, x in summary["settings"].items()}
    failure = "0" if all(x.is_accuracy for x in scales.values()) else "the worst value"
    text = [
        "Kendall's τ-b [95 % bootstrap interval over losses]; a failed training counts as "
        f"{failure}"
    ]
    for x in summary["pairs"]:
        rows = (
            ("all losses", "all"),
            (f"best {x['k']} of the first", "best"),
            (f"best {x['k']} of both", "both"),
        )
        text += [f"first   {x['a']}", f"second  {x['b']}"]
        text += [f"  {words:24}{_tau(x[key])}" for words, key in rows]
        scale = scales[x["b"]]
        behind = f"{scale.number(x['loses']):.{scale.digits}f}{scale.unit}"
        of_what = "" if scale.is_accuracy else f" of {scale.title}"
        place = "below" if scale.maximise else "above"
        text.append(
            f"  under the second, the first's best is {behind}{of_what} {place} the best: "
            f"{x['pick']}"
        )
    return text


def _tau(x: dict[str, Any]) -> str:
    if x["tau"] is None:
        return f"none, n = {x['n']}"
    interval = "" if x["low"] is None else f" [{signed(x['low'], 2)}, {signed(x['high'], 2)}]"
    return f"{signed(x['tau'], 2)}{interval}, p = {x['p']:.2g}, n = {x['n']}"
