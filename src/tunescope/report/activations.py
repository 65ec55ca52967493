"""The section on activations: how large they are, massive ones, and the neurons that moved most."""

from __future__ import annotations

from tunescope.report.evidence import Drawing, Group, lens_sections
from tunescope.report.figures import activations, style
from tunescope.report.read import RunFolder

HOW_SIZES = (
    "Grey: base; coloured: tuned. A norm that grows with depth is usual before the last norm. The first token's states "
    "are often many times larger than the others', so the norm is shown without it."
)
HOW_MASSIVE = (
    "Few models are without them: single numbers of the stream, usually at the first token, that act as a constant "
    "bias. Tuning that moves or removes them changes what every later norm divides by."
)
HOW_NEURONS = (
    "A neuron that moved need not matter for the answer: the ablation of it says that. Neurons were picked on one half "
    "of the texts; what is drawn is the other half, so that the best of many is not flattered."
)


def groups(run: RunFolder) -> list[Group]:
    """Return curves over layers and the list of neurons, one group per arm and seed."""
    return lens_sections(run, "activations", activations.COLUMNS, _figures)


def _figures(one: Drawing) -> list[style.Figure]:
    figures = []
    sizes = activations.size_panels(one.rows, one.colour)
    if sizes:
        mean = f"Mean over real tokens but the first, then over {one.on}."
        caption = f"{mean} Hover: 95 % interval over texts, change and q."
        figures.append(style.Figure(f"activations-{one.number}", "Norms by site", sizes, caption, HOW_SIZES))
    massive = activations.massive_panels(one.rows, one.colour)
    if massive:
        caption = (
            "The largest number of a text's states over the median of their sizes, and how large it is; mean over "
            "texts. Massive in Sun et al. 2024: above 100, and 1,000 times the median (line). Hover: where it stands."
        )
        figures.append(
            style.Figure(f"massive-{one.number}", "Massive activations", massive, caption, HOW_MASSIVE)
        )
    neurons = activations.neuron_panel(one.rows, one.colour)
    if neurons:
        caption = (
            "Tuned minus base of a neuron's mean over tokens and texts, with 95 % intervals (paired t). Grey: median "
            "shift of the block's neurons. Hover: base, tuned, q over all neurons of all blocks."
        )
        figures.append(
            style.Figure(f"neurons-{one.number}", "Neurons that moved most", (neurons,), caption, HOW_NEURONS)
        )
    return figures
