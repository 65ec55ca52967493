"""The section on information flow: which part acts through which, and which tokens reach the answer."""

from __future__ import annotations

import polars as pl

from tunescope.report.evidence import Drawing, Group, lens_sections
from tunescope.report.figures import flow, style
from tunescope.report.read import RunFolder, read_examples
from tunescope.report.text import plural

HOW_GRAPH = (
    "A line says: through this one reader alone, what the writer adds moves the answer. It is one step of a path, not "
    "the whole effect of either part; that is what ablation shows."
)
HOW_NAMES = (
    "Right of 0: towards the right answer. A dot whose interval crosses 0, or that is no larger than what a random "
    "direction does (hover), is no finding."
)
HOW_ROLLOUT = (
    "Rollout knows where heads look and that the stream goes on, not what they copy. A token with a large share can "
    "reach the answer; whether it does, words left out say."
)


def groups(run: RunFolder) -> list[Group]:
    """Return the graph of edges and the rollout, one group per arm and seed."""
    kept = read_examples(run, "flow", flow.EXAMPLE_COLUMNS) if "flow" in run.results else None
    return lens_sections(run, "flow", flow.COLUMNS, lambda one: _figures(one, kept))


def _figures(one: Drawing, kept: pl.DataFrame | None) -> list[style.Figure]:
    found: list[style.Figure] = []
    graph = flow.graph_panels(one.rows) if "sender" in one.rows.columns else ()
    if graph:
        caption = (
            f"The {flow.STRONGEST} strongest edges between heads and MLPs of each model, on {one.on}; width is size, "
            "one scale for all. Blue: towards the right answer; red: away. Heads count from the top, MLPs stand "
            "below. Hover over the middle of a line: 95 % interval, q over all edges, and a random direction of the "
            "writer's norm."
        )
        found.append(style.Figure(
            f"flow-{one.number}", "Which part acts through which", graph, caption, HOW_GRAPH,
            shows="The strongest direct effects of one part's output on the answer through one later part.",
            high="The writer acts on the answer through this reader", table=flow.table_of(one.rows),
            measured=f"Change of the answer's contrast in logits when one reader alone misses the writer, {one.on}",
        ))  # fmt: skip
    named = flow.strongest_panel(one.rows, one.colour) if graph else None
    if named is not None:
        found.append(style.Figure(
            f"flow-names-{one.number}", "The strongest edges", (named,),
            f"By size in the tuned model, embeddings and answer included; grey: base. 95 % intervals over {one.on}.",
            HOW_NAMES, shows="The strongest edges of the tuned model, with the base's beside them.",
            high="The edge moves the answer towards what is right", table=flow.table_of(one.rows),
            measured=f"Direct effect of one edge in logits, {one.on}",
        ))  # fmt: skip
    rolled = flow.rollout_panels(one.rows, one.colour)
    if rolled:
        caption = (
            "Attention rollout to the place that the head of the model reads, layer by layer, the residual stream "
            f"weighted as attention (unless the options say otherwise). 95 % intervals over {one.on}."
        )
        found.append(style.Figure(
            f"flow-rollout-{one.number}", "What can reach the answer's place", rolled, caption, HOW_ROLLOUT,
            shows="How even the rollout over tokens is, behind every layer, and how far base and tuned are apart.",
            high="Tokens reach the place more evenly, or the share of this token is larger",
            measured=f"Attention rollout of base and tuned, {one.on}",
        ))  # fmt: skip
    found += _tokens(one, kept)
    return found


def _tokens(one: Drawing, kept: pl.DataFrame | None) -> list[style.Figure]:
    if kept is None:
        return []
    own = kept.filter((pl.col("arm") == one.arm) & pl.col("seed").eq_missing(pl.lit(one.rows["seed"][0])))
    if own.is_empty():
        return []
    texts = plural(own["row_id"].n_unique(), "text")
    return [
        style.Figure(
            f"flow-tokens-{one.number}", "Token by token", flow.token_panels(own, one.colour),
            f"Rollout behind the last layer in {texts}; grey: base.", "", folded=True,
            shows="How much of each token can reach the answer's place.", high="More of the token can reach it",
            measured="Attention rollout of single texts",
        )
    ]  # fmt: skip
