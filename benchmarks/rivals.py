"""The same trainings as one would do them without Metaloss: a plain PyTorch loop, and `torch.func`.

Every rival has its images gathered and its initial weights drawn once per task, as ours; the losses
are ordinary functions of one image batch's logits. `rivals_jax.py` holds JAX's.
"""

import math
from collections.abc import Iterator

import torch
from cases import FILTERS, KERNEL, Case, Problem, Weights
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional as F


def mln(
    w: Weights, logits: Float[Tensor, "B C"], label: Int[Tensor, " B"], y: Float[Tensor, "B C"]
) -> Tensor:
    """The Meta-Loss Network with its default architecture, at home with C classes.

    The value of one batch.
    """
    x = torch.stack([logits.softmax(-1), logits.log_softmax(-1)], -1)  # [B C 2]
    seen = torch.tanh(x @ w["w_pred"].T + w["b_pred"].T)  # [B C F]
    true = torch.tanh(y[..., None] @ w["w_label"].T + w["b_label"].T)  # [B C F]
    mixed = seen @ w["w_mix_pred"].T + true @ w["w_mix_label"].T + w["b_mix"].T  # [B C H]
    context = seen.mean(1) @ w["w_mean"].T + (seen * y[..., None]).sum(1) @ w["w_true"].T  # [B H]
    terms = torch.tanh(mixed + context[:, None]) @ w["w_out"].T  # [B C 1]
    return terms.sum((1, 2)).mean()


def ce(
    w: Weights, logits: Float[Tensor, "B C"], label: Int[Tensor, " B"], y: Float[Tensor, "B C"]
) -> Tensor:
    """Cross-entropy; the candidates' smoothing is 0, and leaving it out is faster."""
    return F.cross_entropy(logits, label)


LOSSES = {"mln": mln, "ce": ce}


# --- a plain loop ---


def sequential(problem: Problem, chunk: int = 1) -> Float[Tensor, "P T"]:
    """The accuracies by a loop over tasks and candidates, with torch.nn and torch.optim.

    `chunk` means nothing here.
    """
    case = problem.case
    tasks = problem.tasks
    loss = LOSSES[problem.case.loss]
    model = module(problem)
    right = torch.empty(case.candidates, case.tasks)
    for t in range(case.tasks):
        task = tasks[t : t + 1]
        start = torch_layout(problem, problem.start(t))
        (x,), (val,) = task.train.x(), task.val.x()
        (label,), (y,) = task.train.label, task.train.target
        for p, weights in enumerate(problem.networks):
            model.load_state_dict(start)
            step = optimiser(case, model)
            for rows in minibatches(case):
                step.zero_grad()
                loss(weights, model(x[rows]), label[rows], y[rows]).backward()
                step.step()
            with torch.no_grad():
                right[p, t] = (model(val).argmax(1) == task.val.label[0]).float().mean()
    return right


def optimiser(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    """The case's optimiser of torch.optim."""
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    settings = {k: v for k, v in case.optimiser.items() if k not in ("optimiser", "batch")}
    return kinds[case.optimiser.get("optimiser", "sgd")](model.parameters(), lr=case.lr, **settings)


def minibatches(case: Case) -> Iterator[slice | Tensor]:
    """What each step trains on: all images, or a fresh permutation's next ones."""
    batch = case.optimiser.get("batch")
    images = case.ways * case.shots
    per_epoch = images // batch if batch else 1
    for step in range(case.steps):
        if not batch:
            yield slice(None)
            continue
        if step % per_epoch == 0:
            order = torch.randperm(images)
        yield order[step % per_epoch * batch :][:batch]


def module(problem: Problem) -> nn.Sequential:
    """The classifier of torch.nn."""
    shapes = problem.case.shapes(math.prod(problem.episodes.images.shape))
    layers: list[nn.Module] = []
    if problem.case.classifier != "cnn":
        for a, b in shapes.values():
            layers += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(nn.Flatten(), *layers[:-1])
    for i, filters in enumerate(FILTERS):
        convolution = nn.Conv2d(
            shapes[f"{i}"][0] // KERNEL**2, filters, KERNEL, padding=KERNEL // 2
        )
        # A quarter of the work for the ReLU.
        layers += [convolution, nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(*shapes["_head"]))


def torch_layout(problem: Problem, start: Weights) -> Weights:
    """Initial weights under the names and in the shapes of `module`'s state."""
    values = list(functional_layout(problem, start).values())
    weights = [w if w.ndim == 4 else w.T for w in values[::2]]
    state = [x for w, b in zip(weights, values[1::2], strict=True) for x in (w, b.flatten())]
    return dict(zip(module(problem).state_dict(), state, strict=True))


# --- torch.func ---


def vmapped(problem: Problem, chunk: int = 16) -> Float[Tensor, "P T"]:
    """The accuracies by `vmap` over `chunk` trainings at once, candidates first."""
    case = problem.case
    rows = min(case.candidates, chunk)
    columns = max(1, min(case.tasks, chunk // rows))
    right = torch.empty(case.candidates, case.tasks)
    for t in range(0, case.tasks, columns):
        task = problem.tasks[t : t + columns]
        starts = [
            functional_layout(problem, problem.start(i))
            for i in range(t, min(t + columns, case.tasks))
        ]
        start = {k: torch.stack([s[k] for s in starts]) for k in starts[0]}
        data = (task.train.x(), task.train.label, task.train.target)
        val = task.val.x()
        for p in range(0, case.candidates, rows):
            some = problem.networks[p : p + rows]
            weights = {k: torch.stack([w[k] for w in some]) for k in some[0]}
            params = train(problem, weights, start, len(some), data)
            right[p : p + rows, t : t + columns] = validate(problem, params, val, task.val.label)
    return right


def train(
    problem: Problem, weights: Weights, start: Weights, candidates: int, data: tuple[Tensor, ...]
) -> Weights:
    """The parameters [p, t, ...] after all steps.

    Each is a step of `grad` under `vmap` over candidates and tasks.
    """
    case = problem.case
    model = MODELS[problem.case.classifier]
    loss = LOSSES[problem.case.loss]
    params = {k: x.expand(candidates, *x.shape).clone() for k, x in start.items()}

    def value(params: Weights, w: Weights, x: Tensor, label: Tensor, y: Tensor) -> Tensor:
        return loss(w, model(params, x), label, y)

    per_task = vmap(grad(value), in_dims=(0, None, 0, 0, 0))
    gradient = vmap(per_task, in_dims=(0, 0, None, None, None))
    for _ in range(case.steps):
        grads = gradient(params, weights, *data)
        for name, x in params.items():
            x.sub_(grads[name], alpha=case.lr)
    return params


def validate(problem: Problem, params: Weights, x: Tensor, label: Tensor) -> Float[Tensor, "p t"]:
    """Share of right answers on every task, its candidates together."""
    model = vmap(MODELS[problem.case.classifier], in_dims=(0, None))
    columns = []
    for t in range(len(label)):
        logits = model({k: v[:, t] for k, v in params.items()}, x[t])
        columns.append((logits.argmax(-1) == label[t]).float().mean(-1))
    return torch.stack(columns, 1)


def mlp(params: Weights, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N C"]:
    """Logits of one perceptron."""
    z = x.flatten(1)
    layers = len(params) // 2
    for i in range(layers):
        z = z @ params[f"w{i}"] + params[f"b{i}"]
        z = z.relu() if i + 1 < layers else z
    return z


def cnn(params: Weights, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N C"]:
    """Logits of one convolutional network."""
    for i in range(len(FILTERS)):
        z = F.conv2d(x, params[f"w{i}"], params[f"b{i}"].flatten(), padding=KERNEL // 2)
        x = F.max_pool2d(z, 2, ceil_mode=True).relu()
    return x.flatten(1) @ params["w_head"] + params["b_head"]


MODELS = {"mlp": mlp, "linear": mlp, "cnn": cnn}


def functional_layout(problem: Problem, start: Weights) -> Weights:
    """Initial weights as `mlp` and `cnn` take them.

    Kernels [filters K h w], matrices inputs × outputs.
    """
    if problem.case.classifier != "cnn":
        return start
    kernels = {f"w{i}" for i in range(len(FILTERS))}
    return {
        k: w.T.reshape(w.shape[1], -1, KERNEL, KERNEL).contiguous() if k in kernels else w
        for k, w in start.items()
    }


RIVALS = {"sequential": sequential, "vmap": vmapped}
