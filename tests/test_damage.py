"""A flipped bit in a file that is read back is noticed, whatever the folder; `scripts/flips.py` flips many more."""

import random
from collections import Counter

import damage
import pytest

FLIPS = 4  # in each file


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        damage.surroundings(patch, folder)
        yield list(damage.cases(folder, patch))


def test_a_flipped_bit_is_refused_or_said_wherever_it_is(cases):
    draw, outcomes = random.Random(0), Counter()
    for case in cases:
        for path in case.paths():
            for _ in range(FLIPS):
                outcome = damage.flipped(case, path, draw)
                assert outcome in ("refused", "said"), (case.name, path, outcome)
                outcomes[outcome] += 1
    assert min(outcomes.values()) > 0, "states have spares, other files have none"


def test_every_kind_of_folder_is_read(cases):
    assert len({case.name for case in cases}) == len(cases) and all(case.paths() for case in cases)
