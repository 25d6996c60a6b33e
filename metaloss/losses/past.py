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
