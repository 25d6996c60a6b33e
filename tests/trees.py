"""Random expressions for property tests."""

import hypothesis.strategies as st

from metaloss.losses.language.expression import TERMINALS, Expression, call, constant
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.primitives import PRIMITIVES

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def expressions(names=tuple(PRIMITIVES), numbers=NUMBERS, leaves=12):
    """Trees of these primitives over all terminals and these constants."""
    by_arity = {n: [name for name in names if PRIMITIVES[name].arity == n] for n in (1, 2, 3)}

    def grown(smaller):
        return st.one_of(
            *(
                st.builds(call, st.sampled_from(found), *[smaller] * n)
                for n, found in by_arity.items()
                if found
            )
        )

    terminal = st.sampled_from(TERMINALS).map(Expression)
    return st.recursive(
        st.one_of(terminal, terminal, numbers.map(constant)), grown, max_leaves=leaves
    )


def small(e):
    """Not so large that the parser would refuse it."""
    return e.height <= 60 and e.size <= 500


def population(genome, *texts):
    """The trees that these formulas are written as."""
    return genome._rows([Formula.parse(text).expression for text in texts])


def texts(genome, candidates):
    """The trees as they are written."""
    return [e.text for e in genome.expressions(candidates)]
