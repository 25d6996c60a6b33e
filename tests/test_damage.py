"""A flipped bit in a file that is read back is noticed, whatever the folder.

`scripts/flips.py` flips many more.
"""

import random

import damage
import pytest


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    with pytest.MonkeyPatch.context() as patch:
        damage.surroundings(patch, folder)
        yield list(damage.few(folder, patch))


def test_a_flipped_bit_is_refused_or_said_wherever_it_is(cases):
    draw = random.Random(0)
    outcomes = set()
    for case in cases:
        for path in case.paths():
            outcome = damage.flipped(case, path, draw)
            assert outcome in ("refused", "said"), (case.name, path, outcome)
            outcomes.add(outcome)
    assert outcomes == {"refused", "said"}, "states have spares, other files have none"
