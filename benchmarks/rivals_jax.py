"""The same trainings in JAX.

`vmap` over candidates and tasks and `jit` of the whole training, validation included.
"""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import torch
from cases import Case, Problem
from jax import Array
from jaxtyping import Float
from torch import Tensor

Params = dict[str, Array]


def mln(w: Params, logits: Array, y: Array) -> Array:
    """The Meta-Loss Network with its default architecture, at home with C classes.

    The value of one batch.
    """
    logp = jax.nn.log_softmax(logits)
    x = jnp.stack([jnp.exp(logp), logp], -1)  # [B C 2]
    seen = jnp.tanh(x @ w["w_pred"].T + w["b_pred"].T)  # [B C F]
    true = jnp.tanh(y[..., None] @ w["w_label"].T + w["b_label"].T)  # [B C F]
    mixed = seen @ w["w_mix_pred"].T + true @ w["w_mix_label"].T + w["b_mix"].T  # [B C H]
    context = seen.mean(1) @ w["w_mean"].T + (seen * y[..., None]).sum(1) @ w["w_true"].T  # [B H]
    terms = jnp.tanh(mixed + context[:, None]) @ w["w_out"].T  # [B C 1]
    return terms.sum((1, 2)).mean()


def ce(w: Params, logits: Array, y: Array) -> Array:
    """Cross-entropy with label smoothing.

    Were it the same for all, XLA would train one candidate and copy it.
    """
    smooth = (1 - w["smoothing"]) * y + w["smoothing"] / y.shape[-1]
    return -(smooth * jax.nn.log_softmax(logits)).sum(-1).mean()


LOSSES = {"mln": mln, "ce": ce}


def mlp(params: Params, x: Array) -> Array:
    """Logits [N C] of one perceptron for images [N D]."""
    layers = len(params) // 2
    for i in range(layers):
        x = x @ params[f"w{i}"] + params[f"b{i}"]
        x = jax.nn.relu(x) if i + 1 < layers else x
    return x


@lru_cache(maxsize=16)
def compiled(loss: str, steps: int, lr: float) -> Any:
    """A jitted function from losses, starts and tasks to accuracies [p t]."""

    def training(w: Params, start: Params, x: Array, y: Array, val: Array, label: Array) -> Array:
        gradient = jax.grad(lambda params: LOSSES[loss](w, mlp(params, x), y))

        def step(_: Any, params: Params) -> Params:
            return jax.tree.map(lambda a, g: a - lr * g, params, gradient(params))

        params = jax.lax.fori_loop(0, steps, step, start)
        return (mlp(params, val).argmax(-1) == label).mean()

    per_task = jax.vmap(training, in_axes=(None, 0, 0, 0, 0, 0))
    return jax.jit(jax.vmap(per_task, in_axes=(0, None, None, None, None, None)))


def vmapped(problem: Problem, chunk: int = 16) -> Float[Tensor, "P T"]:
    """The accuracies, `chunk` trainings at once, candidates first.

    Compiled at the first call of a case.
    """
    case = problem.case
    rows = min(case.candidates, chunk)
    columns = max(1, min(case.tasks, chunk // rows))
    function = compiled(case.loss, case.steps, case.lr)
    blocks = []
    for t in range(0, case.tasks, columns):
        fixed = tasks(problem, range(t, min(t + columns, case.tasks)))
        for p in range(0, case.candidates, rows):
            some = problem.networks[p : p + rows]
            weights = {k: array(torch.stack([w[k] for w in some])) for k in some[0]}
            blocks.append(function(weights, *fixed))
    # Calls return before they are done: only reading a result waits for it.
    done = [torch.tensor(block.tolist()) for block in blocks]
    per_column = -(-case.candidates // rows)
    return torch.cat(
        [torch.cat(done[i : i + per_column]) for i in range(0, len(done), per_column)], 1
    )


def tasks(problem: Problem, which: range) -> tuple[Any, ...]:
    """Starts, images and labels of some tasks."""
    starts = [problem.start(t) for t in which]
    some = problem.tasks[which.start : which.stop]
    start = {k: array(torch.stack([s[k] for s in starts])) for k in starts[0]}
    train, val = (array(split.x().flatten(2)) for split in (some.train, some.val))
    return start, train, array(some.train.target), val, array(some.val.label)


def array(x: Tensor) -> Array:
    """The same numbers for JAX."""
    return jnp.asarray(x.contiguous().numpy())


def supports(case: Case) -> bool:
    """Whether this rival knows the case: grouped convolutions and other optimisers are left out."""
    return case.classifier == "mlp" and not case.optimiser
