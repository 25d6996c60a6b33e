"""Flips single bits in the files that metaloss reads back, of folders of every kind, and reads
them.

    python scripts/flips.py --flips 10000 [--seed 1]

Each must be refused in one line that names the file, with nothing changed; of a run's newest state
and history the one before may be gone on from, if that is said. Whatever else happens is printed,
and the exit code is 1.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import damage


def main() -> int:
    """Read the arguments, flip, and print how many of what kind there were."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        damage.surroundings(patch, Path(name))
        every = [(case, path) for case in damage.cases(Path(name), patch) for path in case.paths()]
        print(
            f"seed {arguments.seed}: {len(every)} files of {len({case.name for case, _ in every})} "
            "kinds of folders"
        )
        for number, (case, path) in enumerate(every):
            count = arguments.flips // len(every) + (number < arguments.flips % len(every))
            found = Counter(damage.flipped(case, path, draw) for _ in range(count))
            wrong += sum(n for outcome, n in found.items() if outcome not in ("refused", "said"))
            print(f"{case.name:28} {path.relative_to(case.folder)!s:50} {dict(found)}", flush=True)
        patch.undo()
    print(f"{arguments.flips} flips, {wrong} of them silent, unnamed, or with a traceback")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
