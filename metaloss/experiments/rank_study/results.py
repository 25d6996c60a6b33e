"""What a study found, and its folder: settings, provenance, scores, rank correlations, figure."""

from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from metaloss import storage
from metaloss.core.plot_style import Picture
from metaloss.core.streams import Stream
from metaloss.core.tables import csv_bytes
from metaloss.data import places
from metaloss.experiments.rank_study import ranking
from metaloss.experiments.rank_study.ranking import Pair
from metaloss.experiments.rank_study.regimes import Score
from metaloss.experiments.rank_study.settings import Study, resolve
from metaloss.storage.folders import make_folder, require_folder


class CorrelationRecord(TypedDict):
    """What is needed of a rank correlation."""

    tau: float | None
    low: float | None
    high: float | None
    n: int


class PairRecord(TypedDict):
    """What is needed of two settings beside each other."""

    a: str
    b: str
    all: CorrelationRecord
    both: CorrelationRecord


class StudyRecord(TypedDict):
    """What is needed of a `taus.json`."""

    pairs: list[PairRecord]


@dataclass(frozen=True)
class StudyResults:
    """Every loss scored under every setting.

    Attributes:
        study: the settings.
        losses: their labels.
        scores: by setting, in the order of the losses.
        units: what the scores of a setting are means of.
    """

    study: Study
    losses: list[str]
    scores: dict[str, list[Score]]
    units: dict[str, str]

    def accuracy(self, name: str) -> list[float]:
        """Of all losses under a setting."""
        return [x.accuracy for x in self.scores[name]]


def create(parent: Path, study: Study, provenance: dict[str, Any]) -> Path:
    """A new folder under `parent`: `rank-<seed>`, with `-2`, `-3` … where the name is taken.

    Raises:
        DiskError: it cannot be made.
    """
    files = {
        "config.toml": storage.toml_bytes(study.table()),
        "provenance.json": storage.record_bytes(provenance),
        **places.record_file(study.sources),
    }
    return make_folder(parent, f"rank-{study.seed}", files, "study")


def find(spec: str | Path, parent: Path) -> tuple[Path, Study]:
    """The folder that a path, or a name under `parent`, means, and its settings.

    Raises:
        SettingsError: there is none.
        DamagedFile: its settings cannot be read.
    """
    return require_folder("study", spec, parent, resolve)


def compare_settings(results: StudyResults) -> tuple[dict[str, Any], list[Pair]]:
    """The summary, and every pair of settings."""
    study = results.study
    key = Stream(study.seed).at("bootstrap")
    k = ranking.best_count(study.best, len(results.losses))
    pairs = []
    tables = []
    # In the order of the settings, so that the cheaper one of a pair comes first.
    for names in combinations(results.scores, 2):
        a, b = (results.accuracy(name) for name in names)
        pair = ranking.pair(names, a, b, results.losses, k, study.clusters, key, study.resamples)
        pairs.append(pair)
        tables.append(
            {**asdict(pair), "clusters": ranking.cluster_tables(pair, a, b, results.losses)}
        )
    about = {
        name: {
            "unit": results.units[name],
            "n": scores[0].n,
            "failed": sum(bool(x.failed) for x in scores),
        }
        for name, scores in results.scores.items()
    }
    rates = {name: sorted({x.lr for x in scores}) for name, scores in results.scores.items()}
    return {
        "losses": len(results.losses),
        "settings": about,
        "rates": rates,
        "pairs": tables,
    }, pairs


def rows(results: StudyResults) -> list[dict[str, Any]]:
    """One table per setting and loss."""
    return [
        {"setting": name, "loss": loss, **score.plain()}
        for name, scores in results.scores.items()
        for loss, score in zip(results.losses, scores, strict=True)
    ]


def files(results: StudyResults, summary: dict[str, Any], picture: Picture) -> dict[str, bytes]:
    """The files of a finished study; last the summary, which says that all is there."""
    figure = {f"{picture.name}.{kind}": getattr(picture, kind) for kind in ("png", "pdf")}
    return {
        "results.csv": csv_bytes(rows(results)),
        **figure,
        "taus.json": storage.record_bytes(summary),
    }
