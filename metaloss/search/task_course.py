"""How many tasks the generations of a search have: ever more of them, where it asks for that."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from metaloss.errors import SettingsError

SAMPLED = 64  # generations that stand for all that are left, in an estimate


@dataclass(frozen=True)
class TaskCourse:
    """The number of tasks of every family in each generation: a geometric course.

    Attributes:
        first: of the first generation.
        growth: how many times as many the last one has.
        generations: over how many they grow; later ones have as many as the last of these.
        whole: where they grow, numbers are multiples of it.
        epoch: the task epoch of a generation (1, 2, ...), within which the number stays.
    """

    first: int
    growth: float
    generations: int
    whole: int
    epoch: Callable[[int], int]

    def of_generation(self, number: int) -> int:
        """How many tasks of every family a generation (1, 2, ...) has."""
        if self.growth == 1:
            return self.first
        # Scores of an epoch are of the same tasks: it has as many as its first generation.
        begin = 1 + bisect_left(range(1, number + 1), self.epoch(number), key=self.epoch)
        share = (min(begin, self.generations) - 1) / max(1, self.generations - 1)
        tasks: float = self.first * self.growth**share
        return self.whole * max(1, round(tasks / self.whole))

    def check(self, generations: int, strategy: str) -> None:
        """Refuse a growth that cannot be.

        Args:
            generations: how many there will be.
            strategy: the name of the one that has the epochs.

        Raises:
            SettingsError: all of them have the same tasks.
        """
        if self.growth > 1 and generations > 1 and self.epoch(generations) == self.epoch(1):
            raise SettingsError(
                f"growth = {self.growth:g}: all generations of strategy '{strategy}' have the "
                "same tasks here, and their number cannot grow: let the strategy take fresh ones "
                "(--set strategy.refresh=20), or leave growth out"
            )

    def generations_left(self, number: int, generations: int) -> float:
        """How many generations of this one's size those that come after it are worth.

        Args:
            number: of this one.
            generations: how many there will be.
        """
        left = generations - number
        if self.growth == 1 or not left:
            return float(left)
        some = range(number + 1, generations + 1, -(-left // SAMPLED))
        tasks = sum(self.of_generation(x) for x in some) / len(some)
        return left * tasks / self.of_generation(number)
