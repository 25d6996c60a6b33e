"""The images that a search learns from, and that none of them is one that it is tested on."""

from collections.abc import Iterable, Sequence

from metaloss.data import image_record
from metaloss.data.datasets import Dataset
from metaloss.data.image_record import ImageRecord
from metaloss.errors import SettingsError
from metaloss.tasks.opening import OpenFamily


def image_records(families: Iterable[OpenFamily]) -> list[ImageRecord]:
    """The records of the images that losses learn from on some families."""
    return [
        image_record.record_of(image_set.dataset)
        for family in families
        for image_set in family.image_sets
    ]


def check_test_images(families: Sequence[OpenFamily], images: ImageRecord) -> None:
    """Refuse a search that would learn from test images, or whose first loss has.

    Raises:
        SettingsError: names the family and how many images.
    """
    for opened in families:
        for image_set in opened.image_sets:
            dataset = image_set.dataset
            if isinstance(dataset, Dataset) and (
                n := images.count_seen(dataset, image_set.rows("test"))
            ):
                raise SettingsError(
                    f"{opened.family.name}: {n} of the test images are among those that the loss "
                    "before or another family learns from, so no test would be fair; leave out "
                    "one of the two"
                )
