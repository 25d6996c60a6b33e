"""What a study found, and its folder: settings, provenance, scores, rank correlations, figure."""

from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from metaloss import storage
from metaloss.core.metric_scale import MetricScale
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
        scales: how they are shown, by setting.
    """

    study: Study
    losses: list[str]
    scores: dict[str, list[Score]]
    units: dict[str, str]
    scales: dict[str, MetricScale]

    def scores_of(self, name: str) -> list[float]:
        """What all losses are ordered by under a setting; more is better."""
        return [x.score for x in self.scores[name]]

    def values_of(self, name: str) -> list[float]:
        """The same as values of its metric."""
        return [self.scales[name].value(x) for x in self.scores_of(name)]

    @property
    def by_accuracy(self) -> bool:
        """Whether all settings order losses by accuracy."""
        return all(scale.is_accuracy for scale in self.scales.values())


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
        a, b = (results.scores_of(name) for name in names)
        pair = ranking.pair(names, a, b, results.losses, k, study.clusters, key, study.resamples)
        pairs.append(pair)
        of_a, of_b = (results.values_of(name) for name in names)
        tables.append(
            {**asdict(pair), "clusters": ranking.cluster_tables(pair, of_a, of_b, results.losses)}
        )
    about = {
        name: {
            "unit": results.units[name],
            "n": scores[0].n,
            "failed": sum(bool(x.failed) for x in scores),
            **results.scales[name].entry(),
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
    """One table per setting and loss; the value of another metric than accuracy under its name."""
    return [
        {"setting": name, "loss": loss, **_plain(score, results.scales[name])}
        for name, scores in results.scores.items()
        for loss, score in zip(results.losses, scores, strict=True)
    ]


def _plain(score: Score, scale: MetricScale) -> dict[str, Any]:
    plain = score.plain()
    del plain["by_metric"]
    return {**plain, scale.kind: scale.value(score.score)}


def files(results: StudyResults, summary: dict[str, Any], picture: Picture) -> dict[str, bytes]:
    """The files of a finished study; last the summary, which says that all is there."""
    figure = {f"{picture.name}.{kind}": getattr(picture, kind) for kind in ("png", "pdf")}
    return {
        "results.csv": csv_bytes(rows(results)),
        **figure,
        "taus.json": storage.record_bytes(summary),
    }
