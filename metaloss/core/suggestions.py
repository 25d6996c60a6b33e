"""Names that users of other libraries write, and what they are called here.

All suggestions in messages come from these tables.
"""

import re
from pathlib import Path

_CE = (
    *(
        "crossentropy",
        "categoricalcrossentropy",
        "sparsecategoricalcrossentropy",
        "softmaxcrossentropy",
        "xent",
    ),
    *("nll", "negativeloglikelihood", "log", "logistic", "softmax", "kl", "kldiv"),
    *("bce", "bcewithlogits", "binarycrossentropy", "binarycrossentropywithlogits"),
)
# Other libraries' names of losses, as `_plain` leaves them.
LOSSES = {
    **dict.fromkeys(_CE, "ce"),
    **dict.fromkeys(
        ("crossentropylabelsmoothing", "labelsmoothingcrossentropy", "smoothing"), "label_smoothing"
    ),
    **dict.fromkeys(("focallogits", "sigmoidfocal", "binaryfocal", "focalcrossentropy"), "focal"),
    **dict.fromkeys(("meansquarederror", "l2", "brier", "quadratic", "euclidean"), "mse"),
    **dict.fromkeys(("meanabsoluteerror", "l1"), "mae"),
    **dict.fromkeys(("generalizedcrossentropy", "generalisedcrossentropy", "gceloss", "lq"), "gce"),
    **dict.fromkeys(("symmetriccrossentropy", "rce"), "sce"),
    **dict.fromkeys(("poly", "polycrossentropy", "poly1crossentropy"), "poly1"),
    **dict.fromkeys(("logitadjusted", "logitadjust", "la"), "logit_adjustment"),
    **dict.fromkeys(
        ("balancedsoftmax", "balms", "bsoftmax", "balancedmetasoftmax"), "balanced_softmax"
    ),
    **dict.fromkeys(("classbalanced", "cb", "cbce", "effectivenumbers"), "effective_number"),
    **dict.fromkeys(("weightedce", "weightedcrossentropy", "wce"), "class_weights"),
    **dict.fromkeys(("labeldistributionawaremargin",), "ldam"),
    **dict.fromkeys(("vectorscaling",), "vs"),
    **dict.fromkeys(("costaugmentedsoftmax", "costsensitivesoftmax"), "softmax_margin"),
    **dict.fromkeys(("risk", "minimumrisk", "bayesrisk"), "expected_cost"),
    **dict.fromkeys(("sord", "softordinallabels"), "soft_ordinal"),
    **dict.fromkeys(("js", "jsd", "jensenshannondivergence", "gjs"), "jensen_shannon"),
    **dict.fromkeys(("asl", "aslsinglelabel"), "asymmetric"),
    **dict.fromkeys(("bootstrap", "bootstrapping", "softbootstrapping"), "bootstrap_soft"),
    **dict.fromkeys(("softdice", "dicecoefficient"), "dice"),
    **dict.fromkeys(("f1", "softf1", "macrosoftf1", "sigmoidf1", "macrof1"), "soft_f1"),
    **dict.fromkeys(("sol", "scoreoriented", "tss", "confusionmatrix"), "confusion"),
    **dict.fromkeys(("hardbootstrapping", "bootstraphard"), "bootstrap_hard"),
    **dict.fromkeys(("nce", "ncerce", "nceandrce", "apl", "normalizedcrossentropy"), "nce_rce"),
}
PRIMITIVES = {
    "log": "Write logp for the logarithm of p, and ln(x), which adds 1e-7 to x, or exact_log(x) "
    "for that of another x.",
    "log2": "Write ln(x)/0.693147, or logp/0.693147 for that of p.",
    "sqr": "Write square(x) or x**2.",
    "softmax": "p is the softmax of the logits.",
    "log_softmax": "logp is the log-softmax of the logits.",
    "power": "Write x**2, or pow(x, 2).",
}
NAMES = {
    "y_true": "The target is y.",
    "target": "The target is y.",
    "label": "The target is y.",
    "y_pred": "The predicted probability is p, its logarithm logp.",
    "pred": "The predicted probability is p, its logarithm logp.",
    "prob": "The predicted probability is p, its logarithm logp.",
    "log_p": "The logarithm of p is logp.",
    "n_classes": "The number of classes is C.",
    "pi": "A class's share of the training images is prior, ln(C·prior) is logprior.",
    "log_prior": "The logarithm of C times a class's share of the training images is logprior.",
    "priors": "A class's share of the training images is prior.",
    "n": "The number of a class's training images is count.",
    "costs": "What a class costs as the answer is cost.",
    "counts": "The number of a class's training images is count.",
    "c": "The number of classes is C.",
    "step": "The share of the training's steps that is done is t.",
    "steps": "The logarithm of the training's number of steps is logn.",
    "time": "The share of the training's steps that is done is t.",
}
_OPTION = (
    "That is an option of every loss, given beside its name: metaloss.load({spec!r}, {option})."
)
PARAMETERS = {
    "alpha": "Are class weights meant? "
    + _OPTION.format(spec="focal", option="weight=[0.25, 0.75]"),
    "weight": _OPTION.format(spec="ce", option="weight=[1, 3]"),
    "reduction": _OPTION.format(spec="ce", option="reduction='none'"),
    "label_smoothing": _OPTION.format(spec="ce", option="label_smoothing=0.1"),
    "ignore_index": _OPTION.format(spec="ce", option="ignore_index=255"),
}
SETTINGS = {
    "label_noise": 'It is now noise = {{ kind = "symmetric", share = {value} }}.',
}
CHARACTERS = {
    "^": "a power is written **",
    "−": "a minus is written -",
    "·": "a product is written *",
    "×": "a product is written *",
    "÷": "a quotient is written /",
    "[": "use round brackets",
}
SENTENCES = {
    "primitive": PRIMITIVES,
    "name": {**PRIMITIVES, **NAMES},
    "parameter": PARAMETERS,
    "setting": SETTINGS,
}


def sentence(what: str, name: str, value: object = None) -> str:
    """What to write instead of an unknown primitive, name, parameter or setting, or nothing.

    Args:
        what: kind of name it is.
        name: as it was written.
        value: that a setting was given.
    """
    text = SENTENCES.get(what, {}).get(name.lower(), "")
    return text.format(value=value) if what == "setting" else text


def loss(name: str) -> str:
    """The name here of a loss that another library calls so; unchanged where there is none.

    >>> loss("torch.nn.CrossEntropyLoss()"), loss("MSELoss"), loss("mosaic")
    ('ce', 'mse', 'mosaic')
    """
    if not re.fullmatch(r"\s*[\w.]+(\(.*\))?\s*", name):
        return name
    plain = _plain(name)
    return LOSSES.get(plain, plain or name)


def folder(spec: str) -> str:
    """How to name a folder of images, where a name is the path of one; empty elsewhere."""
    try:
        is_folder = Path(spec).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):  # what cannot be a path
        is_folder = False
    return f"It is a folder; its images are folder:{spec}" if is_folder else ""


def _plain(name: str) -> str:
    """A name without module, arguments, underscores and the word loss."""
    bare = name.strip().partition("(")[0].rpartition(".")[2].lower()
    return re.sub(r"[^a-z0-9]", "", bare).removesuffix("loss")
