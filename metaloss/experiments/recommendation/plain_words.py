"""What losses, methods and metrics are, in words that need no knowledge of the field."""

from metaloss.core.metric_scale import MetricScale
from metaloss.evaluation.rivals import FITTED
from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.recommendation.rivals import RivalChoice

# Where 40 % are wrong, two classifiers that differ by three points on right labels differ by one
# (docs/howto/recommend.md).
TRUSTS_LABELS_LESS = (
    "This one trusts single labels less, which helps where some of them are wrong. Where some are, "
    "the true gain is larger than the one below, which is counted by the same labels."
)
LOSSES = {
    "few-shot": "This one was found by a search over many kinds of short trainings on few images.",
    "label_smoothing": "This one lets the training be less sure of every single label.",
    "focal": "This one lets images count more that are still answered wrongly.",
    "mse": "This one reduces the squared error of the probabilities.",
    "mae": TRUSTS_LABELS_LESS,
    "gce": TRUSTS_LABELS_LESS,
    "class_weights": "This one lets every image of a rare class count more.",
    "logit_adjustment": "This one tells the training how frequent each class is, so that rare ones "
    "are not given up.",
    "logit_adjustment_smoothed": "This one tells the training how frequent each class is, so that "
    "rare ones are not given up, and to be less sure of every single label.",
}
ANY_LOSS = "This one measures the errors, which the training reduces, in another way."

CHANGES = {
    "prior correction": "afterwards shift the answers towards the rare classes",
    "thresholds": "afterwards shift the answers by a number for every class",
    "least expected cost": "afterwards give the answer that costs least on average",
    "temperature": "afterwards make its probabilities truer, which changes no answer",
}
ANY_CHANGE = "afterwards change the network's outputs"

# Of metrics that answers decide; for others the recognised share of a class says little.
ANSWERS = {
    "accuracy": "the share of images that are recognised",
    "balanced_accuracy": "the share of images that are recognised, averaged over the classes, so "
    "that each counts alike",
    "macro_f1": "the mean over the classes of the F1 score, which falls with missed images and "
    "with false alarms; 1 is best",
    "worst_recall": "the share that is recognised of the class that is recognised least",
    "cost": "the mean cost of an answer; less is better",
    "mcc": "how closely answers follow the classes; 0 is chance, 1 is best",
    "kappa": "how closely answers agree with the ordered classes; 0 is chance, 1 is best",
}
RANKINGS = {
    "auroc": "how often an image of a class gets a higher probability of it than another image; "
    "50 % is chance",
    "average_precision": "how far up the images of a class stand where all are ordered by its "
    "probability; 100 % is best",
    "recall_at_precision": "the share of a class that is recognised where alarms must be right as "
    "often as was asked",
    "brier": "the squared error of the probabilities; less is better",
    "nll": "how improbable the true classes were held to be; less is better",
    "ece": "how far the probabilities lie from the shares that come true; less is better",
}


def loss_in_plain_words(name: str) -> str:
    """What a loss does, in a sentence.

    >>> loss_in_plain_words("class_weights")
    'This one lets every image of a rare class count more.'

    Args:
        name: without its parameters.
    """
    return LOSSES.get(name, ANY_LOSS)


def method_in_plain_words(rival: RivalChoice, own: str) -> str:
    """What to do where what is recommended is no loss, as a command.

    Args:
        rival: what is recommended.
        own: what was chosen for it; "" where nothing was.
    """
    number = f", {own}" if own else ""
    if rival.kind == FITTED:
        name, _, weights = rival.name.partition(", ")
        chosen = f" ({own})" if own else ""
        rare = f", with {weights} (images of rare classes count more)" if weights else ""
        return f"Use {name}{chosen}, a classical method, in place of a network{rare}."
    change = rival.name.removeprefix(f"{CE}, ")
    what = CHANGES.get(change, ANY_CHANGE)
    return f"Train with cross-entropy, the usual loss, and {what} ({change}{number})."


def metric_in_plain_words(scale: MetricScale) -> str:
    """What is measured, after its name; "" of a metric that is not known here."""
    return ANSWERS.get(scale.kind) or RANKINGS.get(scale.kind, "")


def answers_decide(scale: MetricScale) -> bool:
    """Whether a metric counts answers, so that the recognised share of each class says how."""
    return scale.kind not in RANKINGS
