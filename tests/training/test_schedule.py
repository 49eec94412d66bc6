from __future__ import annotations

import pytest

from zoo.training.optim import rate_factor


@pytest.mark.parametrize("kind", ["one-cycle", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 7, 400])
def test_the_factor_rises_to_one_peak_and_stays_positive(kind: str, warmup: float, steps: int) -> None:
    factors = [rate_factor(step, steps, kind=kind, warmup=warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_one_cycle_starts_at_a_25th_and_ends_at_a_10000th() -> None:
    factors = [rate_factor(step, 4000, kind="one-cycle", warmup=0.25) for step in range(4000)]
    assert factors[0] == pytest.approx(1 / 25, rel=1e-3)
    assert factors[1000] == pytest.approx(1, abs=1e-6)
    assert factors[2500] == pytest.approx(0.5, abs=1e-3)
    assert factors[-1] == pytest.approx(1e-4, rel=1e-2)


def test_cosine_warms_up_in_a_line() -> None:
    assert rate_factor(10, 400, kind="cosine", warmup=0.25) == pytest.approx(10.5 / 100)
    assert rate_factor(399, 400, kind="cosine", warmup=0.25) < 1e-5


def test_constant_stays_at_the_peak() -> None:
    assert [rate_factor(step, 8, kind="constant", warmup=0.25) for step in range(8)] == [0.25, 0.75] + [1.0] * 6
