"""The settings of a full-size training; their defaults stand here and nowhere else.

A key of a TOML table and a flag of the command line name a field.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass as settings

from metaloss.core import registry
from metaloss.core.config import merge_tables
from metaloss.data.augmentations import Augmentation, Count, Kind, Positive
from metaloss.data.datasets._images import (
    DEFAULT_OPTIONS,
    Background,
    ImageOptions,
    MaxPixels,
    Size,
)
from metaloss.errors import SettingsError
from metaloss.inner.metrics import MetricTable
from metaloss.inner.optimiser_settings import (
    Betas,
    LearningRate,
    Momentum,
    OptimiserName,
    Warmup,
    WeightDecay,
    check_nesterov,
)
from metaloss.training.consistency import check_features, check_held_out, check_uneven_classes

PROTOCOLS = Path(__file__).parent / "protocols"  # a TOML file each
AUGMENTATIONS = get_args(Kind)
GIVEN = "given"  # in the place of a name, for a model or images that a caller hands over
# Where a batch, a length or a rate is not given; ours, the rates as Morgan's warm-ups end.
BATCH = 128
EPOCHS = 10
# Of SGD: with less, a network that does not normalise stays at its start in 300 steps.
LEAST_RATE = 0.03
# The longest gradient of a step at that rate, because a network that normalises begins with long
# ones.
CLIP = 1.0
RATES = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}  # of a batch of 128 and thousands of steps

ClassPower = Annotated[float, Field(gt=0, le=4)]
Strength = Annotated[float, Field(gt=0, le=10)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Augment(Augmentation):
    """What happens to training images, anew in every batch.

    Attributes:
        scale: of base where pixels have classes, in the place of `pad`: how small and how large an
            image becomes before the crop, as in torchvision's own training for segmentation.
    """

    scale: tuple[Positive, Positive] = (0.5, 2.0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must be given as smallest and largest, got {self.scale}")
        return self


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Training:
    """What decides a training's result.

    Attributes:
        loss: losses by name, path or formula; several are trained alike and set beside each other.
        model: one of ours, or any of torchvision's classifiers, or where pixels have classes, of
            its models for that.
        pretrained: start from torchvision's weights of that model, which torchvision downloads
            once; where pixels have classes, of its backbone.
        data: a data source, as `metaloss list data` names them, or folder:PATH; or voc:PATH, images
            with masks.
        features: what takes the place of the pixels: file:PATH, torchvision:NAME or timm:NAME, a
            frozen network; the model is then "linear" or "mlp".
        groups: a CSV file with the group of every image, as of one patient: each is whole in one
            share, to train on, to validate on or to test on, and the intervals of recalls count
            groups.
        size: side of the images in pixels, as the model sees them; None: their own. Image files are
            read at this size.
        background: what transparent pixels are laid on: "white", "black" or "#rrggbb".
        max_pixels: the most pixels that an image file may have; larger ones are refused before they
            are decoded.
        epochs: how long to train, in epochs; None: 10, and as many more as make 300 steps.
        steps: the same in steps, instead.
        epoch_steps: steps after which validation is due; None: one pass over the training images.
        batch: images per step, from a fresh permutation every pass whose rest is dropped; None:
            128, but at most a tenth of the training images, and at least 2 for every device.
        optimiser: "sgd", "adam" (L2 decay in the gradient) or "adamw" (decay apart).
        lr: the highest learning rate; None: 0.1 with "sgd", 0.001 with the others; less for a batch
            below 128, and with "sgd" for a training below 3,000 steps, but never below 0.03.
        rates: learning rates to choose from: each one trains the first seed, validation accuracy
            decides.
        momentum, nesterov: of "sgd".
        betas: of "adam" and "adamw".
        clip: the longest gradient of a step, of all parameters together: a longer one is scaled
            down to it; 0: any. None: 1 where `lr` is open too and ends at its least, 0.03; any
            length otherwise.
        weight_decay: of every parameter.
        schedule: the rate's course: "constant"; "one_cycle", up along a line and down to 0 along
            half a cosine; "step", times `factor` every `every` epochs; "plateau", times `factor`
            after `every` epochs in which the validation loss did not fall.
        warmup: steps of one_cycle's way up; None: a tenth of all steps.
        every: epochs, of "step" and "plateau".
        factor: of "step" and "plateau".
        augment: a table with the augmentation's kind and settings.
        metric: what rates are chosen by, losses are compared by and thresholds are tuned for, a
            name or a table with its kind and settings; None: accuracy, or where pixels have
            classes, mean IoU.
        class_weights: an image counts as its class's share of the training images to the power of
            minus this; "balanced": 1, so that every class counts alike; None: all images alike.
        sampling: "shuffled", passes over all images; or "balanced", as many images of every class
            in every batch.
        thresholds: after the training, choose a number for every class on the validation images
            that is added to its logit, and test with it, too.
        prior_correction: after the training, subtract so many times the logarithm of each class's
            share of the training images from its logit, and test with that, too; it needs no
            validation images.
        auxiliary: weight of the loss of auxiliary outputs, which inception_v3, googlenet and
            torchvision's fcn and deeplabv3 have; ours.
        validation: share of the official training split that is held out, per class; of the
            training list of VOC. 0: none is, where nothing is chosen on it.
        subset: "50-per-class": train on so many images of every class, drawn anew for every seed;
            None: on all.
        seeds: how many trainings of every loss: with `seed`, `seed` + 1, …
        seed: of the first training's random draws, and of the validation share.
        precision: Lightning's name of the numbers to compute with.
        device: where to train.
        devices: how many of them train one network together, each on an equal part of every batch;
            processes, on the CPU. What is drawn in a step, and batch normalisation, is of a part.
        resident: bytes of images up to which all of them live on the device; larger sets are read
            batch by batch.
        workers: processes that read such a set, for every device.
        tensorboard: also write TensorBoard's files.
    """

    loss: Annotated[tuple[str, ...], Field(min_length=1)] = ("ce",)
    model: str = "resnet9"
    pretrained: bool = False
    data: str = "fashionmnist"
    features: str = ""
    groups: str = ""
    size: Size = None
    background: Background = DEFAULT_OPTIONS.background
    max_pixels: MaxPixels = DEFAULT_OPTIONS.max_pixels
    epochs: Count | None = None
    steps: Count | None = None
    epoch_steps: Count | None = None
    batch: Count | None = None
    optimiser: OptimiserName = "sgd"
    lr: LearningRate | None = None
    rates: tuple[LearningRate, ...] = ()
    momentum: Momentum = 0.9
    nesterov: bool = True
    betas: Betas = (0.9, 0.999)
    clip: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    weight_decay: WeightDecay = 0.0
    schedule: Literal["constant", "one_cycle", "step", "plateau"] = "one_cycle"
    warmup: Warmup | None = None
    every: Count = 10
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    augment: Augment = Augment()
    metric: MetricTable = None
    class_weights: Literal["balanced"] | ClassPower | None = None
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    thresholds: bool = False
    prior_correction: Strength | None = None
    auxiliary: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.4
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    subset: str | None = None
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Count = 1
    resident: Annotated[int, Field(ge=0)] = 2 << 30
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    tensorboard: bool = False

    @field_validator("subset")
    @classmethod
    def _cut(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"[1-9]\d{0,6}-per-class", text):
            raise ValueError(f"expected a number and '-per-class', as '50-per-class', got '{text}'")
        return text

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_features(self.features, self.augment.kind)
        # Momentum is SGD's alone; the defaults of both stay where another optimiser is chosen.
        if self.optimiser == "sgd":
            check_nesterov(self.nesterov, self.momentum)
        if len(set(self.loss)) < len(self.loss):
            raise ValueError(f"a loss is given twice: {', '.join(self.loss)}")
        corrected = self.prior_correction is not None
        in_use = {
            "class_weights": self.class_power > 0,
            "sampling = 'balanced'": self.sampling == "balanced",
            "prior_correction": corrected,
            # Beside the other two they are chosen for networks that are balanced already.
            "thresholds": self.thresholds and corrected,
        }
        check_uneven_classes(in_use)
        if not self.validation:
            check_held_out(len(self.rates), self.thresholds, self.schedule)
        return self

    @property
    def class_power(self) -> float:
        """The power of the classes' shares that weighs images; 0: none does."""
        weights = self.class_weights
        return 1.0 if weights == "balanced" else float(weights or 0.0)

    @property
    def balanced(self) -> bool:
        """Whether something here makes up for uneven classes; thresholds are shown beside."""
        by_training = self.class_power > 0 or self.sampling == "balanced"
        return by_training or self.prior_correction is not None

    @property
    def rate(self) -> float:
        """The learning rate where neither `rates` nor the number of images decides it."""
        return RATES[self.optimiser] if self.lr is None else self.lr

    @property
    def past_obstacle(self) -> str:
        """Why a loss cannot see what was predicted for an image before; "" where it can."""
        found = {
            f"augment = '{self.augment.kind}', which mixes images": self.augment.has("mixup"),
            f"devices = {self.devices}": self.devices > 1,
            "classes of pixels": self.data.startswith("voc:"),
        }
        return next((obstacle for obstacle, there in found.items() if there), "")

    @property
    def image_options(self) -> ImageOptions:
        """How image files are read."""
        return ImageOptions(self.size, self.background, self.max_pixels)

    @property
    def per_class(self) -> int | None:
        """Training images of every class; None: all there are."""
        return None if self.subset is None else int(self.subset.partition("-")[0])

    def table(self) -> dict[str, Any]:
        """All settings as plain values, for TOML."""
        return registry.table(self)


def resolve(table: Mapping[str, Any]) -> Training:
    """The settings that a table describes; what is not given is the default.

    Raises:
        SettingsError: names the setting, what was given and what is allowed.
    """
    spelt = dict(
        _spelt({**table, "loss": (table["loss"],)} if isinstance(table.get("loss"), str) else table)
    )
    by_table = str(spelt.get("data", "")).startswith("file:")
    if (spelt.get("features") or by_table) and "model" not in spelt:
        spelt["model"] = "linear"
    if isinstance(spelt.get("rates"), float | int):
        spelt["rates"] = (spelt["rates"],)
    resolved: Training = registry.from_table(Training, spelt, "train")
    return resolved


def protocols() -> list[str]:
    """The names of the protocols, read off their folder."""
    return registry.files(PROTOCOLS)


def about(name: str) -> str:
    """A protocol's first line."""
    return registry.headline(PROTOCOLS / f"{name}.toml")


def protocol(name: str, *tables: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol's settings, with tables laid over them.

    Raises:
        SettingsError: there is no such protocol.
    """
    if name not in protocols():
        raise SettingsError(
            registry.unknown_message("protocol", name, protocols(), "metaloss list protocols")
        )
    return over(tomllib.loads((PROTOCOLS / f"{name}.toml").read_text(encoding="utf-8")), *tables)


def over(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Tables laid over each other, the later one on top; a length or rate that is given drops the
    earlier one's twin.

    Another kind of augmentation keeps the sizes that are given.

    >>> over({"steps": 20, "rates": [0.1, 0.2]}, {"epochs": 2, "lr": 0.1})
    {'epochs': 2, 'lr': 0.1}
    >>> over({"augment": {"kind": "base", "pad": 28}}, {"augment": "cutout"})
    {'augment': {'kind': 'cutout', 'pad': 28}}
    """
    result: dict[str, Any] = {}
    for spelt in map(_spelt, tables):
        table = spelt
        if isinstance(kind := table.get("augment"), Mapping) and isinstance(
            old := result.get("augment"), Mapping
        ):
            table = {**table, "augment": {**old, **kind}}
        for one, other in (
            ("epochs", "steps"),
            ("steps", "epochs"),
            ("lr", "rates"),
            ("rates", "lr"),
        ):
            if one in table:
                result.pop(other, None)
        result = merge_tables(result, table)
    return result


def unambiguous(table: Mapping[str, Any]) -> None:
    """Refuse what a user asked for at once and only one of which would hold.

    Raises:
        SettingsError: names both.
    """
    for one, other, what in (
        ("epochs", "steps", "the length"),
        ("lr", "rates", "the learning rate"),
    ):
        if table.get(one) is not None and table.get(other):
            raise SettingsError(
                f"{one} and {other} both give {what}, got {table[one]} and {table[other]}: give one"
            )


def _spelt(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table with an augmentation that is given by its kind alone as a table."""
    return (
        {**table, "augment": {"kind": table["augment"]}}
        if isinstance(table.get("augment"), str)
        else table
    )
