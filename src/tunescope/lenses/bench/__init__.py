"""The bench: one text under base and tuned, with components switched off, words left out and words swapped."""

from __future__ import annotations

from tunescope.lenses.bench.bench import Bench
from tunescope.lenses.bench.offline import bench_row, can_bench, write_bench
from tunescope.lenses.bench.text import ReadText, read_text

__all__ = ["Bench", "ReadText", "bench_row", "can_bench", "read_text", "write_bench"]
