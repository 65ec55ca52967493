"""Foreign text in Markdown, LaTeX and file names: shown as text, never obeyed."""

from __future__ import annotations

import re
from typing import Any

from tunescope.report.text import visible

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~$#@^])")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "^": r"\textasciicircum{}",
    "_": r"\_", "~": r"\textasciitilde{}", "%": r"\%", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "−": r"$-$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$", "×": r"$\times$", "–": "--", "—": "---",
    "…": r"\ldots{}", "·": r"$\cdot$", "°": r"$^{\circ}$", "→": r"$\rightarrow$", "\u00a0": "~",
}  # fmt: skip


def markdown(text: Any) -> str:
    """Return text that Markdown shows literally, on one line: no markup, links, citations or HTML."""
    return _MARKDOWN.sub(r"\\\1", _line(text))


def code(text: Any) -> str:
    """Return text as a code span of Markdown, on one line."""
    inside = _line(text).replace("`", "\u02cb")
    return f"`{inside}`"


def latex(text: Any) -> str:
    """Return text that LaTeX sets literally, on one line.

    Quotes need the package ``textcomp``, which is part of LaTeX since 2020. Letters outside Latin script are left as
    they are: set them with LuaLaTeX or XeLaTeX.
    """
    return "".join(_LATEX.get(sign, sign) for sign in _line(text))


def slug(name: str) -> str:
    """Return a name as one harmless part of a path: letters, digits, dot, dash and underscore."""
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")
    return found[:80] or "unnamed"


def _line(text: Any) -> str:
    return " ".join(str(visible(str(text))).split())
