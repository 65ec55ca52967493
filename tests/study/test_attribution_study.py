"""A study with the lenses that say who wrote the answer: texts reach them, results and sections are there."""

from __future__ import annotations

import polars as pl
from study_helpers import Listening, make_study, raw_study, write_reviews

from tunescope.study import run


def test_a_study_takes_its_own_texts_apart_and_shows_the_three_lenses(bert_folder, tmp_path):
    some = {"rows": {"n": 24}}
    lenses = [
        {"lens": "logit_lens", **some},
        {"lens": "attribution_direct", **some},
        {"lens": "words", **some, "gradient_rows": 2, "at_least": 3},
    ]
    # Cleaning changes the texts: the lens must see them as the model did.
    raw = raw_study(write_reviews(tmp_path / "rows.csv"), bert_folder, lenses=lenses)
    raw["data"]["clean"] = ["lower", "whitespace"]
    raw["training"]["num_train_epochs"] = 1
    folder = tmp_path / "run"
    run(make_study(raw), folder, progress=Listening())
    rows = pl.read_parquet(folder / "data" / "rows.parquet")
    texts = dict(rows.select("row_id", "text").iter_rows())
    examples = pl.read_parquet(folder / "results" / "examples" / "words.parquet")
    for (row_id,), part in examples.filter(pl.col("model") == "tuned").group_by("row_id"):
        assert part.sort("place")["word"].to_list() == texts[row_id].split()
    page = (folder / "report.html").read_text(encoding="utf-8")
    for section in ("logit-lens", "direct", "words"):
        assert f'id="{section}"' in page
    assert "Worked examples" in page
