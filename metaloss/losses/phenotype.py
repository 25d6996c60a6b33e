"""What a loss does, apart from how it is written: its curve over the true class's probability, and
its pull.

All is asked of the loss itself, so that networks and formulas are looked at alike. A loss that sees
how far the training is looks as it does where its clock stands.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.errors import SettingsError
from metaloss.losses.base import Losses, TrainingTargets, one_hot, reads_clock

# Many losses are infinite at p = 0 or p = 1: curves stop just before.
EDGE = 1e-7
POINTS = 1000  # of the curve (Morgan 2024)
# The gain at 100 classes below which losses were published as failing there (Morgan 2024, table 5).
FAINT = 0.006


def gain(loss: Losses, classes: int) -> float:
    """The first pull on the true logit, relative to cross-entropy's, where all classes are equally
    probable.

    For a sum over classes of ℓ(y, p), with g1 and g0 its slopes in p at p = 1/C of a class that is
    the target and of one that is not, this is (g0 - g1)/C. Negative: the loss anti-learns at the
    start. Tiny: it looks collapsed at cross-entropy's learning rate. Of a loss that sees how far
    the training is it is that of the first step.

    Args:
        loss: a population of one.
        classes: their number C.
    """
    return float(gain_tensor(loss, classes))


def gain_tensor(loss: Losses, classes: int) -> Float[Tensor, ""]:
    """The gain as a tensor, by tensor operations alone."""
    return gains(loss, classes)[0]


def gains(losses: Losses, classes: int) -> Float[Tensor, " P"]:
    """The gain of each of P losses, likewise."""
    first = losses.at(replace(losses.clock, t=0.0)) if reads_clock(losses) else losses
    bound = _bound(first, _targets(1, classes))
    # Equal logits make all classes equally probable; float64, because gains may be tiny.
    slope = bound.logit_gradient(torch.zeros(len(bound), 1, 1, classes, dtype=torch.float64))
    # Cross-entropy pulls by 1 - 1/C there.
    return -slope[:, 0, 0, 0] * classes / (classes - 1)


def grid(points: int = POINTS) -> Float[Tensor, " N"]:
    """Probabilities of the true class, from almost 0 to almost 1."""
    return torch.linspace(EDGE, 1 - EDGE, points, dtype=torch.float64)


def curve(loss: Losses, classes: int = 2, points: int = POINTS) -> Float[Tensor, " N"]:
    """The loss of one image over the probability of its true class.

    The other classes share the rest equally.
    """
    bound, logits = _along(loss, grid(points), classes)
    return bound.terms(logits).sum(-1)[0, 0].detach()


def pull(loss: Losses, p: Float[Tensor, " N"], classes: int = 2) -> Float[Tensor, " N"]:
    """The pull on the true logit, -∂L/∂z, over the true class's probability."""
    bound, logits = _along(loss, p, classes)
    # The gradient is that of a mean over N images: times N it is each image's own.
    return -bound.logit_gradient(logits)[0, 0, :, 0] * len(p)


def normalised(curve: Float[Tensor, " N"], flat: float = 1e-4) -> Float[Tensor, " N"]:
    """The curve, scaled from 0 at its lowest place to 1 at its highest.

    A curve that spans less than `flat` stays as it is.
    """
    low = curve.min()
    high = curve.max()
    return curve if high - low < flat else (curve - low) / (high - low)


def descent(
    loss: Losses, classes: int = 2, points: int = POINTS
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    """What training descends, over the probability of the true class; 0 at the first place.

    It is the pull's integral, so it is the curve but for a constant, unless no gradient goes
    through a part of the value: then it says what the value does not.
    """
    even = grid(points).logit()
    # Even in p, to see what is between, and even in logits, to get over the steep ends.
    z = (
        torch.cat([even, torch.linspace(float(even[0]), float(even[-1]), points, dtype=even.dtype)])
        .sort()
        .values
    )
    # Where only the true logit moves, the logit of p moves by just as much: so z is p's logit.
    fallen = torch.cumulative_trapezoid(pull(loss, z.sigmoid(), classes), z)
    return z.sigmoid(), torch.cat([fallen.new_zeros(1), -fallen])


def minimum(loss: Losses, classes: int = 2, points: int = POINTS) -> float:
    """The probability of the true class at which the loss is lowest, as far as the grid tells."""
    p, height = descent(loss, classes, points)
    return float(p[height.argmin()])


def warnings(loss: Losses, classes: int | None = None) -> list[str]:
    """What a user of the loss should know before training with it, in sentences.

    Args:
        loss: a population of one.
        classes: the one number of classes it is made for; None: any.
    """
    warnings = []
    gains = {c: gain(loss, c) for c in ((classes,) if classes else (2, 10, 100))}
    if backward := [str(c) for c, g in gains.items() if g < 0]:
        warnings.append(
            f"anti-learns: unsure among {' or '.join(backward)} classes, "
            "it pushes the true one down"
        )
    if faint := [f"{g:.2g} at {c} classes" for c, g in gains.items() if 0 <= g < FAINT]:
        warnings.append(
            "looks collapsed at cross-entropy's learning rate: "
            f"its first pull is {', '.join(faint)} of its"
        )
    if not all(_finite_at(loss, scale, classes or 10) for scale in (1e2, 1e4)):
        warnings.append("is not finite, or its gradient is not, at extreme logits (±10,000)")
    return warnings


def _finite_at(loss: Losses, scale: float, classes: int) -> bool:
    # In float32, as in training, where fewer numbers are finite than in float64.
    logits = torch.zeros(1, 1, 3, classes)
    # Sure of the true class, sure that it is another, sure of one wrong class.
    logits[0, 0, 0, 0], logits[0, 0, 1, 0], logits[0, 0, 2, 1] = scale, -scale, scale
    bound = _bound(loss, _targets(3, classes, torch.float32))
    return bool(
        bound.terms(logits).isfinite().all() and bound.logit_gradient(logits).isfinite().all()
    )


def _along(loss: Losses, p: Float[Tensor, " N"], classes: int) -> tuple[Losses, Tensor]:
    """The loss bound to images of class 0, and logits that give it these probabilities."""
    rest = ((1 - p) / (classes - 1))[:, None].expand(-1, classes - 1)
    # Logarithms of probabilities are logits that give these probabilities.
    logits = torch.cat([p[:, None], rest], 1).log()[None, None]
    return _bound(loss, _targets(len(p), classes)), logits


def _bound(loss: Losses, targets: TrainingTargets) -> Losses:
    """The loss bound to these targets.

    Raises:
        SettingsError: it is no population of losses, but a name or a criterion.
    """
    if not hasattr(loss, "bind"):
        raise SettingsError(
            f"expected losses as loss.losses() gives them, as metaloss.load('ce').losses(), got "
            f"{loss!r:.200}"
        )
    return loss.bind(targets)


def _targets(n: int, classes: int, dtype: torch.dtype = torch.float64) -> TrainingTargets:
    """n images of class 0, among even classes."""
    return TrainingTargets(one_hot(torch.zeros(1, n, dtype=torch.int64), classes).to(dtype))
