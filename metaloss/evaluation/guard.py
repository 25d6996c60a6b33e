"""What keeps a search from winning by one metric at the cost of another one.

A guard says how far a candidate may lie behind cross-entropy, tuned, on the same tasks. Whatever
lies further behind ranks after all that do not, whatever its score.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BeforeValidator, Field
from torch import Tensor

from metaloss.core import registry
from metaloss.core.metric_scale import MetricScale
from metaloss.errors import SettingsError
from metaloss.tasks.opening import OpenFamily

# Below every fitness that a candidate within the guard can have, and with digits left behind it.
BEHIND = -1e9


@dataclass(frozen=True)
class Guard:
    """How far losses may lie behind cross-entropy.

    What it measures is columns [P T 1+G]: the score, and the score by each of its G metrics.

    Attributes:
        allowed: by the metric's name, in the unit in which its values are shown: points where they
            are in percent.
    """

    allowed: Mapping[str, float]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its metrics."""
        return tuple(self.allowed)

    def check(self, family: OpenFamily) -> None:
        """Refuse a family on which it cannot be measured.

        Raises:
            SettingsError: the family is of full trainings, or a metric does not fit its classes.
        """
        self.scales(family)

    def scales(self, family: OpenFamily) -> list[MetricScale]:
        """How the values of its metrics are shown."""
        try:
            return [family.measured_by(kind)[1] for kind in self.allowed]
        except SettingsError as error:
            raise SettingsError(f"guard: {error}") from None

    def excess(
        self,
        measured: Float[Tensor, "P T K"],
        baseline: Float[Tensor, "T K"],
        family: Int[Tensor, " T"],
    ) -> Float[Tensor, " P"]:
        """By how much each candidate lies further behind than it may; 0 where it does not.

        Units of all metrics are added up. A failed training counts as the worst.

        Args:
            measured: the columns of the candidates.
            baseline: those of cross-entropy on the same tasks.
            family: of each task; families weigh alike.
        """
        behind = (baseline.nan_to_num(nan=0.0) - measured.nan_to_num(nan=0.0))[..., 1:].double()
        # [P G]
        mean = torch.stack([behind[:, family == f].mean(1) for f in family.unique()]).mean(0)
        units = [100 if _in_percent(kind) else 1 for kind in self.allowed]
        in_units = mean * mean.new_tensor(units)
        return (in_units - mean.new_tensor(list(self.allowed.values()))).clamp(min=0).sum(1)

    @staticmethod
    def ranked(fitness: Float[Tensor, " P"], excess: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """The fitness, whose order has what is outside the guard last, the furthest behind all.

        Failures stay at -inf.
        """
        outside = (excess > 0) & fitness.isfinite()
        return torch.where(outside, BEHIND - excess, fitness.double())

    @staticmethod
    def outside(fitness: Float[Tensor, " P"]) -> Bool[Tensor, " P"]:
        """Which candidates `ranked` has put behind."""
        return fitness.isfinite() & (fitness < BEHIND / 2)

    def text(self) -> str:
        """What it allows, in a line."""
        listed = ", ".join(
            f"{_title(kind)} by {most:g}{MetricScale(in_percent=_in_percent(kind)).unit}"
            for kind, most in self.allowed.items()
        )
        return f"at most behind tuned cross-entropy: {listed}; what is further behind ranks last"


def check_guard(allowed: Mapping[str, float]) -> None:
    """Refuse what is no guard.

    Raises:
        SettingsError: it names no metric, or one that needs settings of its own.
    """
    for kind in allowed:
        registry.build("metrics", {"kind": kind}, "guard")


def guard_lines(summary: Mapping[str, Any]) -> list[str]:
    """What became of a guard on the meta-test tasks, a line for each family and metric."""
    table = summary.get("guard")
    if table is None:
        return []
    lines = []
    for family, of_family in table["test"].items():
        for kind, row in of_family.items():
            scale = MetricScale.of(row)
            kept = "kept" if row["kept"] else "NOT kept"
            lines.append(
                f"{kept} on {family}: {scale.title} {scale.text(row['winner'])}, cross-entropy "
                f"{scale.text(row['ce'])}, at most {table['allowed'][kind]:g}{scale.unit} behind"
            )
    return lines


def _table(value: Any) -> Any:
    """A guard's table as validators take it, or an error that says how one is written.

    Raises:
        ValueError: it is no table.
    """
    if value is None or isinstance(value, Mapping):
        return value
    known = isinstance(value, str) and value in registry.names("metrics")
    raise ValueError(
        "expected by metric how far a candidate may lie behind cross-entropy, as "
        f"guard.{value if known else 'accuracy'}=2.0, got {value!r}"
    )


# By the metric's name, as `Guard` has it; None: no guard, or that of the run.
Allowed = Annotated[
    dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None,
    BeforeValidator(_table),
]


def _in_percent(kind: str) -> bool:
    metric: Any = registry.part("metrics", kind)
    return bool(metric.percent)


def _title(kind: str) -> str:
    metric: Any = registry.part("metrics", kind)
    return str(metric.title)
