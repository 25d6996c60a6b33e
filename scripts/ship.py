"""Makes a finished run's winner one of the losses that come with the package.

metaloss evolve --genome tree --tasks fashionmnist --seed 0    # evolves it again
python scripts/ship.py tree-fashionmnist runs/fashionmnist-tree-gp-0
python scripts/ship.py few-shot RUN --measured measured.md     # with more for its card
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.cli.showing import NORMALISED
from metaloss.criterion import loss_io
from metaloss.data import image_record
from metaloss.errors import SettingsError
from metaloss.losses import zoo
from metaloss.search import settings
from metaloss.search.run_folder import Run, find
from metaloss.search.winner import card_head, card_results
from metaloss.tasks.opening import MixtureFamily

CONFIG = "search.toml"  # the settings of the search, beside the card
LIMITS = (
    "Evolved for short trainings on few images: "
    "compare it with cross-entropy on your own before you trust it."
)


def ship(name: str, spec: str, measured: str = "") -> Path:
    """Copy the loss with its name, the data sets that it has learned from, its card and the
    settings of its search.

    Args:
        name: of the loss, in small letters.
        spec: the run.
        measured: what else was measured of it, in Markdown, for its card.

    Returns:
        its folder.

    Raises:
        SettingsError: there is no such run, it is not finished, or the name is none.
    """
    if name != name.strip().lower() or Path(name).name != name or zoo.published(name):
        raise SettingsError(f"'{name}': a loss is shipped under a new name in small letters")
    run = find(spec)
    summary = run.summary()
    if summary is None:
        raise SettingsError(f"{run.folder} is not finished: metaloss evolve --resume {run.folder}")
    folder = loss_io.SHIPPED / name
    # The images that it has learned from are those of its data sets, which need no record.
    ignored = shutil.ignore_patterns(image_record.FILE)
    shutil.copytree(run.folder / "loss", folder, dirs_exist_ok=True, ignore=ignored)
    table = storage.read_record(folder / "loss.json")
    about = {**table["about"], "evolved on": _evolved_on(run), "data sets": ", ".join(_sets(run))}
    storage.write_record(folder / "loss.json", {**table, "about": {"name": name, **about}})
    storage.write(folder / CONFIG, settings.toml(_settings(run, summary)))
    loss: Any = loss_io.load(folder)
    parts = [
        card_head(name, loss).rstrip(),
        *([f"{NORMALISED.capitalize()}."] if loss.normalise else []),
        card_results(summary).strip(),
        *([f"## Measured\n\n{measured.strip()}"] if measured.strip() else []),
        _learned_from(run),
        f"Evolved by `metaloss evolve --config {CONFIG}`, the file beside this one.",
        LIMITS,
    ]
    storage.write(folder / "card.md", ("\n\n".join(parts) + "\n").encode())
    return folder


def _sets(run: Run) -> list[str]:
    """The data sets that it has learned from: of a mixture, those that were here."""
    return list(dict.fromkeys(x["dataset"] for x in run.provenance()["data"].values()))


def _families(run: Run) -> list[Any]:
    """Its families; of the data sets of a mixture those that were here."""
    sets = _sets(run)
    return [
        replace(x, datasets=tuple(name for name in x.datasets if name in sets))
        if isinstance(x, MixtureFamily)
        else x
        for x in run.settings.families
    ]


def _evolved_on(run: Run) -> str:
    """The tasks that it was evolved on, in words; a mixture's name says nothing of its kinds."""
    return ", ".join(
        x.describe() if isinstance(x, MixtureFamily) else x.name for x in _families(run)
    )


def _settings(run: Run, summary: dict[str, Any]) -> settings.Settings:
    """Those that evolve it again, whatever data are here and wherever the search was ended."""
    families = tuple(replace(x, origin=CONFIG) for x in _families(run))
    changes = {
        "families": families,
        "tasks": tuple(x.name for x in families),
        "generations": summary["choice"]["generation"],
    }
    return run.settings.model_copy(update=changes)


def _learned_from(run: Run) -> str:
    """What it must not be judged on."""
    record = image_record.read(run.folder)
    assert record is not None, f"{run.folder} has no {image_record.FILE}"
    sets = "; ".join(f"{x.name} ({', '.join(x.classes)})" for x in record.sources)
    return (
        f"It has learned from the meta-training and meta-validation images of {sets}. None of "
        "them may judge it: `metaloss compare` tests on meta-test images and says which data it "
        "has seen, `metaloss recommend` leaves it out where it has learned from the images."
    )


def main() -> None:
    """Ship the loss that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="of the loss: metaloss.load(NAME)")
    parser.add_argument("run", help="a finished run's folder")
    parser.add_argument("--measured", type=Path, help="Markdown for the card")
    asked = parser.parse_args()
    measured = asked.measured.read_text() if asked.measured else ""
    print(ship(asked.name, asked.run, measured))


if __name__ == "__main__":
    main()
