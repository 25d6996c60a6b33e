"""Train one classifier twice on the same 50 images: with cross-entropy, and with a loss that
evolution found.

metaloss evolve --tasks fashionmnist
python examples/train_with_a_learned_loss.py runs/fashionmnist-mln-mu_plus_lambda-0
"""

import sys

import torch
from torch import nn

import metaloss
from metaloss.data import datasets


def main(spec: str, shots: int = 5, steps: int = 20, lr: float = 0.1) -> dict[str, float]:
    """Print and return the accuracy that each loss reaches on the official test images."""
    data = datasets.load("fashionmnist")
    x = (data.pixels.float().flatten(1) - 73) / 90
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train = torch.cat(
        [
            order[(data.labels[order] == c) & ~data.test[order]][:shots]
            for c in range(len(data.classes))
        ]
    )

    accuracy = {}
    for name, loss in (
        ("cross-entropy", nn.CrossEntropyLoss()),
        ("learned loss", metaloss.load(spec)),
    ):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
        )
        sgd = torch.optim.SGD(model.parameters(), lr=lr)
        for _ in range(steps):
            sgd.zero_grad()
            loss(model(x[train]), data.labels[train]).backward()
            sgd.step()
        right = model(x[data.test]).argmax(1) == data.labels[data.test]
        accuracy[name] = right.float().mean().item()
        print(f"{name:14} {accuracy[name]:.1%}")
    return accuracy


if __name__ == "__main__":
    main(sys.argv[1])
