"""A published table of any kind, set beside ours."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaloss.core.reporting import Reporter
from metaloss.errors import SettingsError
from metaloss.experiments.reproduction import correlations, episodes, published, trainings
from metaloss.experiments.reproduction.reproduced_table import ReproducedTable

# What one kind of table alone takes, and what tables of that kind are.
ONLY: dict[str, tuple[type, str]] = {
    "evolve": (published.EpisodesTable, "a table of few-shot tasks"),
    "columns": (published.TrainingsTable, "a table of full-size trainings"),
    "run": (published.TrainingsTable, "a table of full-size trainings"),
    "study": (published.CorrelationsTable, "a table of correlations"),
}


def reproduce(
    name: str,
    *,
    loss: Any = None,
    columns: Sequence[str] = (),
    run: bool = False,
    evolve: bool = False,
    study: str | Path | None = None,
    folder: str | Path = "trainings",
    studies: str | Path = "studies",
    out: str | Path = "compare",
    runs: str | Path = "runs",
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    **others: Any,
) -> ReproducedTable:
    """Set a paper's table beside ours.

    A table of few-shot tasks is run at once. A cell of a table of full-size trainings is looked up
    among finished trainings: one belongs to it that has the loss, and agrees in data, model,
    pretrained weights, kind of augmentation, images per class and length with the paper's protocol,
    and with whatever `others` names. In what else it departs is said of every cell.

    Args:
        name: the table's, one of `metaloss.experiments.reproduction.names()`.
        loss: of few-shot tasks, what stands for the paper's own loss; of trainings, the rows that
            are wanted, one or a list, by their printed names or ours; all by default.
        columns: of trainings, the columns that are wanted; all by default.
        run: train what is missing; what was interrupted goes on.
        evolve: of few-shot tasks, evolve the paper's own loss anew, by the default search.
        study: of correlations, a study's folder, whatever its settings; by default one under
            `studies` that fits.
        folder: where trainings are looked for, and made.
        studies: where studies are looked for.
        out: the folder that a comparison's report goes to.
        runs: where runs are made and looked for.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True leaves what can be gone on with, and raises
            `Interrupted`.
        others: any further field of `Comparison`, as `test_tasks=50`; or of
            `metaloss.training.settings.Training`, which stand in for the protocol's, as
            `model="convnet"`.

    Raises:
        SettingsError: there is no such table, column, loss or setting, or the table cannot take it.
        DataError: none of its data sets is here.
    """
    places: dict[str, Any] = {"folder": folder, "studies": studies, "out": out, "runs": runs}
    request: dict[str, Any] = {"columns": columns, "run": run, "evolve": evolve, "study": study}
    return start(
        name, others, loss=loss, **request, **places, reporter=reporter or Reporter(), stop=stop
    )


def start(
    name: str,
    settings: Mapping[str, Any],
    *,
    loss: Any,
    columns: Sequence[str],
    run: bool,
    evolve: bool,
    study: str | Path | None,
    folder: str | Path,
    studies: str | Path,
    out: str | Path,
    runs: str | Path,
    reporter: Reporter,
    stop: Callable[[], bool],
) -> ReproducedTable:
    """Set a paper's table beside ours, with a table of settings.

    Args and errors: as for `reproduce`.
    """
    table = published.read(name)
    # Refused before anything is looked up or trained.
    _suits(name, table, {"evolve": evolve, "columns": columns, "run": run, "study": study})
    losses = [] if loss is None else list(loss) if isinstance(loss, list | tuple) else [loss]
    watched: dict[str, Any] = {"reporter": reporter, "stop": stop}
    if isinstance(table, published.EpisodesTable):
        places: dict[str, Any] = {"out": out, "runs": runs}
        return episodes.reproduce(
            table, loss=_stand_in(losses), evolve=evolve, **places, **watched, others=settings
        )
    if isinstance(table, published.TrainingsTable):
        wanted: dict[str, Any] = {
            "losses": losses,
            "columns": [columns] if isinstance(columns, str) else columns,
        }
        parent = Path(folder)
        return trainings.reproduce(
            name, table, **wanted, run=run, trainings=parent, changes=settings, **watched
        )
    if losses:
        raise SettingsError(f"{name} is over all losses of a study: none can be named")
    return correlations.reproduce(
        name, table, study=study, studies=Path(studies), changes=settings, reporter=reporter
    )


def _stand_in(losses: Sequence[Any]) -> Any:
    """What stands for the paper's own loss; None where none was named."""
    if len(losses) > 1:
        raise SettingsError(f"one loss stands for the paper's own, got {len(losses)}")
    return losses[0] if losses else None


def _suits(name: str, table: published.Table, arguments: dict[str, Any]) -> None:
    """Raise a SettingsError where something is given that this kind of table does not take."""
    for key, value in arguments.items():
        kind, what = ONLY[key]
        if value and not isinstance(table, kind):
            raise SettingsError(f"{key} is for {what}, which {name} is not  (metaloss list tables)")


def lines(table: ReproducedTable) -> Sequence[str]:
    """The tables as text."""
    return table.text
