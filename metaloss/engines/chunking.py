"""How trainings are cut into chunks that fit the memory, and the form of the classifier in them."""

import math
from dataclasses import dataclass

from metaloss import kernels
from metaloss.data.sizes import mean_val, most_images
from metaloss.inner.classifiers import Classifier, _compiled_cnn
from metaloss.inner.classifiers._compiled import CompiledMlp, fits
from metaloss.inner.classifiers._compiled_cnn import CompiledCnn
from metaloss.inner.classifiers._compiled_linear import CompiledLinear
from metaloss.inner.classifiers.cnn import Cnn
from metaloss.inner.classifiers.linear import Linear, SharedLinear
from metaloss.inner.classifiers.mlp import Mlp
from metaloss.inner.classifiers.shared import SharedMlp
from metaloss.inner.loop import Inner
from metaloss.tasks.episodic import Episodes

LOSS_FLOATS = 64  # numbers that a loss may keep per logit
COMPILED_LOSS_FLOATS = 16  # the same beside compiled passes, where most losses are compiled too
IDLE_LOSS_FLOATS = 16  # the same of images that a step leaves out: what depends on labels alone


@dataclass(frozen=True)
class ChunkPlan:
    """How trainings are cut into chunks.

    It follows from the settings and the memory budget alone, never from a timing, so that a result
    does not depend on the machine.

    Attributes:
        candidates: how many train together.
        tasks: how many of the tasks.
        images: validation images looked at at once.
        shared: whether the first layer is kept in the span of the training images.
    """

    candidates: int
    tasks: int
    images: int
    shared: bool


def plan_chunks(
    episodes: Episodes,
    inner: Inner,
    candidates: int,
    tasks: int,
    memory: int,
    parts: int = 1,
    tasks_per_call: int = 1,
    train_images: int | None = None,
) -> ChunkPlan:
    """The chunks for `candidates` × `tasks` trainings of a family.

    Args:
        episodes: the family with its images.
        inner: the optimiser's settings.
        candidates: how many losses there are.
        tasks: how many tasks.
        memory: bytes that a chunk may touch.
        parts: the least number of chunks, where there are as many tasks or candidates.
        tasks_per_call: how many tasks the losses ask for in one call.
        train_images: rows of a task's training images, every version counted; the most that one of
            the family has where None.
    """
    family = episodes.family
    image = episodes.images.shape
    # Bytes: float32 throughout.
    per_image = 4 * episodes.model.floats(image, family.ways)
    train_images = train_images or _most_rows(episodes)
    step = train_images // episodes.shape.choices
    form = sharing_saves_work(episodes, inner, candidates, train_images)
    compiled = _compiled(episodes, form)
    kept_by_loss = COMPILED_LOSS_FLOATS if compiled else LOSS_FLOATS
    training = step * (3 * per_image + 4 * kept_by_loss * family.ways)
    if step < train_images:
        # In the span of the images every version has coefficients, a gradient and its momentum.
        span = 3 * 4 * _first_units(episodes.model, family.ways)
        training += (train_images - step) * (span + 4 * IDLE_LOSS_FLOATS * family.ways)
    n = max(1, memory // training)
    # What a task's candidates share stays in the cache: no more tasks than losses ask for, unless
    # candidates are few.
    columns = min(tasks, tasks_per_call, max(1, n // 2))
    rows = -(-candidates // -(-candidates // (n // columns)))  # chunks as even as can be
    columns = min(tasks, n // rows)
    if rows == candidates and columns == tasks:
        rows, columns = (
            (rows, -(-tasks // parts)) if tasks >= parts else (-(-candidates // parts), columns)
        )
    # A compiled pass keeps the logits alone.
    kept = 4 * family.ways if compiled else per_image
    # Products of so many images as a processor takes at once, or a multiple, leave no rest.
    images = max(32, memory // (2 * rows * columns * kept) // kernels.VECTOR * kernels.VECTOR)
    return ChunkPlan(rows, columns, min(images, family.ways * mean_val(family.val)), form)


def sharing_saves_work(
    episodes: Episodes, inner: Inner, candidates: int, train_images: int | None = None
) -> bool:
    """Whether keeping the first layer in the span of the training images saves operations.

    A step of that layer costs two products with D features, or one with the B images of the task;
    validation one product with D features or with B images. Products of all images with the start
    and with the B images come once for all candidates. Only where it is exact: not for Adam.

    Args:
        episodes: the family with its images.
        inner: the optimiser's settings.
        candidates: how many losses there are.
        train_images: rows of a task's training images, every version counted; the most that one of
            the family has where None.
    """
    family = episodes.family
    units = _first_units(episodes.model, family.ways)
    if not units or not inner.linear:
        return False
    features = math.prod(episodes.images.shape)
    train = train_images or _most_rows(episodes)
    step = train // episodes.shape.choices
    val = family.ways * mean_val(family.val)
    seen = inner.steps * min(inner.batch or step, step)
    once = (train + val) * features * (units + train) / candidates
    return once + units * train * (seen + val) < units * features * (2 * seen + val)


def model_of(episodes: Episodes, plan: ChunkPlan) -> Classifier:
    """The family's classifier in the form that the plan chose."""
    plain = episodes.model
    compiled = _compiled(episodes, plan.shared)
    if isinstance(plain, Cnn) and compiled:
        return CompiledCnn(plain.filters, plain.kernel, plain.init_scale)
    if not plan.shared:
        return plain
    if isinstance(plain, Mlp):
        form = CompiledMlp if compiled else SharedMlp
        return form(hidden=plain.hidden, init_scale=plain.init_scale)
    assert isinstance(plain, Linear)
    linear = CompiledLinear if compiled else SharedLinear
    return linear(init_scale=plain.init_scale)


def _most_rows(episodes: Episodes) -> int:
    return most_images(episodes.shape) * episodes.shape.copies


def _first_units(model: Classifier, ways: int) -> int:
    """Outputs of a first layer that has a form in the span of the images; 0 where it has none."""
    if type(model) is Mlp and model.hidden:
        return model.hidden[0]
    return ways if type(model) is Linear else 0


def _compiled(episodes: Episodes, shared: bool) -> bool:
    """Whether the classifier in this form has compiled passes."""
    model = episodes.model
    device = episodes.images.device
    if isinstance(model, Cnn):
        return _compiled_cnn.fits(model.filters, device)
    if not shared:
        return False
    # A linear layer has no hidden ones, which would have to fit.
    return fits(model.hidden if isinstance(model, Mlp) else (), device)
