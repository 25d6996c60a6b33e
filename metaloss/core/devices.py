"""Which device trainings run on."""

import torch

from metaloss.errors import SettingsError


def resolve_device(device: str) -> torch.device:
    """The device that a setting means: "cpu", "cuda", or "auto", a GPU where there is one.

    Raises:
        SettingsError: "cuda" is asked for, and there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "device 'cuda' was asked for and no GPU is to be seen  (metaloss doctor)"
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
