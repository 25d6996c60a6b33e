"""An evaluator that trains no loss twice on the same tasks, and none that has no hope.

It stands between a strategy and the trainings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.losses import zoo
from metaloss.losses.base import Losses
from metaloss.losses.formulas import Formulas

PACK = 8  # what is left to train is filled up to a multiple of it, so that few shapes occur
CONTROL = zoo.read("ce")  # shows how hard a generation's tasks are

Train = Callable[[Losses, Stream], tuple[Float[Tensor, "P T *K"], Int[Tensor, " T"]]]
Screen = Callable[[Losses, Stream], Bool[Tensor, " P"]]


@dataclass(frozen=True)
class CachedScores:
    """The scores of an epoch's losses on every task, by digest, as a checkpoint holds them.

    With a guard, its columns.
    """

    digests: UInt8[Tensor, "N 16"]
    score: Float[Tensor, "N T *K"]
    family: Int[Tensor, " T"]


@dataclass
class CachedEvaluator:
    """An evaluator that trains each formula once per task epoch.

    Where there is a screen, it trains only losses that pass it.

    Attributes:
        train: trains losses and gives their scores [P T], or a guard's columns [P T K], and the
            family [T] of every task.
        screen: whether a loss is worth it, by a short training; None: all are.
        cache: scores of this epoch's formulas, by digest; rows of NaN for those that were screened
            out.
        family: of every task of this epoch.
        epoch: the tasks' key.
        screened: candidates of the last call that did not pass.
        trained: candidates of the last call that were trained.
    """

    train: Train
    screen: Screen | None = None
    cache: dict[str, Float[Tensor, "T *K"]] = field(default_factory=dict)
    family: Int[Tensor, " T"] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    epoch: Stream | None = None
    screened: int = 0
    trained: int = 0

    def __call__(
        self, losses: Losses, key: Stream
    ) -> tuple[Float[Tensor, "P T *K"], Int[Tensor, " T"]]:
        """The scores of all losses on the tasks that the key stands for."""
        # Old scores are of other tasks: they must not stand beside those of the new epoch.
        if key != self.epoch:
            self.epoch = key
            self.cache.clear()
        # Vectors of real weights hardly ever occur twice: only formulas are kept.
        if not isinstance(losses, Formulas):
            return self._train_networks(losses, key)
        digests = [formula.digest for formula in losses.formulas]
        # Reversed, so that of equal formulas the first row stays.
        new = list(
            {
                name: row
                for row, name in reversed(list(enumerate(digests)))
                if name not in self.cache
            }.values()
        )
        self._train_formulas(digests, losses, sorted(new), key)
        return torch.stack([self.cache[name] for name in digests]), self.family

    @property
    def control(self) -> float:
        """The mean score of cross-entropy at the families' own rates on this epoch's tasks."""
        reached = self.cache[CONTROL.digest]
        score = reached if reached.ndim == 1 else reached[:, 0]
        return float(score.double().nan_to_num().mean())

    def snapshot(self) -> CachedScores:
        """What a checkpoint must hold for the epoch to go on."""
        rows = [list(bytes.fromhex(digest)) for digest in self.cache]
        score = (
            torch.stack(list(self.cache.values()))
            if self.cache
            else torch.empty(0, len(self.family))
        )
        return CachedScores(
            torch.tensor(rows, dtype=torch.uint8).reshape(-1, 16), score, self.family
        )

    def restore(self, cached: CachedScores, epoch: Stream) -> None:
        """Go on with an epoch, with the scores that a checkpoint holds."""
        digests = [bytes(row).hex() for row in cached.digests.tolist()]
        self.cache = dict(zip(digests, cached.score, strict=True))
        self.family = cached.family
        self.epoch = epoch

    def _train_networks(
        self, losses: Losses, key: Stream
    ) -> tuple[Float[Tensor, "P T *K"], Int[Tensor, " T"]]:
        """Train losses that are no formulas; none is known from before."""
        rows = self._passing(losses, list(range(len(losses))), key)
        if len(rows) == len(losses):
            return self.train(losses, key)
        # Where none passes one is trained all the same, for the tasks' number and families.
        trained, family = self.train(losses[_packed(rows or [0])], key)
        # NaN for what was screened out: the objective ranks it below all that trains.
        score = trained.new_full((len(losses), *trained.shape[1:]), torch.nan)
        score[rows] = trained[: len(rows)]
        return score, family

    def _train_formulas(
        self, digests: Sequence[str], losses: Formulas, new: list[int], key: Stream
    ) -> None:
        """Train the new formulas that pass the screen, and the control, and keep their scores.

        Args:
            digests: of all losses.
            losses: of this call.
            new: rows of those that are not known yet.
            key: of the tasks.
        """
        rows = self._passing(losses, new, key)
        formulas = [losses.formulas[row] for row in rows]
        # Cross-entropy is trained on every epoch's tasks: it tells hard tasks from bad losses.
        if CONTROL.digest not in {*self.cache, *(digests[row] for row in rows)}:
            formulas.append(CONTROL)
        if formulas:
            all_new = len(rows) == len(losses)
            packed = formulas if all_new else [formulas[i] for i in _packed(range(len(formulas)))]
            scores, self.family = self.train(Formulas.of(packed), key)
            # Packing repeats the last formula; its surplus rows are dropped here.
            self.cache |= {f.digest: row for f, row in zip(formulas, scores, strict=False)}
        screened_out = [digests[row] for row in new if row not in rows]
        # The control is always there.
        failed = torch.full_like(self.cache[CONTROL.digest], torch.nan)
        self.cache |= dict.fromkeys(screened_out, failed)
        self.screened = sum(
            name in screened_out for name in digests
        )  # a formula may stand here twice

    def _passing(self, losses: Losses, rows: list[int], key: Stream) -> list[int]:
        """Those of the rows that pass the screen."""
        if self.screen is not None and rows:
            passes = self.screen(losses[_packed(rows)], key)[: len(rows)]
            passing = [row for row, fine in zip(rows, passes.tolist(), strict=True) if fine]
        else:
            passing = rows
        self.screened = len(rows) - len(passing)
        self.trained = len(passing)
        return passing


def _packed(rows: Sequence[int]) -> Int[Tensor, " Q"]:
    """The rows, the last one repeated up to a multiple of PACK."""
    return torch.tensor([*rows, *[rows[-1]] * (-len(rows) % PACK)])
