"""Settings of a training that do not go with each other."""

from collections.abc import Mapping

from metaloss.data.features import check_spec


def check_features(features: str, augmentation: str) -> None:
    """Say that features are none, or that an augmentation has no pixels to change.

    Raises:
        ValueError: so it is.
    """
    if not features:
        return
    check_spec(features)
    if augmentation != "none":
        raise ValueError(
            f"augment '{augmentation}' changes pixels, and features take their place: leave it out"
        )


def check_uneven_classes(in_use: Mapping[str, bool]) -> None:
    """Say that uneven classes are made up for twice.

    Args:
        in_use: whether each way is, by the name of its setting.

    Raises:
        ValueError: names two that are.
    """
    given = [name for name, used in in_use.items() if used]
    if len(given) > 1:
        raise ValueError(f"{given[0]} and {given[1]} both make up for uneven classes: give one")


def check_held_out(rates: int, thresholds: bool, schedule: str) -> None:
    """Say what is chosen on validation images, where none are held out.

    Args:
        rates: how many there are to choose from.
        thresholds: whether they are chosen.
        schedule: of the learning rate.

    Raises:
        ValueError: names it.
    """
    if rates > 1:
        needs = f"{rates} rates are compared on them: give one as lr"
    elif thresholds:
        needs = "thresholds are chosen on them: leave thresholds out, or give prior_correction"
    elif schedule == "plateau":
        needs = "schedule 'plateau' follows the loss on them: one_cycle, step or constant"
    else:
        return
    raise ValueError(f"validation = 0 holds out no images, and {needs}; or a validation above 0")
