"""The sections on the inside of the models: a line here, and a lens has its place on the page and in every export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunescope.report import (
    ablation,
    activations,
    alone,
    attention,
    attribution,
    evidence,
    flow,
    geometry,
    interventions,
    maps,
    other_models,
    steps,
    watch,
    weights,
)
from tunescope.report.damage import Damage
from tunescope.report.evidence import Group
from tunescope.report.read import RunFolder


@dataclass(frozen=True)
class Section:
    """Where a lens stands on the page.

    Attributes:
        lens: The lens.
        short: What the contents call it.
        title: The section's heading.
        groups: Makes its figures from a run.
        what: What the section shows, where the lens's provenance does not say.
        missing: Said where there is nothing to draw; empty leaves the section out.
        beside: What stands in a file beside the page, said after the section's lead.
    """

    lens: str
    short: str
    title: str
    groups: Callable[[RunFolder], list[Group]]
    what: str = ""
    missing: str = ""
    beside: str = ""

    @property
    def anchor(self) -> str:
        """The section's id on the page."""
        return "direct" if self.lens == "attribution_direct" else self.lens.replace("_", "-")


@dataclass(frozen=True)
class Shown:
    """A section as the page shows it: what the lens says it shows, figures, notes; ``missing`` instead of figures."""

    anchor: str
    short: str
    title: str
    lead: str
    groups: list[Group]
    notes: tuple[str, ...]
    missing: str = ""


SECTIONS: tuple[Section, ...] = (
    Section(
        "cka", "CKA", "Similarity of representations (CKA)", evidence.cka_groups,
        "Linear centred kernel alignment between layers, within the base, within the tuned model, and across.",
        "CKA was not measured: results/cka.parquet is missing or holds no maps.",
    ),
    Section(
        "similarity", "Similarity", "Similarity by other measures", geometry.similarity_groups,
        "RSA and Procrustes, base against tuned.",
    ),
    Section(
        "probes", "Probes", "From which layer the task can be read", geometry.probe_groups,
        "Linear probes of every layer.",
    ),
    Section(
        "ablation", "Ablation", "Ablation", ablation.ablation_groups,
        "What the model's answer loses when a head or a sublayer is taken out.",
        "Ablation was not run: results/ablation.parquet is missing or holds no effects.",
    ),
    Section(
        "spread", "Rogue dimensions", "Rogue dimensions", geometry.spread_groups,
        "How the pooled states are spread over the dimensions.",
    ),
    Section(
        "dimensions", "Dimensions", "What single dimensions decide", geometry.dimension_groups,
        "One-dimension classifiers and removal curves.",
    ),
    Section(
        "maps", "Maps", "Maps and clusters", maps.map_groups,
        "Maps of the pooled states, and clusters compared with the labels.",
        beside="Three axes, play over layers, every row and other colours: maps.html beside this page.",
    ),
    Section("patching", "Patching", "Patching between texts", interventions.patch_groups),
    Section("patching_cross", "Across models", "Patching across models", interventions.cross_groups),
    Section("grafting", "Grafts", "Weight grafts", interventions.graft_groups),
    Section(
        "logit_lens", "Logit lens", "Logit lens", attribution.lens_groups,
        "The model's own head read at every layer.",
    ),
    Section(
        "attribution_direct", "Direct attribution", "Which part wrote the answer", attribution.direct_groups,
        "Direct logit attribution of heads and MLPs.",
    ),
    Section("words", "Words", "Which words decide", attribution.word_groups, "Words left out in turn."),
    Section("other_models", "Other models", "Other models", other_models.groups),
    Section("steps", "Training steps", "Training steps", steps.groups),
    Section("attention", "Attention", "Attention", attention.groups),
    Section("flow", "Information flow", "Information flow", flow.groups),
    Section("activations", "Activations", "Activations", activations.groups),
    Section("weights", "Weights", "Weights", weights.groups),
    Section(
        "weight_statistics", "Weights", "What the weights are like", weights.statistics_groups,
        "Size and rank of every weight matrix.",
    ),
    Section("watch", "Training as it happened", "Training as it happened", watch.groups),
)  # fmt: skip


def sections(run: RunFolder) -> list[Shown]:
    """Return the sections of the lenses that this run holds, and those whose absence the page says.

    A result that is damaged leaves its own section without figures; the section says what is wrong with which file.
    """
    shown = []
    of_lenses = {Path(name).stem: said for name, said in run.damaged.items() if name.startswith("results/")}
    for section in SECTIONS:
        result = run.results.get(section.lens)
        refused = tuple(f"{arm}: left out, because {why}" for arm, why in run.refused.get(section.lens, ()))
        broken = Damage({lens: said for lens, said in of_lenses.items() if lens == section.lens})
        nothing: list[Group] = []
        found = (
            nothing if result is None else broken.made(section.lens, partial(section.groups, run), nothing)
        )
        if broken.told:
            said = " ".join(f"Damaged: {one}" for one in broken.told.values())
            shown.append(Shown(section.anchor, section.short, section.title, "", [], (), said))
        elif result is not None and found:
            about = result.provenance
            lead = " ".join(filter(None, (str(about.get("what") or section.what), section.beside)))
            notes = (*(str(note) for note in about.get("notes") or ()), *refused)
            if run.inspected:
                lead, found = alone.words(lead), [alone.group(one) for one in found]
            shown.append(Shown(section.anchor, section.short, section.title, lead, found, notes))
        elif refused:
            shown.append(Shown(section.anchor, section.short, section.title, "", [], (), " ".join(refused)))
        elif section.missing and not run.inspected and _asked(run, section.lens):
            shown.append(Shown(section.anchor, section.short, section.title, "", [], (), section.missing))
    return shown


def _asked(run: RunFolder, lens: str) -> bool:
    """Return whether a study asks for a lens, so that its absence is a gap; without a study that may be."""
    study = run.study or {}
    if study.get("task") == "summarise":  # it is about what was written
        return False
    wanted = study.get("lenses")
    if not isinstance(wanted, list):
        return True
    names = [one.get("lens") if isinstance(one, Mapping) else one for one in wanted]
    return lens in names
