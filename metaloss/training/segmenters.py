"""Networks that give logits for every pixel: a small one of ours and torchvision's."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.errors import DataError

AUXILIARY = ("fcn", "deeplabv3")  # torchvision's that can have an auxiliary output


class SmallFCN(nn.Module):
    """Ours: three 3x3 convolutions on three scales, two 1x1 ones added up; 24,000 parameters."""

    def __init__(self, channels: int, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        if min(size) < 4:
            raise ValueError(f"images of {size[0]}x{size[1]} are used up by two halvings")
        widths = [channels, 16, 32, 64]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(widths)
        )
        self.fine, self.coarse = nn.Conv2d(widths[1], classes, 1), nn.Conv2d(widths[3], classes, 1)

    def forward(self, x: Float[Tensor, "N K H W"]) -> Float[Tensor, "N C H W"]:
        """The logits."""
        fine = self.layers[0](x)
        deep = self.layers[2](F.max_pool2d(self.layers[1](F.max_pool2d(fine, 2)), 2))
        coarse = F.interpolate(self.coarse(deep), x.shape[-2:], mode="bilinear")
        out: Tensor = self.fine(fine) + coarse
        return out


SEGMENTERS = {"fcn_small": SmallFCN}


def torchvisions() -> list[str]:
    """torchvision's models for segmentation."""
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models.segmentation))


def segments(name: str) -> bool:
    """Whether a model of this name gives logits for every pixel."""
    return name in SEGMENTERS or name in torchvisions()


def fresh(name: str, classes: int, pretrained: bool) -> nn.Module:
    """One of torchvision's, with its auxiliary output where it can have one; if asked, a backbone
    that knows ImageNet.

    Raises:
        DataError: the backbone's weights are not here and cannot be downloaded.
    """
    import torchvision

    extra = {"aux_loss": True} if name.startswith(AUXILIARY) else {}
    backbone = "DEFAULT" if pretrained else None
    try:
        network: nn.Module = torchvision.models.get_model(
            name, weights=None, weights_backbone=backbone, num_classes=classes, **extra
        )
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"the weights of {name}'s backbone cannot be downloaded ({reason})"
        ) from None
    return network
