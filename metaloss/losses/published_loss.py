"""A published loss: its formula, its parameters, and where it was read."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from metaloss.core import registry, suggestions
from metaloss.errors import SettingsError
from metaloss.losses.batch_formulas import BatchLoss
from metaloss.losses.image_formulas import ImageLoss
from metaloss.losses.language.formula import Formula

Span = tuple[float, float, float]  # a parameter's default, lowest and highest value


@dataclass(frozen=True)
class PublishedLoss:
    """A published loss.

    Attributes:
        name: in lower case.
        text: the formula, with its reduction; parameters by name; "" where there is none.
        source: where it was read.
        remarks: what a reader of the source should know.
        limits: where it is known to fail.
        reading: as "printed", as in the source's "code", or "corrected" where the print cannot be
            meant.
        verified: False where no reading reproduces what the source reports.
        parameters: default, lowest and highest value.
        grid: values of its own parameters among which the best are chosen, where those are tuned;
            the defaults are among them. What a learning rate does, too, has no place here.
        flags: what turns the formula into another: name and that other text.
        form: the class of a loss that is no formula, with these parameters and flags.
        unavailable: why it cannot be had; "" otherwise.
    """

    name: str
    text: str
    source: str
    remarks: str = ""
    limits: str = ""
    reading: Literal["printed", "code", "corrected"] = "printed"
    verified: bool = True
    parameters: Mapping[str, Span] = field(default_factory=dict)
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    form: type[BatchLoss] | type[ImageLoss] | None = None
    unavailable: str = ""

    def formula(self, /, **parameters: float | bool) -> Formula:
        """The loss with these parameters, the others at their defaults.

        Raises:
            SettingsError: there is no formula, or names the parameter and what it allows.
        """
        if not self.text:
            raise SettingsError(f"{self.name} {self.lacks}")
        text = self.text
        for name in self.flags.keys() & parameters.keys():
            text = self._flag(name, parameters[name], text)
        numbers = {k: v for k, v in parameters.items() if k not in self.flags}
        return Formula.parse(text, self.values(**numbers))

    def build(self, /, **parameters: float | bool) -> BatchLoss | ImageLoss:
        """The loss that is no formula, with these parameters, the others at their defaults.

        Raises:
            SettingsError: names the parameter and what it allows.
        """
        assert self.form is not None
        flags = {k: bool(self._flag(k, v, "")) for k, v in parameters.items() if k in self.flags}
        numbers = {k: v for k, v in parameters.items() if k not in self.flags}
        return self.form(**self.values(**numbers), **flags)

    @property
    def lacks(self) -> str:
        """Why it has no formula; "" where it has one."""
        return self.unavailable or (self.form.scope if self.form else "")

    @property
    def variants(self) -> list[str]:
        """How the loss is written with each choice of values from its grid; its name alone where
        there is none.
        """
        if not self.grid:
            return [self.name]
        choices = itertools.product(*self.grid.values())
        texts = [
            ", ".join(f"{k}={x:g}" for k, x in zip(self.grid, c, strict=True)) for c in choices
        ]
        return [f"{self.name}({text})" for text in texts]

    def values(self, /, **parameters: float | bool) -> dict[str, float]:
        """All parameters: these values, and the others at their defaults.

        Raises:
            SettingsError: names the parameter and what it allows.
        """
        defaults = {name: span[0] for name, span in self.parameters.items()}
        return defaults | {name: self._checked(name, value) for name, value in parameters.items()}

    def _flag(self, name: str, value: float | bool, text: str) -> str:
        if not isinstance(value, bool):
            raise SettingsError(f"{self.name}: {name} must be True or False, got {value!r}")
        return self.flags[name] if value else text

    def _checked(self, name: str, value: float | bool) -> float:
        known = [*self.parameters, *self.flags]
        if not known:
            raise SettingsError(
                f"{self.name} has no parameters, got {name}. "
                f"{suggestions.sentence('parameter', name)}".rstrip(". ")
            )
        if name not in known:
            raise SettingsError(
                f"{self.name}: {registry.unknown_message('parameter', name, known)}"
            )
        # True and False are numbers to Python, but no value of a parameter.
        _, low, high = self.parameters[name]
        if isinstance(value, bool) or not low <= value <= high:
            raise SettingsError(f"{self.name}: {name} must lie in [{low}, {high}], got {value!r}")
        return float(value)
