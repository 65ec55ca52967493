"""The sections on geometry: other similarities, probes, which dimensions are loud, and which of them decide."""

from __future__ import annotations

from tunescope.report.evidence import Drawing, Group, lens_sections
from tunescope.report.figures import geometry, probes, style
from tunescope.report.read import RunFolder
from tunescope.report.text import finite

HOW_SPIKES = (
    "A tall spike is a rogue dimension. Those that stand as tall in the base were there before tuning: they are "
    "no sign of the task by themselves."
)
HOW_ONE = (
    "The first question is whether a single dimension does better than random directions and than choosing with "
    "permuted labels; the second, whether it does as well as the whole model (paired test in the hover)."
)
HOW_REMOVAL = (
    "A curve that stays up as the loudest dimensions go, and falls as random ones do, says that loudness is not "
    "what carries the task. Bands: 95 % intervals over rows, and over draws for the random order."
)
HOW_SHARES = (
    "A share is the covariance of one dimension's part with the whole, over its variance. A curve that is near 1 after "
    "few of the loudest dimensions says that the logits hang on them; a curve above 1 is taken back by later ones."
)
HOW_MEASURES = (
    "Measures that agree say that the change is no matter of the measure. Procrustes of few rows fits unrelated rows "
    "too: read it against the grey line. The whitened distance gives every direction the same say."
)
HOW_PROBES = (
    "Where base is as high as tuned, tuning did not make the task readable but only made the head read it. Where the "
    "untrained model is as high, the words alone suffice. Low selectivity: the probe could learn any labels."
)


def similarity_groups(run: RunFolder) -> list[Group]:
    """Return RSA and Procrustes over depth, one group per arm and seed."""
    return lens_sections(run, "similarity", probes.SIMILARITY_COLUMNS, _similarity_figures)


def _similarity_figures(one: Drawing) -> list[style.Figure]:
    panels = probes.measure_panels(one.rows, one.colour)
    if panels:
        count = int(finite(one.rows["n"].max()) or 0)
        caption = (
            f"Base against tuned at the same site, on the first {count} rows of different texts of "
            f"{one.on}. 1: alike; grey: rows shuffled. Intervals of 95 %: "
            "bootstrap over rows for RSA, jackknife for Procrustes."
        )
        key = f"measures-{one.number}"
        figure = style.Figure(key, "Similarity by other measures", panels, caption, HOW_MEASURES)
        return [figure]
    return []


def probe_groups(run: RunFolder) -> list[Group]:
    """Return accuracy and selectivity of probes over depth, one group per arm and seed."""
    return lens_sections(run, "probes", probes.PROBE_COLUMNS, _probe_figures)


def _probe_figures(one: Drawing) -> list[style.Figure]:
    panels = probes.probe_panels(one.rows, one.colour)
    if panels:
        caption = (
            "Logistic regression on the pooled states of train rows, scored on "
            f"{one.on}. Grey: base; coloured: tuned; dotted: an untrained model "
            "of the same shape; dashed: the majority class. Selectivity: accuracy minus that on random labels."
        )
        key = f"probes-{one.number}"
        figure = style.Figure(key, "What a linear probe reads", panels, caption, HOW_PROBES)
        return [figure]
    return []


def spread_groups(run: RunFolder) -> list[Group]:
    """Return spike plots and measures of isotropy, one group per arm and seed."""
    return lens_sections(run, "spread", geometry.SPREAD_COLUMNS, _spread_figures)


def _spread_figures(one: Drawing) -> list[style.Figure]:
    spikes = geometry.spike_panels(one.rows, one.colour)
    cloud = geometry.isotropy_panels(one.rows, one.colour)
    figures = []
    if spikes:
        caption = f"Variance of each dimension of the pooled states at the last site, on {one.on}; the top 3 are named."
        title = "Variance by dimension"
        figures.append(style.Figure(f"spikes-{one.number}", title, spikes, caption, HOW_SPIKES))
    layers = geometry.layer_spikes(one.rows, one.colour)
    if layers:
        caption = f"The same at every place before the last, tuned, over the mean variance of the place, on {one.on}."
        title = "Variance by dimension, layer by layer: tuned"
        figures.append(
            style.Figure(f"spikes-all-{one.number}", title, layers, caption, HOW_SPIKES, folded=True)
        )
    if cloud:
        caption = (
            f"Measures of the whole cloud over depth, on {one.on}. Grey: base; coloured: tuned. A rogue dimension "
            "holds more than five times the mean variance, unless the study says otherwise."
        )
        figures.append(style.Figure(f"cloud-{one.number}", "Isotropy over depth", cloud, caption))
    return figures


def dimension_groups(run: RunFolder) -> list[Group]:
    """Return one-dimension classifiers and removal curves, one group per arm and seed."""
    return lens_sections(run, "dimensions", geometry.DIMENSION_COLUMNS, _dimension_figures)


def _dimension_figures(one: Drawing) -> list[style.Figure]:
    key = one.number
    ones = [
        geometry.one_dimension_panel(one.rows, model, ink)
        for model, ink in (("base", style.BASE_COLOUR), ("tuned", one.colour))
    ]
    panels = tuple(panel for panel in ones if panel is not None)
    figures = []
    if panels:
        caption = (
            f"Thresholds on one dimension of the head's input, fitted on train rows, scored on {one.on}."
        )
        title = "What one dimension decides"
        figures.append(style.Figure(f"one-dimension-{key}", title, panels, caption, HOW_ONE))
    shares = geometry.share_panels(one.rows, "tuned")
    if shares:
        caption = f"Exact shares of each class's logit, added up over dimensions, tuned, on {one.on}; all together 1."
        figures.append(
            style.Figure(
                f"dimension-shares-{key}", "Shares of the logit, added up", shares, caption, HOW_SHARES
            )
        )
    for model, folded in (("tuned", False), ("base", True)):
        curves = geometry.removal_panels(one.rows, model)
        if curves:
            caption = f"Accuracy of the {model} model as dimensions of the head's input go, on {one.on}."
            title = f"Removing dimensions: {model}"
            figures.append(
                style.Figure(
                    f"dimension-removal-{key}-{model}", title, curves, caption, HOW_REMOVAL, folded=folded
                )
            )
    return figures
