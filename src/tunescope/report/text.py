"""Numbers and foreign text as they appear on the page: short, honest, and harmless.

Text from data sets, label names and arm names may hold markup, control characters or marks that turn the
reading direction. Jinja's autoescape makes markup harmless in HTML; :func:`visible` makes the rest visible;
:func:`for_plotly` does both for text that Plotly draws, because Plotly reads a subset of HTML by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

MISSING = "–"
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_CONTROL_PICTURES = 0x2400
_DIRECTION_MARKS = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE = {
    **{code: chr(_CONTROL_PICTURES + code) for code in range(0x20) if code not in (0x09, 0x0A)},
    0x7F: "\u2421",
    **{code: f"[U+{code:04X}]" for code in (*range(0x80, 0xA0), *_DIRECTION_MARKS)},
    **dict.fromkeys(range(55296, 57344), "�"),
}


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; any part may be unknown (``None``)."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str | None = None

    @property
    def known(self) -> bool:
        """Whether there is a number at all."""
        return self.value is not None

    def __str__(self) -> str:
        return interval(self.value, self.low, self.high)


def visible(value: Any, limit: int | None = None) -> Any:
    """Return text with control characters and direction overrides made visible, other values unchanged.

    Args:
        value: Anything; only plain strings change (:class:`markupsafe.Markup` is ours and stays).
        limit: Cut the text after this many characters and say so with an ellipsis.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    if limit is not None and len(value) > limit:
        value = value[:limit].rstrip() + " …"
    return value.translate(_VISIBLE)


def for_plotly(value: Any, limit: int | None = 60) -> str:
    """Return text that Plotly draws literally: no tags or line breaks, at most ``limit`` characters."""
    text = " ".join(str(visible(str(value), limit)).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cell(text: str) -> str:
    """Return text for a CSV cell that no spreadsheet takes for a formula: such text begins with an apostrophe."""
    shown = str(visible(text))
    return f"'{shown}" if shown.startswith(FORMULA_SIGNS) else shown


def finite(value: Any) -> float | None:
    """Return a float, or None where there is no finite number."""
    if value is None or isinstance(value, (str, bytes)):
        return None
    number_ = float(value)
    return number_ if math.isfinite(number_) else None


def number(value: Any, digits: int = 3) -> str:
    """Return a number as text: thousands separated, a dash where it is undefined.

    Three decimals up to one (shares), two up to ten, one up to a thousand; whole numbers above one have none.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    value = finite(value)
    if value is None:
        return MISSING
    size = abs(value)
    if size >= 1000 or (size > 1 and value.is_integer()):
        return f"{value:,.0f}".replace("-", "−")
    if size > 1:
        digits = min(digits, 2 if size < 10 else 1)
    if 0 < size < 0.5 * 10**-digits:
        return f"{value:.0e}".replace("e-0", "e-").replace("-", "−")
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value: Any, digits: int = 3) -> str:
    """Return a number with its sign, for changes and effects."""
    value = finite(value)
    if value is None:
        return MISSING
    return ("+" if value > 0 else "") + number(value, digits)


def interval(value: Any, low: Any, high: Any, digits: int = 3) -> str:
    """Return ``value [low, high]``, or the bare value where no interval is known."""
    if finite(low) is None or finite(high) is None:
        return number(finite(value), digits)
    return f"{number(finite(value), digits)} [{number(finite(low), digits)}, {number(finite(high), digits)}]"


def percent(share: Any, digits: int = 1) -> str:
    """Return a share of one as a percentage."""
    share = finite(share)
    if share is None:
        return MISSING
    small = 0 < abs(share) < 0.5 * 10 ** -(digits + 2)
    shown = "0 %" if share == 0 else f"{100 * share:.1g} %" if small else f"{100 * share:.{digits}f} %"
    return shown.replace("-", "−")


def probability(value: Any) -> str:
    """Return a p or q value, never as a false zero."""
    value = finite(value)
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: Any) -> str:
    """Return seconds as a time that people read."""
    seconds = finite(seconds)
    if seconds is None:
        return MISSING
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def whole(value: Any) -> str:
    """Return a number rounded to a whole one, thousands separated."""
    value = finite(value)
    return MISSING if value is None else f"{value:,.0f}".replace("-", "−")


def stored(count: Any) -> str:
    """Return bytes as a size that people read, in decimal units."""
    count = finite(count)
    if count is None:
        return MISSING
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} B"


def listed(words: Iterable[str]) -> str:
    """Return words joined as in a sentence: ``a, b and c``."""
    items = [str(word) for word in words]
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def plural(count: int, word: str) -> str:
    """Return ``1 row`` or ``2 rows``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def short_path(name: str) -> str:
    """Return a hub id as it is, and of a local folder the part that tells it from others."""
    parts = [part for part in re.split(r"[\\/]+", name) if part]
    if not name.startswith(("/", "~")) and ":" not in name[:3]:
        return name
    generic = re.fullmatch(r"model|checkpoint-\d+|seed-\d+", parts[-1]) if parts else None
    return "/".join(parts[-2:] if generic else parts[-1:])
