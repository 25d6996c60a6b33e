"""Values of a training's open settings, decided by the number of training images alone."""

from dataclasses import replace

from metaloss.training.settings import BATCH, CLIP, EPOCHS, LEAST_RATE, RATES, Training

SHARE = 10  # batches that the training images make at least: fewer are too few steps an epoch
# Of a training at least: with fewer a network from scratch ends in the most frequent class.
STEPS = 300
FEATURES = 64  # of a linear head, above which its rate falls
LONG = 3000  # steps from which SGD's rate is the whole one
# Images of a step for each device: networks that normalise over the batch cannot train on one.
LEAST = 2


def decided(settings: Training, images: int, features: int | None = None) -> Training:
    """The settings, with batch, length, learning rate and clip where they are left open; what is
    given stays.

    Args:
        settings: of the training.
        images: how many there are to train on.
        features: numbers that take an image's place; None: the image itself is looked at.
    """
    batch = usual_batch(images, settings.devices) if settings.batch is None else settings.batch
    settings = replace(settings, batch=batch)
    each = epoch_length(settings, images)
    if settings.epochs is None and settings.steps is None:
        settings = replace(settings, epochs=max(EPOCHS, -(-STEPS // each)))
    if settings.lr is not None or settings.rates:
        return settings
    rate = usual_rate(settings, batch, settings.steps or (settings.epochs or 0) * each)
    if features and settings.model == "linear" and settings.optimiser == "sgd":
        return replace(settings, lr=linear_rate(rate, features))
    if settings.optimiser != "sgd" or rate >= LEAST_RATE:
        return replace(settings, lr=rate)
    # More than the batch and the length suggest: safe for every network as long as its steps are
    # short.
    return replace(settings, lr=LEAST_RATE, clip=CLIP if settings.clip is None else settings.clip)


def usual_batch(images: int, devices: int) -> int:
    """Images of a step where it is not given: the same number for every device."""
    return max(LEAST, min(BATCH, images // SHARE) // devices) * devices


def usual_rate(settings: Training, batch: int, steps: int) -> float:
    """The learning rate that batch and length suggest, to two digits.

    A gradient's noise grows as batches shrink: SGD's rate follows the batch (Goyal 2017), Adam's
    its root. A short training has a short way up, on which a network cannot get used to a high
    rate: with SGD, ResNet9 diverges there.
    """
    share = min(1.0, batch / BATCH)
    if settings.optimiser == "sgd":
        share *= min(1.0, max(steps, STEPS) / LONG) ** 0.5
    else:
        share **= 0.5
    return float(f"{RATES[settings.optimiser] * share:.2g}")


def linear_rate(rate: float, features: int) -> float:
    """The learning rate of a linear head, to two digits, by that which batch and length suggest.

    It learns at low rates, and at higher ones it fits few images to the last, the sooner the more
    features there are.
    """
    return float(f"{rate * min(1.0, (FEATURES / features) ** 0.5):.2g}")


def epoch_length(settings: Training, images: int) -> int:
    """Steps after which validation is due: those of one pass over the images unless given."""
    return settings.epoch_steps or images // step_images(settings, images)


def step_images(settings: Training, images: int) -> int:
    """Images of a step: no more than there are."""
    return min(settings.batch or usual_batch(images, settings.devices), images)
