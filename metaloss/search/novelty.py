"""A search space without losses that are not worth a training.

Those are the ones that its filters refuse, and those that the run has trained before.
"""

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.genomes import Genome
from metaloss.genomes._filters import Filters, examine
from metaloss.losses.base import Losses
from metaloss.losses.language.expression import CLASS_TERMINALS, CLOCK_TERMINALS, COST, PAST
from metaloss.losses.language.formula import Formula
from metaloss.losses.phenotype import normalised

SAME = 0.01  # the distance up to which two phenotypes are one (the code of Morgan 2024)
SCALE = 0.01  # the relative difference in span up to which two losses have one scale
NOVEL, KNOWN, REFUSED = range(3)
THINNED = 5  # every such point of a phenotype is compared


class SeenLosses:
    """Losses, found again by canonical text and by phenotype.

    Two losses whose curves differ in scale alone are two: at one learning rate they train
    differently. A long search sees a hundred thousand: texts are kept as digests, and curves as
    bytes, which take half of what a tensor does.
    """

    def __init__(self, filters: Filters) -> None:
        self.filters = filters
        self.digests: set[bytes] = set()
        self.entries: list[tuple[float, int]] = []  # (mean of the curve, its number), in order
        self.curves: list[bytes] = []
        self.spans: list[float] = []

    def reason_seen(self, formula: Formula) -> str:
        """What makes this loss one that has been seen; "" for a new one."""
        if bytes.fromhex(formula.digest) in self.digests:
            return "duplicate text"
        curve_and_span = _curve_and_span(formula, self.filters)
        if curve_and_span is not None and self._near(*curve_and_span):
            return "duplicate phenotype"
        return ""

    def add(self, formula: Formula) -> None:
        """See a loss."""
        digest = bytes.fromhex(formula.digest)
        if digest in self.digests:
            return
        self.digests.add(digest)
        if (curve_and_span := _curve_and_span(formula, self.filters)) is not None:
            curve, span = curve_and_span
            insort(self.entries, (float(curve.mean()), len(self.curves)))
            self.curves.append(curve.numpy().tobytes())
            self.spans.append(span)

    def _near(self, curve: Float[Tensor, " N"], span: float) -> bool:
        # Curves that are near each other have means that are: |mean(a - b)| <= |a - b| / sqrt(N).
        distance = SAME / math.sqrt(THINNED)
        mean = float(curve.mean())
        reach = distance / math.sqrt(len(curve))
        first = bisect_left(self.entries, (mean - reach, -1))
        for place in range(first, len(self.entries)):
            other, number = self.entries[place]
            if other > mean + reach:
                return False
            alike = abs(self.spans[number] - span) <= SCALE * max(span, self.spans[number])
            if alike and float((self._curve(number) - curve).norm()) <= distance:
                return True
        return False

    def _curve(self, number: int) -> Float[Tensor, " N"]:
        # A copy: torch warns of buffers that cannot be written to.
        return torch.frombuffer(bytearray(self.curves[number]), dtype=torch.float32)


@lru_cache(maxsize=1 << 11)
def _curve_and_span(formula: Formula, filters: Filters) -> tuple[Float[Tensor, " N"], float] | None:
    """The curve between 0 and 1, and what it spans.

    None where a curve does not say what a loss is: one that reads the classes' shares, the costs,
    the clock or the past, or moves the logits, may be like another only where classes are even,
    mistakes cost alike, the training is half over and nothing was predicted before.
    """
    told = CLASS_TERMINALS | CLOCK_TERMINALS | {COST.head, PAST.head}
    if not formula.plain_softmax or not formula.terminals.isdisjoint(told):
        return None
    curve = examine(formula.expression, filters).curve
    if curve is None:
        return None
    return normalised(curve)[::THINNED].float(), float(curve.max() - curve.min())


@dataclass
class NoveltyFilter:
    """A genome for a strategy to vary: what comes out is varied again until it is worth a training.

    A genome without formulas is left as it is.

    Attributes:
        genome: what is varied.
        seen: what the run has trained.
        tries: after so many a child is given up and its parent kept.
        refused: how often each reason was met since the generation began.
    """

    genome: Genome
    seen: SeenLosses | None
    tries: int = 30
    refused: Counter[str] = field(default_factory=Counter)
    this_generation: SeenLosses | None = None

    def start_generation(self) -> None:
        """A generation begins: nothing of it is refused or seen yet."""
        self.refused.clear()
        self.this_generation = None if self.seen is None else SeenLosses(self.seen.filters)

    def sample(self, n: int, key: Stream) -> Population:
        """Return n candidates to start from.

        Where too few novel ones are found in all tries, refused ones fill the places.
        """
        first = self.genome.sample(n, key)
        novel = self._verdicts(first) == NOVEL
        candidates = first[novel]
        refused = first[~novel]
        for again in range(self.tries):
            if len(candidates) == n:
                return candidates
            more = self.genome.sample(n, key.at("again", again))
            candidates = candidates.cat(more[self._verdicts(more) == NOVEL][: n - len(candidates)])
        return candidates.cat(refused)[:n]

    def mutate(
        self, parents: Population, strength: Float[Tensor, "P ..."], key: Stream
    ) -> Population:
        """One child of each parent, or the parent where none was found in all tries."""
        return self._varied(
            parents, key, lambda a, rows, key: self.genome.mutate(a, strength[rows], key)
        )

    def crossover(self, a: Population, b: Population, key: Stream) -> Population:
        """One child of row i of `a` and row i of `b`, or row i of `a`."""
        return self._varied(a, key, lambda a, rows, key: self.genome.crossover(a, b[rows], key))

    def losses(self, population: Population) -> Losses:
        """The candidates as losses that run together."""
        return self.genome.losses(population)

    def valid(self, population: Population) -> Int[Tensor, " P"]:
        """0 for formulas, which were varied until they are worth a training, or given up.

        For all others what the genome says.
        """
        if self.seen is not None:
            return torch.zeros(len(population), dtype=torch.int64)
        return self.genome.valid(population)

    def _varied(
        self, parents: Population, key: Stream, vary: Callable[[Any, Tensor, Stream], Population]
    ) -> Population:
        missing = torch.arange(len(parents))
        if self.seen is None:
            return vary(parents, missing, key)
        pool = parents
        place = missing.clone()
        base = missing.clone()
        for again in range(self.tries):
            # The first try draws as if there were no filter.
            children = vary(pool[base[missing]], missing, key.at("again", again) if again else key)
            verdict = self._verdicts(children)
            number = len(pool) + torch.arange(len(children))
            novel = verdict == NOVEL
            known = verdict == KNOWN
            place[missing[novel]] = number[novel]
            # All around a parent may be known. The next try starts from the known child, one step
            # further away.
            base[missing[known]] = number[known]
            pool = pool.cat(children)
            missing = missing[~novel]
            if not len(missing):
                break
        return pool[place]

    def _verdicts(self, population: Population) -> Int[Tensor, " P"]:
        """NOVEL, KNOWN or REFUSED for every candidate; a novel one is known from now on."""
        if self.seen is None:
            return torch.full((len(population),), NOVEL)
        codes = self.genome.valid(population).tolist()
        formulas: Iterable[Any] = self.losses(population).formulas  # type: ignore[attr-defined]
        return torch.tensor(
            [self._verdict(code, f) for code, f in zip(codes, formulas, strict=True)]
        )

    def _verdict(self, code: int, formula: Formula) -> int:
        assert self.seen is not None
        assert self.this_generation is not None, "start a generation first"
        reason = (
            self.genome.reasons[code]
            if code
            else self.seen.reason_seen(formula) or self.this_generation.reason_seen(formula)
        )
        if not reason:
            # Known from now on, so that this generation does not make it a second time.
            self.this_generation.add(formula)
            return NOVEL
        self.refused[reason] += 1
        return REFUSED if code else KNOWN
