"""Ablation beyond single components: removal curves, sets and pairs as lists, published tables, seeds against seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.ablation import MODEL_NAMES, SIGNIFICANT, effects, of_many
from tunescope.report.figures.select import layer_name, only, preferred_base_head, values
from tunescope.report.text import finite, for_plotly, interval, number, probability, signed

ORDER_NAMES = {"strongest_first": "strongest first", "weakest_first": "least important first"}
KINDS = {"head_out": "heads", "attn_out": "attention sublayers", "mlp_out": "MLPs", "block": "blocks"}
SHOWN = 16  # entries of a list
CURVE_HEIGHT = 260
Record = dict[str, Any]


def removal_panels(table: pl.DataFrame, colour: str, metric: str) -> tuple[style.Panel, ...]:
    """Return removal curves (edits x models): an order a line with its interval, random orders in grey."""
    rows = only(table, **{"class": None}, scope="removal", metric=metric, control="none")
    panels = []
    for site in values(rows, "site"):
        for edit in dict.fromkeys(rows["edit"].to_list()):
            for model in ("tuned", "base"):
                own = only(rows, site=site, edit=edit, model=model)
                own = preferred_base_head(own) if model == "base" else own
                if own.height:
                    kind = KINDS.get(str(site).partition(":")[2], "components")
                    title = f"{kind} {of_many(edit)}, {model}"
                    panels.append(_curves(own, title, colour if model == "tuned" else style.BASE_COLOUR))
    return tuple(panels)


def _curves(rows: pl.DataFrame, title: str, colour: str) -> style.Panel:
    orders = sorted(values(rows, "order"), key=lambda name: (name in ORDER_NAMES, name), reverse=False)
    data: list[Record] = []
    apart = 0.012 * max(values(rows, "step"), default=0)  # so that bars of one step stand beside each other
    for place, order in enumerate(orders):
        records = only(rows, order=order).sort("step").to_dicts()
        random = order not in ORDER_NAMES
        ink = style.faded(style.BASE_COLOUR, 0.6) if random else colour
        line = {"color": ink, "width": 1.5 if random else 2}
        shift = apart * (place - (len(orders) - 1) / 2)
        if order == "weakest_first":
            line["dash"] = "dash"
        data.append({
            "type": "scatter", "mode": "lines+markers", "name": ORDER_NAMES.get(order, order),
            "x": [0, *(r["step"] + shift for r in records)], "y": [0.0, *(finite(r["value"]) for r in records)],
            "line": line, "marker": {"size": 5, "color": ink},
            "error_y": _whiskers([None, *records], ink), "hoverinfo": "text",
            "text": ["nothing removed", *(_step(r, ORDER_NAMES.get(order, order)) for r in records)],
        })  # fmt: skip
    layout = style.layout(
        CURVE_HEIGHT,
        xaxis=style.axis("removed", showgrid=False),
        yaxis=style.axis("", zeroline=True, zerolinecolor=style.ZERO),
        hovermode="closest",
    )
    return style.Panel(title, {"data": data, "layout": layout}, CURVE_HEIGHT)


def _step(record: Record, order: str) -> str:
    return (
        f"{order}, {record['step']} removed<br>"
        f"{interval(record['value'], record['low'], record['high'])}, n = {number(record['n'])}"
    )


def _whiskers(records: Sequence[Record | None], colour: str) -> Record:
    """Return error bars from each value to its ends; nothing where there is no interval."""
    up, down = [], []
    for record in records:
        low, value, high = (finite(record[key]) if record else None for key in ("low", "value", "high"))
        up.append(0.0 if high is None or value is None else max(high - value, 0.0))
        down.append(0.0 if low is None or value is None else max(value - low, 0.0))
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 1.2, "width": 2, "array": up,
        "arrayminus": down,
    }  # fmt: skip


def list_panel(
    title: str, entries: Sequence[tuple[str, Mapping[str, Record]]], colour: str
) -> style.Panel | None:
    """Return named effects as dots with intervals, one line each: tuned, base, and the random direction as diamonds.

    Args:
        title: Of the panel.
        entries: A name and, under ``tuned``, ``base`` and ``random``, the records that there are.
        colour: Of the tuned model.
    """
    if not entries:
        return None
    names = [for_plotly(name, 40) for name, _ in entries][::-1]
    data = []
    for which, ink, symbol, shift in (
        ("base", style.BASE_COLOUR, "circle-open", -0.16), ("tuned", colour, "circle", 0.16),
        ("random", style.ZERO, "diamond-open", 0.0),
    ):  # fmt: skip
        found = [
            (place, record[which]) for place, (_, record) in enumerate(reversed(entries)) if which in record
        ]
        if found:
            records = [record for _, record in found]
            bars = _whiskers(records, ink)
            data.append({
                "type": "scatter", "mode": "markers", "name": which,
                "x": [finite(r["value"]) for r in records], "y": [place + shift for place, _ in found],
                "marker": {"symbol": symbol, "size": 8, "color": ink, "line": {"width": 1.5}}, "error_x": bars,
                "hoverinfo": "text", "text": [_line(names[place], which, r) for place, r in found],
            })  # fmt: skip
    height = max(130, 30 * len(entries) + 70)
    layout = style.layout(
        height,
        xaxis=style.axis("", zeroline=True, zerolinecolor=style.ZERO),
        yaxis=style.named_axis(names),
        hovermode="closest",
    )
    return style.Panel(title, {"data": data, "layout": layout}, height)


def _line(name: str, which: str, record: Record) -> str:
    chance = "" if which == "random" else f"<br>p {probability(record['p'])}, q {probability(record['q'])}"
    said = "random direction of equal norm" if which == "random" else which
    return (
        f"{name}, {said}<br>{interval(record['value'], record['low'], record['high'])}"
        f"{chance}, n = {number(record['n'])}"
    )


def picks(table: pl.DataFrame, edit: str) -> list[tuple[str, dict[str, Record]]]:
    """Return what the other half of the rows shows of each pick made on one half, for :func:`list_panel`."""
    rows = only(table, edit=edit, metric="margin_change")
    found = []
    for pick in dict.fromkeys(rows["pick"].drop_nulls().to_list()) if "pick" in rows.columns else []:
        own = only(rows, pick=pick)
        beside = _beside(own, "split_half", "split_half_random")
        if "tuned" in beside:
            found.append((f"{pick}: {beside['tuned']['component']}", beside))
    return found


def _beside(rows: pl.DataFrame, effect: str, random: str) -> dict[str, Record]:
    wanted = {
        "tuned": only(rows, model="tuned", control=effect),
        "base": preferred_base_head(only(rows, model="base", control=effect)),
        "random": only(rows, model="tuned", control=random),
    }
    return {name: part.row(0, named=True) for name, part in wanted.items() if part.height}


def others(table: pl.DataFrame, edit: str, metric: str) -> dict[str, list[tuple[str, dict[str, Record]]]]:
    """Return what is neither head nor sublayer by kind: sets, places, directions, biases, pairs, all but one.

    Long lists keep the entries of greatest effect in the tuned model; the caption must say so.
    """
    rows = only(table, **{"class": None}, edit=edit, metric=metric)
    rows = rows.filter(pl.col("control").is_in(["none", "random"]) & pl.col("component").is_not_null())
    if "pick" in rows.columns:
        rows = rows.filter(pl.col("pick").is_null())
    if "scope" not in rows.columns:
        return {}
    usual = pl.col("site").is_in(["head_out", "attn_out", "mlp_out"]) & (pl.col("scope") == "one")
    rows = rows.filter(~usual & (pl.col("scope") != "removal"))
    found: dict[str, list[tuple[str, dict[str, Record]]]] = {}
    for (name, scope), own in rows.group_by(["component", "scope"], maintain_order=True):
        beside = _beside(own, "none", "random")
        if "tuned" in beside:
            kind = {"pair": "pairs of heads", "all_but_one": "all but one"}.get(str(scope), "sets and places")
            found.setdefault(kind, []).append((str(name), beside))
    for kind, entries in found.items():
        if len(entries) > SHOWN:
            entries.sort(key=lambda entry: -abs(finite(entry[1]["tuned"]["value"]) or 0.0))
            found[kind] = entries[:SHOWN]
    return found


def column_map(
    rows: pl.DataFrame, columns: Sequence[str], column: str, title: str, limit: float, randoms: pl.DataFrame
) -> style.Panel:
    """Return layers x classes with the number in each cell; what has no layer of its own is the last line.

    Args:
        rows: One record a cell.
        columns: The classes in order.
        column: Which column of ``rows`` names the class.
        title: Of the panel.
        limit: The end of the colour scale.
        randoms: The same cells with a random direction of equal norm; may be empty.
    """
    ordered = rows.sort("layer", nulls_last=True, maintain_order=True)["component"].to_list()
    lines = sorted(dict.fromkeys(ordered), key=lambda line: line.startswith("all but"))
    cells = {(r["component"], r[column]): r for r in rows.iter_rows(named=True)}
    control = {(r["component"], r[column]): r for r in randoms.iter_rows(named=True)}
    data = {
        "type": "heatmap",
        "z": [[_value(cells, line, name) for name in columns] for line in lines],
        "x": list(range(len(columns))), "y": list(range(len(lines))),
        "text": [[_shown(_value(cells, line, name)) for name in columns] for line in lines],
        "texttemplate": "%{text}", "textfont": {"size": 11},
        "hovertext": [
            [_cell(line, name, cells.get((line, name)), control.get((line, name))) for name in columns]
            for line in lines
        ],
        "hoverinfo": "text", "zmin": -limit, "zmax": limit, "colorscale": style.DIVERGING, "showscale": False,
        "xgap": 1, "ygap": 1,
    }  # fmt: skip
    height = max(200, 26 * len(lines) + 60)
    layout = style.map_layout(
        height,
        margin={"l": 52, "r": 12, "t": 10, "b": 28},
        xaxis=style.named_axis([for_plotly(name, 18) for name in columns]),
        yaxis=style.named_axis([_short(line) for line in lines], autorange="reversed"),
    )
    return style.Panel(title, {"data": [data], "layout": layout}, height)


def _short(line: str) -> str:
    """Return how an axis names a component: the block's number where that says it all."""
    if line.startswith("all but"):
        return line.removesuffix(".bias")
    return line.removeprefix("L").partition(".")[0] if "." in line else line


def _value(cells: Mapping[tuple[Any, Any], Record], line: str, name: str) -> float | None:
    record = cells.get((line, name))
    return None if record is None else finite(record["value"])


def _shown(value: float | None) -> str:
    return (
        ""
        if value is None
        else ("0" if value == 0 else f"{value:.1e}" if abs(value) < 5e-4 else f"{value:+.3f}")
    )


def _cell(line: str, name: str, cell: Record | None, control: Record | None) -> str:
    if cell is None:
        return "not measured"
    random = "" if control is None else f"<br>control (random direction): {signed(control['value'])}"
    return (
        f"{for_plotly(line)}, {for_plotly(name)}<br>{signed(cell['value'])} "
        f"{interval(cell['value'], cell['low'], cell['high']).partition(' ')[2]}"
        f"<br>p {probability(cell['p'])}, q {probability(cell['q'])}, n = {number(cell['n'])}{random}"
    )


def seed_panels(table: pl.DataFrame, edit: str) -> tuple[style.Panel, ...]:
    """Return one seed's effects against another's, a mark a component; filled where they differ (q <= 0.05)."""
    apart = only(table, model="tuned_seeds", metric="margin_change", edit=edit)
    panels = []
    for other in values(apart, "seed_other"):
        for site, name in (("head_out", "heads"), ("attn_out", "attention"), ("mlp_out", "MLP")):
            rows = only(apart, seed_other=other, site=site)
            mine = effects(table, site=site, edit=edit, model="tuned", control="none")
            first = {r["component"]: finite(r["value"]) for r in mine.iter_rows(named=True)}
            known = [r for r in rows.iter_rows(named=True) if first.get(r["component"]) is not None]
            if known:
                panels.append(_against(known, first, f"{name}: this seed against seed {other}", int(other)))
    return tuple(panels)


def _against(
    rows: Sequence[Record], first: Mapping[str, float | None], title: str, other: int
) -> style.Panel:
    x = [first[r["component"]] or 0.0 for r in rows]
    y = [one + (finite(r["value"]) or 0.0) for one, r in zip(x, rows, strict=True)]
    ends = [min([*x, *y]), max([*x, *y])]
    clear = [(finite(r["q"]) or 1.0) <= SIGNIFICANT for r in rows]
    data = [
        {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip",
         "line": {"color": style.ZERO, "width": 1, "dash": "dot"}},
        {"type": "scatter", "mode": "markers", "x": x, "y": y, "hoverinfo": "text",
         "marker": {"size": 8, "color": style.ZERO, "symbol": ["circle" if one else "circle-open" for one in clear]},
         "error_y": {**_whiskers(rows, style.GRID), "width": 0},
         "text": [
             f"{for_plotly(r['component'])}<br>this seed {signed(one)}, seed {other} {signed(two)}<br>"
             f"difference {interval(r['value'], r['low'], r['high'])}<br>p {probability(r['p'])}, "
             f"q {probability(r['q'])}, n = {number(r['n'])}"
             for r, one, two in zip(rows, x, y, strict=True)
         ]},
    ]  # fmt: skip
    layout = style.layout(
        CURVE_HEIGHT, xaxis=style.axis("this seed"), yaxis=style.axis(f"seed {other}"), hovermode="closest"
    )
    return style.Panel(title, {"data": data, "layout": layout}, CURVE_HEIGHT)


__all__ = [
    "KINDS", "MODEL_NAMES", "SHOWN", "column_map", "layer_name", "list_panel", "others", "picks", "removal_panels",
    "seed_panels",
]  # fmt: skip
