"""`CompiledMlp` with a compiled way back through the steps of its training, for a CPU."""

from typing import Any

import torch
from torch import Tensor

from metaloss.inner.classifiers import Classifier, LogitGradient, Params, SlopeAdjoint, dense
from metaloss.inner.classifiers._compiled import CompiledMlp, array
from metaloss.inner.classifiers.shared import rows_of


def with_way_back(model: Classifier) -> Classifier:
    """The same classifier, in the form through whose training gradients go fastest."""
    if type(model) is CompiledMlp:
        return ReversibleMlp(hidden=model.hidden, init_scale=model.init_scale)
    return model


class ReversibleMlp(CompiledMlp):
    """The same classifier, with compiled passes for gradients that go through its training."""

    def adjoint(self, params: Params, inputs: Any, slope: LogitGradient) -> Params:
        """The derivatives, by the parameters, of values with these derivatives by the logits."""
        gradients = dict(self.gradients(params, inputs, slope))
        delta = dense(gradients.pop("a"))
        later = {name: dense(x) for name, x in gradients.items()}
        return {**later, **self.first_adjoint(delta, inputs)}

    def gradients_adjoint(
        self, params: Params, direction: Params, inputs: Any, slope_adjoint: SlopeAdjoint
    ) -> Params:
        """The derivatives, by the parameters, of the product of `gradients` with a direction."""
        from metaloss.kernels.classifiers import perceptron, perceptron_adjoint

        # --- forward: the layers, and their change along the direction ---
        kernel_args = self._kernel_args(params, inputs)
        _, kernel, *_, weights, _ = kernel_args
        logits = self._logits(params, inputs)
        shape = (*logits.shape[:2], len(inputs))
        hidden = [logits.new_empty(*shape, width) for width in self.hidden]
        perceptron.forward(*kernel_args, _arrays(hidden), array(logits))
        first = rows_of(direction["a"], inputs).clone()
        changes = [first, *map(torch.empty_like, hidden[1:])]
        moved = tuple(_arrays(self._later(direction, kind)) for kind in "wb")
        change = torch.empty_like(logits)
        perceptron_adjoint.change_layers(
            _arrays(hidden), weights, *moved, _arrays(changes), array(change)
        )

        # --- backward: the adjoints of the logits and of their change, then of the parameters ---
        of_change, of_value = slope_adjoint(logits.mT, change.mT)
        later = [[torch.empty_like(x) for x in self._later(params, kind)] for kind in "wb"]
        by_first = torch.empty_like(params["a"])
        perceptron_adjoint.adjoint_of_layers(
            array(of_value.mT.contiguous()),
            array(of_change.mT.contiguous()),
            kernel,
            weights,
            moved[0],
            _arrays(hidden),
            _arrays(changes),
            *map(_arrays, later),
            array(by_first),
        )
        adjoint = {
            f"{kind}{i}": x
            for kind, parts in zip("wb", later, strict=True)
            for i, x in enumerate(parts, 1)
        }
        return {**adjoint, "a": by_first}


def _arrays(tensors: list[Tensor]) -> tuple[Any, ...]:
    """The tensors' memories, candidates and tasks along one axis."""
    return tuple(map(array, tensors))
