import pytest

from zoo.base.untrusted import is_finite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, True, "1", None, [1]])
def test_what_is_no_finite_number(value: object) -> None:
    assert not is_finite(value)


@pytest.mark.parametrize("value", [0, -1.5, 10**300])
def test_finite_numbers(value: object) -> None:
    assert is_finite(value)
