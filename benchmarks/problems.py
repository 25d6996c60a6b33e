"""What evolved losses reach on uneven classes, wrong labels and other metrics than accuracy.

    python benchmarks/problems.py search GOAL [--seed 0] [--out problems]
    python benchmarks/problems.py table FAMILY RUN... [--metrics macro_f1 ...] [--json FILE]
        [--classifier cnn] [--published ce logit_adjustment ...]

`search` evolves a loss for a goal: see `GOALS`. `table` sets the winners of runs beside published
losses on the family's tasks, by the metric that the runs were scored by, or by others. All are
tuned in learning rate and number of steps, the published ones in their own parameters, too: first
on a few meta-validation tasks, then the best of each on more. What is shown is of other tasks, the
meta-test ones, paired, with 95 % bootstrap intervals over tasks. Beside them stands what can be
done with the logits of cross-entropy's networks after training. The best rival is the one that is
the best on the meta-test tasks themselves: a choice in the rivals' favour.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import metaloss
from metaloss.core.metric_scale import MetricScale
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.data.episodes import Tasks
from metaloss.engines.local import Local
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.rivals.logits import adjust_logits
from metaloss.evaluation.statistics import paired
from metaloss.evaluation.tuning import Setting, repeated
from metaloss.inner.classifiers import Bound, Classifier, Params
from metaloss.inner.metrics import Metric, classes_of, logits, scale_of, scores_of
from metaloss.inner.metrics.accuracy import Accuracy
from metaloss.losses.base import CrossEntropies, Losses
from metaloss.losses.zoo_entries import ENTRIES
from metaloss.search import settings
from metaloss.search.run_folder import find
from metaloss.tasks.episodic import Episodes, open_episodes
from metaloss.tasks.episodic_family import read

# Missing a shirt costs five times as much as any other mistake.
SHIRT = 6
COSTS = [
    [0 if row == column else 5 if row == SHIRT else 1 for column in range(10)] for row in range(10)
]
COST = {"kind": "cost", "matrix": COSTS}
# Alike classes beside each other, as grades are.
ORDER = [1, 3, 0, 6, 2, 4, 8, 9, 7, 5]
KAPPA = {"kind": "kappa", "order": ORDER}
# The family and its metric.
GOALS: dict[str, tuple[str, Any]] = {
    "balanced_accuracy": ("fashionmnist-longtail", "balanced_accuracy"),
    "macro_f1": ("fashionmnist-longtail", "macro_f1"),
    "worst_recall": ("fashionmnist-longtail", "worst_recall"),
    "cost": ("fashionmnist-longtail", COST),
    "kappa": ("fashionmnist-longtail", KAPPA),
    "noise": ("fashionmnist-noisy", None),
    "longtail_noise": ("fashionmnist-longtail-noisy", "balanced_accuracy"),
}
SEARCH = {
    "generations": 40,
    "tasks_per_generation": 12,
    "winner_tasks": 100,
    # `table` tests on more, against more.
    "test_tasks": 2,
    "rates": (0.1, 0.2, 0.3),
}
POPULATION = 20

RATES = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
STEPS = (40, 60, 100, 160, 200)
FIRST_TASKS = 12
TUNING_TASKS = 64
TEST_TASKS = 200
SHOWN = 6  # published losses
SECOND = 3  # settings of each loss that are tuned further, by every metric
PUBLISHED = (
    "ce",
    "label_smoothing",
    "focal",
    "gce",
    "sce",
    "mae",
    "bootstrap_soft",
    "jensen_shannon",
    "asymmetric",
    "nce_rce",
    "bootstrap_hard",
    "soft_f1",
    "confusion",
    "class_weights",
    "effective_number",
    "logit_adjustment",
    "logit_adjustment_smoothed",
    "ldam",
    "vs",
)
BOTH = "logit adjustment and softmax margin"
FOR_COSTS = (
    "ce",
    "label_smoothing",
    "class_weights",
    "logit_adjustment",
    "logit_adjustment_smoothed",
    "softmax_margin",
    "softmax_margin_smoothed",
    "ce_expected_cost",
    "soft_ordinal",
)


def search(goal: str, seed: int, out: str) -> None:
    """Evolve a loss for a goal."""
    family, metric = GOALS[goal]
    sees = {"prior": True, "costs": goal in ("cost", "kappa")}
    changes = {"metric": metric} if metric else {}
    run = metaloss.evolve(
        family,
        genome={"kind": "targets", **sees},
        strategy={"kind": "cma_es", "population": POPULATION},
        seed=seed,
        out=f"{out}/{goal}-{seed}",
        **SEARCH,
        **changes,
    )
    print(run.folder)


@dataclass(frozen=True)
class Candidate:
    """A loss that is compared.

    Attributes:
        group: what it is a variant of.
        name: as it is written.
        losses: a single one.
    """

    group: str
    name: str
    losses: Losses


@dataclass(frozen=True)
class Use:
    """How a candidate is used.

    Attributes:
        candidate: which one.
        lr: the learning rate.
        steps: how many.
        score: by one metric, on the meta-validation tasks.
    """

    candidate: Candidate
    lr: float
    steps: int
    score: float


class Observing:
    """What shows the scores by several metrics at once."""

    def __init__(self, metrics: Sequence[Metric], ways: int) -> None:
        self.metrics = metrics
        self.scales = [scale_of(metric, ways) for metric in metrics]

    def __call__(
        self, model: Classifier, params: Params, bound: Bound, tasks: Tasks, block: int
    ) -> Tensor:
        """Scores [P T K] of trained classifiers by K metrics."""
        seen = logits(model, params, bound, tasks, block)
        columns = [
            scores_of(scale, metric.measure(seen, tasks.val.label, classes_of(tasks, metric)))
            for metric, scale in zip(self.metrics, self.scales, strict=True)
        ]
        return torch.stack(columns, -1)


def table(
    name: str,
    runs: Sequence[str],
    metrics: Sequence[Any],
    out: Path | None,
    classifier: str = "",
    names: Sequence[str] = (),
) -> None:
    """All winners beside the published losses on one family.

    Args:
        name: of the family.
        runs: whose winners are shown.
        metrics: that all are tuned, chosen and tested by; where there are none, the runs' own.
        out: a file for the rows.
        classifier: that trains in place of the family's own; "" for that.
        names: of the published losses; where there are none, those for the metric.
    """
    metrics = metrics or own_metrics(runs)
    families = [opened(name, metric, classifier) for metric in metrics]
    scored = [family.metric or Accuracy() for family in families]
    observing = Observing(scored, families[0].ways)
    # What mistakes cost is part of a training: such a metric stands alone.
    costly = any(metric.names_classes for metric in scored)
    if costly and len(scored) > 1:
        raise SystemExit("a metric by which mistakes cost differently needs a table of its own")
    names = names or (FOR_COSTS if costly else PUBLISHED)
    candidates = [*published(names), *winners(runs)]
    rows = []
    with Local() as engine:
        evaluations = [EpisodeEvaluation(engine, x, Stream(1_000)) for x in families]
        kept = first_choice(evaluations[0], candidates, observing)
        chosen = second_choice(evaluations[0], kept, observing)
        for column, (uses, evaluation) in enumerate(zip(chosen, evaluations, strict=True)):
            scale = observing.scales[column]
            rows += list(rows_of(evaluation, uses, runs, scale, observing, column))
    if out:
        out.write_text(json.dumps(rows, indent=1))


def own_metrics(runs: Sequence[str]) -> list[Any]:
    """What the runs were scored by, each once."""
    found = {json.dumps(find(spec).settings.metric) for spec in runs}
    return [json.loads(text) for text in sorted(found)]


def opened(name: str, metric: Any, classifier: str = "") -> Episodes:
    """A family scored by a metric, accuracy where there is none, with its or another classifier."""
    family = read(name)
    table: dict[str, Any] = {"metric": metric or "accuracy"}
    if classifier:
        table["classifier"] = {"kind": classifier}
    return open_episodes(settings.changed(family, table))


def published(names: Sequence[str]) -> list[Candidate]:
    """These published losses with every choice of their own parameters."""
    variants = {name: dict.fromkeys((name, *ENTRIES[name].variants)) for name in names}
    if "softmax_margin" in names:
        variants[BOTH] = dict.fromkeys(
            f"sum(-(y*{1 - alpha} + {alpha}/C)*logp, shift={tau}*logprior + {margin}*cost)"
            for tau in (0.5, 1, 2)
            for margin in (0.25, 0.5, 1)
            for alpha in (0.1, 0.2)
        )
    return [
        Candidate(name, variant, loss_io.load(variant).losses())
        for name, of_name in variants.items()
        for variant in of_name
    ]


def winners(runs: Sequence[str]) -> list[Candidate]:
    """The winners of the runs."""
    return [Candidate(spec, spec, loss_io.load(Path(spec)).losses()) for spec in runs]


def first_choice(
    evaluation: EpisodeEvaluation, candidates: list[Candidate], observing: Observing
) -> list[tuple[Candidate, float]]:
    """The candidates and rates that are the best of their group by any metric, on few tasks."""
    score = observed(
        evaluation,
        [repeated(x.losses, len(RATES)) for x in candidates],
        [torch.tensor(RATES)] * len(candidates),
        "first",
        FIRST_TASKS,
        (60, 100),
        observing,
    )
    best = torch.stack([x.mean(2).amax(0) for x in score])  # [N R K]
    kept: dict[tuple[str, float], tuple[Candidate, float]] = {}
    for group in dict.fromkeys(x.group for x in candidates):
        rows = [i for i, x in enumerate(candidates) if x.group == group]
        for k in range(best.shape[-1]):
            for place in best[rows][..., k].flatten().argsort(descending=True)[:SECOND].tolist():
                row, rate = divmod(place, len(RATES))
                one = candidates[rows[row]]
                kept[one.name, RATES[rate]] = (one, RATES[rate])
    return list(kept.values())


def second_choice(
    evaluation: EpisodeEvaluation, kept: list[tuple[Candidate, float]], observing: Observing
) -> list[list[Use]]:
    """For every metric the best use of every group, best first."""
    score = observed(
        evaluation,
        [x.losses for x, _ in kept],
        [torch.tensor([rate]) for _, rate in kept],
        "second",
        TUNING_TASKS,
        STEPS,
        observing,
    )
    mean = torch.stack([x.mean(2)[:, 0] for x in score])  # [N M K]
    uses = []
    for k in range(mean.shape[-1]):
        best: dict[str, Use] = {}
        for (one, rate), of_steps in zip(kept, mean[..., k], strict=True):
            reached, mark = of_steps.max(0)
            use = Use(one, rate, STEPS[int(mark)], float(reached))
            if one.group not in best or use.score > best[one.group].score:
                best[one.group] = use
        uses.append(sorted(best.values(), key=lambda x: -x.score))
    return uses


def observed(
    evaluation: EpisodeEvaluation,
    populations: list[Losses],
    rates: list[Tensor],
    role: str,
    tasks: int,
    steps: tuple[int, ...],
    observing: Observing,
    pool: str = "validation",
) -> list[Tensor]:
    """Scores [M P T K] of populations, a failed training counting as 0."""
    scores = evaluation.family.evaluate(
        evaluation.engine,
        populations,
        pool,
        evaluation.key.at(role),
        range(tasks),
        rates=rates,
        steps=steps,
        metric=observing,
    )
    return [x.double().nan_to_num(nan=0.0) for x in scores]


def rows_of(
    evaluation: EpisodeEvaluation,
    uses: list[Use],
    specs: Sequence[str],
    scale: MetricScale,
    observing: Observing,
    column: int,
) -> Iterator[dict[str, Any]]:
    """The rows of one metric: every winner, against cross-entropy and against the best rival.

    The published ones are those that are the best on meta-validation tasks.
    """
    own = {use.candidate.group: use for use in uses}
    rivals = [use for use in uses if use.candidate.group not in specs][:SHOWN]
    rivals += [] if own["ce"] in rivals else [own["ce"]]
    shown = [*(own[spec] for spec in specs), *rivals]
    reached = {use.candidate.name: tested(evaluation, use, observing)[:, column] for use in shown}
    ce = own["ce"]
    setting = Setting(ce.lr, ce.steps)
    after = adjust_logits(evaluation, "ce", CrossEntropies.of(1), setting, TUNING_TASKS, TEST_TASKS)
    for rival in after:
        reached[rival.name] = rival.measures.score.double().nan_to_num(nan=0.0)
    names = [use.candidate.name for use in rivals] + [x.name for x in after]
    best = max(names, key=lambda name: float(reached[name].mean()))
    print(f"\n{evaluation.family.family.name}, {scale.title}, n = {TEST_TASKS}")
    print("loss | rate, steps | reached | over cross-entropy | over the best rival")
    order = [*(own[spec].candidate.name for spec in specs), *names]
    key = Stream(0).at("intervals")
    for name in order:
        use = next((x for x in shown if x.candidate.name == name), None)
        over = {
            k: difference(scale, reached[name], reached[x], key)
            for k, x in (("ce", "ce"), ("best", best))
        }
        value = scale.value(float(reached[name].mean()))
        line = {
            "family": evaluation.family.family.name,
            "metric": scale.kind,
            "loss": name,
            "lr": use and use.lr,
            "steps": use and use.steps,
            "value": value,
            "over_ce": over["ce"],
            "over_best": over["best"],
            "best": best,
        }
        text = [scale.interval(x) for x in over.values()]
        place = f"{use.lr:g}, {use.steps}" if use else "after training"
        print(f"{name} | {place} | {scale.text(value)} | {text[0]} | {text[1]}", flush=True)
        yield line
    # A winner of another goal says nothing of what a search for this one finds.
    metric = evaluation.family.family.metric
    of_goal = [spec for spec in specs if find(spec).settings.metric == metric]
    if len(of_goal) > 1:
        ours = torch.stack([reached[own[spec].candidate.name] for spec in of_goal]).mean(0)
        for against in ("ce", best):
            text_ = scale.interval(difference(scale, ours, reached[against], key))
            print(f"mean of {len(of_goal)} winners by {scale.title}, over {against}: {text_}")


def difference(scale: MetricScale, ours: Tensor, theirs: Tensor, key: Stream) -> dict[str, float]:
    """The paired difference, in the metric's own sign."""
    return scale.difference(asdict(paired(ours, theirs, key)))


def tested(evaluation: EpisodeEvaluation, use: Use, observing: Observing) -> Tensor:
    """Scores [T K] on the meta-test tasks."""
    (score,) = observed(
        evaluation,
        [use.candidate.losses],
        [torch.tensor([use.lr])],
        "test",
        TEST_TASKS,
        (use.steps,),
        observing,
        "test",
    )
    return score[0, 0]


def main() -> None:
    """Read the arguments, and search or print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    searching = commands.add_parser("search")
    searching.add_argument("goal", choices=GOALS)
    searching.add_argument("--seed", type=int, default=0)
    searching.add_argument("--out", default="problems")
    tabling = commands.add_parser("table")
    tabling.add_argument("family")
    tabling.add_argument("runs", nargs="+")
    tabling.add_argument("--metrics", nargs="+", default=[])
    tabling.add_argument("--json", type=Path)
    tabling.add_argument("--classifier", default="")
    tabling.add_argument("--published", nargs="+", default=[], help="ce among them")
    arguments = parser.parse_args()
    if arguments.command == "search":
        search(arguments.goal, arguments.seed, arguments.out)
    else:
        table(
            arguments.family,
            arguments.runs,
            arguments.metrics,
            arguments.json,
            arguments.classifier,
            arguments.published,
        )


if __name__ == "__main__":
    main()
