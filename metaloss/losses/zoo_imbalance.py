"""Entries of the zoo for uneven classes and wrong labels.

Those for uneven classes read how many training images each class has. Where classes are even, they
are cross-entropy, but for a margin. Where a source scales its weights so that they add up to a
constant, which an expression of one class cannot, they are 1 here for a class of average size.
"""

from metaloss.losses.published_loss import PublishedLoss

MENON = "Menon 2021 (logit adjustment), arXiv 2007.07314, its code"
CAO = "Cao 2019 (LDAM), arXiv 1906.07413, its code"
KINI = "Kini 2021 (VS loss), arXiv 2103.01550, its code"
ENGLESSON = "Englesson and Azizpour 2021, arXiv 2105.04522, its code"
ASYMMETRIC = "Ridnik 2021 (ASL), arXiv 2009.14119, its code for single labels"
MARGIN_REMARKS = (
    "Margins are margin/n^(1/4); the code scales them so that the largest is 0.5, and multiplies "
    "the logits less the margin by s = 30, as its last layer gives cosines: scale is 1 here, for "
    "any network."
)

# --- uneven classes ---
_UNEVEN = (
    PublishedLoss(
        "class_weights",
        "sum(-y*logp*exp(-kappa*logprior))",
        "inverse class frequency to a power; kappa = 1 is scikit-learn's class_weight='balanced'",
        "The mean over the batch is not divided by the weights.",
        reading="code",
        parameters={"kappa": (1.0, -1.0, 4.0)},
        grid={"kappa": (0.25, 0.5, 0.75, 1.0, 1.5)},
    ),
    PublishedLoss(
        "effective_number",
        # 1 - βⁿ by expm1, which does not cancel where β is near 1.
        "sum(-y*logp*expm1(exact_log(beta)*count/(C*prior))/expm1(exact_log(beta)*count))",
        "Cui 2019 (class-balanced loss), arXiv 1901.05555",
        "The weight of a class is (1 - β)/(1 - βⁿ), divided by that of a class of average size.",
        parameters={"beta": (0.999, 1e-6, 0.999999)},
        grid={"beta": (0.5, 0.8, 0.9, 0.99, 0.999)},
    ),
    PublishedLoss(
        "logit_adjustment",
        "sum(-y*logp, shift=tau*logprior)",
        MENON,
        "The code adds ln(π^τ + 1e-12); ln(C·π) in place of ln π makes no difference to a softmax. "
        "Its τ is 1.",
        reading="code",
        parameters={"tau": (1.0, -10.0, 10.0)},
        grid={"tau": (0.5, 1.0, 1.5, 2.0, 3.0)},
    ),
    PublishedLoss(
        "logit_adjustment_smoothed",
        "sum(-(y*(1 - alpha) + alpha/C)*logp, shift=tau*logprior)",
        MENON,
        "logit_adjustment with label smoothing, which is ours.",
        reading="code",
        parameters={"tau": (1.0, -10.0, 10.0), "alpha": (0.2, 0.0, 1.0)},
        grid={"tau": (0.5, 1.0, 1.5, 2.0, 3.0), "alpha": (0.1, 0.2, 0.4)},
    ),
    PublishedLoss(
        "balanced_softmax",
        "sum(-y*logp, shift=logprior)",
        "Ren 2020 (balanced meta-softmax), arXiv 2007.10740",
        "logit_adjustment with tau = 1.",
    ),
    PublishedLoss(
        "ldam",
        "sum(-y*logp, scale=scale, shift=-scale*margin*y*count**-0.25)",
        CAO,
        MARGIN_REMARKS,
        reading="code",
        parameters={"margin": (0.5, 0.0, 100.0), "scale": (1.0, 1e-3, 1e3)},
        grid={"margin": (0.5, 1.0, 2.0, 4.0), "scale": (0.5, 1.0, 2.0)},
    ),
    PublishedLoss(
        "vs",
        "sum(-y*logp, scale=exp(gamma*logprior), shift=tau*logprior)",
        KINI,
        "Logits are multiplied by (n/n')^gamma, n' the average class's images; the largest one's "
        "in the code, which differs by a temperature. The code's γ and τ are 0.3 and 1, its "
        "example's 0.2 and 1.2; the defaults here are a third party's. Class weights ω are 1.",
        reading="code",
        parameters={"gamma": (0.15, -2.0, 2.0), "tau": (1.25, -10.0, 10.0)},
        grid={"gamma": (0.05, 0.15, 0.3), "tau": (0.5, 1.0, 1.25, 1.5, 2.0, 3.0)},
    ),
)

# --- wrong labels, and many easy wrong classes ---
_NOISY = (
    PublishedLoss(
        "bootstrap_soft",
        # log_clamp: p·ln p is 0 where p is.
        "sum(-beta*y*logp - (1 - beta)*p*log_clamp(p))",
        "Reed 2015, arXiv 1412.6596",
        "The gradient goes through both factors; some codes hold the first one fixed. The "
        "entropy's logarithm is held at 1e-7. Read in public codes, not in the paper. The hard "
        "form is bootstrap_hard.",
        reading="code",
        parameters={"beta": (0.95, 0.0, 1.0)},
        grid={"beta": (0.5, 0.7, 0.8, 0.9, 0.95)},
    ),
    PublishedLoss(
        "jensen_shannon",
        # The divergence of y and p from their mixture, divided by -(1 - π) ln(1 - π).
        "sum((weight*y*(log_clamp(y) - log_clamp(weight*y + (1 - weight)*p))"
        " + (1 - weight)*p*(log_clamp(p) - log_clamp(weight*y + (1 - weight)*p)))"
        "/(-(1 - weight)*exact_log(1 - weight)))",
        ENGLESSON,
        "Of a target and a prediction, the target's weight π; logarithms are held at 1e-7, as in "
        "the code. π to 0: cross-entropy; π to 1: half of mae.",
        reading="code",
        parameters={"weight": (0.5, 1e-3, 0.999)},
        grid={"weight": (0.1, 0.3, 0.5, 0.7, 0.9)},
    ),
    PublishedLoss(
        "asymmetric",
        "sum(-y*(1 - alpha + alpha/C)*logp*(1 - p)**gamma_pos"
        " - (1 - y)*alpha/C*log_clamp(p)*p**gamma_neg)",
        ASYMMETRIC,
        "For hard labels. Wrong classes count by the label smoothing alpha alone; the logarithm of "
        "their p is held at 1e-7, which is ours.",
        reading="code",
        parameters={
            "gamma_pos": (0.0, 0.0, 20.0),
            "gamma_neg": (4.0, 0.0, 20.0),
            "alpha": (0.1, 0.0, 1.0),
        },
        grid={"gamma_pos": (0.0, 1.0, 2.0), "gamma_neg": (1.0, 4.0), "alpha": (0.1, 0.3)},
    ),
)

IMBALANCE = (*_UNEVEN, *_NOISY)
