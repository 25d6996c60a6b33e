"""A recommendation as one HTML file, whether small tasks or real trainings have judged it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from metaloss.core import webpage
from metaloss.core.formatting import counted, percent
from metaloss.core.tables import record_cells
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.thumbnails import png_thumbnail
from metaloss.experiments.recommendation import figures
from metaloss.experiments.recommendation.text import LEVEL

FILE = "report.html"
SIDE = 96  # pixels of a thumbnail
RECALL = (
    "The share of right answers to a class's held-out images, by trainings that have not seen "
    "them; one that diverged counts as wrong. In brackets the 95 % interval (Wilson's), where the "
    "recall lies on new images of the same kind, by trainings on the images that are here. It "
    "counts images, not answers: all answers to an image, by several tasks or seeds, are one "
    "image. Where some images got more answers than others, n images count as (Σ m)² / Σ m², m "
    "being the answers to each.{} Images that nothing drew to look at are left out."
)
GROUPS = (
    " Images of one group count the less the more alike the answers to them are, between one image "
    "for each group and one for each image, as far as the groups that are here show it."
)
WRONG = (
    "Held-out images with the most wrong answers of all trainings that had not seen them, the "
    "worst first; of equals, those that everything else gets wrong most often, too. Look whether "
    "their labels are right, and whether a person could tell their class."
)


def page(
    summary: Mapping[str, Any],
    introduction: str,
    tables: Mapping[str, Sequence[Mapping[str, str]]],
    folds: Sequence[Mapping[str, str]],
    pictures: Sequence[Any],
    dataset: Dataset | Files,
) -> str:
    """The report.

    Args:
        summary: of the recommendation, or of a part of it.
        introduction: what was judged, and how.
        tables: what was reached, by their headings; a heading may be empty.
        folds: what each fold chose, a row each.
        pictures: of gains.
        dataset: the images.
    """
    results = [part for x in tables.items() for part in _headed(*x)]
    provenance = {"settings": summary["settings"], "conditions": summary["conditions"]}
    parts = [
        webpage.paragraph(introduction),
        webpage.section(_title(summary), *_answer(summary)),
        *_notes(summary),
        webpage.section("What was reached", *results, *map(webpage.figure, pictures)),
        _answers(summary["held_out"], dataset),
        *_most_wrong(summary["held_out"], dataset),
        webpage.section("What each fold chose", _table(folds)),
        webpage.section(
            "Conditions", webpage.preformatted(json.dumps(provenance, indent=1, ensure_ascii=False))
        ),
        webpage.section("How to repeat", webpage.preformatted(shlex.join(summary["command"]))),
    ]
    return webpage.page(f"metaloss recommend: {summary['settings']['data']}", parts)


def introduction(summary: Mapping[str, Any], judged: str) -> str:
    """The images, how they were cut, and what judged.

    Args:
        summary: of the recommendation.
        judged: by what trainings, in words.
    """
    data = summary["data"]
    counts = ", ".join(f"{name} {n}" for name, n in data["per_class"].items())
    copies = data["copies_left_out"]
    n = copies if isinstance(copies, int) else len(copies)
    left_out = f" {counted(n, 'image')} left out as exact copies." if n else ""
    return (
        f"{data['origin']}. {counted(data['images'], 'image')} take part ({counts}), cut into "
        f"{data['folds']} folds, each of which is held out once.{left_out} {judged}"
    )


def _title(summary: Mapping[str, Any]) -> str:
    """What the first section is: an answer, or part of one."""
    part = summary.get("partial")
    return f"Stopped after {part['folds']} of {part['of']} folds" if part else "What to use"


def _answer(summary: Mapping[str, Any]) -> list[str]:
    """The answer in plain words, the classes behind it, the command, and the code."""
    parts = [part for x in summary.get("answer", []) for part in _part(x, summary["recognised"])]
    if not parts:  # the user stopped
        parts = [*map(webpage.paragraph, summary["sentences"])]
    command = summary.get("train") or ""
    command = command if isinstance(command, str) else shlex.join(command)
    code = "\n".join(summary["code"])
    return [
        *parts,
        *([webpage.paragraph("The command:"), webpage.preformatted(command)] if command else []),
        *([webpage.paragraph("In Python:"), webpage.preformatted(code)] if code else []),
    ]


def _part(part: Mapping[str, str], recognised: Sequence[Mapping[str, str]]) -> list[str]:
    """A part of the answer under its label; below the one on what is reached its classes."""
    label, words = webpage.text(part["label"].capitalize()), webpage.text(part["text"])
    classes = recognised and part["label"] in LEVEL
    return [f"<p><strong>{label}.</strong> {words}</p>", *([_table(recognised)] if classes else [])]


def _notes(summary: Mapping[str, Any]) -> list[str]:
    """What the numbers allow one to say, for who knows the field."""
    if not summary.get("answer"):
        return []
    return [webpage.section("Notes", webpage.bullets(summary["sentences"]))]


def _headed(heading: str, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """A table under its heading; nothing where it has no rows."""
    if not rows:
        return []
    return [*([webpage.paragraph(heading)] if heading else []), _table(rows)]


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    columns, *cells = record_cells(rows)
    return webpage.table(columns, cells)


def _answers(records: Sequence[Mapping[str, Any]], dataset: Dataset | Files) -> str:
    """Confusion matrices and recalls."""
    about = [f"{x['loss']}: {x['about']}" for x in records]
    diverged = [
        f"{x['loss']}: trainings that diverged gave no answer to {sum(x['diverged']):.1f} images."
        for x in records
        if "diverged" in x
    ]
    rows = [
        {
            "class": name,
            "images": str(records[0]["images"][name]),
            **{x["loss"]: _recall(x, name) for x in records},
        }
        for name in dataset.classes
    ]
    groups = "" if dataset.groups is None else GROUPS
    return webpage.section(
        "Answers to held-out images",
        webpage.bullets([*about, *diverged]),
        *map(webpage.figure, figures.matrices(records, dataset.classes)),
        "<h3>Recall of every class</h3>",
        _table(rows),
        webpage.note(RECALL.format(groups)),
    )


def _recall(record: Mapping[str, Any], name: str) -> str:
    """A class's recall with its interval; a dash where no image of it was looked at."""
    if not record["images"][name]:
        return "–"
    low, high = record["recall_interval"][name]
    return f"{percent(record['recall'][name])} [{100 * low:.0f}, {100 * high:.0f}]"


def _most_wrong(records: Sequence[Mapping[str, Any]], dataset: Dataset | Files) -> list[str]:
    """The images with the most wrong answers, a table for each record."""
    parts = []
    for record in records:
        if not record["wrong"]:
            continue
        rows = [
            (
                x["image"],
                x["class"],
                x["answer"],
                f"{round(x['wrong'] * x['answers'])} of {counted(x['answers'], 'answer')}",
            )
            for x in record["wrong"]
        ]
        thumbnails = [png_thumbnail(dataset, x["row"], SIDE) for x in record["wrong"]]
        columns = ("image", "class", "usual answer", "wrong")
        parts += [
            f"<h3>{webpage.text(record['loss'])}</h3>",
            webpage.table(columns, rows, thumbnails),
        ]
    return [webpage.section("The most wrong images", webpage.note(WRONG), *parts)] if parts else []
