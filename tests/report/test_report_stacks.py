"""Encoder and decoder of one model are never drawn over one another."""

from __future__ import annotations

import polars as pl

from tunescope.report.stacks import by_stack, read_stack, says_stack

ROWS = [
    ("encoder", "head_out", 0, 1.0), ("decoder", "head_out", 0, 2.0), ("decoder", "cross_head_out", 0, 3.0),
    ("decoder", "all_but_one:cross_head_out", 0, 4.0), (None, "set", None, 5.0),
]  # fmt: skip


def table(rows=ROWS):
    return pl.DataFrame(rows, schema=["stack", "site", "layer", "value"], orient="row")


def test_three_parts_hold_every_row_once():
    parts = dict(by_stack(table()))
    assert list(parts) == ["encoder", "decoder", "cross-attention"]
    assert parts["encoder"]["value"].to_list() == [1.0]
    assert parts["decoder"]["value"].to_list() == [2.0, 5.0]
    assert parts["cross-attention"]["value"].to_list() == [3.0, 4.0]
    assert parts["cross-attention"]["site"].to_list() == ["head_out", "all_but_one:head_out"]
    for part in parts.values():
        assert part.select("site", "layer").is_duplicated().sum() == 0


def test_pairs_of_places_in_two_stacks_are_left_out():
    both = table().with_columns(pl.Series("stack_other", ["encoder", "encoder", "decoder", "decoder", None]))
    values = [value for _, part in by_stack(both) for value in part["value"]]
    assert sorted(values) == [1.0, 3.0, 4.0, 5.0]
    assert read_stack(both)["value"].to_list() == [5.0]


def test_models_of_one_stack_are_left_as_they_are():
    plain = table().drop("stack")
    ((name, part),) = by_stack(plain)
    assert name is None
    assert part.equals(plain)
    assert read_stack(plain).equals(plain)
    assert says_stack(plain) == ""
    nulls = table([row for row in ROWS if row[0] is None]).with_columns(
        pl.lit(None, pl.String).alias("stack")
    )
    assert by_stack(nulls)[0][0] is None  # an arm of one stack beside an encoder-decoder
    assert read_stack(table())["value"].to_list() == [2.0, 5.0]
    assert "decoder" in says_stack(table())
