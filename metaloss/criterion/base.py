"""One loss for ordinary training: a drop-in for `torch.nn.CrossEntropyLoss`."""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from metaloss.core import registry
from metaloss.criterion.loss_module import LossModule
from metaloss.errors import SettingsError
from metaloss.losses.base import Clock, Losses, TrainingTargets, at
from metaloss.losses.clock import DEFAULT_STEPS
from metaloss.losses.phenotype import gain_tensor
from metaloss.losses.unit_gain import UnitGain


def past_readers(module: torch.nn.Module) -> list[Any]:
    """The losses within a module, itself too, that see what was predicted for an image before."""
    return [x for x in module.modules() if getattr(x, "reads_past", False)]


def clock_readers(module: torch.nn.Module) -> list[Any]:
    """The losses within a module, itself too, that see how far a training is, exported ones too."""
    return [x for x in module.modules() if getattr(x, "reads_clock", False)]


class Criterion(LossModule):
    """A loss, used like `torch.nn.CrossEntropyLoss`.

    Takes logits [N, C] or [N, C, ...] and class indices [N, ...] or distributions over classes [N,
    C, ...]. It has no trainable parameters: what evolution found is in buffers that no `state_dict`
    holds, as its own folder does.

    Args:
        about: what its file says about the loss.
        options: as `LossModule`'s.
    """

    folder: Path | None = None  # that it was read from

    def __init__(self, about: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.about = about or {}

    def losses(self) -> Losses:
        """The loss as a population of one."""
        raise NotImplementedError

    def describe(self) -> str:
        """The loss in one line."""
        raise NotImplementedError

    def latex(self) -> str | None:
        """The formula in LaTeX, without dollar signs; None for a loss that is no formula."""
        return None

    @property
    def identity(self) -> object:
        """What makes it this loss, whatever its options: losses of equal identity are one.

        None where that is not known.
        """
        return None

    @property
    def home_classes(self) -> int | None:
        """The number of classes that its arithmetic is traced for; None: for any."""
        return None

    @property
    def clock_note(self) -> str:
        """What a user should know of a loss that reads the clock, in sentences; "" for others."""
        if not self.reads_clock:
            return ""
        return (
            "It sees how far a training is: call loss.at(step, steps) before every step. "
            f"Until then it is half-way through {self.steps or DEFAULT_STEPS} steps."
        )

    @property
    def past_note(self) -> str:
        """What a user should know of a loss that reads the images' past; "" for others."""
        if not self.reads_past:
            return ""
        return (
            "It sees what was predicted for an image before: call loss.remember(images, classes) "
            "once, then loss(logits, target, index). Until then `past` is 1/C."
        )

    @property
    def notes(self) -> list[str]:
        """What a user should know of how to call the loss, each in sentences."""
        return [note for note in (self.clock_note, self.past_note) if note]

    def with_options(self, **options: Any) -> Self:
        """The same loss with another `weight`, `reduction`, `label_smoothing`, `ignore_index`,
        `normalise`, `prior`, `costs` or `steps`.

        Raises:
            TypeError: there is no such option.
            ValueError: an option cannot have this value, or the loss does not see it.
        """
        for name in set(options) - set(self.OPTIONS):
            raise TypeError(registry.unknown_message("option", name, self.OPTIONS))
        for name, what, sees, others in (
            ("prior", "the classes' shares", self.reads_prior, "logit_adjustment, class_weights"),
            ("costs", "what mistakes cost", self.reads_costs, "softmax_margin, expected_cost"),
            ("steps", "how far the training is", self.reads_clock, "one that reads t or logn"),
        ):
            if options.get(name) is not None and not sees:
                raise SettingsError(
                    f"{self.about.get('name', self.describe())} does not see {what}, so {name}= "
                    f"would change nothing: leave it out, or take a loss that does, as {others}"
                )
        return self.told(**options)

    def told(self, **options: Any) -> Self:
        """The same loss with other options, whether or not it sees them."""
        copy = self._copy(**{**{name: getattr(self, name) for name in self.OPTIONS}, **options})
        copy.folder = self.folder
        return copy

    @property
    def reads_prior(self) -> bool:
        """Whether it depends on how many training images each class has."""
        return False

    @property
    def reads_costs(self) -> bool:
        """Whether it depends on what each mistake costs."""
        return False

    def fit_prior(self, labels: Tensor, classes: int | None = None) -> Self:
        """The same loss, told how many training images each class has; one that does not see that
        stays what it is.

        Args:
            labels: class indices of all images that one trains on, of any shape; those of
                `ignore_index` do not count.
            classes: how many there are; one more than the highest label where None.

        Raises:
            ValueError: no label counts, or one is no class.
        """
        given = torch.as_tensor(labels).flatten()
        flat = given.long()
        if given.is_floating_point() and not torch.equal(flat.to(given.dtype), given):
            wrong = float(given[flat.to(given.dtype) != given][0])
            raise ValueError(f"labels must be class indices, whole numbers, got {wrong:g}")
        flat = flat[flat != self.ignore_index]
        if not len(flat) or flat.min() < 0 or (classes is not None and flat.max() >= classes):
            found = f"{int(flat.min())} to {int(flat.max())}" if len(flat) else "none"
            top = "on" if classes is None else f"to {classes - 1}"
            raise ValueError(f"labels must be class indices from 0 {top}, got {found}")
        return self.told(prior=flat.bincount(minlength=classes or 0))

    def _copy(self, **options: Any) -> Self:
        raise NotImplementedError

    def terms(self, logits: Tensor, soft: Tensor) -> Tensor:
        """What each image's value is the sum of, [N, C] or [N, 1], of logits and targets [N, C]."""
        # One task for the target [T B C], one candidate and one task for the logits [P T B C].
        counts = None if self.prior is None else self.prior[None]
        costs = self.relative_costs(soft)
        costs = None if costs is None else costs[None]
        targets = TrainingTargets(soft[None], counts=counts, costs=costs)
        return self.losses_told().bind(targets).terms(logits[None, None])[0, 0]

    def gain(self, classes: int) -> float:
        """The first pull on the true logit relative to cross-entropy's, at uniform predictions."""
        if classes not in self._gains:
            self._gains[classes] = float(gain_tensor(self.losses_told(), classes))
        return self._gains[classes]

    def _divisor(self, classes: int) -> float | Tensor:
        # A graph of tensor operations holds no number that Python is still to compute.
        # A graph for any number of classes has a symbol.
        known = isinstance(classes, int) and classes in self._gains
        if torch.compiler.is_compiling() and not known:
            return self._traced_gain(classes)
        return self.gain(classes)

    def _traced_gain(self, classes: int) -> Tensor:
        """The gain by tensor operations alone."""
        return gain_tensor(self.losses_told(), classes)

    def losses_as_used(self) -> Losses:
        """The loss as a population of one that trains as this does: divided by its gain where
        `normalise` says so.
        """
        losses = self.losses_told()
        return UnitGain.of(losses) if self.normalise else losses

    def losses_told(self) -> Losses:
        """The loss as a population of one that knows, as this does, how far the training is."""
        losses = self.losses()
        if self.clock is None:
            return losses
        return at(losses, Clock(*self.clock.unbind()))

    def finite_where_masked(self) -> bool:
        """Whether value and gradient stay finite where a class has the logit -inf.

        That class is not the label: it is masked out of the prediction.
        """
        logits = torch.zeros(1, self.classes or 3)
        logits[0, 1] = -torch.inf
        logits.requires_grad_()
        value = self._labelled(logits, torch.zeros(1, dtype=torch.int64)).sum()
        # Where a loss does not depend on its logits, autograd would raise an error.
        if not value.requires_grad:
            return bool(value.isfinite())
        (gradient,) = torch.autograd.grad(value, logits)
        return bool(value.isfinite() and gradient.isfinite().all())

    def _get_name(self) -> str:
        return "Criterion"

    def extra_repr(self) -> str:
        """The loss in words, and the options that are not the defaults."""
        options = [f"reduction='{self.reduction}'"] if self.reduction != "mean" else []
        options += [f"label_smoothing={self.label_smoothing}"] if self.label_smoothing else []
        options += ["normalise=True"] if self.normalise else []
        return ", ".join([self.describe(), *options])
