"""Entries of the zoo for mistakes that do not all cost the same.

They read what each class costs as the answer for an image, in units of the mean mistake. Where all
mistakes cost alike, they still differ from cross-entropy: by a margin, or by smoothed targets.
"""

from metaloss.losses.published_loss import PublishedLoss

GIMPEL = "Gimpel and Smith 2010 (softmax-margin CRFs), NAACL, pages 733-736"
DIAZ = "Díaz and Marathe 2019 (soft labels for ordinal regression, SORD), CVPR"
TAU = {"tau": (0.25, 0.5, 1.0, 2.0, 4.0)}

COSTS = (
    PublishedLoss(
        "softmax_margin",
        "sum(-y*logp, shift=tau*cost)",
        GIMPEL,
        "The source has no factor before the cost: tau is ours.",
        parameters={"tau": (1.0, -10.0, 100.0)},
        grid=TAU,
    ),
    PublishedLoss(
        "softmax_margin_smoothed",
        "sum(-(y*(1 - alpha) + alpha/C)*logp, shift=tau*cost)",
        GIMPEL,
        "softmax_margin with label smoothing, which is ours.",
        parameters={"tau": (1.0, -10.0, 100.0), "alpha": (0.2, 0.0, 1.0)},
        grid={**TAU, "alpha": (0.1, 0.2, 0.4)},
    ),
    PublishedLoss(
        "expected_cost",
        "sum(cost*p)",
        "the risk of " + GIMPEL,
        "Where all mistakes cost alike it is 1 - p of the true class, half of mae.",
        "its gradient is small where the true class is improbable",
    ),
    PublishedLoss(
        "ce_expected_cost",
        "sum(weight*cost*p - y*logp)",
        "the risk of " + GIMPEL,
        "With cross-entropy, which is ours.",
        parameters={"weight": (1.0, 0.0, 1e3)},
        grid={"weight": (0.5, 1.0, 2.0, 4.0, 8.0)},
    ),
    PublishedLoss(
        "soft_ordinal",
        "sum(-exp(-tau*cost)*logp)",
        DIAZ,
        "The source divides the targets of an image by their sum over the classes, which an "
        "expression of one class cannot: an image counts as often as that sum here. tau is ours; "
        "for squared distances among five classes the source's targets have tau = 5.",
        parameters={"tau": (4.0, 0.0, 1e3)},
        grid={"tau": (1.0, 2.0, 4.0, 8.0, 16.0)},
    ),
)
