"""What is recommended, and what a search evolves, on images that nobody has seen."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from simulated_images import CLASSES, KINDS

import metaloss
from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.engines.local import Local
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.recommendation import folds, rivals, run, verdict
from metaloss.experiments.recommendation.run import Advice
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.losses.base import Losses
from metaloss.search import winner
from metaloss.tasks import episodic, step_counts
from metaloss.tasks.classifier_inputs import normalised
from metaloss.tasks.episodic import Episodes

CE = "ce"
DATA = "folder:simulated"
STEPS = (20, 40)  # among which the strongest cross-entropy is sought; fewer than usual
TRUTH = 64  # tasks
RESAMPLES = 500  # of images, for an interval; fewer than usual
FRESH_VAL = 50  # fresh images per class that a task validates on
# Tasks of a search, which trains as cross-entropy does best.
SEARCHED = """dataset = "digits"
ways = {ways}
shots = {shots}
val = {val}
classifier = {{ kind = "mlp", hidden = {hidden} }}
inner = {{ lr = {lr}, steps = {steps} }}
"""


@dataclass(frozen=True)
class Case:
    """A user's images and what was recommended for them.

    Attributes:
        kind: of the images.
        data: the images, with the fresh ones.
        seed: of the repetition.
        options: of the recommendation.
        advice: what was recommended.
        final: the choice on all images, with every loss as it was tuned.
    """

    kind: str
    data: Dataset
    seed: int
    options: dict[str, Any]
    advice: Advice
    final: LossChoice

    @property
    def best_loss(self) -> str:
        """The loss that is best on all the user's images, whatever is no loss."""
        return max(self.final.settings, key=lambda name: self.final.scores[name])


@contextmanager
def simulated(data: Dataset) -> Iterator[None]:
    """Wherever images are read, it is these; cross-entropy has few numbers of steps."""
    with ExitStack() as stack:
        for module in (folds, episodic):
            stack.enter_context(patch.object(module, "load", lambda name, options: data))
        stack.enter_context(patch.object(step_counts, "STEPS", STEPS))
        yield


def recommend(
    kind: str, data: Dataset, seed: int, options: dict[str, Any], fitted: bool = False
) -> Case:
    """Ask for a recommendation.

    Args:
        kind: of the images.
        data: the images, with the fresh ones.
        seed: of the repetition.
        options: of the recommendation.
        fitted: whether methods that are no networks are candidates, where rivals are.
    """
    seen: list[LossChoice] = []
    decide = run.decide

    def keep(final: LossChoice, results: Any) -> Any:
        seen.append(final)
        return decide(final, results)

    with (
        tempfile.TemporaryDirectory() as folder,
        simulated(data),
        patch.object(run, "decide", keep),
        patch.object(rivals, "available", lambda: fitted),
        patch.object(verdict, "CELLS", RESAMPLES * int((~data.test).sum())),
    ):
        advice = metaloss.recommend(DATA, KINDS[kind].losses, out=folder, seed=seed, **options)
    return Case(kind, data, seed, options, advice, seen[0])


def truths(case: Case, evolved: tuple[Losses, Setting] | None = None) -> list[float]:
    """The gains over cross-entropy on fresh images: of what is best on all the user's images, of
    the best loss, and of an evolved one where there is one.

    All train on tasks of the user's images.
    """
    final = case.final
    tried = [(final.losses[name], final.settings[name]) for name in (CE, case.best_loss)]
    tried += [evolved] if evolved else []
    with Local() as engine:
        evaluation = EpisodeEvaluation(engine, fresh_episodes(case), Stream(0).at("truth"))
        measured = evaluation.test_each([x for x, _ in tried], [x for _, x in tried], TRUTH)
        scores = [x.score.double().nan_to_num(nan=0.0).mean() for x in measured if x is not None]
        best = scores[1]
        if final.winner in final.rivals:
            (of_rival,) = rivals.measure_rivals(
                evaluation,
                {final.winner: final.rivals[final.winner]},
                final.losses[CE],
                final.settings[CE],
                TRUTH,
            ).values()
            best = of_rival.score.double().nan_to_num(nan=0.0).mean()
    return [float(x - scores[0]) for x in (best, *scores[1:])]


def fresh_episodes(case: Case) -> Episodes:
    """Tasks that train on the user's images and validate on fresh ones."""
    data = case.data
    own, fresh = (
        tuple(torch.nonzero((data.labels == c) & (data.test == test))[:, 0] for c in range(CLASSES))
        for test in (False, True)
    )
    own_settings = ("classifier", "inner", "shots")
    shape = {key: case.options[key] for key in own_settings if key in case.options}
    with simulated(data):
        family = folds.make_folds(DATA, shape, Stream(0)).family
    return Episodes(
        replace(family, val=FRESH_VAL),
        data,
        normalised(data, torch.cat(own), "cpu"),
        {"test": own},
        {"test": fresh},
    )


def search(case: Case, generations: int) -> tuple[Losses, Setting]:
    """A loss that a search evolves on the user's images, trained as cross-entropy is best."""
    uneven = KINDS[case.kind].uneven
    best = case.final.settings[CE]
    family = fresh_episodes(case).family
    shots = '"as-is"' if uneven else family.shots
    own = min(torch.bincount(case.data.labels[~case.data.test]).tolist())
    val = '"as-is"' if uneven else own * 3 // 7 - family.shots
    with (
        tempfile.TemporaryDirectory() as folder,
        simulated(case.data),
        patch.object(winner, "_plot"),  # pictures that nobody sees
    ):
        tasks = Path(folder) / "searched.toml"
        tasks.write_text(
            SEARCHED.format(
                ways=CLASSES,
                shots=shots,
                val=val,
                hidden=family.classifier["hidden"],
                lr=best.lr,
                steps=best.steps,
            )
        )
        result = metaloss.evolve(
            tasks=str(tasks),
            genome={"kind": "targets", "prior": uneven},
            generations=generations,
            tasks_per_generation=4,
            baseline_tasks=2,
            winner_tasks=16,
            test_tasks=2,
            seed=case.seed,
            out=folder,
            **({"metric": "balanced_accuracy"} if uneven else {}),
        )
        return result.best.losses(), best
