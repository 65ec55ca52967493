"""The page: reads a run folder, fills the templates, and writes one HTML file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tunescope import __version__
from tunescope.files import write_atomic
from tunescope.report import (
    ablation,
    arms,
    attribution,
    audit,
    behaviour,
    claims,
    comparison,
    costs,
    elsewhere,
    evidence,
    expectations,
    geometry,
    grids,
    interventions,
    limits,
    map_file,
    maps,
    prior,
    prompts,
    quality,
    sections,
    slices,
    strip,
    summaries,
    tables,
    text,
    trust,
)
from tunescope.report.figures import style
from tunescope.report.read import RunFolder, read_run

REPORT_NAME = "report.html"
TEMPLATES = "templates"
# Plotly makes an empty <style> element and fills it rule by rule; its hash is that of the empty string.
EMPTY_STYLE = ""


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder from the files that are there, and return its path.

    What is missing is said on the page; nothing is computed from a model.

    Args:
        folder: A folder that ``tunescope run`` or ``tunescope compare`` made.

    Raises:
        RunError: The folder does not exist, a file in it is damaged (it is named), or writing fails.
    """
    path, run = Path(folder) / REPORT_NAME, read_run(Path(folder))
    write_atomic(path, render(run).encode("utf-8", errors="replace"))
    for lens, name in map_file.FILES.items():
        beside = map_file.render_maps(run, _environment(), _source, content_policy, lens)
        if beside is not None:
            write_atomic(Path(folder) / name, beside.encode("utf-8", errors="replace"))
    return path


def render(run: RunFolder) -> str:
    """Return the page as text."""
    environment = _environment()
    style_text = _source(environment, "style.css")
    start_text = _source(environment, "start.js")
    plotly_text = _plotly()
    return environment.get_template("page.html.j2").render(
        **_context(run),
        version=__version__,
        policy=content_policy(scripts=(plotly_text, start_text), styles=(style_text, EMPTY_STYLE)),
        style_text=Markup(style_text),
        start_text=Markup(start_text),
        plotly_text=Markup(plotly_text),
        style_placeholders=_style_placeholders(plotly_text),
    )


def content_policy(scripts: tuple[str, ...], styles: tuple[str, ...]) -> str:
    """Return the content policy: nothing loads, and only these scripts and style sheets run."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            f"style-src {' '.join(map(_hash, styles))}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


@cache
def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _context(run: RunFolder) -> dict[str, Any]:
    found = quality.scores(run)
    shown = arms.arms(run)
    written = summaries.summaries(run)
    return {
        "run": run,
        "question": (run.study or {}).get("question") or (run.compare or {}).get("question"),
        "scores": found,
        "summaries": written,
        "answer": summaries.answer(run, written)
        if written is not None
        else quality.answer(run, found)
        if found
        else [*quality.without_accuracy(run), *strip.inside_sentence(run)],
        "findings": trust.findings(run),
        "tested": tables.tested(run),
        "depth": strip.depth_figure(run),
        "trust": trust.trust_bar(run),
        "arms": shown,
        "trade_off": arms.trade_off_figure(run, shown),
        "memory": costs.memory_figure(run),
        "comparison": comparison.comparison(run),
        "audit": audit.audit(run),
        "cross_validation": audit.cross_validation(run),
        "sliced": slices.sliced(run),
        "reliability": slices.reliability_figure(run),
        "thresholds": slices.thresholds(run),
        "priors": prior.priors(run),
        "grids": grids.grids(run),
        "prompts": prompts.prompts(run),
        "expectations": expectations.expectations(run),
        "claims": claims.claims(run),
        "elsewhere": elsewhere.elsewhere(run),
        "metric_tables": quality.metric_tables(run),
        "data": tables.data(run),
        "training": evidence.training_figure(run),
        "confusion": evidence.confusion_figure(run),
        "cka": evidence.cka_groups(run),
        "ablation": ablation.ablation_groups(run),
        "similarity": geometry.similarity_groups(run),
        "probes": geometry.probe_groups(run),
        "spread": geometry.spread_groups(run),
        "dimensions": geometry.dimension_groups(run),
        "logit_lens": attribution.lens_groups(run),
        "direct": attribution.direct_groups(run),
        "words": attribution.word_groups(run),
        "patching": interventions.patch_groups(run),
        "patching_cross": interventions.cross_groups(run),
        "grafting": interventions.graft_groups(run),
        "maps": maps.map_groups(run),
        "behaviour": behaviour.behaviour(run),
        "sections": sections.sections(run),
        "planted": tables.planted(run),
        "examples": tables.examples(run),
        "lenses": tables.other_lenses(run),
        "limits": limits.limits(run, found),
        "reproduce": trust.reproduce(run),
        "logged": _logged(run),
    }


def _logged(run: RunFolder) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]] | None:
    """Return the metrics that other people's training logged, as columns and rows, or None."""
    records = [item for item in (run.compare or {}).get("logged_metrics") or [] if isinstance(item, dict)]
    if not records:
        return None
    flattened = [dict(trust.flat(record)) for record in records]
    columns = tuple(dict.fromkeys(key for record in flattened for key in record))
    return columns, tuple(tuple(record.get(column, "") for column in columns) for record in flattened)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tunescope.report", TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=text.visible,
    )
    for tool in (
        text.number,
        text.signed,
        text.percent,
        text.probability,
        text.duration,
        text.stored,
        text.whole,
        text.listed,
        text.plural,
    ):
        environment.filters[tool.__name__] = tool
    environment.filters["dict"] = dict
    environment.globals["payload"] = _payload
    environment.globals["colours"] = len(style.ARM_COLOURS)
    return environment


def _payload(figure: dict[str, Any]) -> Markup:
    """Return a figure as JSON that is safe inside a script element: no ``<``, ``>`` or ``&`` survives."""
    document = json.dumps(evidence.payload(figure), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        document = document.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(document)


def _source(environment: Environment, name: str) -> str:
    """Return a script or style sheet of ours as the browser will hash it: with the parser's newlines."""
    if environment.loader is None:  # the environment above always has one
        raise ValueError("the environment has no loader")
    return environment.loader.get_source(environment, name)[0].replace("\r\n", "\n").strip()


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).replace("\r\n", "\n").strip()


@cache
def _style_placeholders(plotly_text: str) -> tuple[str, ...]:
    """Return ids of style sheets that Plotly's map code adds unless an element of that id is there already.

    The page has no maps, and the policy would refuse that sheet with an error in the console.
    """
    return tuple(sorted(set(re.findall(r'getElementById\("([0-9a-f]{64})"\)', plotly_text))))
