"""One loss for ordinary training: a drop-in for `torch.nn.CrossEntropyLoss`; its files, and how they are read."""

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from metaloss import registry, storage
from metaloss.errors import DamagedFile, SettingsError
from metaloss.genomes import Genome
from metaloss.population import Population

FORMAT = 1
LIMIT = 1 << 20  # bytes of a loss.json, and of a weights file's header
WEIGHTS_LIMIT = 1 << 28


class Criterion(nn.Module):
    """A learned loss, used like `torch.nn.CrossEntropyLoss`.

    Takes logits [N, C] or [N, C, ...] and class indices [N, ...] or distributions over classes [N, C, ...]. It has no
    trainable parameters: what evolution found is in its buffers.

    Args:
        genome: the loss's representation.
        candidate: a population of one.
        about: what the file says about the loss.
        weight: a factor per class [C], as in `CrossEntropyLoss`.
        reduction: "mean", "sum" or "none".
        label_smoothing: share of every target that is spread over all classes.
        ignore_index: a class index whose places count for nothing.
    """

    def __init__(
        self,
        genome: Genome,
        candidate: Population,
        about: dict[str, Any] | None = None,
        *,
        weight: Tensor | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean",
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing}")
        self.genome, self.about = genome, about or {}
        self.reduction, self.label_smoothing, self.ignore_index = reduction, label_smoothing, ignore_index
        self._kind = type(candidate)
        for field in fields(candidate):
            self.register_buffer(field.name, getattr(candidate, field.name).detach().clone())
        self.weight: Tensor | None
        self.register_buffer("weight", weight)

    @property
    def candidate(self) -> Population:
        """The loss as a population of one."""
        return self._kind(**{field.name: getattr(self, field.name) for field in fields(self._kind)})

    def with_options(self, **options: Any) -> Self:
        """The same loss with another `weight`, `reduction`, `label_smoothing` or `ignore_index`."""
        now = {name: getattr(self, name) for name in ("weight", "reduction", "label_smoothing", "ignore_index")}
        return type(self)(self.genome, self.candidate, self.about, **{**now, **options})

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss; a scalar, or one value per place where `reduction` is "none".

        Raises:
            ValueError: the shapes do not go together, or the loss is made for another number of classes.
        """
        self._check(logits, target)
        # Losses have steep places: half precision is for the network, not for them.
        with torch.autocast(logits.device.type, enabled=False):
            flat = logits.movedim(1, -1) if logits.ndim > 1 else logits[None]
            places, classes = flat.shape[:-1] if logits.ndim > 1 else (), flat.shape[-1]
            flat = flat.reshape(-1, classes)
            flat = flat if flat.dtype == torch.float64 else flat.float()
            soft, valid, mass = self._targets(target, flat, logits.ndim)
            value = self._values(flat, soft).where(valid, 0)
            if self.reduction == "none":
                return value.reshape(places)
            return value.sum() / mass if self.reduction == "mean" else value.sum()

    def _check(self, logits: Tensor, target: Tensor) -> None:
        axis = min(1, logits.ndim - 1)
        shape = (*logits.shape[:axis], *logits.shape[axis + 1 :])
        if target.shape != (logits.shape if target.is_floating_point() else shape):
            found = f"target {tuple(target.shape)} and logits {tuple(logits.shape)}"
            kinds = f"{tuple(shape)} (integers: classes) or {tuple(logits.shape)} (floats: shares)"
            raise ValueError(f"{found}: expected targets {kinds}")
        if self.genome.classes not in (None, logits.shape[axis]):
            raise ValueError(f"this loss is made for {self.genome.classes} classes, got {logits.shape[axis]}")

    def _targets(self, target: Tensor, logits: Tensor, ndim: int) -> tuple[Tensor, Tensor, Tensor]:
        """Targets as distributions, which places count, and what `mean` divides by."""
        n, classes = logits.shape
        if target.is_floating_point():
            soft = (target.movedim(1, -1) if ndim > 1 else target).reshape(-1, classes).to(logits)
            valid, mass = torch.ones(n, dtype=torch.bool, device=logits.device), logits.new_tensor(float(n))
        else:
            label = target.reshape(-1)
            valid = label != self.ignore_index
            label = label.where(valid, 0)
            soft = nn.functional.one_hot(label, classes).to(logits)
            share = logits.new_ones(n) if self.weight is None else self.weight.to(logits)[label]
            mass = share.where(valid, 0).sum()
        smooth = self.label_smoothing
        return (soft * (1 - smooth) + smooth / classes if smooth else soft), valid, mass

    def _values(self, logits: Tensor, soft: Tensor) -> Tensor:
        candidate = self.candidate.to(logits.device)
        terms = self.genome.losses(candidate).bind(soft[None]).terms(logits[None, None])[0, 0]  # [N C] or [N 1]
        if self.weight is not None:
            weight = self.weight.to(logits)
            # A loss without terms per class weighs the image by its target's weight.
            terms = terms * (weight if terms.shape[-1] > 1 else (weight * soft).sum(-1, keepdim=True))
        return terms.sum(-1)

    def extra_repr(self) -> str:
        """The loss in words, and the options that are not the defaults."""
        options = [f"reduction='{self.reduction}'"] if self.reduction != "mean" else []
        options += [f"label_smoothing={self.label_smoothing}"] if self.label_smoothing else []
        return ", ".join([self.genome.describe(self.candidate, 0), *options])


def save(folder: Path, criterion: Criterion, kind: str, settings: dict[str, Any], card: str) -> None:
    """Write a loss to be shared: `loss.json`, `weights.safetensors` and `card.md`, each whole or not at all."""
    folder.mkdir(exist_ok=True)
    candidate = criterion.candidate
    tensors = {field.name: getattr(candidate, field.name).cpu().contiguous() for field in fields(candidate)}
    about = {"format": FORMAT, "kind": kind, "genome": settings, "about": criterion.about}
    storage.write(folder / "weights.safetensors", save_tensors(tensors))
    storage.write(folder / "card.md", card.encode())
    storage.write(folder / "loss.json", (json.dumps(storage.plain(about), indent=1) + "\n").encode())


def load(spec: str | os.PathLike[str] | nn.Module, parent: str | os.PathLike[str] = "runs") -> nn.Module:
    """The loss that a run's folder or name, or a loss's folder or `loss.json`, means; a module is given back.

    Args:
        spec: a module, a path, or the name of a run under `parent`.
        parent: where runs are looked for by name.

    Raises:
        SettingsError: there is no such loss, or the run has none yet.
        DamagedFile: the files do not check out.
    """
    if isinstance(spec, nn.Module):
        return spec
    for path in (Path(spec), Path(parent) / spec):
        if path.name == "loss.json" and path.is_file():
            return _read(path.parent)
        for folder in (path, path / "loss"):
            if (folder / "loss.json").is_file():
                return _read(folder)
        if (path / "config.toml").is_file():
            raise SettingsError(f"{path} has no winner yet: metaloss evolve --resume {path}")
    raise SettingsError(f"no loss '{spec}': neither a run, a loss's folder nor a run under {parent}")


def _read(folder: Path) -> Criterion:
    table = _table(folder / "loss.json")
    path = folder / "weights.safetensors"
    try:
        genome = registry.build("genomes", {**table["genome"], "kind": table["kind"]}, "genome")
        tensors = load_tensors(_bytes(path))
        candidate = genome.populations[0](**tensors)
        _check(genome, candidate, path)
    except OSError as error:
        raise DamagedFile(f"{path}: {error.strerror}") from None
    except (SafetensorError, TypeError, KeyError) as error:
        reason = printable((str(error).splitlines() or [""])[0])[:200]
        raise DamagedFile(f"{path}: does not hold the weights that loss.json describes: {reason}") from None
    except SettingsError as error:
        raise DamagedFile(f"{folder / 'loss.json'}: {printable(str(error))[:400]}") from None
    return Criterion(genome, candidate, table.get("about") or {})


def printable(text: str) -> str:
    """A stranger's text with every character spelt out that a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _bytes(path: Path) -> bytes:
    """The weights' file, once its size and its header's are known to be sane."""
    if path.stat().st_size > WEIGHTS_LIMIT:
        raise DamagedFile(f"{path}: larger than {WEIGHTS_LIMIT} bytes")
    data = path.read_bytes()
    if int.from_bytes(data[:8], "little") > LIMIT:
        raise DamagedFile(f"{path}: not safetensors with a header of at most {LIMIT} bytes")
    return data


def _table(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(LIMIT + 1)
    try:
        table = json.loads(data) if len(data) <= LIMIT else None
    except (ValueError, RecursionError):
        table = None
    shape = {"format": int, "kind": str, "genome": dict, "about": dict}
    if not isinstance(table, dict) or any(not isinstance(table.get(k), kind) for k, kind in shape.items()):
        raise DamagedFile(f"{path}: not the description of a loss")
    if table["format"] != FORMAT:
        raise DamagedFile(f"{path}: format {table['format']} is not known here, {FORMAT} is")
    return table


def _check(genome: Any, candidate: Population, path: Path) -> None:
    """Numbers as many as the genome has, and all of them finite."""
    found, size = candidate.vectors(), genome.size
    if tuple(found.shape) != (1, size) or found.dtype != torch.float32:
        raise DamagedFile(f"{path}: expected {size} weights of float32, found {tuple(found.shape)} of {found.dtype}")
    if not found.isfinite().all():
        raise DamagedFile(f"{path}: expected finite weights, found {int((~found.isfinite()).sum())} that are not")
