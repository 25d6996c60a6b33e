"""Make the subset of Fashion-MNIST that the package embeds, from the full set.

Usage: python scripts/make_fashionmnist_subset.py [FOLDER]

FOLDER holds the four IDX files (default: where Debian puts them). Per class the subset takes the
first 400 images of meta-training, the first 300 of meta-validation and the first 300 of meta-test.
Since 400 = 4/7 of 700, every image lies in the same pool in the subset as in the full set. A second
run writes the same bytes.
"""

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metaloss.data.datasets import Dataset, _idx, fashionmnist
from metaloss.data.pools import Pool, pools

LICENSE = """\
The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
INIT = '''"""Images of Fashion-MNIST (MIT licence, see LICENSE).

Made by scripts/make_fashionmnist_subset.py."""
'''


def main(source: Path, target: Path) -> None:
    """Write the subset of the full set in `source` into the folder `target`."""
    target.mkdir(parents=True, exist_ok=True)
    dataset = fashionmnist.SOURCE.read(source)
    pool = pools(dataset)
    write_split(
        target,
        "train",
        dataset,
        torch.cat([first(pool["train"], 400), first(pool["validation"], 300)]),
    )
    write_split(target, "test", dataset, first(pool["test"], 300))
    (target / "LICENSE").write_text(LICENSE)
    (target / "__init__.py").write_text(INIT)


def first(pool: Pool, n: int) -> Tensor:
    """The first n rows of every class."""
    return torch.cat([rows[:n] for rows in pool.rows])


def write_split(target: Path, split: str, dataset: Dataset, rows: Tensor) -> None:
    """Write images, labels and official indices of one split, in the order of the full set."""
    rows = rows.sort().values
    write(target / f"{split}-images.idx.gz", _idx.IMAGES, dataset.pixels[rows, 0].numpy())
    write(target / f"{split}-labels.idx.gz", _idx.LABELS, dataset.labels[rows].numpy().astype("u1"))
    write(target / f"{split}-index.idx.gz", _idx.INDEX, dataset.index[rows].numpy().astype(">i4"))


def write(path: Path, magic: int, array: np.ndarray) -> None:
    """Write an IDX file, gzipped without name and time so that equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
        file.write(np.array([magic, *array.shape], ">u4").tobytes() + array.tobytes())
    path.write_bytes(buffer.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else fashionmnist.SYSTEM, fashionmnist.SUBSET)
