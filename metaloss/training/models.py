"""Networks by name, made for the images and the classes.

They are the papers' small ones and torchvision's classifiers.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.errors import DataError, SettingsError
from metaloss.training import segmenters
from metaloss.training.networks import NETWORKS, mlp_of

_OURS: dict[str, Callable[..., nn.Module]] = {**NETWORKS, **segmenters.SEGMENTERS}
IMAGENET = 1000  # classes that torchvision's classifiers are made for
# Of ImageNet's colours: what pretrained weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NetworkShape:
    """What a network is made for.

    Attributes:
        channels: of the images as they are stored.
        size: height and width that the network sees.
        classes: how many it tells apart.
    """

    channels: int
    size: tuple[int, int]
    classes: int


class ImageClassifier(nn.Module):
    """A network that takes images as they are stored, and gives logits.

    Args:
        network: takes normalised images.
        shape: what it was made for.
        mean, std: of the channels, from 0 to 1.
        repeat: show the network a grey image three times over, as its filters are made for colours.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: NetworkShape,
        mean: Sequence[float],
        std: Sequence[float],
        repeat: bool,
    ) -> None:
        super().__init__()
        self.network = network
        self.shape = shape
        self.repeat = repeat
        self.offsets: Tensor | None = None  # thresholds, which are added to the logits
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).reshape(-1, 1, 1))

    def normalise(self, images: Shaped[Tensor, "N K H W"]) -> Float[Tensor, "N L H W"]:
        """Images or features with mean 0 and standard deviation 1 in every channel."""
        return (images - self.mean) / self.std

    def look(self, images: Float[Tensor, "N L H W"]) -> Any:
        """What the network gives for normalised images, at the size it is made for."""
        if images.shape[-2:] != self.shape.size:
            images = nn.functional.interpolate(
                images, self.shape.size, mode="bilinear", antialias=True
            )
        if self.repeat and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        return self.network(images)

    def forward(self, images: Shaped[Tensor, "N K H W"] | Float[Tensor, "N K"]) -> Any:
        """The logits of images from 0 to 255, or of features as they were computed."""
        if images.ndim == 2:
            images = images[..., None, None]
        seen = self.look(self.normalise(images))
        return seen if self.offsets is None else seen + self.offsets.to(seen)


def outputs(output: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The logits, and those of auxiliary outputs.

    Some of torchvision's models give these while they train.
    """
    if isinstance(output, Tensor):
        return output, ()
    if isinstance(output, Mapping):  # of torchvision's models for segmentation
        return output["out"], tuple(x for name, x in output.items() if name != "out")
    logits, *others = output
    return logits, tuple(x for x in others if x is not None)


def names() -> list[str]:
    """Ours first, then torchvision's classifiers."""
    return [*_OURS, *_torchvisions(), *segmenters.torchvisions()]


def about(name: str) -> str:
    """A model in one line."""
    if name in _OURS:
        return str(_OURS[name].__doc__).partition("\n")[0]
    return "torchvision's, for segmentation" if segmenters.segments(name) else "torchvision's"


def _ours(name: str) -> Callable[..., nn.Module] | None:
    """One of our networks; an MLP's name may have any widths."""
    return _OURS.get(name) or mlp_of(name)


def check_model(name: str) -> None:
    """Raise a SettingsError, with the nearest name, where there is no such model."""
    if _ours(name) is None and name not in _torchvisions() and not segmenters.segments(name):
        guess = registry.nearest(name, names()) or f" Ours: {', '.join(_OURS)}; and torchvision's."
        raise SettingsError(f"unknown model '{name}'.{guess}  (metaloss list models)")


def build(
    name: str, shape: NetworkShape, key: Stream, *, pretrained: bool = False, probe: bool = True
) -> nn.Module:
    """A network for images of this shape, its initial weights drawn from the stream.

    Args:
        name: the model's.
        shape: of the images and classes.
        key: of the initial weights.
        pretrained: start from torchvision's weights; only the head is drawn then.
        probe: try it on two images first.

    Raises:
        SettingsError: no such model, no weights for it, or the images are too small for it.
        DataError: its weights are not here and cannot be downloaded.
    """
    check_model(name)
    ours = _ours(name)
    if pretrained and ours is not None:
        raise SettingsError(f"model '{name}' has no pretrained weights; torchvision's have")

    def make() -> nn.Module:
        if ours is not None:
            return ours(shape.channels, shape.classes, shape.size)
        if segmenters.segments(name):
            return segmenters.fresh(name, shape.classes, pretrained)
        return _pretrained(name, shape.classes) if pretrained else _fresh(name, shape.classes)

    try:
        network = seeded(make, key)
        if probe:
            _try(network, shape, repeats(network, shape.channels), segmenters.segments(name))
    except (RuntimeError, ValueError, AssertionError) as error:
        height, width = shape.size
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"model '{name}' cannot take images of {height}x{width} ({reason}); another size: "
            "--size 224"
        ) from None
    return network


def seeded(make: Callable[[], nn.Module], key: Stream) -> nn.Module:
    """A module made with torch's own generator seeded by the stream, and put back after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key.generator().initial_seed())
        return make()


def repeats(network: nn.Module, channels: int) -> bool:
    """Whether a network wants three channels where the images have one."""
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    return channels == 1 and first is not None and first.in_channels == 3


def _torchvisions() -> list[str]:
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


def _fresh(name: str, classes: int) -> nn.Module:
    import torchvision

    # Inception's own start is slow, a truncated normal by scipy, and torchvision warns unless one
    # chooses.
    extra = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    network: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=classes, **extra
    )
    return network


def _pretrained(name: str, classes: int) -> nn.Module:
    import torchvision

    try:
        network: nn.Module = torchvision.models.get_model(name, weights="DEFAULT")
    except (OSError, RuntimeError) as error:
        weights = torchvision.models.get_model_weights(name).DEFAULT
        reason = " ".join(str(error).split())
        raise DataError(
            f"the weights of {name} cannot be had from {weights.url} ({reason})"
        ) from None
    replace_heads(network, classes)
    return network


def replace_heads(network: nn.Module, classes: int) -> None:
    """Replace every layer that gives ImageNet's 1,000 classes by a new one for `classes`."""
    for name, layer in list(network.named_modules()):
        parent = network.get_submodule(name.rpartition(".")[0])
        fresh: nn.Module
        if isinstance(layer, nn.Linear) and layer.out_features == IMAGENET:
            fresh = nn.Linear(layer.in_features, classes, bias=layer.bias is not None)
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == IMAGENET:
            height, width = layer.kernel_size
            fresh = nn.Conv2d(layer.in_channels, classes, (height, width))
        else:
            continue
        setattr(parent, name.rpartition(".")[2], fresh)


def check_batch(classifier: ImageClassifier, batch: int, devices: int = 1) -> None:
    """Raise a SettingsError where the network cannot train on as few images as every device gets of
    a batch.

    Args:
        classifier: is left as it was.
        batch: images of a step.
        devices: that share them.
    """
    if batch // devices != 1:
        return
    shape = classifier.shape
    device = classifier.mean.device
    try:
        with _as_in_training(classifier):
            classifier(
                torch.zeros(1, shape.channels, *shape.size, dtype=torch.uint8, device=device)
            )
    except ValueError as error:
        # torch's words, of every layer that would take the mean and spread of a single number.
        if "more than 1 value per channel" not in str(error):
            raise
        parts = "" if devices == 1 else f", for {devices} devices"
        raise SettingsError(
            "batch: this model normalises over the batch, and cannot with one image: --batch "
            f"{2 * devices} or more" + parts
        ) from None


@contextlib.contextmanager
def _as_in_training(network: nn.Module) -> Iterator[None]:
    """Within the block the network behaves as in training; what it draws and counts is put back."""
    modes = {module: module.training for module in network.modules()}
    before = {name: x.clone() for name, x in network.named_buffers()}
    network.train()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, x in network.named_buffers():
            x.copy_(before[name])


def _try(network: nn.Module, shape: NetworkShape, repeat: bool, pixels: bool) -> None:
    """Look at two black images as in training; what the network has counted is put back."""
    with _as_in_training(network):
        logits, _ = outputs(network(torch.zeros(2, 3 if repeat else shape.channels, *shape.size)))
    expected = (2, shape.classes, *shape.size) if pixels else (2, shape.classes)
    if logits.shape != expected:
        raise ValueError(f"gives {tuple(logits.shape)} for two images, expected {expected}")
