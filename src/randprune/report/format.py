"""Numbers as people read them. Units are set off by a no-break space; minus is a minus sign."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

_SPACE = "\u00a0"
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
# Metrics that are shares of images; all others are shown as numbers.
_SHARES = ("top1", "accuracy")


def percent(share: float, digits: int = 1) -> str:
    """0.9213 -> "92.1 %"."""
    return f"{100 * share:.{digits}f}{_SPACE}%"


def points(difference: float, digits: int = 1) -> str:
    """A difference of shares in percentage points: -0.013 -> "−1.3 points"."""
    text = f"{abs(100 * difference):.{digits}f}"
    if float(text) == 0:
        return f"{text}{_SPACE}points"
    return f"{'−' if difference < 0 else '+'}{text}{_SPACE}points"


def number(value: float) -> str:
    """An integer with separators, another number with four significant digits."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def often(count: int) -> str:
    """How often: 1 -> "once", else "3 times"."""
    return "once" if count == 1 else f"{number(count)} times"


def si(value: float, unit: str = "") -> str:
    """Three significant digits with an SI prefix: 62.9e6 -> "62.9 M"."""
    for scale, prefix in _PREFIXES:
        # 999.6 k would be written as 1000 k: go on to the next prefix where rounding reaches it.
        if abs(value) >= scale * 0.9995:
            return f"{_three(value / scale)}{_SPACE}{prefix}{unit}"
    return f"{_three(value)}{_SPACE}{unit}".rstrip(_SPACE)


def tick(value: float) -> str:
    """With an SI prefix and no more digits than it takes: 12_500_000 -> "12.5 M"."""
    for scale, prefix in _PREFIXES:
        if abs(value) >= scale:
            return f"{value / scale:.6g}{_SPACE}{prefix}".replace("-", "−")
    return f"{value:.6g}".replace("-", "−")


def size(count: float) -> str:
    """Bytes with decimal prefixes: 1_732_000 -> "1.73 MB"."""
    return si(count, "B")


def seconds(value: float) -> str:
    """0.0123 -> "12.3 ms"; 192 -> "3 min 12 s"; 3900 -> "1 h 05 min"."""
    if value == 0:
        return f"0{_SPACE}s"
    if abs(value) < 0.9995e-3:
        return f"{_three(value * 1e6)}{_SPACE}µs"
    if abs(value) < 0.9995:
        return f"{_three(value * 1e3)}{_SPACE}ms"
    if abs(value) < 59.95:
        return f"{_three(value)}{_SPACE}s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60}{_SPACE}min {whole % 60:02d}{_SPACE}s"
    minutes = round(value / 60)
    return f"{minutes // 60:,}{_SPACE}h {minutes % 60:02d}{_SPACE}min"


def clock(duration: float | None) -> str:
    """83 -> "1:23", 4000 -> "1:06:40", None -> ""."""
    if duration is None:
        return ""
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def described(metrics: Mapping[str, float]) -> tuple[str, ...]:
    """Each metric in a few words: {"best_top1": 0.912} -> ("best top1 91.2 %",)."""
    words = []
    for name, value in metrics.items():
        share = name.endswith(_SHARES)
        words.append(f"{name.replace('_', ' ')} {percent(value) if share else number(value)}")
    return tuple(words)


def tiny(value: float) -> str:
    """3.1e-7 -> "3.1·10⁻⁷"."""
    mantissa, exponent = f"{value:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return "0" if value == 0 else f"{mantissa.removesuffix('.0')}·10{raised}".replace("-", "−")


def times(factor: float) -> str:
    """2.13 -> "2.1×"; two decimals below 2, where they matter."""
    return f"{factor:.{2 if factor < 1.995 else 1}f}×"


def speed(factor: float) -> str:
    """Speed relative to another: 2.13 -> "2.1× faster"; 0.84 -> "1.19× slower"."""
    if abs(factor - 1) < 0.005:
        return f"{times(1.0)}{_SPACE}as fast"
    return f"{times(factor)}{_SPACE}faster" if factor > 1 else f"{times(1 / factor)}{_SPACE}slower"


def moment(iso: str) -> str:
    """An ISO 8601 time in UTC -> "2026-11-21 01:51 UTC"."""
    try:
        return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return iso


def elapsed(start: str, end: str) -> float | None:
    """Seconds between two ISO 8601 times; None where either is missing."""
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except ValueError:
        return None


def _three(value: float) -> str:
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value) * 1.0005)))
    return f"{value:.{digits}f}".replace("-", "−")
