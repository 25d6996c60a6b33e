"""How a metric's values are shown, and the scores that stand for them within the program."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from metaloss.core.formatting import near_chance, percent, signed


@dataclass(frozen=True)
class MetricScale:
    """A metric's name, direction and unit.

    A score is how much better a value is than that of a training that failed. So more is better of
    every score, and a failure is 0, whatever the metric; of accuracy the score is the value itself.

    Attributes:
        kind: its name in settings and files.
        title: what it is called in tables and sentences.
        maximise: whether more is better.
        in_percent: whether it is shown in percent, and differences in points.
        failed: the value that a failed training counts as.
        guess: the value of guesses.
        negligible: the difference that is none in practice.
    """

    kind: str = "accuracy"
    title: str = "accuracy"
    maximise: bool = True
    in_percent: bool = True
    failed: float = 0.0
    guess: float = 0.0
    negligible: float = 0.02

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """That of a summary or a record, which says it where it is not that of accuracy."""
        return cls(**table.get("metric_scale", {}))

    @property
    def is_accuracy(self) -> bool:
        """Whether it is what losses are scored by where no metric is named."""
        return self.kind == "accuracy"

    @property
    def beside(self) -> tuple[str, ...]:
        """What is shown beside it: accuracy, unless it is that."""
        return () if self.is_accuracy else ("accuracy",)

    def entry(self) -> dict[str, Any]:
        """What `of` reads, for a summary or a record; nothing for accuracy."""
        return {} if self.is_accuracy else {"metric_scale": asdict(self)}

    def value(self, score: float) -> float:
        """The value that a score stands for."""
        return self.failed + score if self.maximise else self.failed - score

    def score(self, value: float) -> float:
        """The score that stands for a value."""
        return value - self.failed if self.maximise else self.failed - value

    def difference(self, versus: Mapping[str, Any]) -> dict[str, Any]:
        """A paired difference of scores as one of values: its mean and its ends.

        All other entries stay.
        """
        if self.maximise:
            return dict(versus)
        # Subtracted: the negative of 0 would be -0.0, in files too.
        turned = {"mean": 0.0 - versus["mean"]} if "mean" in versus else {}
        return {**versus, **turned, "low": 0.0 - versus["high"], "high": 0.0 - versus["low"]}

    def text(self, value: float) -> str:
        """A value with its unit.

        >>> MetricScale().text(0.663), MetricScale(in_percent=False).text(0.663)
        ('66.3 %', '0.663')
        """
        return percent(value) if self.in_percent else f"{value:.3f}"

    def named(self, value: float) -> str:
        """A value with its unit and, unless it is an accuracy, with the metric's name.

        >>> MetricScale().named(0.663), MetricScale("mcc", "MCC", in_percent=False).named(0.663)
        ('66.3 %', 'MCC 0.663')
        """
        return self.text(value) if self.is_accuracy else f"{self.title} {self.text(value)}"

    def number(self, value: float) -> float:
        """A value in the unit in which it is shown."""
        return 100 * value if self.in_percent else value

    def interval(self, gain: Mapping[str, float]) -> str:
        """A paired difference with its 95 % interval, in points where values are in percent.

        >>> MetricScale(in_percent=False).interval({"mean": 0.031, "low": 0.02, "high": 0.042})
        '+0.031 [+0.020, +0.042]'
        """
        return f"{self.signed(gain['mean'])} {self.ends(gain['low'], gain['high'])}"

    def ends(self, low: float, high: float) -> str:
        """An interval of differences."""
        return f"[{self.signed(low)}, {self.signed(high)}]"

    def signed(self, difference: float) -> str:
        """A difference with its sign, in the unit in which it is shown; none where it is 0 there.

        >>> MetricScale().signed(0.031), MetricScale().signed(-0.0004)
        ('+3.1', '0.0')
        """
        return signed(self.number(difference), self.digits)

    def change(self, gain: float) -> str:
        """What a difference of scores, of which more is better, brings, as a verb and an amount.

        >>> MetricScale().change(0.031), MetricScale().change(-0.083)
        ('gains 3.1 points', 'loses 8.3 points')
        """
        verb = "loses" if self.signed(gain).startswith("-") else "gains"
        return f"{verb} {abs(self.number(gain)):.{self.digits}f}{self.unit}"

    def spread(self, row: Mapping[str, Any]) -> str:
        """A mean with the standard deviation of the tasks."""
        mean = self.number(row[self.kind])
        text = f"{mean:.{self.digits}f} ± {self.number(row['std']):.{self.digits}f}"
        return f"{text} %" if self.in_percent else text

    def reached(self, row: Mapping[str, Any]) -> str:
        """What a row says of a loss: its value, and its accuracy where that is another one.

        Of tasks of several kinds there is no accuracy but the score.
        """
        if self.is_accuracy:
            return percent(row["accuracy"])
        beside = f" (accuracy {percent(row['accuracy'])})" if "accuracy" in row else ""
        return f"{self.named(row[self.kind])}{beside}"

    def tested(self, row: Mapping[str, Any]) -> str:
        """The same of a test, with a remark on an accuracy that is close to that of guessing."""
        known = self.is_accuracy and "classes" in row
        near = near_chance(row["accuracy"], row["classes"]) if known else ""
        return f"{self.reached(row)}{near}"

    def verdict(self, versus: Mapping[str, Any]) -> str:
        """A verdict, and the paired difference with its interval from which it follows.

        >>> versus = {"verdict": "better", "gain": {"mean": 0.031}, "low": 0.02, "high": 0.042}
        >>> MetricScale().verdict(versus)
        'better, paired +3.1 [+2.0, +4.2]'
        """
        return f"{versus['verdict']}, paired {self.decisive(versus)}"

    def decisive(self, versus: Mapping[str, Any]) -> str:
        """A paired difference with the interval that decides, over tasks and images.

        >>> MetricScale().decisive({"gain": {"mean": 0.031}, "low": 0.02, "high": 0.042})
        '+3.1 [+2.0, +4.2]'
        """
        ends = {"low": versus["low"], "high": versus["high"]}
        return self.interval({"mean": versus["gain"]["mean"], **ends})

    @property
    def digits(self) -> int:
        """Behind the point, in the unit in which it is shown."""
        return 1 if self.in_percent else 3

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"{self.title} [%]" if self.in_percent else self.title

    @property
    def unit(self) -> str:
        """What follows a difference; empty for plain numbers."""
        return " points" if self.in_percent else ""

    @property
    def unit_label(self) -> str:
        """The same in the label of an axis."""
        return " [points]" if self.in_percent else ""


ACCURACY = MetricScale()
