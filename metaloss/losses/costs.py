"""What a loss sees of what each mistake costs.

It needs torch alone: `metaloss export` writes this file's text into the modules for others.
"""

import torch


def cost_matrix(costs: object) -> torch.Tensor | None:
    """What each answer (column) costs for each true class (row), as a tensor of floats [C, C].

    Raises:
        ValueError: it is no square matrix of finite numbers, or a mistake costs no more on average
            than a right answer.
    """
    if costs is None:
        return None
    try:
        matrix = torch.as_tensor(costs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            "costs must be numbers, a row for each true class and a column for each answer, "
            f"got {costs!r}"
        ) from error
    # A copy: a view of a larger tensor, whose owner may change it, cannot be exported.
    matrix = matrix.clone() if matrix.is_floating_point() else matrix.float()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(
            "costs must have a row for each class and as many columns, got the shape "
            f"{tuple(matrix.shape)}"
        )
    wrong = matrix[~matrix.isfinite()]
    if len(wrong):
        raise ValueError(f"costs must be finite, got {wrong[0].item()}")
    if not relative_costs(matrix).any():
        raise ValueError("costs must be higher for mistakes, on average, than for right answers")
    return matrix


def relative_costs(matrix: torch.Tensor) -> torch.Tensor:
    """What each mistake costs more than the right answer, in units of the mean mistake [..., C, C].

    Each row's diagonal is subtracted from it; then all is divided by the mean over what is not on
    the diagonal. All are 0 where that mean is not above 0.
    """
    classes = matrix.shape[-1]
    above = matrix - matrix.diagonal(dim1=-2, dim2=-1)[..., None]
    # Over all mistakes: the diagonal is 0.
    mean = above.sum((-2, -1), keepdim=True) / (classes * (classes - 1))
    return torch.where(mean > 0, above / mean, 0)


def image_costs(target: torch.Tensor, relative: torch.Tensor | None) -> torch.Tensor:
    """What each class costs as the answer for each image [..., B, C], of targets [..., B, C].

    For a soft label it is the mean over its classes. Without costs all mistakes cost 1.
    """
    return 1 - target if relative is None else target @ relative
