"""Feeds the parser and the loader of loss.json tampered inputs for as long as one wants.

    python scripts/fuzz.py --minutes 60 [--seed 1]

Every input must be read or refused with a plain message; nothing may be run, imported or opened but
the loss's own files. The first that does otherwise is printed, and the exit code is 1.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import fuzzing

ROUND = 2_000  # texts; a tenth as many files


def rounds(rng: random.Random, folder: Path, seconds: float) -> tuple[int, int]:
    """How many inputs there were, and how many of them were losses."""
    fuzzing.warm(folder)
    inputs = 0
    read = 0
    until = time.monotonic() + seconds
    while not inputs or time.monotonic() < until:
        for text in fuzzing.texts(rng, ROUND):
            read += _told(fuzzing.quietly_read_text, text)
        for data in fuzzing.files(rng, ROUND // 10):
            read += _told(fuzzing.read_file, folder, data)
        inputs += ROUND + ROUND // 10
    return inputs, read


def _told(read: Callable[..., bool], *given: Any) -> bool:
    try:
        return read(*given)
    except BaseException:
        print(f"input: {given[-1]!a}", file=sys.stderr)
        raise


def main() -> None:
    """Read the arguments and print how many inputs there were."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument(
        "--seed", type=int, default=None, help="a new one each time where not given"
    )
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        inputs, read = rounds(random.Random(seed), Path(folder), 60 * arguments.minutes)
    print(
        f"{inputs:,} inputs, {read:,} of them losses; nothing was run, imported or opened but the "
        "loss's own files"
    )


if __name__ == "__main__":
    main()
