"""The code that does what a recommendation says."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from metaloss.evaluation.rivals import TAU, ChangeChoice, FittedChoice
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.comparison.losses import CE, ComparedLoss
from metaloss.experiments.recommendation.selection import LossChoice
from metaloss.experiments.recommendation.verdict import Verdict
from metaloss.experiments.recommendation_by_training import commands
from metaloss.inner.loop import Inner
from metaloss.training.settings import Training

OPTIMISERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
# What scikit-learn is asked for; images are rows of x, scaled as `SCALED` says.
FITTED_CODE = {
    "logistic regression": ("linear_model", "LogisticRegression(C={value:g}, max_iter=200)"),
    "linear SVM": ("svm", 'SVC(C={value:g}, kernel="linear")'),
    # The mean squared distance of two images is twice the sum of the variances.
    "RBF SVM": ("svm", "SVC(C={value:g}, gamma=1 / (2 * x.var(0).sum()))"),
    "nearest class mean": ("neighbors", "NearestCentroid()"),
    "shrinkage LDA": (
        "discriminant_analysis",
        'LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")',
    ),
    "extra trees": ("ensemble", "ExtraTreesClassifier(50)"),
}
WEIGHTED = ', class_weight="balanced")'  # at the end of a method whose name says class weights
LOADED = (
    "from metaloss.data.datasets import load",
    "images = load({data})",
    "x = images.pixels[~images.test].flatten(1).double().numpy()",
    "y = images.labels[~images.test].numpy()",
)
SCALED = "x = (x - x.mean()) / x.std() / x.shape[1] ** 0.5  # all images, one row each"
SCALED_FEATURES = "x = (x - x.mean(0)) / x.std(0) / x.shape[1] ** 0.5  # features, one row each"


def lines(
    spec: Any,
    verdict: Verdict,
    final: LossChoice,
    inner: Inner,
    compared: Sequence[ComparedLoss],
    counts: Sequence[int] = (),
    features: bool = False,
    data: str = "",
) -> list[str]:
    """Python that does as the tasks did, and what to use for a longer training.

    Args:
        spec: the loss as it was asked for.
        verdict: what to use.
        final: the choice on all images.
        inner: how classifiers trained.
        compared: the losses.
        counts: how many images each class has.
        features: whether these took the place of the pixels.
        data: what names the images, where the code can load them by that.
    """
    rival = verdict.rival
    if isinstance(rival, FittedChoice):
        return _fitted(rival, features, data)
    if rival is not None:
        spec = CE
    elif not isinstance(spec, str | os.PathLike):
        spec = next(x.criterion.describe() for x in compared if x.label == verdict.loss)
    label = CE if rival is not None else verdict.loss
    steps = verdict.setting.steps
    reads_prior = any(x.criterion.reads_prior for x in compared if x.label == label)
    reads_clock = any(x.criterion.reads_clock for x in compared if x.label == label)
    told = f", prior={list(counts)}" if reads_prior and counts else ""
    told += f", steps={steps}" if reads_clock else ""
    loss = f"loss = metaloss.load({json.dumps(os.fspath(spec))}{told})"
    code = [loss, f"optimiser = {optimiser(inner, verdict.setting)}"]
    code += [f"# before every step, from 0: loss.at(step, {steps})"] if reads_clock else []
    if isinstance(rival, ChangeChoice):
        code += _changed(rival, counts)
    if verdict.faster and final.late is not None:
        code += [
            f"# with {final.late.steps} steps: metaloss.load({json.dumps(CE)}), "
            f"lr={final.late.lr:g}"
        ]
    return code


def train_command(
    data: str,
    spec: Any,
    verdict: Verdict,
    metric: Mapping[str, Any] | None,
    training: Training | None,
    groups: str = "",
) -> str:
    """The command that trains a network of full size so; "" where there is none.

    Args:
        data: what names the images.
        spec: the loss as it was asked for.
        verdict: what to use.
        metric: what losses are compared by; None: accuracy.
        training: what does with all images what was judged on tasks; None: there is none.
        groups: the file that says which images belong together, if there is one.
    """
    rival = verdict.rival
    if isinstance(rival, FittedChoice):
        return ""
    if rival is None and not isinstance(spec, str | os.PathLike):
        return ""
    loss = CE if rival is not None else os.fspath(spec)
    if training is not None:
        return shlex.join(commands.train_command(loss, training))
    # `train` can choose thresholds; what else is done to logits is in the lines of Python.
    if not data.startswith("folder:") or (rival is not None and not rival.offsets):
        return ""
    words = ["metaloss", "train", "--data", data, "--loss", loss]
    words += ["--metric", metric["kind"]] if metric else []
    words += ["--groups", groups] if groups else []
    words += ["--thresholds"] if rival else []
    return shlex.join(words)


def fit_lines(spec: Any, verdict: Verdict, training: Training | None) -> list[str]:
    """The same training in Python; none where there is no such command.

    Args:
        spec: the loss as it was asked for.
        verdict: what to use.
        training: as for `train_command`.
    """
    rival = verdict.rival
    if training is None or isinstance(rival, FittedChoice):
        return []
    if rival is None and not isinstance(spec, str | os.PathLike):
        return []
    loss = CE if rival is not None else os.fspath(spec)
    return [commands.fit_call(loss, training), "# or, in a loop of your own:"]


def _fitted(rival: FittedChoice, features: bool, data: str) -> list[str]:
    name, _, weighted = rival.name.partition(", ")
    module, call = FITTED_CODE[name]
    call = call.format(value=rival.value)
    if weighted:
        call = call.removesuffix(")") + WEIGHTED
    loaded = [line.format(data=json.dumps(data)) for line in LOADED] if data else []
    return [
        f"from sklearn.{module} import {call.partition('(')[0]}",
        *loaded,
        SCALED_FEATURES if features else SCALED,
        f"classifier = {call}.fit(x, y)",
    ]


def _changed(rival: ChangeChoice, counts: Sequence[int]) -> list[str]:
    """What becomes of the logits, after training."""
    if rival.offsets:
        numbers = ", ".join(f"{x:g}" for x in rival.offsets)
        change = f"model(images) + torch.tensor([{numbers}])"
    elif rival.constant == TAU:
        share = f"torch.tensor({list(counts)}) / {sum(counts)}"
        change = f"model(images) - {rival.value:g} * torch.log({share})"
    else:
        change = f"model(images) / {rival.value:.3g}"
    answer = "predicted = logits.argmax(1)"
    if not rival.probabilities:
        answer = "predicted = (logits.softmax(1) @ cost).argmin(1)  # cost: true class by answer"
    return ["# after training:", f"logits = {change}", answer]


def optimiser(inner: Inner, setting: Setting) -> str:
    """The optimiser of torch that steps as the tasks' did."""
    options: dict[str, Any] = {"weight_decay": inner.weight_decay}
    if inner.optimiser == "sgd":
        options |= {"momentum": inner.momentum, "nesterov": inner.nesterov}
    else:
        options |= {"betas": inner.betas, "eps": inner.eps}
    # torch's AdamW decays by 0.01 where nothing is said; what is left out of the others is 0 there.
    said = {
        key: value
        for key, value in options.items()
        if value or (key == "weight_decay" and inner.optimiser == "adamw")
    }
    arguments = "".join(f", {key}={value!r}" for key, value in said.items())
    name = f"torch.optim.{OPTIMISERS[inner.optimiser]}"
    return f"{name}(model.parameters(), lr={setting.lr:g}{arguments})"
