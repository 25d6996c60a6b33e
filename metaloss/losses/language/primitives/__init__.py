"""The table of primitives: what a loss may be written in, one row each.

A file for each group holds its rows, and above them what the rows compute: functions protected as
their sources protect them, and reverse derivatives. A reverse derivative takes the gradient `g` at
the output and what it needs of the output `o` and the arguments `a`, `b`, `c`, and gives the
gradient at one argument, which its name ends with. At a kink it gives what autograd gives.
"""

from metaloss.losses.language.primitives.arithmetic import ARITHMETIC, INVERSE
from metaloss.losses.language.primitives.bessel import BESSEL
from metaloss.losses.language.primitives.exponentials import EXPONENTIALS
from metaloss.losses.language.primitives.magnitudes import MAGNITUDES
from metaloss.losses.language.primitives.sigmoids import SIGMOIDS
from metaloss.losses.language.primitives.trigonometric import TRIGONOMETRIC

# The order matters: a stored tree numbers its symbols by it.
_ROWS = (
    *ARITHMETIC,
    *EXPONENTIALS,
    *MAGNITUDES,
    *SIGMOIDS,
    *TRIGONOMETRIC,
    INVERSE,
    *BESSEL,
)
PRIMITIVES = {row.name: row for row in _ROWS}

# Morgan 2024, table 2, in the order of their code; protected ("ln", "quotient", ...) as there.
MORGAN_UNARY = (
    "neg",
    "ln",
    "log10",
    "exp",
    "abs",
    "sigmoid",
    "deriv_soft",
    "softplus",
    "erf",
    "erfc",
    "sin",
    "sinh",
    "asinh",
    "tanh",
    "atan",
    "inverse",
    "i0",
    "i0e",
    "i1",
    "i1e",
    "relu",
    "nrelu",
    "square",
    "sqrt",
    "softsign",
    "dtanh",
    "dsigmoid",
)
MORGAN_BINARY = ("add", "sub", "mul", "max", "min", "quotient", "aq")
# Raymond 2023 (EvoMAL).
EVOMAL = (
    "add",
    "sub",
    "mul",
    "aq",
    "sign",
    "square",
    "abs",
    "log_clamp",
    "sqrt_clamp",
    "tanh",
    "min",
    "max",
)
