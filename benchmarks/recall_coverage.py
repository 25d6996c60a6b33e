"""How often a recall's interval holds the true recall where images have groups, such as patients.

Classes of 5, 12 and 30 patients are simulated, with 1 to 11 images each, whose chances to be
recognised are alike by an intraclass correlation: 0, images of a patient are as those of others;
1, all of a patient's images are recognised, or none. An interval of 95 % should hold the true
recall for 93 to 97 % of the classes, and be no wider than it must.

    python benchmarks/recall_coverage.py [--classes 2000]
"""

import argparse

import torch
from timing import table
from torch import Tensor

from metaloss.core.proportions import effective_size, wilson
from metaloss.core.streams import Stream

RECALLS = (0.2, 0.5, 0.8, 0.95)
RESAMPLES = 400  # of groups, of the percentile bootstrap
Interval = tuple[float, float]


def draw(key: Stream, patients: int, correlation: float, recall: float) -> tuple[Tensor, Tensor]:
    """Whether each image is recognised, and its patient."""
    groups = torch.arange(patients).repeat_interleave(1 + key.at("sizes").integers(11, patients))
    own = key.at("own").uniform(len(groups))
    common = key.at("common").uniform(patients)[groups]
    # Two images of a patient follow what they have in common, both of them, by the correlation.
    alike = key.at("alike").uniform(len(groups)) < correlation**0.5
    return (torch.where(alike, common, own) < recall).double(), groups


def resampled(right: Tensor, groups: Tensor, key: Stream) -> Interval:
    """The percentile bootstrap of whole groups, one fewer drawn than there are."""
    patients = int(groups.max()) + 1
    drawn = key.integers(patients, RESAMPLES, patients - 1)
    times = torch.zeros(RESAMPLES, patients).scatter_add_(1, drawn, torch.ones(drawn.shape))
    hits, images = (
        torch.zeros(patients).index_add_(0, groups, x.float())
        for x in (right, torch.ones(len(right)))
    )
    shares = (times @ hits) / (times @ images)
    low, high = shares.quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def intervals(right: Tensor, groups: Tensor, key: Stream) -> dict[str, Interval]:
    """The 95 % intervals of the recall, by what they count."""
    share, ones = float(right.mean()), torch.ones(len(right))
    return {
        "as metaloss": wilson(share, effective_size(right, ones, groups)),
        "images": wilson(share, len(right)),
        "groups, all alike": wilson(share, effective_size(torch.ones(len(right)), ones, groups)),
        "groups resampled": resampled(right, groups, key),
    }


def measure(patients: int, correlation: float, classes: int) -> list[object]:
    """A row of the table."""
    covered: dict[str, int] = {}
    width: dict[str, float] = {}
    for number in range(classes):
        recall = RECALLS[number % len(RECALLS)]
        key = Stream(0).at(patients, f"{correlation:g}", number)
        right, groups = draw(key, patients, correlation, recall)
        for name, (low, high) in intervals(right, groups, key.at("bootstrap")).items():
            covered[name] = covered.get(name, 0) + (low <= recall <= high)
            width[name] = width.get(name, 0.0) + high - low
    cells = [f"{100 * covered[x] / classes:.1f} % ({width[x] / classes:.2f})" for x in covered]
    return [patients, f"{correlation:g}", *cells]


def main() -> None:
    """Print one row for each number of patients and correlation: coverage, and mean width."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--classes", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        measure(patients, correlation, options.classes)
        for patients in (5, 12, 30)
        for correlation in (0.0, 0.2, 0.5, 1.0)
    ]
    names = ["as metaloss", "images", "groups, all alike", "groups resampled"]
    print(table(["patients", "correlation", *names], rows))


if __name__ == "__main__":
    main()
