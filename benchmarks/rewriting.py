"""Rewriting 400,000 rows: rows a second, peak memory, and what a loop of one substitution a term takes and breaks.

Rows are the real tweets of ``emotion_partial`` (``TUNESCOPE_SHARED``, default ``../shared``), repeated to 400,000, or
generated sentences where that is not there. The file is rewritten in a child process by ``rewrite_file``. Beside it,
timed on 2,000 rows: two loops that people write, one substitution a term after another (which also swaps words back
again), and one alternation of all terms with a dictionary (which knows no roles). One JSON line a figure;
``processor_seconds`` is what to read on a machine that does other work too.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

ROWS, LOOP_ROWS = 400_000, 2_000
SECONDS, BYTES = 240.0, 1e9
SHARED = Path(os.environ.get("TUNESCOPE_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))


def figure(name: str, value: float, unit: str, **more: object) -> None:
    print(
        json.dumps({"benchmark": "rewriting", "figure": name, "value": value, "unit": unit, **more}),
        flush=True,
    )


def texts() -> tuple[pl.Series, str]:
    source = SHARED / "data" / "emotion_partial" / "all.parquet"
    if source.is_file():
        return pl.read_parquet(source, columns=["text"])["text"], "emotion_partial, repeated"
    made = [
        f"she told {who} about his day number {i}" for i in range(5_000) for who in ("her", "the dog", "us")
    ]
    return pl.Series("text", made), "generated"


def child(folder: Path, lexicon: str) -> None:
    from tunescope.rewriting import load_lexicon, rewrite_file

    before, started, processor = _peak(), time.monotonic(), time.process_time()
    counts = rewrite_file(folder / "rows.parquet", folder / f"{lexicon}.parquet", load_lexicon(lexicon))
    seconds, used = time.monotonic() - started, time.process_time() - processor
    print(
        json.dumps(
            {"seconds": seconds, "processor": used, "peak": _peak(), "before": before, "counts": counts}
        )
    )


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(folder: Path, lexicon: str) -> dict:
    command = [sys.executable, __file__, str(folder), lexicon]
    environment = {**os.environ, "POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def loops(rows: list[str]) -> dict[str, tuple[float, list[str]]]:
    """Two loops that people write: one substitution a term after another, and one alternation with a dictionary."""
    from tunescope.rewriting import load_lexicon

    entries = load_lexicon("gender").entries.values()
    patterns = [(re.compile(rf"\b{re.escape(entry.term)}\b"), entry.targets[0]) for entry in entries]
    swap = {entry.term: entry.targets[0] for entry in entries}
    terms = "|".join(sorted(map(re.escape, swap), key=len, reverse=True))
    together = re.compile(rf"\b(?:{terms})\b")
    found = {}
    for name in ("term_by_term", "one_alternation"):
        started, swapped = time.process_time(), []
        for text in rows:
            if name == "term_by_term":
                for pattern, target in patterns:
                    text = pattern.sub(target, text)
            else:
                text = together.sub(lambda match: swap[match.group()], text)
            swapped.append(text)
        found[name] = (time.process_time() - started, swapped)
    return found


def main() -> int:
    series, source = texts()
    repeated = pl.concat([series] * (-(-ROWS // len(series))))[:ROWS]
    fine = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repeated.to_frame("text").write_parquet(folder / "rows.parquet", row_group_size=20_000)
        for lexicon in ("gender", "race", "names"):
            got = run(folder, lexicon)
            counts = got["counts"]
            about = {"lexicon": lexicon, "rows": ROWS, "source": source}
            figure("seconds", round(got["seconds"], 1), "s", **about)
            figure("processor_seconds", round(got["processor"], 1), "s", target=SECONDS, **about)
            figure("rows_per_processor_second", round(ROWS / got["processor"]), "rows/s", **about)
            figure("peak_memory", got["peak"], "bytes", before_start=got["before"], target=BYTES, **about)
            figure(
                "touched", counts["touched"], "rows", unresolved=sum(counts["unresolved"].values()), **about
            )
            fine &= got["processor"] <= SECONDS and got["peak"] <= BYTES
        pairs = (
            pl.scan_parquet(folder / "gender.parquet").select("original", "rewritten").head(5_000).collect()
        )
        quarter = repeated[: ROWS // 4].to_frame("text")
        quarter.write_parquet(folder / "rows.parquet", row_group_size=20_000)
        figure("peak_memory", run(folder, "gender")["peak"], "bytes", lexicon="gender", rows=ROWS // 4)
    sample = repeated.head(LOOP_ROWS).to_list()
    touched = pairs.unique("original", maintain_order=True).head(LOOP_ROWS)
    for name, (spent, _) in loops(sample).items():
        figure(
            "loop_processor_seconds",
            round(spent / len(sample) * ROWS, 1),
            "s",
            loop=name,
            timed_on=len(sample),
        )
    for name, (_, swapped) in loops(touched["original"].to_list()).items():
        same = sum(a == b for a, b in zip(swapped, touched["rewritten"], strict=True))
        unchanged = sum(a == b for a, b in zip(swapped, touched["original"], strict=True))
        figure("loop_equal_to_rewriting", round(same / len(touched), 3), "share of touched rows", loop=name)
        figure("loop_left_as_it_was", round(unchanged / len(touched), 3), "share of touched rows", loop=name)
    return 0 if fine else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(Path(sys.argv[1]), sys.argv[2])
    else:
        raise SystemExit(main())
