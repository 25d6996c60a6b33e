"""Images as numbers, in one pass over their pixels."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.jit import compiled


@compiled
def normalise_rows(pixels, rows, mean, std, images):
    """Fills images with the normalised pixels of some rows.

    Args:
        pixels: whole numbers, [N D].
        rows: which of the N, [M].
        mean: is subtracted, a float32.
        std: what is divided by then, a float32.
        images: filled, [M D].
    """
    for i in range(len(rows)):
        source = pixels[rows[i]]
        image = images[i]
        for d in range(len(image)):
            image[d] = (np.float32(source[d]) - mean) / std
