"""Numbers as people read them."""

from __future__ import annotations


def count(number: int | None) -> str:
    """A count with three digits and a unit: `25.6 M`; `-` for None."""
    if number is None:
        return "-"
    size = float(number)
    for unit in ("", " k", " M", " G"):
        if size < 999.5 or unit == " G":
            break
        size /= 1000
    digits = 0 if not unit or size >= 99.95 else 1
    return f"{size:.{digits}f}{unit}"


def memory(bytes_: int) -> str:
    """A size in memory: `1.9 GB`."""
    if bytes_ < 1e9:
        return f"{max(1, round(bytes_ / 1e6))} MB"
    return f"{bytes_ / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """A time span: `4.2 s`, `95 s`, `12 min`, `3 h 20 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def percent(share: float | None) -> str:
    """A share of 0 to 1 as `91.3%`; `-` for None."""
    return "-" if share is None else f"{100 * share:.1f}%"


def p_value(p: float) -> str:
    """A p value in three decimals: `p 0.080`; below 0.001 as less, for none is 0: `p < 0.001`."""
    return f"p {p:.3f}" if p >= 0.001 else "p < 0.001"


def rate(lr: float) -> str:
    """A learning rate with three significant digits: `0.001`, `3.12e-05`."""
    return f"{lr:.3g}"


def plural(number: int, singular: str, plural_form: str | None = None) -> str:
    """`1 epoch`, `2 epochs`, `1,250 steps`."""
    return f"{number:,} {singular if number == 1 else plural_form or singular + 's'}"
