"""What every loss does with logits, targets and options; a loss of its own adds only `terms`.

It needs torch alone: `metaloss export` writes this file's text into the modules for others, so that
both keep one contract.
"""

import math

import torch

from metaloss.losses.clock import DEFAULT_STEPS, HALFWAY, clock_terminals, step_count
from metaloss.losses.costs import cost_matrix, image_costs, relative_costs
from metaloss.losses.past import check_sizes, checked_index, no_past, updated_past
from metaloss.losses.prior import class_counts, class_terminals


def rows(x: torch.Tensor) -> torch.Tensor:
    """Logits or shares [N, C, ...] or [C], one row of classes per place."""
    x = x.movedim(1, -1) if x.ndim > 1 else x
    return x.reshape(-1, x.shape[-1])


def widened(logits: torch.Tensor) -> torch.Tensor:
    """The same of logits, in float32 at least."""
    flat = rows(logits)
    return flat if flat.dtype == torch.float64 else flat.float()


def shares(label: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Class indices as distributions.

    Not by `one_hot`, which `torch.export` writes for one number of classes only.
    """
    return torch.zeros_like(like).scatter(1, label[:, None], 1.0)


def class_weights(weight: object) -> torch.Tensor | None:
    """A factor per class as a tensor of floats.

    Raises:
        ValueError: it is no vector, or has a number that is negative or not finite.
    """
    if weight is None:
        return None
    factors = torch.as_tensor(weight)
    factors = factors if factors.is_floating_point() else factors.float()
    if factors.ndim != 1:
        raise ValueError(
            f"weight must be one number per class, got the shape {tuple(factors.shape)}"
        )
    wrong = factors[~(factors.isfinite() & (factors >= 0))]
    if len(wrong):
        raise ValueError(f"weight must be finite and not negative, got {wrong[0].item()}")
    return factors


class LossModule(torch.nn.Module):
    """A loss, used like `torch.nn.CrossEntropyLoss`.

    Takes logits [N, C] or [N, C, ...] and class indices [N, ...] or distributions over classes [N,
    C, ...]. It has no trainable parameters. In one thing it differs from torch's: the mean over
    nothing, where every target is ignored, is 0 with a gradient of 0, so that training goes on.

    Args:
        weight: a factor per class [C], not negative. With hard labels an image counts as often as
            its class's factor says, for every loss. With soft targets or smoothing, a loss of the
            form y·g(p) weighs every class's term as torch does, and any other weighs the image: by
            its label's factor, or by the mean of the factors under its target, before smoothing.
        reduction: "mean", "sum" or "none". The mean divides by the sum of the labels' weights, or
            by the number of soft targets.
        label_smoothing: share of every target that is spread over all classes.
        ignore_index: a class index whose places count for nothing.
        normalise: divide by the loss's gain, so that its first steps are as long as
            cross-entropy's.
        prior: training images of each class [C], or the classes' shares, for a loss that reads
            them; even classes where None.
        costs: what each answer (column) costs for each true class (row) [C, C], for a loss that
            reads it; all mistakes alike where None.
        steps: of the training, for a loss that reads the clock: until `at` says where the training
            is, it is half-way through so many; 50 where None.

    Attributes:
        weighs_terms: whether the loss has the form y·g(p), or that of smoothed targets.
        reads_clock: whether the loss depends on how far the training is.
        clock: the share of the steps that is done and the natural logarithm of their number [2],
            for a loss that reads them; `at` sets it.
        reads_past: whether the loss depends on what was predicted for an image before.
        past: the running mean of what was predicted for each image [N, C], for a loss that reads
            it; None until `remember` says how many images there are.
        classes: the one number of classes it works for; None: any.
    """

    OPTIONS = (
        *("weight", "reduction", "label_smoothing", "ignore_index", "normalise"),
        *("prior", "costs", "steps"),
    )
    weighs_terms = False
    reads_clock = False
    reads_past = False
    classes: int | None = None

    def __init__(
        self,
        *,
        weight: object = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        normalise: bool = False,
        prior: object = None,
        costs: object = None,
        steps: object = None,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing}")
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.normalise = normalise
        self._gains: dict[int, float] = {}
        self.weight: torch.Tensor | None
        self.register_buffer("weight", class_weights(weight))
        self.prior: torch.Tensor | None
        # In no `state_dict`: it follows from the images that one trains on.
        self.register_buffer("prior", class_counts(prior), persistent=False)
        self.costs: torch.Tensor | None
        # Nor this: it says what the loss is for.
        self.register_buffer("costs", cost_matrix(costs), persistent=False)
        self.steps = step_count(steps)
        self.clock: torch.Tensor | None
        self._training_steps = self.steps or DEFAULT_STEPS
        if self.reads_clock:
            # A buffer: a graph of `torch.compile` reads it, and is the same at every step.
            clock = torch.tensor([HALFWAY, math.log(self._training_steps)])
            self.register_buffer("clock", clock, persistent=False)
        else:
            self.clock = None
        # A buffer once there is one: torch.export reads no module with one that is kept and None.
        self.past: torch.Tensor | None = None
        self._past_of_batch: torch.Tensor | None = None

    def at(self, step: int, steps: int) -> "LossModule":
        """This loss, told where the training is; one that does not read the clock stays as it is.

        Call it before every step. `with_options()` gives a loss that nobody has told.

        Args:
            step: counted from 0.
            steps: how many the training has.

        Raises:
            ValueError: there is no such step.
        """
        numbers = clock_terminals(step, steps)
        if self.clock is not None:
            self.clock.copy_(torch.tensor(numbers))
            if steps != self._training_steps:
                self._gains.clear()  # those of a training of another number of steps
                self._training_steps = steps
        return self

    def clock_terminals(self, like: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the loss sees of how far the training is, `t` and `logn`, one number each."""
        assert self.clock is not None, "the loss does not read the clock"
        t, logn = self.clock.to(like).unbind()
        return {"t": t, "logn": logn}

    def remember(self, images: int, classes: int) -> "LossModule":
        """This loss, with a memory of what is predicted for each image, for a loss that reads it;
        another one stays as it is.

        While it trains (`train()`, the default) every call needs the images' numbers, `index`, and
        adds what it is given to their running means; after `eval()` it reads no past. A checkpoint
        is loaded into a loss that remembers as many.

        Args:
            images: that one trains on.
            classes: of the logits.

        Raises:
            ValueError: one of them is no whole number of at least 1.
        """
        check_sizes(images=images, classes=classes)
        if self.reads_past:
            like = torch.zeros(()) if self.clock is None else self.clock
            memory = no_past(like, classes).repeat(images, classes)
            if self.past is None:
                del self.past
                self.register_buffer("past", memory)
            else:
                self.past = memory
        return self

    def past_terminal(self, like: torch.Tensor, classes: int) -> torch.Tensor:
        """What the loss sees of the images' past, `past`: [N, C], or one number for all."""
        past = self._past_of_batch
        return no_past(like, classes) if past is None else past.to(like)

    def terms(self, logits: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
        """What each image's value is the sum of, [N, C] or [N, 1], of logits and targets [N, C]."""
        raise NotImplementedError

    def class_terminals(self, classes: int, like: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the loss sees of the images of each class, `prior`, `logprior` and `count` [C]."""
        return class_terminals(
            like.new_ones(classes) if self.prior is None else self.prior.to(like)
        )

    def relative_costs(self, like: torch.Tensor) -> torch.Tensor | None:
        """The costs above those of right answers, in units of the mean mistake [C, C]."""
        return None if self.costs is None else relative_costs(self.costs.to(like))

    def image_costs(self, soft: torch.Tensor) -> torch.Tensor:
        """What each class costs as the answer, `cost` [N, C], of targets [N, C]."""
        return image_costs(soft, self.relative_costs(soft))

    def gain(self, classes: int) -> float:
        """The first pull on the true logit relative to cross-entropy's, at uniform predictions
        among even classes whose mistakes cost alike; of a loss that reads the clock, at step 0.
        """
        if classes not in self._gains:
            told = self.prior, self.costs, self.clock, self._past_of_batch
            self.prior = self.costs = self._past_of_batch = None
            if self.clock is not None:
                self.clock = self.clock * self.clock.new_tensor([0, 1])
            logits = torch.zeros(1, classes, dtype=torch.float64, requires_grad=True)
            label = torch.zeros(1, dtype=torch.int64)
            try:
                with torch.enable_grad():
                    value = self.terms(logits, shares(label, logits)).sum()
                    (gradient,) = torch.autograd.grad(value, logits)
            finally:
                self.prior, self.costs, self.clock, self._past_of_batch = told
            self._gains[classes] = float(-gradient[0, 0]) * classes / (classes - 1)
        return self._gains[classes]

    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, index: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss; a scalar, or one value per place where `reduction` is "none".

        Args:
            logits: [N, C] or [N, C, ...].
            target: class indices [N, ...] or distributions over classes [N, C, ...].
            index: for a loss that remembers, the numbers of the images [N]; others take no notice.

        Raises:
            ValueError: the shapes do not go together, the loss or its weights are made for another
                number of classes, `ignore_index` is one of the classes that soft targets have, or a
                loss that remembers is not told the images' numbers, or others than it remembers.
        """
        self._check(logits, target)
        if self.past is None or not self.training:
            return self._value(logits, target)
        index = checked_index(index, logits, self.past)
        self._past_of_batch = self.past[index]
        try:
            value = self._value(logits, target)
        finally:
            self._past_of_batch = None
        with torch.no_grad():
            p = widened(logits).softmax(-1).to(self.past)
            self.past[index] = updated_past(self.past[index], p)
        return value

    def _value(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        # Losses have steep places: half precision is for the network, not for them.
        with torch.autocast(logits.device.type, enabled=False):
            flat = widened(logits)
            if target.is_floating_point():
                value, mass = self._soft(flat, rows(target).to(flat))
            else:
                value, mass = self._hard(flat, target.reshape(-1).long())
            if self.normalise:
                value = value / self._divisor(flat.shape[-1])
            if self.reduction == "none":
                return value.reshape(logits.select(min(1, logits.ndim - 1), 0).shape)
            return value.sum() / mass if self.reduction == "mean" else value.sum()

    def _divisor(self, classes: int) -> float | torch.Tensor:
        """What `normalise` divides by."""
        return self.gain(classes)

    def _soft(self, logits: torch.Tensor, soft: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every place's value under its distribution over classes, and what `mean` divides by."""
        value = self._total(logits, self._smooth(soft))
        if self.weight is not None and not self.weighs_terms:
            # By the sum of the shares: rounding must not let weights of 1 change anything.
            value = value * ((soft * self.weight.to(logits)).sum(-1) / soft.sum(-1))
        return value, value.new_full((), value.shape[0]).clamp(min=1)

    def _hard(self, logits: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every place's value under its class, and what `mean` divides by."""
        valid = label != self.ignore_index
        label = label.where(valid, 0)
        value = self._labelled(logits, label)
        if self.weight is None:
            return value.where(valid, 0), valid.sum().clamp(min=1)
        weight = self.weight.to(logits)[label]
        if not self.weighs_terms:
            value = value * weight
        # Labels whose weights are all 0 have the mean 0/0, as torch has it; no label at all has 0.
        mass = weight.where(valid, 0).sum().where(valid.any(), 1)
        return value.where(valid, 0), mass

    def _labelled(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Every place's value under its class; weighed where the terms are."""
        return self._total(logits, self._smooth(shares(label, logits)))

    def _smooth(self, soft: torch.Tensor) -> torch.Tensor:
        s = self.label_smoothing
        return soft * (1 - s) + s / soft.shape[-1] if s else soft

    def _total(self, logits: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
        """The sums of the terms, each of them weighed where the loss has the form for it."""
        terms = self.terms(logits, soft)
        if self.weight is not None and self.weighs_terms:
            terms = terms * self.weight.to(terms)
        return terms.sum(-1)

    def _check(self, logits: torch.Tensor, target: torch.Tensor) -> None:
        axis = min(1, logits.ndim - 1)
        shape = (*logits.shape[:axis], *logits.shape[axis + 1 :])
        if target.shape != (logits.shape if target.is_floating_point() else shape):
            shapes = f"target {tuple(target.shape)} and logits {tuple(logits.shape)}"
            kinds = f"{tuple(shape)} (integers: classes) or {tuple(logits.shape)} (floats: shares)"
            raise ValueError(f"{shapes}: expected targets {kinds}")
        if target.is_floating_point() and self.ignore_index >= 0:
            raise ValueError(
                f"ignore_index = {self.ignore_index} leaves out class indices; targets that are "
                "shares of classes need a negative one"
            )
        classes = logits.shape[axis]
        if self.classes not in (None, classes):
            raise ValueError(f"this loss is made for {self.classes} classes, got {classes}")
        told = (("weight", self.weight), ("prior", self.prior), ("costs", self.costs))
        for name, numbers in told:
            if numbers is not None and numbers.shape[0] != classes:
                raise ValueError(
                    f"{name} has {numbers.shape[0]} {'rows' if numbers.ndim > 1 else 'numbers'}, "
                    "one per class, "
                    f"and the logits have {classes} classes"
                )
