"""Which images a search may see, as its folder keeps it."""

from collections.abc import Mapping
from typing import Any

import torch

from metaloss.storage.environment import digest_of_rows


def describe_images(dataset: str, origin: str, pools: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's name and origin, and of every pool the number and the digest of its images.

    `pools` holds the rows of every class, by the pool's name.
    """
    return {
        "dataset": dataset,
        "origin": origin,
        "pools": {
            name: {
                "images": sum(map(len, rows)),
                "sha256": digest_of_rows(torch.cat(tuple(rows))),
            }
            for name, rows in pools.items()
        },
    }
