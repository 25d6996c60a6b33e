"""Trainings of a moment, for tests: their settings, and who is told of them."""

from metaloss.core.reporting import Reporter
from metaloss.training import module, session, text

SMALL = {"epochs": 2, "batch": 16, "lr": 0.1, "validation": 0.2}


def without_pauses(patch):
    """Trainings show all that they have to show at once."""
    for part in (module, session):
        patch.setattr(part, "PAUSE", 0.0)


def without_curves(patch):
    """Trainings draw no curves, which take longer than they do."""
    patch.setattr(session.figures, "curves", lambda *_: [])


class Noted(Reporter):
    """Keeps what would be printed, and what is warned of."""

    def __init__(self):
        self.lines = []
        self.warned = []

    def on_fit_start(self, session):
        self.lines += text.heading(session)

    def on_epoch(self, record, epochs, seconds):
        self.lines.append(text.epoch(record, epochs, seconds))

    def on_warning(self, text):
        self.warned.append(text)
