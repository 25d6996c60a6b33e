"""Every loss that a run has trained, with what it reached, told from its history."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from metaloss.core.records import GenerationRecord
from metaloss.genomes._filters import Filters
from metaloss.losses.language.formula import Formula
from metaloss.search.novelty import SeenLosses


@dataclass
class TrainedLoss:
    """A loss and how much more than the control, cross-entropy on the same tasks, it reached each
    time.

    A long search has a hundred thousand of them: what is kept is the text, a hundredth of the tree
    that it means.

    Attributes:
        text: what `Formula.parse` reads.
        size: nodes of its expression.
        leads: one for each time that it was trained without a failure, and within the guard.
        weights: the number of tasks of each, in units of the first generation's.
    """

    text: str
    size: int
    leads: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    @property
    def rank_score(self) -> float:
        """Its mean lead, drawn towards 0 as if it had been level with the control once more.

        A lead on more tasks weighs more. So a loss that was lucky once ranks below one that was
        often good.
        """
        pairs = zip(self.leads, self.weights, strict=True)
        return sum(lead * weight for lead, weight in pairs) / (sum(self.weights) + 1)


class TrainedLosses:
    """Formulas by their text, in the order in which they were first trained."""

    def __init__(
        self,
        filters: Filters,
        history: Iterable[GenerationRecord] = (),
        maximise: bool = True,
    ) -> None:
        self.entries: dict[str, TrainedLoss] = {}
        self.seen = SeenLosses(filters)
        self.maximise = maximise
        self.first_tasks = 0  # of the first generation
        for record in history:
            self.add(record)

    def add(self, record: GenerationRecord, formulas: Iterable[Formula] = ()) -> None:
        """Take in a generation's line of history; of the formulas at hand, none is read again."""
        outside = set(record.get("outside_losses", ()))
        tasks = record.get("tasks", 1)
        self.first_tasks = self.first_tasks or tasks
        at_hand = {str(formula): formula for formula in formulas}
        for text, value in record.get("losses", ()):
            if text not in self.entries:
                formula = at_hand.get(text) or Formula.parse(text)
                self.entries[text] = TrainedLoss(text, formula.expression.size)
                self.seen.add(formula)
            # What is outside the guard must not stand for election by its value.
            if value is not None and text not in outside:
                # A lead over cross-entropy compares between tasks, a value does not.
                lead = value - record["control"]
                self.entries[text].leads.append(lead if self.maximise else -lead)
                self.entries[text].weights.append(tasks / self.first_tasks)

    def ranked(self) -> Iterator[Formula]:
        """The losses of the whole search that trained without a failure, the best first."""
        alive = [entry for entry in self.entries.values() if entry.leads]
        for entry in sorted(alive, key=lambda entry: -entry.rank_score):
            yield Formula.parse(entry.text)

    def best(self, n: int) -> list[Formula]:
        """The n best losses of the whole search, the best first."""
        return list(islice(self.ranked(), n))

    def best_of_each_size(self) -> list[Formula]:
        """The best loss of every size, the smallest first."""
        best: dict[int, TrainedLoss] = {}
        for entry in self.entries.values():
            size = entry.size
            if entry.leads and (size not in best or entry.rank_score > best[size].rank_score):
                best[size] = entry
        return [Formula.parse(best[size].text) for size in sorted(best)]
