"""The words of a page on which one model stands alone: what lenses say of base against tuned is left out there."""

from __future__ import annotations

import re
from dataclasses import replace

from tunescope.report.evidence import Group
from tunescope.report.figures.style import Figure, Panel
from tunescope.report.readings import told

_CLAUSE = re.compile(r"(?<=[.;!?])\s+")
_COMPARED = re.compile(r"\b(base|tuned|tuning)\b", re.IGNORECASE)
_BOTH = re.compile(r", base and tuned(?=[.;,]|$)|, tuned(?=,)| and how many of them base and tuned share")
_TITLE = re.compile(r"^tuned, |(?:, |: )tuned$")


def words(text: str) -> str:
    """Return a text without clauses about a base or about tuning; as it is where every clause is."""
    plain = re.sub(r"\b(the )tuned model\b", r"\1model", _BOTH.sub("", text), flags=re.IGNORECASE)
    clauses = _CLAUSE.split(plain)
    kept = [clause for clause in clauses if not _COMPARED.search(clause)]
    if not kept or len(kept) == len(clauses):
        return plain
    return re.sub(r";$", ".", " ".join(kept))


def figure(drawn: Figure) -> Figure:
    """Return a figure of the one model: its titles and words name no other."""
    whole = told(drawn)
    return replace(
        whole,
        title=_TITLE.sub("", whole.title), panels=tuple(map(_panel, whole.panels)), caption=words(whole.caption),
        how=words(whole.how), shows=words(whole.shows), high=words(whole.high), measured=words(whole.measured),
    )  # fmt: skip


def group(made: Group) -> Group:
    """Return the figures and sentences of one lens as those of the one model."""
    return replace(made, figures=tuple(map(figure, made.figures)), checks=tuple(map(words, made.checks)))


def _panel(panel: Panel) -> Panel:
    title = _TITLE.sub("", panel.title)
    return replace(panel, title="" if title == "tuned" else title)
