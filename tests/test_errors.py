import pytest

from zoo import errors
from zoo.errors import TrainingInterrupted, ZooError

CHILDREN = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ZooError)
]  # fmt: skip


def test_three_parts_on_lines_of_their_own():
    error = ZooError("the disk is full", why="No space left on device", fix="free some space")
    assert str(error) == "the disk is full\n  why: No space left on device\n  fix: free some space"


def test_empty_parts_are_left_out():
    assert str(ZooError("no such run")) == "no such run"
    assert str(ZooError("no such run", fix="see `zoo runs`")) == "no such run\n  fix: see `zoo runs`"


def test_record_is_what_json_prints():
    assert ZooError("a", fix="c").record() == {"what": "a", "why": "", "fix": "c"}


def test_interruption_knows_its_signal():
    error = TrainingInterrupted("stopped", fix="zoo adapt --resume runs/a", signal_number=15)
    assert error.signal_number == 15
    assert error.record()["fix"] == "zoo adapt --resume runs/a"


@pytest.mark.parametrize("kind", CHILDREN, ids=lambda kind: kind.__name__)
def test_every_child_takes_the_three_parts(kind):
    error = kind("a", why="b", fix="c")
    assert isinstance(error, ZooError)
    assert error.record() == {"what": "a", "why": "b", "fix": "c"}
    assert kind.__doc__
