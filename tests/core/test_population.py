"""A population is rows of fields.

Taken, joined and seen as vectors without knowing what they mean.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from metaloss.core.population import Population, Vectors


@dataclass(frozen=True)
class Trees(Population):
    """Two fields of different ranks and types."""

    tokens: Tensor
    size: Tensor


def trees():
    return Trees(torch.arange(12).reshape(4, 3), torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_a_population_is_as_long_as_its_fields():
    assert len(trees()) == 4
    assert len(Vectors(torch.zeros(0, 3))) == 0


@pytest.mark.parametrize(
    "rows",
    [torch.tensor([3, 0, 0]), torch.tensor([True, False, False, True]), slice(1, 3), slice(0, 0)],
    ids=["indices", "mask", "slice", "nothing"],
)
def test_rows_are_taken_from_every_field(rows):
    taken = trees()[rows]
    assert isinstance(taken, Trees)
    assert torch.equal(taken.tokens, trees().tokens[rows])
    assert torch.equal(taken.size, trees().size[rows])


def test_joining_keeps_the_order():
    joined = trees()[:1].cat(trees()[2:])
    assert joined.size.tolist() == [1, 3, 4]
    assert joined.tokens.tolist() == [[0, 1, 2], [6, 7, 8], [9, 10, 11]]


def test_taking_and_joining_leave_the_population_as_it_was():
    old = trees()
    old.cat(old)[torch.tensor([0])]
    assert torch.equal(old.tokens, trees().tokens)


def test_a_population_moves_between_devices_field_by_field():
    moved = trees().to("meta")
    assert moved.tokens.device.type == moved.size.device.type == "meta"
    assert moved.tokens.shape == (4, 3)


def test_a_representation_without_vectors_says_so():
    with pytest.raises(
        ValueError, match="Trees is not made of real vectors; use a strategy that needs none"
    ):
        trees().vectors()
    with pytest.raises(ValueError, match="Trees cannot be made from real vectors"):
        trees().from_vectors(torch.zeros(1, 2))


def test_without_vectors_there_is_one_step_size_and_the_first_row_stands_for_all():
    assert trees().genes == 1
    assert torch.equal(trees().mean_candidate().tokens, trees().tokens[:1])


def test_vectors_have_a_step_size_for_every_number_and_a_mean():
    population = Vectors(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 7.0]]))
    assert population.genes == 3
    assert population.mean_candidate().values.tolist() == [[2, 2, 5]]


def test_vectors_come_back_as_they_went_in():
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    population = Vectors(torch.zeros(1, 2)).from_vectors(values)
    assert torch.equal(population.vectors(), values)
    assert len(population) == 2


def test_candidates_are_of_size_one_unless_a_representation_says_otherwise():
    assert trees().sizes.tolist() == [1, 1, 1, 1]
    assert Vectors(torch.zeros(0, 3)).sizes.tolist() == []
