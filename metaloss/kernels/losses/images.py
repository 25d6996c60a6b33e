"""Blocks of images as losses' gradients and their adjoints read and store them."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np

from metaloss.kernels.jit import compiled


@compiled
def load(logp, y, logits, target, shift, at):
    """Fills logits and labels of a block of images, both [C lanes]; what the block lacks is 0.

    Args:
        logp: filled with the logits.
        y: filled with the labels.
        logits: of all images, [C B].
        target: of all images, [C B].
        shift: of the logits, [C].
        at: the block's first image.
    """
    logp[:] = 0
    y[:] = 0
    for c in range(len(logp)):
        for b in range(min(logp.shape[1], logits.shape[1] - at)):
            logp[c, b] = logits[c, at + b] + shift[c]
            y[c, b] = target[c, at + b]


@compiled
def load_change(v, logits, change, importance, at):
    """Fills the change of a block's logits, times what each image counts, and zeroes the logits of
    images that count 0; what the block lacks is 0.

    Args:
        v: filled, [C lanes].
        logits: of the block, [C lanes].
        change: of all logits, [C B].
        importance: of all images, [B].
        at: the block's first image.
    """
    v[:] = 0
    for c in range(len(v)):
        for b in range(min(v.shape[1], len(importance) - at)):
            # Selected: what is not finite times 0 would be NaN.
            counted = importance[at + b] != 0
            v[c, b] = change[c, at + b] * importance[at + b] if counted else 0
            logits[c, b] = logits[c, b] if counted else 0


@compiled
def away(result, v, p):
    """Fills Σ p v - v [C lanes], the sum over an image's classes."""
    mean = np.zeros(v.shape[1], np.float32)
    for c in range(len(v)):
        for b in range(v.shape[1]):
            mean[b] += p[c, b] * v[c, b]
    for c in range(len(v)):
        for b in range(v.shape[1]):
            result[c, b] = mean[b] - v[c, b]


@compiled
def store(gradient, by_logits, slope, by_logp, p, importance, at):
    """Stores a block of images: the gradient and the derivatives by the logits.

    Args:
        gradient: of all images, [C B].
        by_logits: likewise.
        slope: the gradient before images are weighed, [C lanes].
        by_logp: the derivatives by log p, [C lanes].
        p: probabilities, [C lanes].
        importance: what each image counts, [B].
        at: the block's first image.
    """
    total = np.zeros(p.shape[1], np.float32)
    for c in range(len(p)):
        for b in range(p.shape[1]):
            total[b] += by_logp[c, b]
    for c in range(len(p)):
        for b in range(min(p.shape[1], len(importance) - at)):
            gradient[c, at + b] = slope[c, b] * importance[at + b]
            by_logits[c, at + b] = by_logp[c, b] - p[c, b] * total[b]
