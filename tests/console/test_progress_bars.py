"""Progress in a notebook's cell; a real kernel shows it in test_notebooks."""

import pytest

from metaloss.console import progress_bars

display = pytest.importorskip("IPython.display")


class Cell:
    """A cell's output: what is shown, and how often it was shown anew."""

    def __init__(self):
        self.bar = None
        self.shown = 0
        self.texts = []

    def display(self, bar, display_id):
        assert display_id is True
        self.update(bar)
        return self

    def update(self, bar):
        self.bar = bar._repr_mimebundle_()
        self.shown = self.shown + 1
        self.texts.append(self.bar["text/plain"])


@pytest.fixture
def cell(monkeypatch):
    found = Cell()
    monkeypatch.setattr(display, "display", found.display)
    return found


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [1000.0]
    monkeypatch.setattr(progress_bars.time, "monotonic", lambda: now[0])
    return now


def test_a_notebook_s_bar_says_how_far_it_is_and_how_long_the_rest_takes(cell, clock):
    bar = progress_bars.NotebookBar("generation {done}/{total}", 30)
    for done in (1, 2, 3):
        # What comes before the first generation is not repeated.
        clock[0] += 100 if done == 1 else 10
        bar.reach(done)
    bar.stop()
    assert cell.texts == [
        "generation 0/30",
        "generation 1/30",
        "generation 2/30, 5m left",
        "generation 3/30, 4m left",
        "generation 3/30",
    ]
    assert cell.bar["text/html"].startswith('<progress value="3" max="30"')


def test_it_is_not_shown_anew_for_every_piece_of_work_and_its_last_state_always_is(cell, clock):
    bar = progress_bars.NotebookBar("{share:.0%}", 200)
    for _ in range(150):
        clock[0] += progress_bars.PERIOD / 10
        bar.advance(1)
    assert 14 <= cell.shown <= 17
    bar.advance(100)
    bar.stop()
    assert cell.texts[-1] == "100%", "the work was guessed too small"


def test_features_are_told_of_in_one_line_and_their_bar_is_taken_down(capsys):
    from metaloss.console import Console

    with Console() as console:
        for done in (0, 512, 1000):
            console.on_features("torchvision:resnet18", done, 1000)
        assert console.bar is None
        # All of them were kept: there is nothing to say.
        console.on_features("torchvision:resnet18", 1000, 1000)
    assert capsys.readouterr().out == (
        "        features of 1000 images by torchvision:resnet18 …\n"
    )


def test_a_bar_says_how_the_actors_fare_that_train(cell, clock):
    from metaloss.console import Console
    from metaloss.engines.ray_actors import Counts

    console = Console()
    console.on_actors(Counts(3, 2, 0))  # there is no bar yet
    console.bar = bar = progress_bars.NotebookBar("generation {done}/{total}", 3)
    console.on_actors(Counts(3, 2, 1))
    bar.reach(1)
    bar.stop()
    assert cell.texts[-2:] == [
        "generation 1/3  3 actors, 2 chunks in flight, 1 sent again",
        "generation 1/3",
    ]
