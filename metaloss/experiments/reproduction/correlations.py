"""A published table of Kendall's τ between augmentations beside that of a study."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.core.formatting import signed
from metaloss.core.reporting import Reporter
from metaloss.core.tables import record_table
from metaloss.errors import MetalossError, SettingsError
from metaloss.experiments.rank_study import results
from metaloss.experiments.rank_study.settings import Study
from metaloss.experiments.reproduction.cells import FREE, CellSpec, cell_specs
from metaloss.experiments.reproduction.published import CorrelationsTable
from metaloss.experiments.reproduction.reproduced_table import ReproducedTable
from metaloss.training.settings import Training, resolve


@dataclass(frozen=True)
class PairResult:
    """What a study says of two augmentations.

    Attributes:
        folder: the study's.
        all: τ over all losses.
        both: τ over those that are among the best under both.
        trainings: the settings of both.
    """

    folder: Path
    all: Mapping[str, Any]
    both: Mapping[str, Any]
    trainings: tuple[Training, Training]


Pairs = dict[tuple[str, str], PairResult]


def reproduce(
    name: str,
    table: CorrelationsTable,
    *,
    study: str | Path | None,
    studies: Path,
    changes: Mapping[str, Any],
    reporter: Reporter,
) -> ReproducedTable:
    """Look up the table's pairs in a study (arguments and errors: as for `metaloss.reproduce`)."""
    kinds = list(dict.fromkeys(x for pair in table.pairs for x in pair))
    specs = {
        x: cell_specs(table.protocol, {"augment": {"kind": x}}, [{}], changes, {})[0] for x in kinds
    }
    pairs = (
        _most_pairs(studies, specs, reporter)
        if study is None
        else _pairs(*results.find(study, studies), {})
    )
    # τ is symmetric, so a pair may stand either way round.
    rows = [
        _row(table, pair, pairs.get(pair) or pairs.get(pair[::-1]), specs) for pair in table.pairs
    ]
    missing = (
        {"study": _command(table, specs)} if any(row["state"] != "run" for row in rows) else {}
    )
    details = {
        "table": name,
        "protocol": table.protocol,
        "losses": table.losses,
        "best": table.best,
        "stand_ins": dict(changes),
    }
    return ReproducedTable(
        rows, missing, table.note, table.source, _lines(table, rows, missing), details
    )


def _most_pairs(studies: Path, specs: Mapping[str, CellSpec], reporter: Reporter) -> Pairs:
    """The pairs of the study that answers most of them; of several the one with most losses."""
    candidates = [
        _pairs(folder, settings, specs) for folder, settings in _studies(studies, reporter)
    ]
    return max(
        candidates,
        key=lambda answers: (
            len(answers),
            max((result.all["n"] for result in answers.values()), default=0),
        ),
        default={},
    )


def _studies(studies: Path, reporter: Reporter) -> list[tuple[Path, Study]]:
    studies_read = []
    for path in sorted(studies.glob("*/taus.json")):
        try:
            studies_read.append(results.find(path.parent, studies))
        except MetalossError as error:
            reporter.on_warning(f"left out: {error}")
    return studies_read


def _pairs(folder: Path, study: Study, wanted: Mapping[str, CellSpec]) -> Pairs:
    """Every two augmentations of a study's full-size trainings.

    Where `wanted` is not empty, only of trainings that belong to one of these specifications.
    """
    path = folder / "taus.json"
    if not path.is_file():
        raise SettingsError(f"{folder} is not finished: metaloss study rank --resume {folder}")
    summary = storage.read_record(path, results.StudyRecord)["pairs"]
    trainings = {x["name"]: _training(study, x) for x in study.settings if x["kind"] == "train"}
    if wanted:
        trainings = {
            key: x
            for key, x in trainings.items()
            if x.augment.kind in wanted and wanted[x.augment.kind].has(x)
        }
    pairs: Pairs = {}
    for x in summary:
        if x["a"] in trainings and x["b"] in trainings:
            a = trainings[x["a"]]
            b = trainings[x["b"]]
            # The first of several that fit, in the study's own order.
            pairs.setdefault(
                (a.augment.kind, b.augment.kind), PairResult(folder, x["all"], x["both"], (a, b))
            )
    return pairs


def _training(study: Study, setting: Mapping[str, Any]) -> Training:
    overrides = {key: x for key, x in setting.items() if key not in ("kind", "name")}
    training = resolve({"seed": study.seed, **overrides})
    # A study's rates hold for settings without rates of their own.
    return (
        resolve({**training.table(), "rates": study.rates})
        if study.rates and not training.rates
        else training
    )


def _row(
    table: CorrelationsTable,
    pair: tuple[str, str],
    result: PairResult | None,
    specs: Mapping[str, CellSpec],
) -> dict[str, Any]:
    a, b = pair
    row = {"first": a, "second": b, "printed": table.all[a][b], "printed_best": table.both[a][b]}
    if result is None:
        return {
            **row,
            "ours": None,
            "ours_best": None,
            "departures": [],
            "folder": None,
            "state": "not run",
        }
    words = [
        text
        for training in result.trainings
        for text in specs[training.augment.kind].departures(training)
    ]
    return {
        **row,
        "ours": result.all["tau"],
        "ours_best": result.both["tau"],
        "of_all": dict(result.all),
        "of_best": dict(result.both),
        "departures": list(dict.fromkeys(words)),
        "folder": str(result.folder),
        "state": "run",
    }


def _lines(
    table: CorrelationsTable, rows: Sequence[Mapping[str, Any]], missing: Mapping[str, str]
) -> list[str]:
    over = f"{table.losses} losses, and those among the best {table.best} of both"
    text = [
        f"{table.source}: Kendall's τ over {over}; protocol {table.protocol}",
        *record_table([_cells(row) for row in rows]),
    ]
    text += ["; ".join(dict.fromkeys(words for x in rows for words in x["departures"]))]
    return [
        x
        for x in [*text, table.note, *(f"not run: {command}" for command in missing.values())]
        if x
    ]


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A pair as the texts of its columns."""
    run = row["state"] == "run"
    return {
        "augmentations": f"{row['first']}, {row['second']}",
        "printed": f"{row['printed']:.3f}",
        "ours": _tau(row["of_all"]) if run else "not run",
        "printed, best": f"{row['printed_best']:.3f}",
        "ours, best": _tau(row["of_best"]) if run else "",
    }


def _tau(x: Mapping[str, Any]) -> str:
    interval = "" if x["low"] is None else f" [{signed(x['low'], 2)}, {signed(x['high'], 2)}]"
    return (
        f"none, n = {x['n']}"
        if x["tau"] is None
        else f"{signed(x['tau'], 3)}{interval}, n = {x['n']}"
    )


def _command(table: CorrelationsTable, specs: Mapping[str, CellSpec]) -> str:
    """The study that answers all pairs."""
    defaults = Training().table()
    settings = []
    for kind, spec in specs.items():
        settings_of_cell = spec.wanted.table()
        sizes = {
            f"augment.{k}": x
            for k, x in settings_of_cell.pop("augment").items()
            if x != defaults["augment"][k] and k != "kind"
        }
        overrides = {
            k: x
            for k, x in settings_of_cell.items()
            if x != defaults.get(k) and (k == "rates" or k not in FREE)
        } | sizes
        words = [f"{k}={x if isinstance(x, str) else json.dumps(x)}" for k, x in overrides.items()]
        settings.append(f"train:{','.join([f'name={kind}', f'augment={kind}', *words])}")
    return shlex.join(
        ["metaloss", "study", "rank", "--losses", f"random:{table.losses}", "--settings", *settings]
    )
