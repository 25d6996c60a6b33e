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
from metaloss.experiments.recommendation import fold_results, folds, losses, question, rivals
from metaloss.experiments.recommendation.advice import Advice
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.verdict import Verdict
from metaloss.losses.base import Losses
from metaloss.search import winner
from metaloss.tasks import episodic, step_counts
from metaloss.tasks.classifier_inputs import normalised
from metaloss.tasks.episodic import Episodes

CE = "ce"
DATA = "folder:simulated"
STEPS = (20, 40)  # among which the strongest cross-entropy is sought; fewer than usual
TRUTH = 64  # tasks
# Of the usual losses, so that a repetition takes seconds.
USUAL = ("label_smoothing",)
USUAL_UNEVEN = ("class_weights", "logit_adjustment")
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
        verdict: what follows from that and from the folds.
    """

    kind: str
    data: Dataset
    seed: int
    options: dict[str, Any]
    advice: Advice
    final: LossChoice
    verdict: Verdict

    @property
    def judged(self) -> str:
        """What the gain that is said is about: what is best on all the user's images, or the loss
        that was expected to help.
        """
        return self.verdict.loss if self.verdict.expected else self.final.winner


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
    seen: list[tuple[LossChoice, Verdict]] = []
    decide = question.decide

    def keep(final: LossChoice, *rest: Any) -> Verdict:
        seen.append((final, decide(final, *rest)))
        return seen[-1][1]

    with (
        tempfile.TemporaryDirectory() as folder,
        simulated(data),
        patch.object(question, "decide", keep),
        patch.object(rivals, "available", lambda: fitted),
        patch.object(losses, "usual_losses", lambda: list(USUAL)),
        patch.object(losses, "UNEVEN_LOSSES", USUAL_UNEVEN),
        patch.object(fold_results, "CELLS", RESAMPLES * int((~data.test).sum())),
    ):
        advice = metaloss.recommend(DATA, KINDS[kind].losses, out=folder, seed=seed, **options)
    return Case(kind, data, seed, options, advice, *seen[0])


def truths(case: Case, evolved: tuple[Losses, Setting] | None = None) -> dict[str, float]:
    """The gains over cross-entropy on fresh images: of what is judged, of the best loss, and of an
    evolved one where there is one.

    All train on tasks of the user's images.
    """
    final = case.final
    tried = {name: (final.losses[name], final.settings[name]) for name in (CE, final.best_loss)}
    if case.judged in final.losses:
        tried[case.judged] = final.losses[case.judged], final.settings[case.judged]
    if evolved:
        tried["evolved"] = evolved
    with Local() as engine:
        evaluation = EpisodeEvaluation(engine, fresh_episodes(case), Stream(0).at("truth"))
        losses_of, settings_of = zip(*tried.values(), strict=True)
        found = dict(zip(tried, evaluation.test_each(losses_of, settings_of, TRUTH), strict=True))
        if case.judged in final.rivals:
            rival = {case.judged: final.rivals[case.judged]}
            found |= rivals.measure_rivals(
                evaluation, rival, final.losses[CE], final.settings[CE], TRUTH
            )
    scores = {k: x.score.double().nan_to_num(nan=0.0).mean() for k, x in found.items() if x}
    names = {"judged": case.judged, "loss": final.best_loss, "evolved": "evolved"}
    return {k: float(scores[name] - scores[CE]) for k, name in names.items() if name in scores}


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
