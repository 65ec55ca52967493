"""Signs in texts that tell of a wrong decoding or of markup left in."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.data.rows import Rows

# UTF-8 read as cp1252 or latin-1: a lead byte as a letter, a following byte as a sign
MOJIBAKE = r"Ã[\u0080-\u00BF€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€[\u0080-\u00BF˜™œ¦“”¢]|Â[\u00A0-\u00BF]|ï»¿|ðŸ"
PATTERNS = {
    "replacement": "\ufffd",  # what a decoder puts where bytes make no character
    "mojibake": MOJIBAKE,
    "control": r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u0080-\u009f]",
    "invisible": "[\u200b\u2060\ufeff\u00ad]",
    "html_tags": r"</?[A-Za-z][A-Za-z0-9]*(?:\s[^<>]*)?/?>",
    "html_entities": r"&(?:[A-Za-z]{2,8}|#\d{1,6}|#x[0-9A-Fa-f]{1,6});",
    "links": r"https?://\S",
    "not_ascii": r"[^\x00-\x7f]",
}


def audit_characters(rows: Rows) -> dict[str, Any]:
    """Count the rows whose text has signs of a kind.

    Returns:
        Rows per kind: ``replacement`` (U+FFFD), ``mojibake`` (UTF-8 read as cp1252), ``control``, ``invisible``
        (zero-width space, soft hyphen, byte order mark), ``html_tags``, ``html_entities``, ``links``,
        ``not_ascii``; and under ``encoding`` what the files were read as.
    """
    text = pl.col("text")
    counts = rows.frame.lazy().select(
        text.str.contains(pattern).sum().alias(kind) for kind, pattern in PATTERNS.items()
    )
    return {"encoding": rows.provenance.get("encoding"), **counts.collect().row(0, named=True)}
