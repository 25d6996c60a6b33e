"""Writes a tiny data set in VOC's format: squares of two classes, each with a border of 255."""

import numpy as np
from PIL import Image

PALETTE = [value for c in range(256) for value in (7 * c % 256, 13 * c % 256, 29 * c % 256)]
COLOURS = np.array([[40, 40, 40], [200, 60, 60], [60, 60, 200]])


def write(root, train=10, val=4, names=("ground", "red", "blue")):
    """The folder, with images of 24x32 and 32x24 pixels."""
    draw = np.random.default_rng(0)
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    stems = [f"2007_{i:06d}" for i in range(train + val)]
    for i, stem in enumerate(stems):
        size = (24, 32) if i % 2 else (32, 24)
        mask = np.zeros(size, np.uint8)
        for label in (1, 2):
            y = draw.integers(2, size[0] - 10)
            x = draw.integers(2, size[1] - 10)
            mask[y - 1 : y + 9, x - 1 : x + 9] = 255
            mask[y : y + 8, x : x + 8] = label
        pixels = COLOURS[np.where(mask == 255, 0, mask)] + 20 * draw.standard_normal((*size, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            root / "JPEGImages" / f"{stem}.jpg"
        )
        save(root / "SegmentationClass" / f"{stem}.png", mask)
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("\n".join(stems[:train]) + "\n")
    (lists / "val.txt").write_text("\n".join(stems[train:]) + "\n")
    if names:
        (root / "classes.txt").write_text("\n".join(names) + "\n")
    return root


def save(path, mask):
    """A mask as a PNG with a palette, as VOC has them."""
    image = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
    image.putpalette(PALETTE)
    image.save(path)
