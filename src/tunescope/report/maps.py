"""The section on maps: panels on the page, and the file beside it that turns, plays and colours."""

from __future__ import annotations

import polars as pl

from tunescope.report.evidence import Group, arm_seeds, checked, group_title, measured
from tunescope.report.figures import maps, style
from tunescope.report.figures.select import only, values
from tunescope.report.read import RunFolder, read_examples
from tunescope.report.text import plural
from tunescope.report.trust import rows_said

FIGURE_POINTS = 5_000
PAGE_POINTS = 15_000
HOW = {
    "pca": "Within a layer the way from a row's base point to its tuned point is the projection of the true change.",
    "tsne": "Near points are neighbours; distances between groups, their sizes and densities mean nothing.",
    "umap": "Near points are neighbours; distances between groups, their sizes and densities mean nothing.",
}
FRAME = (
    "Base and tuned rows of a layer share one map and one scale; layers are turned or mirrored onto one another, and "
    "nothing else is meant by places in different layers. Crosses: the model is wrong."
)
HOW_CLUSTERS = (
    "Clusters are found in the full space, not in a map. 1 is the labels themselves, 0 what random clusters of the "
    "same sizes give; purity grows with the number of clusters, so compare it with permuted labels."
)


def map_groups(run: RunFolder) -> list[Group]:
    """Return the maps and the clusters, one group an arm, its first seed."""
    result = run.results.get("maps")
    if result is None:
        return []
    table = checked(result, maps.TABLE_COLUMNS)
    examples = read_examples(run, "maps", maps.EXAMPLE_COLUMNS)
    on = rows_said(result) or "rows not recorded"
    mains = [one for one in arm_seeds(table, run.arm_names) if one[3]]
    flat = pl.DataFrame() if examples is None else only(examples, axes=2)
    methods = [name for name in maps.METHOD_NAMES if name in values(flat, "method")]
    budget = min(FIGURE_POINTS, PAGE_POINTS // max(1, len(mains) * len(methods)))
    texts = _texts(run, flat)
    groups: list[Group] = []
    for arm, seed, rows, main in mains:
        figures = []
        key = len(groups)
        for method in methods:
            own = _of(only(flat, arm=arm, method=method), seed)
            shown, said = _shown(own, budget)
            panels = maps.scatter_panels(shown, rows, texts, run.labels)
            if panels:
                name = maps.METHOD_NAMES[method]
                caption = f"{name} of the pooled states, {said} ({on}). {_trust_said(rows, method)}{FRAME}"
                figures.append(
                    style.Figure(f"map-{key}-{method}", f"Map by {name}", panels, caption, HOW[method],
                                 folded=method != methods[0])
                )  # fmt: skip
        clusters = maps.cluster_panels(rows, style.arm_colour(run.arm_names, arm))
        if clusters:
            caption = (
                f"Agreement of clusters with the labels over depth, on {on}. Grey: base; dotted: permuted labels; "
                f"coloured: tuned; bars are 95 % intervals over rows. {maps.agreement_said(rows)}"
            )
            figures.append(
                style.Figure(f"clusters-{key}", "Clusters and labels", clusters, caption, HOW_CLUSTERS)
            )
        if figures:
            title = group_title(arm, seed, table)
            groups.append(Group(title, main, measured(figures, title, on)))
    return groups


def _of(points: pl.DataFrame, seed: int) -> pl.DataFrame:
    return only(points, seed=seed) if values(points, "seed") else points


def _texts(run: RunFolder, points: pl.DataFrame) -> dict[str, str]:
    if (
        run.rows is None or points.is_empty() or run.texts != "all"
    ):  # a hover for every row is no chosen example
        return {}
    wanted = run.rows.select("row_id", "text").join(points.select("row_id").unique(), on="row_id", how="semi")
    return {str(row_id): str(text or "") for row_id, text in wanted.iter_rows()}


def _shown(points: pl.DataFrame, budget: int) -> tuple[pl.DataFrame, str]:
    """Keep the first rows, which are a random sample, so that a figure holds at most ``budget`` points."""
    ids = points["row_id"].unique(maintain_order=True)
    panels = points.select("layer", "site", "model").unique().height
    most = max(1, budget // max(1, panels))
    if len(ids) <= most:
        return points, f"all {plural(len(ids), 'row')}"
    kept = points.filter(pl.col("row_id").is_in(ids.head(most).to_list()))
    return kept, f"{most:,} of {plural(len(ids), 'row')} drawn at random"


def _trust_said(table: pl.DataFrame, method: str) -> str:
    found = only(table, metric="trustworthiness", method=method, axes=2).filter(pl.col("value").is_not_null())
    if found.is_empty():
        return ""
    values_, controls = found["value"].to_list(), found["control"].to_list()
    text = (
        f"Trustworthiness {min(values_):.2f} to {max(values_):.2f} (rows permuted: {min(controls):.2f} to "
        f"{max(controls):.2f}; 1: every neighbour in the map is one in truth). "
    )
    shares = only(table, metric="explained_variance", method=method, axes=2)["value"].drop_nulls().to_list()
    if shares:
        text += f"The two axes hold {100 * min(shares):.0f} to {100 * max(shares):.0f} % of the variance. "
    return text
