"""What is no loss, chosen and judged beside the losses of a recommendation."""

from collections.abc import Mapping, Sequence

from metaloss.evaluation.episode_evaluation import EpisodeEvaluation
from metaloss.evaluation.rivals import (
    ChangeChoice,
    FittedChoice,
    available,
    choose_changes,
    choose_methods,
    measure_changes,
    measure_methods,
)
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.comparison.losses import CE
from metaloss.inner.observers import Measures
from metaloss.losses.base import Losses

RivalChoice = FittedChoice | ChangeChoice
# Fitting all methods to a task is taken for so many steps of training, by the bar.
FIT_STEPS = 600
# Of the smallest class, for free thresholds to be chosen: they are scored on the images that they
# were fitted to.
THRESHOLD_IMAGES = 50


def choose_rivals(
    evaluation: EpisodeEvaluation, ce: Losses, setting: Setting, tasks: int
) -> dict[str, RivalChoice]:
    """Every rival, as tasks of the meta-validation pool choose it, by its name.

    Args:
        evaluation: has the images as its meta-validation pool.
        ce: cross-entropy, whose logits are changed after training.
        setting: its best rate and number of steps.
        tasks: how many.
    """
    # The name must not tell a number of steps: it would differ between folds.
    changes = choose_changes(evaluation, CE, ce, setting, tasks)
    methods = choose_methods(evaluation, tasks) if available() else []
    evaluation.engine.on_progress(FIT_STEPS * tasks)
    chosen: list[RivalChoice] = [*changes, *methods]
    return {x.name: x for x in chosen}


def measure_rivals(
    evaluation: EpisodeEvaluation,
    rivals: Mapping[str, RivalChoice],
    ce: Losses,
    setting: Setting,
    tasks: int,
) -> dict[str, Measures]:
    """What chosen rivals reach on held-out images.

    Args:
        evaluation: has the held-out images as its meta-test pool.
        rivals: as they were chosen.
        ce: cross-entropy.
        setting: that the changes of its logits were chosen for.
        tasks: how many.
    """
    changes = [x for x in rivals.values() if isinstance(x, ChangeChoice)]
    methods = [x for x in rivals.values() if isinstance(x, FittedChoice)]
    measured = [
        *measure_changes(evaluation, changes, ce, setting, tasks),
        *measure_methods(evaluation, methods, tasks),
    ]
    evaluation.engine.on_progress(FIT_STEPS * tasks)
    return {x.name: x.measures for x in measured}


def rival_steps(steps: int, tuning_tasks: int, test_tasks: int, folds: int) -> int:
    """What rivals take of the bar, in steps of training.

    Args:
        steps: of a training.
        tuning_tasks: that choose, in each fold and on all images.
        test_tasks: that judge, in each fold.
        folds: how many.
    """
    tasks = (folds + 1) * tuning_tasks + folds * test_tasks
    return tasks * (steps + FIT_STEPS)


def setting_in_words(rival: RivalChoice) -> str:
    """What was chosen for a rival.

    >>> from metaloss.evaluation.rivals.methods import METHODS
    >>> setting_in_words(FittedChoice(METHODS[0], 10.0, 0.8))
    'C = 10'
    """
    if isinstance(rival, ChangeChoice) and rival.offsets:
        return ", ".join(f"{x:+g}" for x in rival.offsets)
    return f"{rival.constant} = {rival.value:.3g}" if rival.constant else ""


def too_flexible(rivals: Mapping[str, RivalChoice], images: int) -> frozenset[str]:
    """The rivals that fit so few images whatever they are: their score would flatter them.

    Args:
        rivals: by name.
        images: of the smallest class.
    """
    if images >= THRESHOLD_IMAGES:
        return frozenset()
    return frozenset(
        name for name, x in rivals.items() if isinstance(x, ChangeChoice) and x.offsets
    )


def names_of(rivals: Sequence[Mapping[str, RivalChoice]]) -> list[str]:
    """The rivals that every choice has: a prior correction may be missing where classes are even.

    Args:
        rivals: of every choice.
    """
    return [name for name in rivals[0] if all(name in x for x in rivals)]
