"""The full-size training that does with all images what a loss was judged by on tasks of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metaloss.evaluation.rivals import TAU, FittedChoice
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.recommendation import task_sizes
from metaloss.experiments.recommendation.rivals import RivalChoice
from metaloss.inner.classifiers.mlp import Mlp
from metaloss.inner.loop import Inner
from metaloss.tasks.episodic_family import TaskFamily
from metaloss.training.settings import Training

LONGER = 2  # times the steps, where the mean rate is half the highest


def training_of(
    family: TaskFamily, images: int, setting: Setting, rival: RivalChoice | None
) -> Training | None:
    """The training, on all images; None where `train` has no such training.

    Tasks train at a constant rate, and their mean does not show how much the last step of a single
    training may be off. So this one's rate goes up and down to 0, over twice the steps: the sum of
    its rates stays about the same.

    It has none for tasks that are not as the data are, for classifiers, courses of the rate or
    augmented versions that it does not know, and for methods that are no networks.

    Args:
        family: how tasks trained.
        images: how many there are: tasks train on all of theirs at once unless the family says it.
        setting: learning rate and number of steps.
        rival: what is done after training, where that is recommended.
    """
    inner = family.inner
    model = model_name(family.classifier)
    if model is None or not task_sizes.drawn_as_is(family) or family.augment or family.noise:
        return None
    if inner.schedule != "constant" or inner.warmup or inner.eps != Inner().eps:
        return None
    training = Training(
        model=model,
        data=family.dataset,
        features=family.features,
        groups=family.groups,
        size=family.size,
        background=family.background,
        max_pixels=family.max_pixels,
        steps=LONGER * setting.steps,
        lr=setting.lr,
        batch=inner.batch or images,
        optimiser=inner.optimiser,
        momentum=inner.momentum if inner.optimiser == "sgd" else Training.momentum,
        nesterov=inner.nesterov if inner.optimiser == "sgd" else Training.nesterov,
        betas=inner.betas,
        weight_decay=inner.weight_decay,
        schedule="one_cycle",
        metric=family.metric,
        validation=0,
    )
    return _changed(training, rival)


def _changed(training: Training, rival: RivalChoice | None) -> Training | None:
    """The training with what is recommended to be done after it."""
    if rival is None:
        return training
    if isinstance(rival, FittedChoice) or not rival.probabilities:
        return None
    if rival.offsets:  # chosen anew, on images that are held out
        return replace(training, thresholds=True, validation=Training.validation)
    if rival.constant == TAU:
        return replace(training, prior_correction=rival.value) if rival.value else training
    return None


def model_name(classifier: Mapping[str, Any]) -> str | None:
    """The model of `train` that is a family's classifier; None where there is none.

    >>> model_name({"kind": "mlp", "hidden": [64]}), model_name({"kind": "linear"})
    ('mlp-64', 'linear')
    """
    settings = {key: value for key, value in classifier.items() if key != "kind"}
    if classifier["kind"] == "linear":
        return "linear"
    if classifier["kind"] != "mlp":
        return None
    widths = Mlp(**settings).hidden
    return "-".join(("mlp", *map(str, widths))) if widths else "linear"
