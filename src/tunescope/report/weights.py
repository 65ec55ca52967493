"""The section on weights: which matrices and heads tuning moved, in how many directions."""

from __future__ import annotations

from tunescope.report.evidence import Drawing, Group, lens_sections
from tunescope.report.figures import style, weights
from tunescope.report.figures.select import first_seed, only
from tunescope.report.read import RunFolder
from tunescope.report.text import percent

HOW_SIZE = (
    "A dark cell moved far from where it started, measured by its own size. It does not say that the change matters "
    "for the task: read it beside ablation and grafting."
)
HOW_RANK = (
    "Coloured dots far below the grey ones are updates that go in few directions. A LoRA update of rank r has no more "
    "than r; full tuning's are usually spread, but less than noise of the same size."
)
HOW_INTRUDERS = (
    "Leading directions of the tuned matrix that no direction of the base resembles. LoRA makes them sooner than full "
    "tuning; grey is what noise of the same size makes."
)
CAPTION_STATISTICS = (
    "Each map from its smallest to its greatest value. Deviation: standard deviation of a matrix's entries. Stable "
    "rank: squared Frobenius over squared spectral norm, as a share of what independent Gaussian entries would have."
)
HOW_STATISTICS = (
    "A cell unlike its neighbours is a layer that training shaped differently. A stable rank far below 100 % means "
    "that a few directions carry the matrix."
)

HOW_ARMS = (
    "A LoRA arm's rank cannot pass its r; full tuning of the same size spread over many more directions is the usual "
    "picture. Intruders are counted over all matrices: the curve of an arm that rises at low thresholds has new "
    "leading directions (Shuttleworth et al. 2024)."
)


def groups(run: RunFolder) -> list[Group]:
    """Return maps of matrices and heads, ranks and intruder dimensions, one group per arm and seed."""
    own = lens_sections(run, "weights", weights.COLUMNS, _figures)
    together = _together(run) if own else []
    return [*together, *own]


def statistics_groups(run: RunFolder) -> list[Group]:
    """Return maps of one model's weights: size of their entries, and rank beside that of a random matrix."""
    return lens_sections(run, "weight_statistics", weights.STATISTICS_COLUMNS, _statistics)


def _statistics(one: Drawing) -> list[style.Figure]:
    found = [weights.statistic_map(one.rows, metric) for metric in weights.STATISTICS]
    panels = tuple(panel for panel in found if panel is not None)
    if not panels:
        return []
    name = f"weight-statistics-{one.number}"
    return [style.Figure(name, "Every matrix", panels, CAPTION_STATISTICS, HOW_STATISTICS)]


def _together(run: RunFolder) -> list[Group]:
    """Return all arms on one axis, full tuning beside LoRA, where there are two or more."""
    table = run.results["weights"].table
    arms = [arm for arm in run.arm_names if only(table, arm=arm).height]
    if len(arms) < 2:
        return []
    colours = {arm: style.arm_colour(run.arm_names, arm) for arm in arms}
    panels = weights.arm_panels({arm: first_seed(only(table, arm=arm)) for arm in arms}, colours)
    if not panels:
        return []
    caption = (
        "Median over the matrices of a layer that moved (size: of the whole block); each arm's first seed; solid lines "
        "in its colour. Dashed: updates of the same norms without structure. Exact: no rows are drawn."
    )
    figure = style.Figure(
        "weights-arms", "All arms on one axis", panels, caption, HOW_ARMS,
        shows="How far, and in how many directions, each arm moved the weights, layer by layer.",
        high="The arm moved this layer further, in more directions, or made more vectors that are like none before",
        measured="Tuned weights minus the base's, arm by arm",
    )  # fmt: skip
    return [Group("All arms", True, (figure,))]


def _figures(one: Drawing) -> list[style.Figure]:
    top = weights.limit(one.rows)
    matrices = weights.matrix_panel(one.rows, top)
    if matrices is None:
        return []
    scale = style.Scale("blues", "0 %", percent(top / 2), f"{percent(top)} of its norm")
    caption = "Norm of the change over the norm of the base's weights, per matrix. Exact: no rows are drawn."
    figures = [style.Figure(f"weights-{one.number}", "Matrices", (matrices,), caption, HOW_SIZE, scale)]
    heads = weights.head_panels(one.rows, top)
    if heads:
        caption = (
            "The same for each head's own rows of query, key and value, and columns of the output projection."
        )
        figures.append(style.Figure(f"weight-heads-{one.number}", "Heads", heads, caption, "", scale))
    directions = weights.head_rank_panels(one.rows)
    if directions:
        caption = (
            "Effective rank of the change of each head's own part, one scale for all. Exact: no rows are drawn; sizes, "
            "stable ranks, principal angles and intruder dimensions of heads are in results/weights.parquet."
        )
        figures.append(style.Figure(
            f"weight-head-ranks-{one.number}", "Ranks of heads' updates", directions, caption,
            "A head that moved in few directions was steered; one that moved in many was written anew. Read it beside "
            "how far it moved: the rank of a change next to nothing says nothing.", folded=True,
            shows="In how many directions the change of each head's own weights goes.",
            high="The head's change is spread over more directions", measured="Tuned weights minus the base's",
        ))  # fmt: skip
    ranks = weights.rank_panels(one.rows, one.colour)
    if ranks:
        caption = (
            "Over how many directions each matrix's update is spread. Grey: an update of the same norm with "
            "independent Gaussian entries."
        )
        figures.append(
            style.Figure(f"weight-ranks-{one.number}", "Ranks of the updates", ranks, caption, HOW_RANK)
        )
    intruders = weights.intruder_panel(one.rows, one.colour)
    if intruders:
        caption = (
            "Of each matrix's leading singular vectors after tuning, those whose best cosine with any before lies "
            "below the threshold (Shuttleworth et al. 2024), summed over matrices."
        )
        figures.append(
            style.Figure(
                f"intruders-{one.number}", "Intruder dimensions", (intruders,), caption, HOW_INTRUDERS
            )
        )
    return figures
