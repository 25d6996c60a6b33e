"""Classifiers without a loss of ours, fitted to one task's images."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from metaloss.core import installation

TREES = 50
LEAST = 1e-12  # probability of a class, so that its logarithm is finite
ABSENT = -1e9  # logit of a class that no image to train with has


def available() -> bool:
    """Whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


def install() -> str:
    """The command that installs it."""
    return installation.command("rivals")


@dataclass(frozen=True, eq=False)
class TaskArrays:
    """One task as arrays.

    Attributes:
        x: images to train with, as vectors.
        y: their classes.
        x_val: images to validate on.
        ways: how many classes there are.
        seed: of whatever a method draws.
    """

    x: Float[np.ndarray, "B D"]
    y: Int[np.ndarray, " B"]
    x_val: Float[np.ndarray, "V D"]
    ways: int
    seed: int

    @cached_property
    def present(self) -> Int[np.ndarray, " K"]:
        """The classes that some image to train with has; wrong labels may leave one out."""
        return np.unique(self.y)

    @cached_property
    def span(self) -> tuple[Float[np.ndarray, "B R"], Float[np.ndarray, "V R"]]:
        """The images in an orthonormal basis of those to train with, scaled by 1/√D.

        What is linear, or goes by distances to training images alone, sees no more of them: this
        costs B numbers an image in place of D.
        """
        _, size, basis = np.linalg.svd(self.x, full_matrices=False)
        kept = basis[size > size[0] * 1e-6] if size[0] > 0 else basis[:1]
        scale = 1 / np.sqrt(self.x.shape[1])
        return self.x @ kept.T * scale, self.x_val @ kept.T * scale

    @cached_property
    def distances(self) -> tuple[Float[np.ndarray, "B B"], Float[np.ndarray, "V B"]]:
        """Squared distances to the images to train with, divided by their mean."""
        own = (self.x**2).sum(1)

        def to_training(x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N B"]:
            squares = (x**2).sum(1)[:, None] + own - 2 * x @ self.x.T
            return np.asarray(np.maximum(squares, 0))

        train = to_training(self.x)
        mean = train.mean() or 1.0
        return train / mean, to_training(self.x_val) / mean


Fit = Callable[[TaskArrays, float], Float[np.ndarray, "V K"]]
Weights = Literal["balanced"] | None  # of images: by their class's share to minus 1, or all alike


@dataclass(frozen=True)
class Method:
    """A classifier that is no trained network.

    Attributes:
        name: as tables show it.
        fit: from a task and a constant to the logits of the validation images, for the classes that
            are present.
        grid: constants among which one is chosen on meta-validation tasks; none: nothing is.
        constant: what the constant is called.
        probabilities: whether the softmax of its logits are probabilities.
        weighted: whether it makes up for uneven classes, and so has a use only where they are.
    """

    name: str
    fit: Fit
    grid: tuple[float, ...] = ()
    constant: str = "C"
    probabilities: bool = True
    weighted: bool = False

    def logits(self, task: TaskArrays, constant: float = 0.0) -> Float[np.ndarray, "V C"]:
        """The logits of the validation images, for all classes of the task."""
        whole = np.full((len(task.x_val), task.ways), ABSENT, dtype=np.float64)
        if len(task.present) == 1:  # nothing to tell apart
            whole[:, task.present] = 0.0
            return whole
        with warnings.catch_warnings():
            # Of sums that did not converge: more iterations change no answer worth having.
            warnings.simplefilter("ignore")
            whole[:, task.present] = self.fit(task, constant)
        return whole


def _logistic_regression(
    task: TaskArrays, c: float, weights: Weights = None
) -> Float[np.ndarray, "V K"]:
    from sklearn.linear_model import LogisticRegression

    x, x_val = task.span
    model = LogisticRegression(C=c, max_iter=200, tol=1e-3, class_weight=weights).fit(x, task.y)
    return _log(model.predict_proba(x_val))


def _linear_svm(task: TaskArrays, c: float, weights: Weights = None) -> Float[np.ndarray, "V K"]:
    x, x_val = task.span
    return _svm(x @ x.T, x_val @ x.T, task.y, c, weights)


def _rbf_svm(task: TaskArrays, c: float, weights: Weights = None) -> Float[np.ndarray, "V K"]:
    train, val = task.distances
    return _svm(np.exp(-train), np.exp(-val), task.y, c, weights)


def _svm(
    kernel: Float[np.ndarray, "B B"],
    kernel_val: Float[np.ndarray, "V B"],
    y: Int[np.ndarray, " B"],
    c: float,
    weights: Weights,
) -> Float[np.ndarray, "V K"]:
    from sklearn.svm import SVC

    model = SVC(C=c, kernel="precomputed", class_weight=weights)
    values = model.fit(kernel, y).decision_function(kernel_val)
    # For two classes scikit-learn gives one number: how much the second is ahead.
    return np.stack([-values, values], 1) if values.ndim == 1 else values


def _nearest_mean(task: TaskArrays, _: float) -> Float[np.ndarray, "V K"]:
    x, x_val = task.span
    means = _means(x, task)
    # -|x - m|²/2 but for |x|²/2, which is the same for every class.
    return np.asarray(x_val @ means.T - (means**2).sum(1) / 2)


def _shrinkage_lda(task: TaskArrays, _: float) -> Float[np.ndarray, "V K"]:
    """Linear discriminants with one covariance for all classes, shrunk as in Ledoit 2004."""
    from sklearn.covariance import ledoit_wolf

    x, x_val = task.span
    means = _means(x, task)
    within = x - means[np.searchsorted(task.present, task.y)]
    # With one image a class nothing is known of their spread: the nearest mean is left.
    covariance = np.eye(x.shape[1])
    if (within**2).sum() > 0:
        covariance, _ = ledoit_wolf(within, assume_centered=True)
        covariance += 1e-9 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    directions = np.linalg.solve(covariance, means.T)  # [R K]
    share = np.array([(task.y == c).mean() for c in task.present])
    constant = np.log(share) - (means.T * directions).sum(0) / 2
    return np.asarray(x_val @ directions + constant)


def _means(x: Float[np.ndarray, "B R"], task: TaskArrays) -> Float[np.ndarray, "K R"]:
    return np.stack([x[task.y == c].mean(0) for c in task.present])


def _extra_trees(task: TaskArrays, _: float) -> Float[np.ndarray, "V K"]:
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(TREES, random_state=task.seed).fit(task.x, task.y)
    votes = model.predict_proba(task.x_val)
    # One more vote, spread over the classes: no class is impossible because no tree chose it.
    return _log((TREES * votes + 1 / votes.shape[1]) / (TREES + 1))


def _log(probability: Float[np.ndarray, "V K"]) -> Float[np.ndarray, "V K"]:
    return np.asarray(np.log(np.maximum(probability, LEAST)))


CONSTANTS = (0.1, 1.0, 10.0, 100.0)
LOGISTIC = Method("logistic regression", _logistic_regression, CONSTANTS)
LINEAR_SVM = Method("linear SVM", _linear_svm, CONSTANTS, probabilities=False)
RBF_SVM = Method("RBF SVM", _rbf_svm, CONSTANTS, probabilities=False)
METHODS = (
    LOGISTIC,
    LINEAR_SVM,
    RBF_SVM,
    Method("nearest class mean", _nearest_mean, probabilities=False),
    Method("shrinkage LDA", _shrinkage_lda),
    Method("extra trees", _extra_trees),
    *(
        replace(method, name=f"{method.name}, class weights", fit=fit, weighted=True)
        for method, fit in (
            (LOGISTIC, partial(_logistic_regression, weights="balanced")),
            (LINEAR_SVM, partial(_linear_svm, weights="balanced")),
            (RBF_SVM, partial(_rbf_svm, weights="balanced")),
        )
    ),
)
