"""A loss's files, read and checked: whatever they hold, they are a loss or damaged."""

import logging
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from metaloss import storage
from metaloss.core import reading, registry
from metaloss.core.formatting import printable
from metaloss.core.population import Population
from metaloss.criterion.base import Criterion
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.genome import GenomeCriterion
from metaloss.criterion.no_formula import named_criterion
from metaloss.errors import DamagedFile, SettingsError
from metaloss.losses import zoo
from metaloss.losses.language.formula import Formula

log = logging.getLogger("metaloss")

FORMAT = 1
# Parameters of the losses that are no formulas, by the loss's name, and their types.
PARAMETERS: dict[str, dict[str, type]] = {
    entry.name: {**dict.fromkeys(entry.parameters, float), **dict.fromkeys(entry.flags, bool)}
    for entry in map(zoo.entry, zoo.names())
    if entry.form
}
# Of a loss.json.
FIELDS = {
    *("format", "kind", "formula", "genome", "prior", "costs", "steps", "normalise"),
    *("about", "weights_sha256", "sha256"),
    *(name for parameters in PARAMETERS.values() for name in parameters),
}
OPTIONS = ("prior", "costs", "steps", "normalise")  # those that a file keeps
LIMIT = 1 << 20  # bytes of a loss.json, and of a weights file's header
WEIGHTS_LIMIT = 1 << 28


def read(folder: Path) -> Criterion:
    """The loss that lies in a folder.

    Raises:
        DamagedFile: its files do not check out.
    """
    path = folder / "loss.json"
    table = _table(path)
    if "sha256" not in table:
        _say_unsealed(path.absolute())
    try:
        loss = _described(folder, table)
        loss.folder = folder.absolute()  # the working folder may change before it is asked for
        return loss
    except SettingsError as error:
        raise DamagedFile(f"{path}: {printable(str(error))[:400]}") from None


def _described(folder: Path, table: dict[str, Any]) -> Criterion:
    """The loss that a table says, its weights beside it."""
    loss = _without_options(folder, table)
    options = {name: table[name] for name in OPTIONS if name in table}
    try:
        return loss.told(**options) if options else loss
    except (TypeError, ValueError) as error:
        raise SettingsError(str(error)) from None


def _without_options(folder: Path, table: dict[str, Any]) -> Criterion:
    if table["kind"] == "formula":
        return FormulaCriterion(Formula.parse(table["formula"]), table["about"])
    if table["kind"] in PARAMETERS:
        parameters = {name: table[name] for name in PARAMETERS[table["kind"]]}
        return named_criterion(zoo.entry(table["kind"]).build(**parameters), table["about"])
    return _network(folder, table)


def _network(folder: Path, table: dict[str, Any]) -> Criterion:
    path = folder / "weights.safetensors"
    genome: Any = registry.build("genomes", {**table["genome"], "kind": table["kind"]}, "genome")
    try:
        tensors = load_tensors(_bytes(path, table.get("weights_sha256")))
        candidate = genome.populations[0](**tensors)
        _check(genome, candidate, path)
    except OSError as error:
        raise DamagedFile(f"{path}: {error.strerror}") from None
    except (SafetensorError, TypeError, KeyError) as error:
        reason = printable((str(error).splitlines() or [""])[0])[:200]
        raise DamagedFile(
            f"{path}: does not hold the weights that loss.json describes: {reason}"
        ) from None
    return GenomeCriterion(genome, candidate, table["about"])


@cache
def _say_unsealed(path: Path) -> None:
    """Once for each file, however often it is read."""
    log.warning(
        "%s holds no digest: whether it is as it was written cannot be told", printable(str(path))
    )


def _bytes(path: Path, digest: str | None) -> bytes:
    """The weights' file, after a check of its digest, its size and its header.

    The digest is checked where one is known.
    """
    data = reading.read_bytes(path, WEIGHTS_LIMIT)
    if int.from_bytes(data[:8], "little") > LIMIT:
        raise DamagedFile(f"{path}: not safetensors with a header of at most {LIMIT} bytes")
    if digest is not None and storage.sha256(data) != digest:
        raise DamagedFile(
            f"{path} is damaged, its digest is not the one in loss.json: {storage.RESTORE_COPY}"
        )
    return data


def _table(path: Path) -> dict[str, Any]:
    try:
        data = reading.read_bytes(path, LIMIT)
        table = reading.json_value(data.decode())
    except OSError as error:
        raise DamagedFile(f"{path}: {error.strerror}") from None
    except ValueError:
        table = None
    kinds: dict[str, dict[str, type]] = {"formula": {"formula": str}, **PARAMETERS}
    kind = table.get("kind") if isinstance(table, dict) else None
    own = kinds.get(kind, {"genome": dict}) if isinstance(kind, str) else {"genome": dict}
    shape: dict[str, type] = {"format": int, "kind": str, "about": dict, **own}
    if not isinstance(table, dict) or any(
        not isinstance(table.get(k), kind) for k, kind in shape.items()
    ):
        raise DamagedFile(f"{path}: not the description of a loss")
    if table["format"] != FORMAT or table["format"] is True:
        raise DamagedFile(f"{path}: format {table['format']} is not known here, {FORMAT} is")
    _check_seal(path, table, data)
    return table


def _check_seal(path: Path, table: dict[str, Any], data: bytes) -> None:
    """Refuse a file that was changed after it was sealed.

    A field with an unknown name is refused, too: it may be the digest under a changed name.
    """
    if unknown := sorted(table.keys() - FIELDS):
        raise DamagedFile(f"{path} is damaged: unknown field '{printable(unknown[0])[:80]}'")
    if "sha256" in table and not storage.is_sealed(data):
        raise DamagedFile(
            f"{path} is damaged or was changed after it was written, its digest does not match: "
            'restore it from a copy, or take "sha256" out to load it as it is'
        )
    optional = {"weights_sha256": str, "normalise": bool}
    if not all(isinstance(table.get(name, kind()), kind) for name, kind in optional.items()):
        raise DamagedFile(f"{path}: not the description of a loss")


def _check(genome: Any, candidate: Population, path: Path) -> None:
    """Numbers as many as the genome has, and all of them finite."""
    weights = candidate.vectors()
    size = genome.size
    if tuple(weights.shape) != (1, size) or weights.dtype != torch.float32:
        raise DamagedFile(
            f"{path}: expected {size} weights of float32, "
            f"found {tuple(weights.shape)} of {weights.dtype}"
        )
    if not weights.isfinite().all():
        raise DamagedFile(
            f"{path}: expected finite weights, "
            f"found {int((~weights.isfinite()).sum())} that are not"
        )
