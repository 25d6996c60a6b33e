"""Which epochs of a training get a line: few of many quick ones, and always the last."""

SECONDS = 2.0  # between two lines, at least
SLOW = 10.0  # seconds after which a line is due, whatever the epoch's number
LINES = 10  # of a training, about, where its epochs are quick


class EpochLines:
    """Decides epoch by epoch; every epoch is in `epochs.csv`."""

    def __init__(self) -> None:
        self.seconds = 0.0  # since the last line

    def due(self, epoch: int, epochs: int, seconds: float) -> bool:
        """Whether this epoch gets a line.

        Args:
            epoch: its number, from 1.
            epochs: of the training.
            seconds: that it took.
        """
        self.seconds += seconds
        regular = epoch % -(-epochs // LINES) == 0
        shown = epoch == epochs or self.seconds >= (SECONDS if regular else SLOW)
        if shown:
            self.seconds = 0.0
        return shown
