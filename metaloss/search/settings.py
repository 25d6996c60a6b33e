"""The settings of a run.

Defaults stand here and nowhere else; a TOML table and a flag name the same field.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from metaloss.core import reading, registry
from metaloss.core.config import merge_tables, split_settings
from metaloss.data import shapes
from metaloss.errors import SettingsError
from metaloss.evaluation.gradients import check_followed, check_trainings
from metaloss.evaluation.guard import Allowed, Guard, check_guard
from metaloss.evaluation.protocol import ScreeningBudget
from metaloss.evolution import Objective
from metaloss.genomes import Genome
from metaloss.losses.base import past_refused
from metaloss.search import objectives, usual
from metaloss.search.memetic import RefinementStage
from metaloss.search.task_course import TaskCourse
from metaloss.strategies import GradientStrategy, Strategy
from metaloss.tasks import opening
from metaloss.tasks.opening import (
    Families,
    Family,
    MixtureFamily,
    TaskFamily,
    TrainingFamily,
)

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0)
# "quick" is empty: its values are the defaults below, and stand there alone.
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "generations": 4,
        "validation": 20,
        "tasks_per_generation": 4,
        "baseline_tasks": 8,
        "winner_tasks": 16,
        "test_tasks": 16,
    },
    "quick": {},
    "long": {"generations": 1500, "tasks_per_generation": 16, "winner_tasks": 1000},
}

F = TypeVar("F", TaskFamily, TrainingFamily, MixtureFamily, TaskFamily | MixtureFamily, Family)
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Settings(BaseModel):
    """What decides a run's result.

    Attributes:
        tasks: families as the user named them; `families` holds what they resolved to.
        genome: a table with the genome's kind and settings.
        strategy: likewise; by default the genome's usual one.
        generations: how many to run; by default as many as the genome's usual strategy needs.
        tasks_per_generation: of every family; all candidates of a generation meet the same tasks.
        growth: how many times as many tasks as the first generation the last one has, along a
            geometric course; 1: all have as many. Of a mixture there are always whole kinds.
        growth_generations: over how many generations they grow; the number of generations at the
            start of the run, where nothing is said.
        validation: validation images per class while searching (at most the family's own number).
        seed: of every random draw.
        device: where classifiers train.
        memory: bytes that trainings may take.
        tf32: let a GPU multiply with mantissas of 10 bits instead of 23: faster, and accuracies
            change in their last digits; nothing on a CPU.
        objective: from scores to fitness: "mean" over tasks; "robust", the mean less some standard
            deviations; "wins", in how many families tuned cross-entropy is beaten, and then by how
            much; "regret", the gain over cross-entropy at its best rate, in units of what a small
            change of a training is worth at each family, or at each kind of a mixture. By default
            "regret" where a family is a mixture, and "mean" elsewhere.
        deviations: how many of them "robust" takes off.
        worst_weight: how much of "regret" is the mean of the worst tenth of the kinds; the rest is
            the mean of all.
        guard: by other metrics, how far behind tuned cross-entropy on the same tasks a candidate
            may lie, in the unit in which the metric is shown; what lies further behind ranks last.
            `{ accuracy = 2.0 }`: two points of accuracy.
        unit_gain: whether every candidate is divided by its gain, so that its first gradient is as
            long as cross-entropy's and no rate hides in it; one whose gain is below 0.001 fails.
            The winner is divided likewise wherever it trains (`normalise`).
        tries: how often a formula that is not worth a training is varied again before it is given
            up.
        screen_steps: of a short training before the full one, which only those pass that come far
            enough; 0: none. By default 20 where families train for more than 60 steps, and none
            elsewhere.
        screen_tasks: tasks of that short training.
        screen_share: how much of the way from chance to cross-entropy is far enough.
        refine: how gradients through trainings refine the best of some generations.
        report_every: generations between two looks at held-out (meta-validation) tasks.
        rates: learning rates among which cross-entropy's is chosen.
        baseline_tasks: meta-validation tasks for that choice.
        finalists: how many of the last generations' best stand for election, beside the
            population's centre and the mean of as many centres.
        winner_tasks: fresh meta-validation tasks for the election. All finalists meet 200; of more
            than these the better half meets as many again, and so on, until those that are left
            have met all. By default 1,000 where a family is a mixture, and 200 elsewhere.
        test_tasks: meta-test tasks, looked at once, after the winner has been written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = ("fashionmnist",)
    genome: dict[str, Any] = Field(default_factory=lambda: {"kind": "mln"})
    strategy: dict[str, Any] = Field(default_factory=lambda: {"kind": "mu_plus_lambda"})
    generations: Count = 400
    tasks_per_generation: Count = 8
    growth: Annotated[float, Field(ge=1, le=1000)] = 1.0
    growth_generations: Count | None = None
    validation: Count = 100
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: Annotated[int, Field(ge=1 << 26)] = 2 << 30
    tf32: bool = False
    objective: Literal["mean", "robust", "wins", "regret"] = "mean"
    deviations: Annotated[float, Field(ge=0, le=100)] = 1.0
    worst_weight: Annotated[float, Field(ge=0, le=1)] = 0.25
    guard: Allowed = None
    unit_gain: bool = False
    tries: Annotated[int, Field(ge=1, le=10_000)] = 30
    screen_steps: Annotated[int, Field(ge=0)] | None = None
    screen_tasks: Count = 2
    screen_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    refine: RefinementStage = Field(default_factory=RefinementStage)
    report_every: Count = 10
    rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = RATES
    baseline_tasks: Annotated[int, Field(ge=2)] = 64
    finalists: Count = 10
    winner_tasks: Annotated[int, Field(ge=2)] = 200
    test_tasks: Annotated[int, Field(ge=2)] = 200
    families: Families = ()

    def build_parts(self) -> tuple[Genome, Strategy]:
        """The genome and the strategy that the tables describe.

        Raises:
            SettingsError: they do not fit each other or the families.
        """
        genome: Genome = registry.build("genomes", self.genome, "genome")
        strategy: Strategy = registry.build("strategies", self.strategy, "strategy")
        if strategy.needs_vectors and not genome.vector:
            misfit = (
                f"strategy '{self.strategy['kind']}' needs real vectors and genome "
                f"'{self.genome['kind']}' has none"
            )
            raise SettingsError(misfit)
        if self.refine.every and not genome.vector:
            raise SettingsError(
                f"refine.every = {self.refine.every}: genome '{self.genome['kind']}' has no real "
                "vectors, which gradients refine"
            )
        if self.refine.every or isinstance(strategy, GradientStrategy):
            check_followed(genome)
            for family in self.families:
                check_trainings(family)
        self.task_course().check(self.generations, self.strategy["kind"])
        self._check_families(genome)
        return genome, strategy

    def _check_families(self, genome: Genome) -> None:
        """Refuse families that do not fit each other, the genome or the screening."""
        metrics = {family.name: getattr(family, "metric", None) for family in self.families}
        for name, metric in metrics.items():
            if metric != self.metric:
                kinds = [(x or {"kind": "accuracy"})["kind"] for x in (self.metric, metric)]
                raise SettingsError(
                    f"all families of a search are scored by one metric; {self.families[0].name} "
                    f"has {kinds[0]}, {name} has {kinds[1]}: --metric NAME sets it for all"
                )
        for family in self.families:
            others = [n for n in family.class_counts if genome.classes not in (None, n)]
            if others:
                ways = f"{family.name} has {others[0]}-way tasks"
                raise SettingsError(
                    f"this genome works for {genome.classes} classes alone, and {ways}"
                )
            if getattr(genome, "reads_past", False) and family.past_obstacle:
                raise past_refused(family.name, family.past_obstacle)
            if self.screen_steps and isinstance(family, MixtureFamily):
                raise SettingsError(
                    f"screen_steps = {self.screen_steps}: {family.name} is a mixture, whose kinds "
                    "have numbers of steps of their own, and no one screens them: leave it out"
                )

    def parts_by_name(self) -> list[tuple[str, str]]:
        """The parts of a search, each as the name of its folder and its own."""
        return [
            ("genomes", self.genome["kind"]),
            ("strategies", self.strategy["kind"]),
            *(("metrics", kind) for kind in self.guard or ()),
        ]

    @property
    def metric(self) -> dict[str, Any] | None:
        """What the families score losses by; None: accuracy."""
        metrics = [getattr(family, "metric", None) for family in self.families]
        return metrics[0] if metrics else None

    @property
    def maximise(self) -> bool:
        """Whether more is better of it."""
        if self.metric is None:
            return True
        metric: Any = registry.part("metrics", self.metric["kind"])
        return bool(metric.maximise)

    def objective_function(self, spreads: Sequence[float] = ()) -> Objective:
        """From scores to fitness.

        Args:
            spreads: the unit of gains of every kind of tasks, by its number, for "regret".
        """
        objective = self.plain_objective(spreads)
        guard = self.guard_rule()
        return objectives.guarded(objective, guard) if guard else objective

    def plain_objective(self, spreads: Sequence[float] = ()) -> Objective:
        """The same without a guard: from scores alone."""
        return objectives.read(self.objective, self.deviations, spreads, self.worst_weight)

    def guard_rule(self) -> Guard | None:
        """What candidates must keep, beside their score; None: nothing."""
        return Guard(self.guard) if self.guard else None

    @property
    def needs_baseline(self) -> bool:
        """Whether fitness needs what cross-entropy reaches on the same tasks."""
        return bool(self.guard) or self.objective in objectives.NEEDS_BASELINE

    def task_course(self) -> TaskCourse:
        """How many tasks each generation has."""
        strategy: Strategy = registry.build("strategies", self.strategy, "strategy")
        kinds = [x.tasks_per_kind for x in self.families if isinstance(x, MixtureFamily)]
        return TaskCourse(
            self.tasks_per_generation,
            self.growth,
            self.growth_generations or self.generations,
            math.lcm(*kinds),
            strategy.epoch,
        )

    def screening_budget(self) -> ScreeningBudget | None:
        """The short training before the full one, if there is one."""
        # A screening of 20 steps saves little where the full training has hardly more.
        longest = max((family.screened_steps for family in self.families), default=0)
        steps = (20 if longest > 60 else 0) if self.screen_steps is None else self.screen_steps
        return ScreeningBudget(steps, self.screen_tasks, self.screen_share) if steps else None

    def table(self) -> dict[str, Any]:
        """All settings as plain values, for TOML."""
        table: dict[str, Any] = TypeAdapter(Settings).dump_python(
            self, mode="json", exclude_none=True
        )
        return table


def resolve(table: Mapping[str, Any]) -> Settings:
    """Settings from a table, with the families read and every part's own defaults filled in.

    Raises:
        SettingsError: names the setting, what was given and what is allowed.
    """
    changes, search = split_settings(table, opening.SETTINGS)
    # A setting of the default genome or strategy needs no kind beside it.
    settings: Settings = registry.from_table(
        Settings, merge_tables(usual.of_genome(search), search), "settings"
    )
    families = settings.families or tuple(opening.read(name, changes) for name in settings.tasks)
    names = [family.name for family in families]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SettingsError(f"two task families are named '{twice[0]}', and results go by the name")
    # A setting of a family, given without its name, holds for all of them.
    if changes:
        families = tuple(changed(family, changes) for family in families)
    following = usual.of_families(settings.genome, families)
    # What is said stays; a genome's table holds what is said of it.
    following = {k: v for k, v in following.items() if k == "genome" or k not in search}
    settings = settings.model_copy(update={"families": families, **following})
    check_guard(settings.guard or {})
    genome, strategy = settings.build_parts()
    # Every part's defaults are filled in, so that config.toml names all settings of the run.
    full: dict[str, Any] = {
        kind: {"kind": getattr(settings, kind)["kind"], **registry.table(part)}
        for kind, part in (("genome", genome), ("strategy", strategy))
    }
    if settings.growth > 1 and settings.growth_generations is None:
        # A run whose generations are raised later keeps the course that it began.
        full["growth_generations"] = settings.generations
    return settings.model_copy(update=full)


def part_tables(**parts: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Tables of parts that are given by name or as a table; None is left out."""
    return {
        key: {"kind": part} if isinstance(part, str) else part
        for key, part in parts.items()
        if part
    }


def preset(name: str) -> dict[str, Any]:
    """A preset's settings.

    Raises:
        SettingsError: there is no such preset.
    """
    if name not in PRESETS:
        raise SettingsError(registry.unknown_message("preset", name, PRESETS))
    return dict(PRESETS[name])


def read(path: Path) -> dict[str, Any]:
    """The table of a `config.toml`.

    Raises:
        SettingsError: there is no such file, it is a folder, or it is not TOML.
    """
    expected = "--config takes a file of settings in TOML, such as a run's config.toml"
    if path.is_dir():
        within = path / "config.toml"
        advice = f": --config {within}" if within.is_file() else ""
        raise SettingsError(f"{path} is a folder; {expected}{advice}")
    try:
        return reading.read_toml(path)
    except OSError as error:
        advice = "metaloss evolve --dry-run prints one"
        raise SettingsError(f"{path}: {error.strerror}; {expected} ({advice})") from None
    except ValueError as error:
        raise SettingsError(f"{path}: not TOML: {error}; {expected}") from None


def toml(settings: Settings) -> bytes:
    """The settings as a file that `--config` takes."""
    return tomli_w.dumps(settings.table()).encode()


def changed(family: F, changes: Mapping[str, Any]) -> F:
    """A family with some of its settings replaced.

    Raises:
        SettingsError: it cannot be like that; the family's own file is not to blame.
    """
    table = registry.table(family)
    if shapes.is_whole_shots(changes.get("shots")):
        # A long tail and a share of what is there have no setting in common to be merged.
        table.pop("shots", None)
    table = merge_tables(table, changes)
    # Name and origin are no settings, and are handed over on their own.
    settings = {k: v for k, v in table.items() if k not in ("name", "origin")}
    try:
        # The kind of family stays.
        return opening.of(settings, family.name, family.origin)  # type: ignore[return-value]
    except SettingsError as error:
        raise SettingsError(
            f"tasks of {family.name}: {str(error).removeprefix(f'{family.origin}: ')}"
        ) from None
