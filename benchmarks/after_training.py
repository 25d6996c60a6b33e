"""A prior correction or thresholds after training, chosen on held-out answers of few images.

    python benchmarks/after_training.py [--draws 20] [--times 1]

For each draw of a user's folder (`user_folder.py`: 120 pullovers, 45 coats and 18 shirts; with
`--times 3` three times as many) an MLP is trained with cross-entropy on two of three parts of the
images, in turn, of two cuts into parts. On the answers to the held-out parts a strength of the
prior correction is chosen, and thresholds: a number for every class. Both are added to the logits
of networks that have trained on all images, and judged by balanced accuracy on 900 new images. The
rows:

    none         cross-entropy as it is
    τ = 1        the prior correction of the shares, nothing chosen
    τ            its strength chosen
    thresholds   as they are chosen on all held-out answers
    by own       thresholds where these score more on the answers that they were chosen on
    crosswise    thresholds where these score more on a part when chosen on the other parts
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor
from user_folder import TEST, TRAIN, drawn_rows

from metaloss.core.streams import Stream
from metaloss.data.datasets import fashionmnist
from metaloss.experiments.recommendation_by_training.candidates import TAUS
from metaloss.inner.thresholds import search_thresholds
from metaloss.training.corrections import prior_offsets

PARTS = 3
CUTS = 2  # into parts
SEEDS = 2  # networks that are judged
STEPS = 150
RATE = 0.1


@dataclass(frozen=True)
class HeldOut:
    """What a network answers to the part that it has not seen.

    Attributes:
        cut: which cut into parts.
        part: which of its parts.
        logits: of the part's images.
        label: their classes.
        counts: images of every class that the network has learned from.
    """

    cut: int
    part: int
    logits: Float[Tensor, "V C"]
    label: Int[Tensor, " V"]
    counts: Int[Tensor, " C"]


Change = Callable[[HeldOut], Float[Tensor, "V C"]]


def balanced_accuracy(logits: Float[Tensor, "V C"], label: Int[Tensor, " V"]) -> float:
    """The mean over the classes of their recall."""
    right = (logits.argmax(1) == label).float()
    return float(torch.stack([right[label == c].mean() for c in label.unique()]).mean())


def trained(x: Float[Tensor, "B D"], label: Int[Tensor, " B"], seed: int) -> torch.nn.Module:
    """An MLP after full steps on these images."""
    torch.manual_seed(seed)
    widths = (x.shape[1], 128, 64, len(TRAIN))
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]
    network = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE)
    for _ in range(STEPS):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), label).backward()
        optimiser.step()
    return network


def held_out_answers(
    x: Float[Tensor, "N D"], label: Int[Tensor, " N"], key: Stream
) -> list[HeldOut]:
    """Every part's answers, by a network of the other parts."""
    answers = []
    for cut in range(CUTS):
        part_of = torch.empty_like(label)
        for c in label.unique().tolist():
            rows = (label == c).nonzero()[:, 0]
            rows = rows[key.at("cut", cut, c).permutation(len(rows))]
            part_of[rows] = torch.arange(len(rows)) % PARTS
        for part in range(PARTS):
            seen, unseen = part_of != part, part_of == part
            network = trained(x[seen], label[seen], 10 * cut + part)
            with torch.no_grad():
                logits = network(x[unseen])
            answers.append(HeldOut(cut, part, logits, label[unseen], label[seen].bincount()))
    return answers


def score(answers: Sequence[HeldOut], change: Change) -> float:
    """The mean over the cuts of the balanced accuracy on all parts together."""
    values = []
    for cut in range(CUTS):
        parts = [x for x in answers if x.cut == cut]
        logits = torch.cat([change(x) for x in parts])
        values.append(balanced_accuracy(logits, torch.cat([x.label for x in parts])))
    return sum(values) / CUTS


def thresholds(answers: Sequence[HeldOut]) -> Float[Tensor, " C"]:
    """What makes these answers best."""
    logits = torch.cat([x.logits for x in answers])
    label = torch.cat([x.label for x in answers])
    return search_thresholds(lambda offsets: balanced_accuracy(logits + offsets, label), len(TRAIN))


def one_draw(seed: int, times: float) -> dict[str, float]:
    """What every row reaches on new images."""
    dataset = fashionmnist.load()
    sizes = [round(times * n) for n in TRAIN.values()]
    rows = [drawn_rows(dataset, c, False, seed)[:n] for c, n in zip(TRAIN, sizes, strict=True)]
    new = torch.cat([drawn_rows(dataset, c, True, seed)[:TEST] for c in TRAIN])
    new_label = torch.arange(len(TRAIN)).repeat_interleave(TEST)
    label = torch.arange(len(TRAIN)).repeat_interleave(torch.tensor(sizes))
    pixels = dataset.pixels.flatten(1)
    mean, std = 0.29, 0.35  # of Fashion-MNIST
    x, new_x = ((pixels[i].float() / 255 - mean) / std for i in (torch.cat(rows), new))
    # --- choose on held-out answers ---
    answers = held_out_answers(x, label, Stream(seed))
    by_tau = {
        tau: score(answers, lambda a, tau=tau: a.logits + prior_offsets(a.counts, tau))
        for tau in (0.0, *TAUS)
    }
    tau = max(by_tau, key=by_tau.__getitem__)
    offsets = thresholds(answers)
    own = score(answers, lambda a: a.logits + offsets)
    crosswise = score(
        answers, lambda a: a.logits + thresholds([b for b in answers if b.part != a.part])
    )
    # --- judge on new images ---
    reached: dict[str, list[float]] = {}
    for number in range(SEEDS):
        network = trained(x, label, 100 + number)
        with torch.no_grad():
            logits = network(new_x)
        counts = label.bincount()
        values = {
            "none": balanced_accuracy(logits, new_label),
            "τ = 1": balanced_accuracy(logits + prior_offsets(counts, 1.0), new_label),
            "τ": balanced_accuracy(logits + prior_offsets(counts, tau), new_label),
            "thresholds": balanced_accuracy(logits + offsets, new_label),
        }
        values["by own"] = values["thresholds" if own > by_tau[tau] else "τ"]
        values["crosswise"] = values["thresholds" if crosswise > by_tau[tau] else "τ"]
        for name, value in values.items():
            reached.setdefault(name, []).append(value)
    return {name: sum(values) / SEEDS for name, values in reached.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and print a row for each way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--times", type=float, default=1.0)
    asked = parser.parse_args(arguments)
    draws = [one_draw(seed, asked.times) for seed in range(asked.draws)]
    print(f"balanced accuracy on {TEST * len(TRAIN)} new images, {asked.draws} draws")
    for name in draws[0]:
        values = 100 * torch.tensor([x[name] for x in draws])
        paired = values - 100 * torch.tensor([x["τ"] for x in draws])
        error = float(paired.std()) / asked.draws**0.5 if asked.draws > 1 else float("nan")
        print(f"{name:12}{values.mean():5.1f} %   beside τ {paired.mean():+.1f} ± {error:.1f}")


if __name__ == "__main__":
    main()
