"""Fills in what pages say of the code: `<!-- zoo -->` and the like become Markdown made from the
installed package.

Pictures are drawn into the built site, never into the sources. Formulas are drawn by matplotlib, so
that no page needs a script from elsewhere. `-D zoo_pictures=ce,focal` draws those phenotypes alone,
for a quick look at the rest.
"""

import dataclasses
import html
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx

from metaloss.cli import listing, showing
from metaloss.core import registry
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.criterion.no_formula import BatchCriterion
from metaloss.data import versions
from metaloss.data.shapes import described
from metaloss.evaluation import plots
from metaloss.experiments import recommendation, recommendation_by_training
from metaloss.experiments.rank_study import settings as study
from metaloss.genomes import _filters as filtering
from metaloss.inner import loop
from metaloss.losses import phenotype
from metaloss.losses.language.primitives import PRIMITIVES
from metaloss.losses.published_loss import PublishedLoss
from metaloss.losses.zoo_entries import ENTRIES
from metaloss.search import elimination, elimination_stage, settings
from metaloss.tasks import family_files, mixture_family, opening
from metaloss.tasks import training_family as full
from metaloss.training import settings as training

FOLDER = "_zoo"  # of the built site
GROUPS = {
    "genomes": "Genomes",
    "strategies": "Strategies",
    "classifiers": "Classifiers",
    "metrics": "Metrics",
}
TABLES = (
    ("A run", settings.Settings),
    ("Training a classifier: `inner`", loop.Inner),
    ("What a formula must be: `genome.filters`", filtering.Filters),
    ("A recommendation", recommendation.Recommendation),
    (
        "A recommendation by real trainings: `--train`",
        recommendation_by_training.TrainingRecommendation,
    ),
    ("One stage of its halving: `stages`", recommendation_by_training.HalvingStage),
    ("An elimination", elimination.Elimination),
    ("One stage of an elimination: `stages`", elimination_stage.Stage),
    ("A full-size training", training.Training),
    ('A mixture of kinds of episodes: `kind = "mixture"`', mixture_family.MixtureFamily),
    ("What its kinds are drawn from: `ranges`", mixture_family.Ranges),
    ('A family of full trainings: `kind = "training"`', full.TrainingFamily),
    ("What happens to its images: `augment`", training.Augment),
    ("Versions of the images of a family of episodes: `augment`", versions.TaskAugment),
    ("A study", study.Study),
)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx what fills the markers."""
    app.add_config_value("zoo_pictures", "all", "env")
    app.connect("source-read", fill)
    return {"parallel_read_safe": True}


def fill(app: Sphinx, _page: str, source: list[str]) -> None:
    """Replace each marker of a page by the text that is generated for it."""
    for marker, make in MAKERS.items():
        if f"<!-- {marker} -->" in source[0]:
            source[0] = source[0].replace(f"<!-- {marker} -->", "\n".join(make(app)))


def gallery(app: Sphinx) -> Iterator[str]:
    """Every published loss."""
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    drawn = app.config.zoo_pictures.split(",")
    for entry in ENTRIES.values():
        yield f"\n## {entry.name}\n"
        if entry.unavailable:
            yield f"Not available: it {entry.unavailable}.\n"
            yield f"- Source: {entry.source}\n"
        else:
            yield from published(entry, folder, picture=drawn == ["all"] or entry.name in drawn)


def published(entry: PublishedLoss, folder: Path, picture: bool) -> Iterator[str]:
    """A loss that can be had: its formula, where it is from, what it does."""
    criterion = loss_io.load(entry.name)
    assert isinstance(criterion, Criterion)
    latex = criterion.latex()
    size = FontProperties(size=13)
    math_to_image(f"${latex}$", folder / f"{entry.name}.svg", prop=size, format="svg")
    yield f'<img class="formula" src="{FOLDER}/{entry.name}.svg" alt="{html.escape(latex)}">\n'
    yield f"`{entry.text}`\n" if entry.text else f"It {entry.lacks}.\n"
    yield from (f"- {name}: {text}" for name, text in facts(entry) if text)
    if isinstance(criterion, BatchCriterion):
        return
    losses = criterion.losses()
    heads = ""
    gains = ""
    places = ""
    for classes in showing.COUNTS:
        heads += f" {classes} |"
        gains += f" {phenotype.gain(losses, classes):.3g} |"
        places += f" {phenotype.minimum(losses, classes):.3f} |"
    yield f"\n| classes |{heads}\n| --- |{' ---: |' * len(showing.COUNTS)}"
    yield f"| gain |{gains}\n| minimum at |{places}\n"
    if picture:
        plots.phenotype(losses, entry.name, None, folder / f"{entry.name}.png")
        about = f"Value and pull of {entry.name} over the probability of the true class"
        image = (
            f'<img class="phenotype" src="{FOLDER}/{entry.name}.png" alt="{about}" loading="lazy">'
        )
        yield f'<a href="{FOLDER}/{entry.name}.pdf">{image}</a>\n'


def facts(entry: PublishedLoss) -> Iterator[tuple[str, str]]:
    """What the zoo says of a loss, in words."""
    spans = [
        f"`{name}` = {x:g} ({low:g} to {high:g})"
        for name, (x, low, high) in entry.parameters.items()
    ]
    spans += [f"`{name}` = False (`True`: `{text}`)" for name, text in entry.flags.items()]
    doubt = "" if entry.verified else "; no reading reproduces what the source reports"
    yield "Source", entry.source
    yield "Reading", entry.reading + doubt
    yield "Parameters", ", ".join(spans)
    yield "Tuned over", ", ".join(_grid(entry))
    yield "Remarks", entry.remarks
    yield "Limits", entry.limits


def _grid(entry: PublishedLoss) -> Iterator[str]:
    """The values among which `--tune rate+own` chooses."""
    for name, values in entry.grid.items():
        yield f"`{name}`: {' '.join(f'{x:g}' for x in values)}"


def parts(_app: Sphinx) -> Iterator[str]:
    """All parts of the registries with their settings, all data sources and task families."""
    for kind, title in GROUPS.items():
        yield f"\n## {title}\n"
        for row in listing.rows(kind, Path()):
            yield f"\n### {row['name']}\n\n{row['about']}\n"
            yield from fields(registry.part(kind, row["name"]))
    yield "\n## Data sources\n"
    yield from (f"- `{row['name']}`: {row['about']}" for row in listing.rows("data", Path()))
    yield "\n## Task families\n"
    for name in sorted(family_files.names()):
        f = opening.read(name)
        if isinstance(f, opening.TrainingFamily):
            what = f"{f.training.model} on {f.dataset}, augmentation {f.training.augment.kind}"
            yield f"- `{name}`: full trainings of {what}"
            continue
        if isinstance(f, opening.MixtureFamily):
            yield f"- `{name}`: {f.describe()}"
            continue
        shape = described(f.ways, f.shots, f.val)
        what = f"{f.dataset}: {shape}" + ("" if f.noise is None else f", {f.noise}")
        yield f"- `{name}`: {what}, classifier {f.classifier['kind']}, {f.inner.steps} steps"


def options(_app: Sphinx) -> Iterator[str]:
    """The settings of commands, which belong to no registry."""
    for title, cls in TABLES:
        yield f"\n## {title}\n"
        yield from fields(cls)


def fields(cls: Any) -> Iterator[str]:
    """A settings class, one line a field: its name, default and meaning."""
    meanings = {name: text for c in reversed(cls.__mro__) for name, text in attributes(c)}
    for name, value in defaults(cls):
        yield f"- `{name}`{value}" + (f": {meanings[name]}" if name in meanings else "")
    yield ""


def defaults(cls: Any) -> Iterator[tuple[str, str]]:
    """The fields with their defaults as text; empty for a field that has none."""
    if dataclasses.is_dataclass(cls):
        made = {f.name: f.default_factory for f in dataclasses.fields(cls)}
        values = {f.name: f.default for f in dataclasses.fields(cls)}
    else:
        made = {name: field.default_factory for name, field in cls.model_fields.items()}
        values = {name: field.default for name, field in cls.model_fields.items()}
    for name, declared in values.items():
        default = declared
        if isinstance(declared, FieldInfo):
            default = declared.get_default(call_default_factory=True)
        elif callable(made[name]):
            default = made[name]()
        if default in (dataclasses.MISSING, PydanticUndefined):
            yield name, ""
        else:
            yield name, f" = `{json.dumps(default, default=registry.table)}`"


def attributes(cls: type) -> Iterator[tuple[str, str]]:
    """The names and texts of a class's own `Attributes:`."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "").partition("Attributes:\n")[2]
    for names, meaning in re.findall(r"^    (\w[\w, ]*): (.*(?:\n     .*)*)", text, re.MULTILINE):
        for name in names.split(", "):
            yield name, " ".join(meaning.split())


def primitives(_app: Sphinx) -> Iterator[str]:
    """The primitives that formulas consist of, as torch code."""
    yield "| name | arguments | in torch |\n| --- | --- | --- |"
    for row in PRIMITIVES.values():
        yield f"| `{row.name}` | {row.arity} | `{row.source.format(a='a', b='b', c='c')}` |"


MAKERS = {"zoo": gallery, "parts": parts, "settings": options, "primitives": primitives}
