"""What CIFAR-10 and CIFAR-100 share (Krizhevsky 2009)."""

from pathlib import Path
from typing import Any

from metaloss.data.datasets import _torchvision


def source(name: str, kind: str, folder: str, *batches: str) -> _torchvision.TorchvisionSource:
    """A CIFAR source.

    Its files are pickles, and reading a pickle can run any code. So they are opened only where
    their MD5 is the published one.

    Args:
        name: our name.
        kind: name of the class in `torchvision.datasets`.
        folder: in which the files lie.
        batches: names of the files with images.
    """
    meta = "batches.meta" if kind == "CIFAR10" else "meta"

    def check(root: Path, cls: Any) -> None:
        sums = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]
        _torchvision.check_md5(root / folder, sums)

    return _torchvision.TorchvisionSource(
        name,
        kind,
        files=tuple(f"{folder}/{file}" for file in (*batches, meta)),
        splits=({"train": True}, {"train": False}),
        check=check,
        pixels=lambda data: data.permute(0, 3, 1, 2),  # [N H W K] -> [N K H W]
    )
