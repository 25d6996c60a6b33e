"""A study from its settings, or from its folder, to its results."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.core.devices import resolve_device
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.data import places
from metaloss.engines.opening import EngineTable, open_engine
from metaloss.errors import SettingsError
from metaloss.experiments.rank_study import candidates, figures, regimes, results
from metaloss.experiments.rank_study.regimes import FullSize, Regime, Score
from metaloss.experiments.rank_study.results import StudyResults
from metaloss.experiments.rank_study.settings import Study, resolve
from metaloss.storage.environment import describe_environment
from metaloss.storage.folders import file_name
from metaloss.storage.resuming import ResumableFolder
from metaloss.tasks.protocols import Engine
from metaloss.training import folders
from metaloss.training import losses as kept
from metaloss.training.losses import NamedLoss


@dataclass(frozen=True)
class FinishedStudy:
    """A finished study.

    Attributes:
        pairs: Kendall's τ of every two settings, over all losses and the best, as tables.
        scores: one table per setting and loss.
        summary: what `taus.json` holds.
        folder: where everything lies.
    """

    pairs: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    summary: dict[str, Any]
    folder: Path


def study(
    losses: Sequence[str] = (),
    settings: Sequence[Any] = (),
    *,
    out: str | Path = "studies",
    runs: str | Path = "runs",
    resume: str | Path | None = None,
    data: Sequence[str] = (),
    allow_changes: bool = False,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    engine: EngineTable = None,
    **others: Any,
) -> FinishedStudy:
    """Train losses under several settings, and say how alike the settings order them.

    Args:
        losses: names, paths or formulas; "random:100" draws formulas from a search space.
        settings: strings as "tasks:fashionmnist" or
            "train:data=fashionmnist,model=convnet,epochs=2", or such tables
            (`metaloss.experiments.rank_study.settings.read`), the cheap ones first.
        out: the folder that the study's folder is made in.
        runs: where evolved losses are looked for.
        resume: go on with this study's folder: no score that it holds is computed again.
        data: where its images lie now, if not where it began: folder:PATH, one for every setting
            that names such.
        allow_changes: resume although versions, device or data are others.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True leaves a study that resumes, and raises
            `Interrupted`.
        engine: where trainings run: "local", "ray", or a table of settings with its `kind`.
        others: any further field of `metaloss.experiments.rank_study.settings.Study`.

    Raises:
        SettingsError: a loss or setting that cannot be, or full-size training is asked for without
            Lightning.
        DataError: images that are missing or do not fit.
    """
    options: dict[str, Any] = {
        "reporter": reporter or Reporter(),
        "stop": stop,
        "engine": engine,
    }
    if resume is not None:
        if losses or settings or others:
            raise SettingsError("a resumed study keeps its losses and settings; none can be given")
        places_of_images = [data] if isinstance(data, str) else data
        return go_on(
            resume, out=Path(out), data=places_of_images, allow_changes=allow_changes, **options
        )
    table = {
        "losses": tuple(loss_io.listed(losses)),
        "settings": (settings,) if isinstance(settings, str | Mapping) else tuple(settings),
        **others,
    }
    return start(table, out=Path(out), runs=runs, **options)


def start(
    table: Mapping[str, Any],
    *,
    out: Path,
    runs: str | Path,
    reporter: Reporter,
    stop: Callable[[], bool],
    engine: EngineTable = None,
) -> FinishedStudy:
    """Make the study that this table describes in a new folder (errors: as for `study`)."""
    settings_of_study = resolve(table)
    losses_by_label = candidates.read(
        settings_of_study.losses,
        runs,
        settings_of_study.genome,
        Stream(settings_of_study.seed).at("random"),
    )
    if len(losses_by_label) < 2:
        raise SettingsError("a study orders losses: give two or more, got 1")
    # Kept apart: in the settings random:N is replaced by the formulas that were drawn.
    requested = list(settings_of_study.losses)
    settings_of_study = resolve({**settings_of_study.table(), "losses": tuple(losses_by_label)})
    device, memory = resolve_device(settings_of_study.device), settings_of_study.memory
    with open_engine(engine, device, memory, stop=stop, reporter=reporter) as opened:
        settings = regimes.open_regimes(settings_of_study, opened, stop)
        # A loss for other numbers of classes is refused before there is a folder.
        for x in settings:
            kept.name_losses(list(losses_by_label), list(losses_by_label.values()), x.classes)
        losses_of_study = kept.name_losses(
            list(losses_by_label), list(losses_by_label.values()), settings[0].classes
        )
        folder = results.create(
            out,
            settings_of_study,
            {
                "command": sys.argv,
                "seed": settings_of_study.seed,
                "asked": requested,
                "conditions": _conditions(opened, settings),
            },
        )
        # In the folder, because a study that goes on must not depend on where its losses lay.
        kept.save_losses(folder, losses_of_study)
        return _score_and_compare(folder, settings_of_study, losses_of_study, settings, reporter)


def go_on(
    spec: str | Path,
    *,
    out: Path,
    data: Sequence[str] = (),
    allow_changes: bool,
    reporter: Reporter,
    stop: Callable[[], bool],
    engine: EngineTable = None,
) -> FinishedStudy:
    """Go on with a study's folder; `data` is where its images lie now, as for `study`.

    Raises:
        SettingsError: there is none, or it began elsewhere.
        RunInUse: another process scores there.
        DamagedFile: a file of it does not check out.
    """
    folder, settings_of_study = results.find(spec, out)
    where = places.find_places(
        folder, settings_of_study.sources, data, f"metaloss study rank --resume {folder} --data"
    )
    device, memory = resolve_device(settings_of_study.device), settings_of_study.memory
    with open_engine(engine, device, memory, stop=stop, reporter=reporter) as opened:
        settings = regimes.open_regimes(settings_of_study, opened, stop, where)
        losses = kept.read_losses(folder, settings_of_study.losses)
        losses_of_study = kept.name_losses(settings_of_study.losses, losses, settings[0].classes)
        # Scores under other versions or data do not compare with those that are there.
        ResumableFolder(folder, "study").check_conditions(
            _conditions(opened, settings), allow_changes
        )
        places.keep_places(folder, where)
        return _score_and_compare(folder, settings_of_study, losses_of_study, settings, reporter)


def _score_and_compare(
    folder: Path,
    settings_of_study: Study,
    losses_of_study: list[NamedLoss],
    settings: list[Regime],
    reporter: Reporter,
) -> FinishedStudy:
    """Score what has no score yet, then compare the settings."""
    with storage.Lock(folder):
        reporter.on_study_start(folder, settings_of_study, settings)
        scores = _scores(folder, losses_of_study, settings, reporter)
        study_results = StudyResults(
            settings_of_study,
            [x.label for x in losses_of_study],
            scores,
            {x.name: x.unit for x in settings},
            {x.name: x.scale for x in settings},
        )
        summary, pairs = results.compare_settings(study_results)
        files = results.files(study_results, summary, figures.scatter(study_results, pairs))
        # The summary is the last of them: it says that all is there.
        for name, data in files.items():
            storage.write(folder / name, data)
        result = FinishedStudy(summary["pairs"], results.rows(study_results), summary, folder)
    reporter.on_study_end(result)
    return result


def _scores(
    folder: Path, losses_of_study: list[NamedLoss], settings: list[Regime], reporter: Reporter
) -> dict[str, list[Score]]:
    scores = {}
    for number, regime in enumerate(settings, 1):
        # The number keeps settings apart whose names give one file name.
        setting_folder = folder / "scores" / f"{number}-{file_name(regime.name, 'setting', 40)}"
        setting_folder.mkdir(parents=True, exist_ok=True)
        reporter.on_setting(regime.name)
        with regime.at(setting_folder, losses_of_study, f"metaloss.study(resume={str(folder)!r})"):
            scores[regime.name] = [
                _score(setting_folder, regime, named, reporter, (i, len(losses_of_study)))
                for i, named in enumerate(losses_of_study, 1)
            ]
    return scores


def _score(
    folder: Path, regime: Regime, named: NamedLoss, reporter: Reporter, position: tuple[int, int]
) -> Score:
    """A loss's score: read where it is there, made and kept where it is not."""
    # A file for each score, so that an interruption costs the score at hand alone.
    path = folder / f"{named.slug}.json"
    if storage.is_file(path):
        stored: Score = storage.read_record(path, Score)
        return stored
    score = regimes.best(regime, named)
    storage.write_record(path, score.plain())
    reporter.on_score(named.label, score, position)
    return score


def _conditions(engine: Engine, settings: Sequence[Regime]) -> dict[str, str]:
    """What must be the same for scores to go together."""
    packages = (
        folders.PACKAGES if any(isinstance(x, FullSize) for x in settings) else ("torch", "numpy")
    )
    data = {f"data of {x.name}": x.fingerprint for x in settings}
    return {**describe_environment(engine.device, packages), **data}
