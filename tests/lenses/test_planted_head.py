"""The ablation lens on hand-set models in which one head decides: it is found, with its closed form, and alone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from subjects import make_subject

from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.lenses import LENSES, look
from tunescope.lenses.subject import LensRows
from tunescope.models import load
from tunescope.planted.decisive import planted_head_model, planted_head_rows

OPTIONS = {"rows": {"split": "validation", "n": 40}, "reference_rows": 40}


def planted_rows() -> Rows:
    drawn = planted_head_rows(80, seed=3)
    frame = pl.DataFrame({
        "row_id": [f"row-{i}" for i in range(len(drawn))],
        "position": pl.Series(range(len(drawn)), dtype=pl.Int64),
        "split": ["train" if i % 4 < 2 else "validation" for i in range(len(drawn))],
        "text": [text for text, _ in drawn],
        "label": pl.Series([label for _, label in drawn], dtype=pl.Int64),
    })  # fmt: skip
    return Rows(frame, LabelMap(("negative", "positive")), {})


@pytest.mark.parametrize(
    ("family", "layer", "head"), [("gpt2", 1, 2), ("gpt2", 2, 0), ("bert", 0, 3), ("bert", 2, 1)]
)
def test_the_planted_head_is_found_with_its_closed_form_and_no_other(family, layer, head, tmp_path):
    truth = planted_head_model(family, layer, head, tmp_path)
    model = load(str(tmp_path))
    rows = planted_rows()
    subject = make_subject(model, model, rows, base_head="none")
    output = look(subject, [("ablation", OPTIONS)], LENSES)[0]
    texts = dict(
        zip(rows.frame["row_id"], zip(rows.frame["text"], rows.frame["label"], strict=True), strict=True)
    )

    reference = subject.draw(LensRows(split="train", n=40), labelled=False)
    signals = {"zero": 0.0, "mean": truth.mean_signal([texts[row][0] for row in reference.row_ids])}
    for edit, signal in signals.items():
        mine = output.examples.filter(
            (pl.col("edit") == edit) & (pl.col("site") == "head_out")
            & (pl.col("layer") == layer) & (pl.col("head") == head)
        )  # fmt: skip
        expected = [truth.effect(*texts[row], signal) for row in mine["row_id"]]
        np.testing.assert_allclose(mine["margin_change"], expected, atol=2e-4)
    whole = (pl.col("site") == "attn_out") & (pl.col("layer") == layer)
    own = (pl.col("layer") == layer) & (pl.col("head") == head)
    others = output.examples.filter(~own.fill_null(False) & ~whole)
    assert others.height == 2 * 40 * (3 * 4 + 6 - 2)
    assert others["margin_change"].abs().max() < 1e-5
    sentence = next(f for f in output.findings if f.metric == "margin_change")
    assert f"head L{layer}H{head} " in sentence.sentence
    assert sentence.verdict == "found"
