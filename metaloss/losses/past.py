"""What a loss sees of an image's own past: `past`, a running mean of what was predicted for it.

As ELR keeps one (Liu 2020). It needs torch alone: `metaloss export` writes this file's text into
the modules for others.
"""

import torch

KEPT = 0.9  # of the mean, at every step


def no_past(like: torch.Tensor, classes: int) -> torch.Tensor:
    """What `past` is where nothing was predicted yet: one number, 1 / classes."""
    return like.new_full((), 1 / classes)


def updated_past(past: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """The running mean after a prediction: 0.9 of it, and 0.1 of the prediction.

    Args:
        past: before; of the shape of `p`, or one that broadcasts to it.
        p: probabilities.
    """
    return KEPT * past + (1 - KEPT) * p


def check_sizes(**sizes: int) -> None:
    """Refuse a memory of nothing.

    Raises:
        ValueError: a size is no whole number of at least 1.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {size!r}")


def checked_index(
    index: torch.Tensor | None, logits: torch.Tensor, past: torch.Tensor
) -> torch.Tensor:
    """The numbers of a batch's images [N], if they fit its logits and what is remembered.

    Args:
        index: as it was given.
        logits: [N, C].
        past: of all images.

    Raises:
        ValueError: they do not fit.
    """
    wanted = f"index must be the numbers of the images, [{logits.shape[0]}] whole numbers"
    if index is None:
        raise ValueError(
            f"this loss remembers what it predicted for each image: {wanted}; or loss.eval(), "
            "where it is only measured"
        )
    whole = not index.is_floating_point() and index.dtype != torch.bool
    if index.shape != logits.shape[:1] or not whole or logits.ndim != 2:
        raise ValueError(
            f"{wanted}, and logits [N, C]; got {index.dtype} {tuple(index.shape)} for logits "
            f"{tuple(logits.shape)}"
        )
    images, classes = past.shape
    if classes != logits.shape[1]:
        raise ValueError(
            f"this loss remembers {classes} classes, and the logits have {logits.shape[1]}"
        )
    # Only on a CPU: a look at a GPU's numbers would wait for it.
    if index.device.type == "cpu" and not torch.compiler.is_compiling():
        wrong = index[(index < 0) | (index >= images)]
        if len(wrong):
            raise ValueError(
                f"this loss remembers {images} images, of the numbers 0 to {images - 1}, and index "
                f"has {wrong[0].item()}"
            )
    return index
