"""Numbers as people read them, in their feature's unit."""

from features.windows import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

_LENGTHS = ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "min"), (SECOND_MS, "s"))
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SCALED_FROM = 10_000


def number_words(value: float | None, unit: str = "") -> str:
    """Three digits: `0.125`, `1,234`, `12.3k`; of shares `12.5 %`, of milliseconds `3.4 min`; `–` for none."""
    if value is None:
        return "–"
    if unit == "share":
        if 0 < value < 1e-4:
            return "<0.01 %"
        return f"{_three_digits(100 * value)} %"
    if unit == "ms":
        scale, name = next(((scale, name) for scale, name in _LENGTHS if abs(value) >= scale), (1, "ms"))
        return f"{_three_digits(value / scale)} {name}"
    return _three_digits(value)


def share_words(part: float, whole: float) -> str:
    """`0 %`, `<0.1 %`, `12 %`: what is not nothing is not shown as nothing."""
    share = part / whole if whole else 0.0
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.1f} %" if share < 0.1 or share > 0.9 else f"{100 * share:.0f} %"


def _three_digits(value: float) -> str:
    scale, name = next(((scale, name) for scale, name in _SCALES if abs(value) >= max(scale, _SCALED_FROM)), (1.0, ""))
    scaled = value / scale
    if abs(scaled) >= 100 or scaled == int(scaled):
        return f"{scaled:,.0f}{name}"
    return f"{scaled:.3g}{name}" if abs(scaled) >= 1e-4 else f"{scaled:.1e}"
