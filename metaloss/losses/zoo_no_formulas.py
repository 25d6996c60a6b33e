"""Entries of the zoo that are no formula of one class: of a whole batch, or of all classes at once.

Where a paper is named with "its code", that code was read, not the paper.
"""

from metaloss.losses.batch_formulas import ConfusionLoss, DiceLoss, SoftF1Loss
from metaloss.losses.image_formulas import HardBootstrapLoss, NormalisedReverseLoss
from metaloss.losses.published_loss import PublishedLoss

F1_FLAG = "F1 in place of recall + specificity - 1"

NO_FORMULAS = (
    # --- of a whole batch ---
    PublishedLoss(
        "dice",
        "",
        "Milletari 2016 (V-Net), as in segmentation_models_pytorch",
        "1 - (2 Σ p·y + smooth)/(Σ p + Σ y + smooth) for every class of the target, Σ over all "
        "images or pixels of the batch, then the mean over the classes. A class without an image "
        "in the batch has the value 0.",
        reading="code",
        parameters={"smooth": (0.0, 0.0, 1e6)},
        grid={"smooth": (0.0, 1.0, 5.0)},
        form=DiceLoss,
    ),
    PublishedLoss(
        "soft_f1",
        "",
        "Bénédict 2021 (sigmoidF1), arXiv 2108.10566, its code's macro soft F1; double: Maiza 2019",
        "1 - 2 TP/(2 TP + FP + FN) with soft counts over the batch, then the mean over all "
        "classes. The sources have many labels and a sigmoid for each; here it is the softmax. "
        "2 TP + FP + FN is Σ p + Σ y, so the gradient is that of dice; a class without an image in "
        "the batch has the value 1.",
        reading="code",
        flags={"double": "the mean with the F1 of the rest, 2 TN/(2 TN + FP + FN)"},
        form=SoftF1Loss,
    ),
    PublishedLoss(
        "confusion",
        "",
        "Marchetti 2022 (score-oriented loss), arXiv 2103.15522, its code",
        "1 - score of the expected confusion matrix, one class against the rest, then the mean "
        "over the classes. The score is recall + specificity - 1. The threshold has a raised "
        "cosine's distribution from mu - delta to mu + delta. Beyond that there is no gradient, so "
        "the code's delta of 0.1 does not start where classes are many; 0.5 is ours. Where a "
        "class, or the rest, has no image in the batch, its recall, or specificity, is 0.",
        reading="code",
        parameters={"mu": (0.5, 0.0, 1.0), "delta": (0.5, 1e-3, 10.0)},
        grid={"mu": (0.3, 0.5), "delta": (0.3, 0.5, 1.0)},
        flags={"f1": F1_FLAG},
        form=ConfusionLoss,
    ),
    # --- of all classes of an image ---
    PublishedLoss(
        "bootstrap_hard",
        "",
        "Reed 2015, arXiv 1412.6596",
        "-Σ (β y + (1 - β) z) ln p, z the most probable class, which is held fixed; classes that "
        "are equally probable share it, which is ours. Read in two public codes, not in the paper.",
        reading="code",
        parameters={"beta": (0.8, 0.0, 1.0)},
        grid={"beta": (0.5, 0.7, 0.8, 0.9)},
        form=HardBootstrapLoss,
    ),
    PublishedLoss(
        "nce_rce",
        "",
        "Ma 2020 (active passive loss), arXiv 2006.13554, its code",
        "α NCE + β RCE: Σ y ln p / Σ ln p, and -Σ p ln y with y held at 1e-4, so that ln 0 is "
        "-9.21, as in the code. There α and β are 1 for CIFAR-10, 1 and 10 for MNIST, 10 and 0.1 "
        "for CIFAR-100.",
        reading="code",
        parameters={"alpha": (1.0, 0.0, 1e3), "beta": (1.0, 0.0, 1e3)},
        grid={"beta": (0.01, 0.1, 1.0, 10.0)},
        form=NormalisedReverseLoss,
    ),
)
