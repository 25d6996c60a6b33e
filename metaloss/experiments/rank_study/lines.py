"""What a study has to say, as lines of text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaloss._version import __version__
from metaloss.core.event_protocols import StudyCondition, StudyScore, StudySettings
from metaloss.core.formatting import counted

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
        text.append(f"setting {x.name}: accuracy, mean over {x.unit}; {rate}")
    return [*text, f"folder  {folder}"]


def scored(loss: str, score: StudyScore, number: int, of: int) -> str:
    """One score."""
    name = loss if len(loss) <= NAME else f"{loss[: NAME - 1]}…"
    failed = f"  {score.failed} of {score.n} failed" if score.failed else ""
    return f"{number:>4}/{of}  {100 * score.accuracy:5.1f} %  {name:{NAME}}{failed}".rstrip()


def result(summary: dict[str, Any]) -> list[str]:
    """Kendall's τ of every pair, and what choosing by the cheaper setting costs."""
    text = ["Kendall's τ-b [95 % bootstrap interval over losses]; a failed training counts as 0"]
    for x in summary["pairs"]:
        rows = (
            ("all losses", "all"),
            (f"best {x['k']} of the first", "best"),
            (f"best {x['k']} of both", "both"),
        )
        text += [f"first   {x['a']}", f"second  {x['b']}"]
        text += [f"  {words:24}{_tau(x[key])}" for words, key in rows]
        text.append(
            f"  under the second, the first's best is {100 * x['loses']:.1f} points below the "
            f"best: {x['pick']}"
        )
    return text


def _tau(x: dict[str, Any]) -> str:
    if x["tau"] is None:
        return f"none, n = {x['n']}"
    interval = "" if x["low"] is None else f" [{x['low']:+.2f}, {x['high']:+.2f}]"
    return f"{x['tau']:+.2f}{interval}, p = {x['p']:.2g}, n = {x['n']}"
