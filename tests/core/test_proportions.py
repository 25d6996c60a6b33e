"""As how many independent images the images of a share count, and whether its interval covers."""

import pytest
import torch

from metaloss.core.proportions import effective_size, intraclass_correlation, wilson
from metaloss.core.streams import Stream


def test_images_of_their_own_count_by_their_weights_alone():
    values, weights = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 2.0])
    assert effective_size(values, weights) == pytest.approx(16 / 6)
    assert effective_size(values[:0], weights[:0]) == 0
    assert effective_size(values[:0], weights[:0], torch.zeros(0).long()) == 0


def test_the_correlation_within_groups_is_that_of_an_analysis_of_variance():
    values = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    groups = torch.tensor([7, 7, 3, 3, 3, 3])
    # Means 1 and 1/4 about 1/2: between 2 · (1/2)² + 4 · (1/4)² over 1, within 3/4 over 4.
    between, within, usual = 0.75, 0.75 / 4, 6 - 20 / 6
    expected = (between - within) / (between + (usual - 1) * within)
    assert intraclass_correlation(values, groups) == pytest.approx(expected)
    assert intraclass_correlation(torch.ones(6), groups) == 1, "what does not vary tells nothing"
    mixed = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    assert intraclass_correlation(mixed, groups) == 0, "groups are as alike as chance has it"


def test_groups_count_between_one_image_each_and_all_their_images():
    groups = torch.arange(60) // 6
    weights = torch.ones(60)
    alike = (groups % 2).double()
    assert effective_size(alike, weights, groups) == pytest.approx(10)
    mixed = torch.arange(60).double() % 2
    # ρ = 0: all 60, less what a t of 9 degrees of freedom is wider (2.262) than 1.96.
    wider = 2.262157 / 1.959964
    assert effective_size(mixed, weights, groups) == pytest.approx(60 / wider**2, rel=1e-5)
    assert effective_size(mixed, weights, torch.zeros(60).long()) == 1, "one group shows nothing"
    each = torch.arange(60)
    assert effective_size(mixed, weights, each) == pytest.approx(60)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_the_interval_of_groups_covers_and_that_of_images_does_not_where_they_are_alike(
    correlation,
):
    """Of 12 patients with 1 to 11 images each; a patient's images are recognised alike."""
    repeats, covered, by_images = 400, 0, 0
    for repeat in range(repeats):
        key = Stream(5).at(f"{correlation:g}", repeat)
        groups = torch.arange(12).repeat_interleave(1 + key.at("sizes").integers(11, 12))
        own, common = key.at("own").uniform(len(groups)), key.at("common").uniform(12)[groups]
        alike = key.at("alike").uniform(len(groups)) < correlation**0.5
        right = (torch.where(alike, common, own) < 0.7).double()
        share = float(right.mean())
        size = effective_size(right, torch.ones(len(right)), groups)
        low, high = wilson(share, size)
        covered += low <= 0.7 <= high
        low, high = wilson(share, len(right))
        by_images += low <= 0.7 <= high
    assert covered >= 0.92 * repeats
    assert (by_images >= 0.92 * repeats) == (correlation == 0)
