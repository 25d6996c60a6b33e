"""What a loss sees of how many training images each class has.

It needs torch alone: `metaloss export` writes this file's text into the modules for others.
"""

import torch

LEAST = 0.5  # images that every class counts as at least: so the share of one without is defined
SHARES_OF = 1e6  # images that shares, which add up to 1, are taken to be of


def class_counts(prior: object) -> torch.Tensor | None:
    """Images of each class, of such numbers or of the classes' shares, which add up to 1.

    Raises:
        ValueError: it is no vector, or has a number that is negative or not finite, or only 0.
    """
    if prior is None:
        return None
    try:
        counts = torch.as_tensor(prior)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"prior must be one number per class, got {prior!r}") from error
    # A copy: a view of a larger tensor, whose owner may change it, cannot be exported.
    counts = counts.clone() if counts.is_floating_point() else counts.float()
    if counts.ndim != 1:
        raise ValueError(f"prior must be one number per class, got the shape {tuple(counts.shape)}")
    wrong = counts[~(counts.isfinite() & (counts >= 0))]
    if len(wrong):
        raise ValueError(f"prior must be finite and not negative, got {wrong[0].item()}")
    total = float(counts.sum())
    if not total:
        raise ValueError("prior must have an image of at least one class, got only 0")
    return counts * SHARES_OF if abs(total - 1) < 1e-3 else counts


def class_terminals(counts: torch.Tensor) -> dict[str, torch.Tensor]:
    """What expressions read of the images of each class [..., C].

    `prior`, their share; `logprior`, the logarithm of C times the share, 0 for even classes; and
    `count`, how many they are.
    """
    count = counts.clamp(min=LEAST)
    total = count.sum(-1, keepdim=True)
    # First times C, then divided: for even classes the ratio is exactly 1.
    return {
        "prior": count / total,
        "logprior": (count * count.shape[-1] / total).log(),
        "count": count,
    }
