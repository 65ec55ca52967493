"""What ``tunescope validate`` says of a study that summarises: its rows, its budget and what that cuts."""

from __future__ import annotations

from pathlib import Path

from tunescope.config import StudyConfig
from tunescope.data.rows import SPLITS
from tunescope.data.summaries import load_summaries
from tunescope.progress import Progress
from tunescope.runs import RunFolder
from tunescope.study.context import Context, is_prompted
from tunescope.study.summarise import check_pairs, encoded, open_base


def describe(study: StudyConfig, progress: Progress) -> str:
    """Read rows and models, and say what the budget of every arm cuts; nothing is trained or written.

    Raises:
        TunescopeError: Data, a model or the budget cannot be used.
    """
    rows = load_summaries(study.data, study.data.seed, progress)
    check_pairs(study, rows)
    counts = ", ".join(f"{len(rows.split(split)):,} {split}" for split in SPLITS if split in rows.splits)
    lines = [f"{study.name}: the study is valid.", "", f"Rows: {counts}."]
    lines += [f"  {note}" for note in rows.provenance["notes"]]
    context = Context(study, RunFolder(Path(study.name)), progress=progress, _rows=rows)
    for arm in study.arms:
        model, own = open_base(context, arm), study.summarise_of(arm)
        lines.append(
            f"{arm.name}: {arm.method} of {arm.model}, {own.max_tokens} tokens, {own.max_summary} a summary"
        )
        for split in [*(["train"] if not is_prompted(arm) else []), *own.splits]:
            cut = encoded(context, arm, model, split, True).account()
            lines.append(
                f"  {split}: {cut['rows_cut']:,} of {cut['rows']:,} articles are cut ({cut['article_share_cut']:.0%} "
                f"of their tokens), {cut['summaries_cut']:,} summaries are cut"
            )
    lines.append("Times are not estimated for studies that summarise; try data.rows with a few rows first.")
    return "\n".join(lines)
