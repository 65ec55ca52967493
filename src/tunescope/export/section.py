"""A section of text under way: its paragraphs, and the works that they cite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tunescope.lenses.works import Cite
from tunescope.report.read import RunFolder


@dataclass
class Section:
    """Paragraphs so far, and the keys that they cite."""

    run: RunFolder
    lines: list[str] = field(default_factory=list)
    keys: dict[str, None] = field(default_factory=dict)

    def say(self, *sentences: str) -> None:
        """Add a paragraph, unless there is nothing to say."""
        told = " ".join(sentence for sentence in sentences if sentence)
        if told:
            self.lines += [told, ""]

    def head(self, title: str) -> None:
        """Add a heading."""
        self.lines += [f"## {title}", ""]

    def cite(self, cites: Sequence[Cite]) -> str:
        """Return the citation of works, and keep their keys; empty without any."""
        self.keys |= dict.fromkeys(cite.key for cite in cites)
        return f" [{'; '.join(f'@{cite.key}' for cite in cites)}]" if cites else ""
