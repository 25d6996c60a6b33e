"""P formulas, run together: the losses of the zoo and of expression searches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss import kernels
from metaloss.losses import grouping
from metaloss.losses._compiled_programs import CompiledFormulas
from metaloss.losses.base import (
    Clock,
    TrainingTargets,
    images,
    mean_over_images,
    weigh_images,
)
from metaloss.losses.language.expression import LOGP, PAST, Expression, P
from metaloss.losses.language.formula import NO_SCALE, NO_SHIFT, Formula
from metaloss.losses.language.programs import Program, Run, gradient_program, value_program
from metaloss.losses.past import no_past, updated_past
from metaloss.losses.shared_inputs import SharedInputs
from metaloss.losses.told import ToldClock

Form = Literal["auto", "each", "grouped"]
OUTPUTS = (LOGP, P, PAST)  # what a step of the training gives each program
Calls = tuple[list[tuple[int, int]], list[tuple[Run, Any]], int]
Ready = tuple[list[Tensor | None], list[tuple[int, int]], list[tuple[Run, Any]], int]


@dataclass(frozen=True)
class Formulas(ToldClock):
    """P formulas as losses.

    Attributes:
        formulas: one per candidate.
        form: how `slope` runs: "each" formula by itself, or all "grouped" by height and primitive;
            "auto" groups many on a GPU, where the number of calls counts.
        told: how far the training is; None: nobody has said.
        shared: what `bind` computed.
        past: the running mean of what each image was predicted to be; None: nothing was yet.
    """

    formulas: tuple[Formula, ...]
    form: Form = "auto"
    told: Clock | None = None
    shared: SharedInputs | None = None
    past: Float[Tensor, "P T C B"] | None = None

    # By torch's operations each formula is some calls of its own.
    tasks_per_call: ClassVar[int] = 1 if kernels.available() else 8

    @classmethod
    def of(cls, formulas: Sequence[Formula], form: Form = "auto") -> Self:
        """These formulas, side by side."""
        return cls(tuple(formulas), form)

    def __len__(self) -> int:
        return len(self.formulas)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        past = None if self.past is None else self.past[rows]
        if isinstance(rows, slice):
            return replace(self, formulas=self.formulas[rows], past=past)
        # Formulas are Python objects, so a mask or an index becomes a list of places.
        places = (rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows).tolist()
        return replace(self, formulas=tuple(self.formulas[i] for i in places), past=past)

    def bind(self, targets: TrainingTargets) -> Self:
        """Compute what depends on targets, classes and constants alone, once for all formulas."""
        return replace(self, shared=SharedInputs.of(self.formulas, targets))

    @cached_property
    def reads_clock(self) -> bool:
        """Whether one of them depends on how far the training is."""
        return any(formula.reads_clock for formula in self.formulas)

    def at(self, clock: Clock) -> Self:
        """The losses at another point of the training."""
        return self._with(told=clock)

    @cached_property
    def reads_past(self) -> bool:
        """Whether one of them depends on what was predicted for an image before."""
        return any(formula.reads_past for formula in self.formulas)

    def after(self, logits: Float[Tensor, "P T B C"]) -> Self:
        """The losses after these predictions for all images, as the next step has them."""
        past = no_past(logits, logits.shape[-1]) if self.past is None else self.past
        return self._with(past=updated_past(past, logits.mT.softmax(-2)))

    def minibatch(self, index: Int[Tensor, "T b"]) -> Self:
        """The same losses, bound to only some of each task's images."""
        past = None if self.past is None else images(self.past.mT, index).mT
        return self._with(shared=self._bound.minibatch(index), past=past)

    def _with(self, **changes: Any) -> Self:
        """The losses with other numbers in the same places."""
        losses = replace(self, **changes)
        if self.shared is not None:
            # How they run is the same for any numbers.
            kept: tuple[str, ...] = ("_compiled", "_moves_logits")
            if self._compiled is None:
                kept += ("_plan",) if self._grouped else ("_programs", "_calls")
            losses.__dict__.update({name: getattr(self, name) for name in kept})
        return losses

    def terms(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """One term per class; those of a mean over classes are divided by their number."""
        logp = self._before_softmax(logits.mT).log_softmax(-2)  # [P T C B]
        per_formula = []
        for formula, outputs in zip(self.formulas, self._outputs(logp, logp.exp()), strict=True):
            # A formula of constants gives one number, which stands for every class.
            ready = _ready(value_program(formula.expression), self._named)
            value = _run(ready, outputs).expand(logp.shape[1:])
            per_formula.append(value / logits.shape[-1] if formula.reduction == "mean" else value)
        return torch.stack(per_formula).mT

    def __call__(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T"]:
        """Each classifier's value under its formula.

        Terms are summed or averaged over the classes, then averaged over the batch.
        """
        return mean_over_images(self.terms(logits).sum(-1), self._bound.weight)

    @torch.no_grad()
    def logit_gradient(self, logits: Float[Tensor, "P T B C"]) -> Float[Tensor, "P T B C"]:
        """The gradient of each value with respect to its logits.

        It is fastest where `logits.mT` is contiguous.
        """
        z = self._before_softmax(logits.mT.contiguous())  # [P T C B]
        compiled = None if torch.compiler.is_compiling() else self._compiled
        if compiled is None or z.dtype != self._bound.planes.dtype:
            gradient = self._by_torch(z)
        else:
            past = self._past_like(z) if self.reads_past else None
            gradient = compiled.logit_gradient(z, past, self._bound, self.clock)
        if self._moves_logits and self._scales is not None:
            gradient = gradient.mul_(self._scales)
        return weigh_images(gradient.mT, self._bound.weight)

    def _by_torch(self, z: Float[Tensor, "P T C B"]) -> Float[Tensor, "P T C B"]:
        """The gradient by the logits that softmax sees, in torch's operations."""
        logp = z.log_softmax(-2)
        p = logp.exp()
        G = self._by_logp(logp, p)
        # The way through log-softmax: ∂L/∂z = G - p ΣG, with G = ∂L/∂logp.
        gradient = torch.addcmul(G, p, G.sum(-2, keepdim=True), value=-1)
        return gradient.mul_(self._factor(z.mT))

    def _by_logp(
        self, logp: Float[Tensor, "P T C B"], p: Float[Tensor, "P T C B"]
    ) -> Float[Tensor, "P T C B"]:
        """The gradient of every term by its own logp, but for its sign."""
        if self._grouped:
            past = (self._past_like(logp),) if self._plan.reads_past else ()
            return grouping.run(self._plan, self._fixed, (logp, p, *past))
        shape = logp.shape[1:]
        gradients = [_run(*each) for each in zip(self._slopes, self._outputs(logp, p), strict=True)]
        return torch.stack([x if x.shape == shape else x.expand(shape) for x in gradients])

    def _outputs(
        self, logp: Float[Tensor, "P T C B"], p: Float[Tensor, "P T C B"]
    ) -> Iterator[tuple[Tensor, ...]]:
        """What each formula's program is given at a step, in the order of `OUTPUTS`."""
        return zip(logp, p, self._past_like(logp), strict=True)

    def _past_like(self, logp: Float[Tensor, "P T C B"]) -> Float[Tensor, "P T C B"]:
        """The running mean; 1/C everywhere before the first step."""
        return no_past(logp, logp.shape[2]).expand_as(logp) if self.past is None else self.past

    @property
    def _grouped(self) -> bool:
        """Whether formulas run together."""
        # Many small calls keep a GPU waiting; on a CPU each formula runs by itself.
        on_gpu = self.form == "auto" and self._bound.planes.is_cuda
        return self.form == "grouped" or (on_gpu and len(self) >= grouping.WORTH)

    @property
    def _bound(self) -> SharedInputs:
        assert self.shared is not None, "bind the targets first"
        return self.shared

    # A cached property writes into __dict__, so it works in a frozen dataclass; `replace` drops it.
    @cached_property
    def _named(self) -> dict[Expression, Tensor]:
        return self._bound.at(self.clock)

    @cached_property
    def _compiled(self) -> CompiledFormulas | None:
        """The gradient by a compiled interpreter; None where torch computes it."""
        return None if self._grouped else CompiledFormulas.of(self.formulas, self._bound)

    @cached_property
    def _moves_logits(self) -> bool:
        """Whether a formula's softmax sees other logits than the classifier gives."""
        usual = (NO_SCALE, NO_SHIFT, 1)
        return any((f.scale, f.shift, f.temperature) != usual for f in self.formulas)

    @cached_property
    def _programs(self) -> list[Program]:
        return [gradient_program(f.expression) for f in self.formulas]

    @cached_property
    def _slopes(self) -> list[Ready]:
        named = self._named
        return [
            ([named.get(e) for e in program.inputs], *calls)
            for program, calls in zip(self._programs, self._calls, strict=True)
        ]

    @cached_property
    def _calls(self) -> list[Calls]:
        return [_calls_of(program) for program in self._programs]

    @cached_property
    def _plan(self) -> grouping.GroupedSteps:
        return grouping.group(self._programs, self._bound.planes.device)

    @cached_property
    def _fixed(self) -> Float[Tensor, "F T C B"]:
        return self._plan.stacked(self._named, self._bound.planes)

    @cached_property
    def _scales(self) -> Tensor | None:
        """What each formula multiplies its logits by; None: nothing does."""
        return self._planes_of([f.scale for f in self.formulas], NO_SCALE)

    @cached_property
    def _shifts(self) -> Tensor | None:
        """What each formula adds to its logits; None: nothing does."""
        return self._planes_of([f.shift for f in self.formulas], NO_SHIFT)

    def _planes_of(self, expressions: list[Expression], none: Expression) -> Tensor | None:
        if all(e == none for e in expressions):
            return None
        planes = self._bound.planes
        one = planes.new_tensor(none.value)
        values = [one if e == none else self._named[e] for e in expressions]
        return torch.stack([x.expand(planes.shape[1:]) for x in values])

    def _before_softmax(self, logits: Float[Tensor, "P T C B"]) -> Float[Tensor, "P T C B"]:
        """scale · z / temperature + shift: before the softmax, which sees all classes."""
        if not self._moves_logits:
            return logits
        temperatures = [f.temperature for f in self.formulas]
        if any(t != 1 for t in temperatures):
            logits = logits / logits.new_tensor(temperatures)[:, None, None, None]
        if self._scales is not None:
            logits = logits * self._scales
        return logits if self._shifts is None else logits + self._shifts

    def _factor(self, logits: Float[Tensor, "P T B C"]) -> Tensor | float:
        """What the gradient of a sum over the classes, but for its sign, is multiplied by."""
        # Signs, batch, temperature and reduction are one factor, applied once at the end.
        B, C = logits.shape[-2:]
        factors = [
            program.sign / (B * f.temperature * (C if f.reduction == "mean" else 1))
            for program, f in zip(self._programs, self.formulas, strict=True)
        ]
        return (
            factors[0]
            if len(set(factors)) == 1
            else logits.new_tensor(factors)[:, None, None, None]
        )


def _ready(program: Program, known: dict[Expression, Tensor]) -> Ready:
    """A program with its inputs in place, but for the outputs."""
    return [known.get(e) for e in program.inputs], *_calls_of(program)


def _calls_of(program: Program) -> Calls:
    """Where which of the `OUTPUTS` belongs among a program's inputs, its steps, and where its
    result is.
    """
    free = [(i, OUTPUTS.index(e)) for i, e in enumerate(program.inputs) if e in OUTPUTS]
    return free, [(run, _getter(args)) for run, args in program.steps], program.out


def _getter(args: tuple[int, ...]) -> Any:
    # itemgetter of one index gives the value itself, not a tuple; of a slice it gives a list.
    return itemgetter(*args) if len(args) > 1 else itemgetter(slice(args[0], args[0] + 1))


def _run(ready: Ready, outputs: Sequence[Tensor]) -> Tensor:
    fixed, free, steps, out = ready
    values: list[Any] = list(fixed)
    for i, output in free:
        values[i] = outputs[output]
    for run, args in steps:
        values.append(run(*args(values)))
    result: Tensor = values[out]
    return result
