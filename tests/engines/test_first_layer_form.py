"""The first layer has the form whose trainings take fewer operations, as torch counts them."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from metaloss import kernels
from metaloss.core.streams import Stream
from metaloss.engines.chunking import sharing_saves_work
from metaloss.evolution import evaluate
from metaloss.inner.classifiers.linear import Linear, SharedLinear
from metaloss.inner.classifiers.mlp import Mlp
from metaloss.inner.classifiers.shared import SharedMlp
from metaloss.inner.loop import Inner
from metaloss.losses.base import CrossEntropies

# By classifier and what is varied: values on both sides of where the choice changes, and the rest
# of the case. Images have 9 features, so a step of all B images is cheaper in their span up to
# B = 18; products of all images with the training images come on top, once for all candidates.
COURSES = {
    ("mlp", "shots"): ((1, 2, 3, 5, 6), {"steps": 100, "candidates": 50}),
    ("mlp", "batch"): ((1, 4, 8, 16), {"shots": 4, "steps": 20, "candidates": 4, "val": 8}),
    ("mlp", "steps"): ((1, 2, 4, 8, 30), {"shots": 2, "candidates": 3, "val": 2}),
    ("mlp", "val"): ((1, 2, 4, 10, 18), {"shots": 3, "steps": 20, "candidates": 1}),
    ("mlp", "candidates"): ((1, 2, 4, 20), {"shots": 3, "steps": 3, "val": 8}),
    ("linear", "shots"): ((1, 2, 3, 5, 6), {"steps": 100, "candidates": 50}),
    ("linear", "candidates"): ((1, 2, 4, 20, 100), {"shots": 2, "steps": 8, "val": 8}),
}
CLASSIFIERS = {
    "mlp": ({"kind": "mlp", "hidden": [8]}, Mlp(hidden=(8,)), SharedMlp(hidden=(8,))),
    "linear": ({"kind": "linear"}, Linear(), SharedLinear()),
}


def product_in_place(total, left, right, out_shape=None, **_):
    """What a product in the memory of a summand takes, which torch's counter leaves out."""
    count, rows, inner = left
    return 2 * count * rows * inner * right[-1]


IN_PLACE = {torch.ops.aten.baddbmm_: product_in_place}


def of_nine_pixels(dataset, times=6):
    """The data set with so many times its images, of 3x3 pixels."""
    n = times * len(dataset.labels)
    return replace(
        dataset,
        pixels=dataset.pixels[..., :3, :3].repeat(times, 1, 1, 1),
        labels=dataset.labels.repeat(times),
        index=torch.arange(n),
        test=torch.zeros(n, dtype=torch.bool),
    )


def operations(model, episodes, inner, candidates):
    """What torch counts for one task: made ready, trained on by all candidates, validated."""
    key = Stream(0)
    tasks = episodes.sample([key])
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        bound = model.bind(tasks, [key])
        losses = CrossEntropies.of(candidates)
        evaluate(losses, model, bound, tasks, inner=inner, keys=[key], block=len(bound.val))
    return counter.get_total_flops()


@pytest.mark.parametrize(("classifier", "varied"), COURSES, ids=["-".join(x) for x in COURSES])
def test_the_form_follows_the_operations_past_where_they_change_over(
    classifier, varied, open_tiny, dataset, monkeypatch
):
    from metaloss.tasks import episodic

    # Operations are counted in torch's own products.
    monkeypatch.setattr(kernels, "compiler", lambda: "none")
    small = of_nine_pixels(dataset)
    monkeypatch.setattr(episodic, "load", lambda name, options: small)
    values, fixed = COURSES[classifier, varied]
    table, plain, shared = CLASSIFIERS[classifier]
    chosen = []
    for value in values:
        case = {"shots": 2, "val": 1, "steps": 5, "batch": None, "candidates": 1, **fixed}
        case[varied] = value
        episodes = open_tiny(ways=4, shots=case["shots"], val=case["val"], classifier=table)
        inner = Inner(steps=case["steps"], batch=case["batch"])
        counts = [operations(x, episodes, inner, case["candidates"]) for x in (plain, shared)]
        chosen.append(sharing_saves_work(episodes, inner, case["candidates"]))
        assert chosen[-1] == (counts[1] < counts[0]), (case, counts)
    assert len(set(chosen)) == 2, chosen
