"""The entries of the zoo: each published loss, as one line of the expression language.

What is here was read in the paper or in its authors' code; where the print is doubtful, both
readings are here and say so.
"""

from collections.abc import Mapping

from metaloss.losses.published_loss import PublishedLoss
from metaloss.losses.zoo_costs import COSTS
from metaloss.losses.zoo_imbalance import IMBALANCE
from metaloss.losses.zoo_no_formulas import NO_FORMULAS

MORGAN = "Morgan and Hougen 2024, arXiv 2404.06633, table 4"
NGL = "Next Generation Loss 2024, arXiv 2404.12948, its code"
GLO = "Gonzalez and Miikkulainen 2020 (GLO), as in the code of Morgan and Hougen"
TAYLOR = "Gonzalez and Miikkulainen 2021 (TaylorGLO), its code"
SCE = "Wang 2019, its code"
COLLAPSES = (
    "looks collapsed at 100 classes with cross-entropy's learning rate: its gradient is small there"
)
UNKNOWN = "was published with its accuracy, but its formula was not"


# Shares of a target that smoothing spreads over all classes.
SMOOTHINGS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
# The lowest q of gce, whose formula divides by q.
_TINY = 1e-6
# Only θ5, the factor of y·p, is not 0 by default.
_THETAS = {f"theta{i}": (float(i == 5), -1e6, 1e6) for i in range(8)}
# The published code clips p at 1e-7 and y at 1e-4: log y of a wrong class is ln 1e-4.
_SCE_TEXT = "sum(-alpha*y*max(logp, log_clamp(1e-7)) - beta*p*log_clamp(clip(y, 1e-4, 1)))"
# Third order in y - θ0 and p - θ1; terms of y alone would have no gradient.
_TAYLOR_TEXT = (
    "sum(-(theta2*(p - theta1) + theta3*square(p - theta1) + theta4*(p - theta1)*square(p - theta1)"
    " + theta5*(y - theta0)*(p - theta1) + theta6*(y - theta0)*square(p - theta1)"
    " + theta7*square(y - theta0)*(p - theta1)))"
)


def _sce(
    name: str, data: str, alpha: float, beta: float, grid: Mapping[str, tuple[float, ...]]
) -> PublishedLoss:
    spans = {"alpha": (alpha, 0.0, 1e3), "beta": (beta, 0.0, 1e3)}
    remarks = f"The weights are those for {data}."
    return PublishedLoss(name, _SCE_TEXT, SCE, remarks, reading="code", parameters=spans, grid=grid)


def _taylor(name: str, thetas: tuple[float, ...], remarks: str) -> PublishedLoss:
    spans = {f"theta{i}": (theta, -1e6, 1e6) for i, theta in enumerate(thetas)}
    return PublishedLoss(name, _TAYLOR_TEXT, TAYLOR, remarks, reading="code", parameters=spans)


# --- standard losses ---
_STANDARD = (
    PublishedLoss("ce", "sum(-y*logp)", "cross-entropy"),
    PublishedLoss(
        "ce_eps", "sum(-y*ln(p))", MORGAN, "Cross-entropy with ε = 1e-7 inside the logarithm."
    ),
    PublishedLoss(
        "label_smoothing",
        "sum(-(y*(1 - alpha) + alpha/C)*logp)",
        "Szegedy 2016; alpha as in " + MORGAN,
        parameters={"alpha": (0.1, 0.0, 1.0)},
        grid={"alpha": SMOOTHINGS},
    ),
    PublishedLoss(
        "temperature",
        "sum(-y*logp, temperature=tau)",
        "cross-entropy of softmax(z/τ)",
        "Softmax sees all classes, so τ stands beside the expression. The default is ours.",
        parameters={"tau": (2.0, 1e-3, 1e3)},
        grid={"tau": (0.25, 0.5, 0.7, 1.5, 2.0, 4.0)},
    ),
    PublishedLoss("mse", "sum(square(p - y))", "Brier 1950", "torch's MSELoss divides it by C."),
    PublishedLoss(
        "mae",
        "sum(abs(p - y))",
        "Ghosh 2017",
        "2(1 - p of the true class), for hard labels.",
        COLLAPSES,
    ),
    PublishedLoss(
        "focal",
        "sum(-y*(1 - p)**gamma*logp)",
        "Lin 2017",
        "No class weight α.",
        parameters={"gamma": (2.0, 0.0, 20.0)},
        grid={"gamma": (0.5, 1.0, 2.0, 3.0, 5.0)},
    ),
    # Without the name of a data set the weights are those of CIFAR-10.
    # A factor of both is the learning rate's affair: alpha alone reaches every ratio of the two.
    _sce("sce", "CIFAR-10", 0.1, 1.0, {"alpha": (0.01, 0.1, 1.0, 6.0, 60.0)}),
    _sce("sce_mnist", "MNIST", 0.01, 1.0, {}),
    _sce("sce_cifar10", "CIFAR-10", 0.1, 1.0, {}),
    _sce("sce_cifar100", "CIFAR-100", 6.0, 0.1, {}),
    PublishedLoss(
        "gce",
        # (1 - p^q)/q by expm1, which does not cancel where q is small.
        "sum(-y*expm1(q*logp)/q)",
        "Zhang 2018",
        "q to 0: cross-entropy; q = 1: half of mae.",
        parameters={"q": (0.7, _TINY, 1.0)},
        grid={"q": (0.1, 0.3, 0.5, 0.7, 0.9)},
    ),
    PublishedLoss(
        "poly1",
        "sum(-y*logp + epsilon*y*(1 - p))",
        "Leng 2022",
        "The coefficient differs: 1 in a public torch version, 2 in optax, -1 for detection.",
        reading="code",
        parameters={"epsilon": (1.0, -10.0, 100.0)},
        grid={"epsilon": (-1.0, 1.0, 2.0, 5.0, 10.0)},
    ),
    PublishedLoss(
        "sparse_lsr",
        # log_clamp: ln(1 - p) would be infinite where the prediction is certain.
        "sum(-y*((1 - xi + xi/C)*logp + xi*(C - 1)/C*(log_clamp(1 - p) - exact_log(C - 1))))",
        "Raymond, sparse label smoothing regularization",
        "For hard labels. The second term's sign in the "
        "published code and README is wrong. The default is ours.",
        reading="corrected",
        parameters={"xi": (0.1, 0.0, 1.0)},
        grid={"xi": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)},
    ),
    PublishedLoss(
        "ace",
        # exact_log: the published code's own guard, 1e-10, stands within it.
        "sum(phi0*abs(exact_log(phi1*(p*y + 1e-10))))",
        "Raymond 2023 (EvoMAL), its code",
        "For hard labels: a soft one does not weigh its class. A class with y = 0 adds a constant. "
        "Both φ are learned there; the defaults are ours.",
        reading="code",
        parameters={"phi0": (1.0, -1e3, 1e3), "phi1": (1.0, 1e-3, 1e3)},
        # φ0 is a factor, which the learning rate has already; at most 1, φ1 moves no gradient.
        grid={"phi1": (1.0, 1.1, 1.25, 1.5, 2.0)},
    ),
)

# --- losses of Morgan and Hougen, table 4 ---
_MORGAN = (
    PublishedLoss(
        "b0",
        "sum(-sigmoid(softplus(quotient(p, y))))",
        MORGAN,
        "The paper's account of its shape fits b0_softsign better.",
        COLLAPSES,
    ),
    PublishedLoss(
        "b0_softsign",
        "sum(-sigmoid(softsign(quotient(p, y))))",
        MORGAN,
        "The paper prints softplus.",
        COLLAPSES,
        "corrected",
    ),
    PublishedLoss("b1", "sum(-dsigmoid(i0e(quotient(p, y))))", MORGAN, limits=COLLAPSES),
    PublishedLoss(
        "b2",
        "sum(-i1e(erf(quotient(p, y))))",
        MORGAN,
        "A closing bracket is missing in print.",
        COLLAPSES,
    ),
    PublishedLoss(
        "c0",
        "sum(-ln(atan(quotient(p, y))))",
        MORGAN,
        "arctan as in table 4 and the code; table 1 has arctanh, which is not defined here.",
    ),
    PublishedLoss(
        "c1",
        "sum(-ln(softsign(quotient(p, y))))",
        MORGAN,
        "The paper prints softplus, with which it anti-learns: see c1_printed.",
        reading="corrected",
    ),
    PublishedLoss(
        "c1_printed",
        "sum(-ln(softplus(quotient(p, y))))",
        MORGAN,
        "A bracket is missing in print.",
        "anti-learns: it rewards wrong classes without bound",
    ),
    PublishedLoss(
        "c2",
        "sum(-sigmoid(log10(quotient(p, y))))",
        MORGAN,
        "Smooths by itself.",
        "label smoothing on top hurts",
    ),
    PublishedLoss("m0", "sum(-i1(atan(log10(p)))*y)", MORGAN),
    PublishedLoss(
        "m1", "sum(softplus(p - y))", MORGAN, "Nearly an eighth of mse and a constant.", COLLAPSES
    ),
    PublishedLoss(
        "m2", "sum(asinh(i0(y - p)))", MORGAN, "Nearly .177 mse and a constant.", COLLAPSES
    ),
    PublishedLoss(
        "r0",
        "sum(dtanh(i0e(quotient(p, y))) + i0e(quotient(p, y)))",
        MORGAN,
        "Σ covers both terms.",
        COLLAPSES + "; fails with label smoothing",
    ),
    PublishedLoss(
        "r1",
        "sum(-aq(log10(quotient(p, y)), log10(quotient(p, y)) + y))",
        MORGAN,
        "The leading minus is ours: without it, as printed, it anti-learns (r1_printed).",
        COLLAPSES,
        "corrected",
    ),
    PublishedLoss(
        "r1_printed",
        "sum(aq(log10(quotient(p, y)), log10(quotient(p, y)) + y))",
        MORGAN,
        limits="anti-learns",
    ),
    PublishedLoss(
        "r2",
        "sum(abs(log10(quotient(p, y)))**abs(i0(y)))",
        MORGAN,
        "A power is not among the paper's operations.",
        "does not train at any learning rate tried",
        verified=False,
    ),
    PublishedLoss(
        "a0",
        "sum(-ln(deriv_soft(log10(p)))*y)",
        MORGAN,
        "1/(1 + |x|) as in the code; with softsign's true derivative, its square, twice the value.",
        reading="code",
    ),
    PublishedLoss(
        "a1",
        "sum(-ln(i0e(log10(p)))*y)",
        MORGAN,
        "A bracket is missing in print; y stands outside the logarithm.",
    ),
    PublishedLoss("a2", "sum(y/i0e(ln(p)))", MORGAN, "The inverse Bessel logarithm; 1 at best."),
    PublishedLoss(
        "a2_smoothed",
        "sum((y*(1 - alpha) + alpha/C)/i0e(ln(p)))",
        MORGAN,
        "a2 with label smoothing, A2_0.10 of "
        "tables 5 and 6; the targets are smoothed as in the authors' code.",
        parameters={"alpha": (0.1, 0.0, 1.0)},
        grid={"alpha": SMOOTHINGS},
    ),
)

# --- other evolved losses ---
_EVOLVED = (
    PublishedLoss(
        "ngl",
        "mean(exp(alpha - p - p*y) - cos(cos(sin(p))))",
        NGL,
        "scaled=True: a sigmoid on the probabilities "
        "first, as its TensorFlow version may. Its minimum lies far below p = 1, so it is "
        "under-confident.",
        "slow at many classes with cross-entropy's learning rate",
        "code",
        parameters={"alpha": (2.4092, -100.0, 30.0)},
        grid={"alpha": (1.5, 2.4092, 3.5)},
        flags={
            "scaled": "mean(exp(alpha - sigmoid(p) - sigmoid(p)*y) - cos(cos(sin(sigmoid(p)))))"
        },
    ),
    PublishedLoss(
        "baikal",
        "sum(-(ln(p) - quotient(y, p)))",
        GLO,
        "Its minimum lies at p = .32 for 10 classes.",
        "pulls C times as hard as cross-entropy: diverges at its learning rate; its gradient may "
        "overflow float16",
        "code",
    ),
    PublishedLoss(
        "taylorglo",
        _TAYLOR_TEXT,
        TAYLOR,
        "Third order; by default -Σ y·p alone. The defaults are ours.",
        reading="code",
        parameters=_THETAS,
    ),
    _taylor(
        "taylorglo_mnist",
        (-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513),
        "Found on MNIST.",
    ),
    _taylor(
        "taylorglo_lossga",
        (0.8439, 1.4872, 1.5742, -1.4446, 2.3616, -0.6632, -2.8569, -1.1313),
        "An example of the authors' code, from an old search.",
    ),
    *(
        PublishedLoss(
            f"neuroloss{i}", "", "Morgan and Hougen 2024, arXiv 2403.08793", unavailable=UNKNOWN
        )
        for i in (1, 2, 3)
    ),
)

_ALL = (*_STANDARD, *IMBALANCE, *NO_FORMULAS, *COSTS, *_MORGAN, *_EVOLVED)

ENTRIES = {entry.name: entry for entry in _ALL}
