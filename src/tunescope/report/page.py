"""The page: reads a run folder, fills the templates, and writes one HTML file that needs no network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tunescope import __version__
from tunescope.files import write_atomic
from tunescope.report import (
    arms,
    audit,
    behaviour,
    bench,
    cards,
    choice,
    claims,
    comparison,
    costs,
    damage,
    elsewhere,
    evidence,
    expectations,
    facts,
    grids,
    latent_movie,
    limits,
    map_file,
    model_diagram,
    pipeline,
    prior,
    prompts,
    quality,
    readings,
    sections,
    slices,
    strip,
    summaries,
    tables,
    text,
    trust,
    watch_file,
)
from tunescope.report.figures import style
from tunescope.report.figures.data import figure_table
from tunescope.report.read import RunFolder, read_run
from tunescope.report.texts import SAID, choose

REPORT_NAME = "report.html"
TEMPLATES = "templates"
# Plotly makes an empty <style> element and fills it rule by rule; its hash is that of the empty string.
EMPTY_STYLE = ""
PACKED_FROM = 20_000  # characters of JSON


def write_report(folder: Path, texts: str | None = None) -> Path:
    """Write ``report.html`` into a run folder from the files that are there, and return its path.

    What is missing or damaged is said on the page; nothing is computed from a model.

    Args:
        folder: A folder that ``tunescope run``, ``compare`` or ``test`` made.
        texts: How much of the data's text the page may hold: ``all``, ``examples`` (chosen rows only) or ``none``
            (row ids only). Not given, it is what was chosen last for this folder, else ``examples``.

    Raises:
        ConfigError: ``texts`` is none of the three.
        FormatError: The run is of another ``format_version``.
        RunError: The folder does not exist, its study is not readable, or writing fails.
    """
    folder = Path(folder)
    run = read_run(folder, choose(folder, texts))
    write_atomic(folder / REPORT_NAME, render(run).encode("utf-8", errors="replace"))
    for lens, name in map_file.FILES.items():
        # What is wrong with the coordinates stands on the page, in the section of the maps.
        beside = damage.Damage().made(lens, partial(_beside, run, lens), None)
        if beside is None:
            (folder / name).unlink(
                missing_ok=True
            )  # no file of an older run, or with texts, stays beside the page
        else:
            write_atomic(folder / name, beside.encode("utf-8", errors="replace"))
    _play(run, folder)
    return folder / REPORT_NAME


def _play(run: RunFolder, folder: Path) -> None:
    """Write what plays over the steps of a watched training; files of an older one do not stay."""
    make = partial(watch_file.files, run, _environment(), _source, content_policy)
    nothing: dict[str, bytes] = {}
    files = {
        **damage.Damage().made("watch", make, nothing),
        **damage.Damage().made("steps", partial(latent_movie.latent_gifs, run), nothing),
    }
    for old in folder.glob("watch-*.gif"):
        old.unlink()
    (folder / watch_file.PAGE).unlink(missing_ok=True)
    for name, content in files.items():
        write_atomic(folder / name, content)


def _beside(run: RunFolder, lens: str) -> str | None:
    return map_file.render_maps(run, _environment(), _source, content_policy, lens)


def render(run: RunFolder) -> str:
    """Return the page as text."""
    environment = _environment()
    style_text = f"{_source(environment, 'style.css')}\n{_source(environment, 'first.css')}"
    start_text = f"{_source(environment, 'theme.js')}\n{_source(environment, 'start.js')}"
    plotly_text = _plotly()
    context, bench_text = _context(run), None
    if context["bench"] is not None:
        style_text += f"\n{_source(environment, 'bench.css')}"
        bench_text = f"{_source(environment, 'bench.js')}\n{_source(environment, 'bench_row.js')}"
    scripts = [plotly_text, start_text, *([] if bench_text is None else [bench_text])]
    return environment.get_template("page.html.j2").render(
        **context,
        version=__version__,
        policy=content_policy(scripts=tuple(scripts), styles=(style_text, EMPTY_STYLE)),
        bench_text=None if bench_text is None else Markup(bench_text),
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
    """Return what the templates are filled with; a builder whose files are damaged leaves its section empty."""
    broken = damage.Damage.of(run)
    unknown: list[quality.Score] = []
    found = broken.made("scores", partial(quality.scores, run), unknown)
    shown = broken.made("arms", partial(arms.arms, run), arms.NOTHING)
    written = broken.made("summaries", partial(summaries.summaries, run), None)
    builders: dict[str, tuple[Any, Any]] = {
        "answer": (partial(_answer, run, found, written), list(quality.NO_ACCURACY)),
        "findings": (partial(cards.cards, run), None),
        "choice": (partial(choice.choice, run), None),
        "tested": (partial(tables.tested, run), tables.NOTHING),
        "depth": (partial(strip.depth_figure, run), None),
        "trust": (partial(trust.trust_bar, run), []),
        "trade_off": (partial(arms.trade_off_figure, run, shown), None),
        "memory": (partial(costs.memory_figure, run), None),
        "comparison": (partial(comparison.comparison, run), None),
        "audit": (partial(audit.audit, run), None),
        "cross_validation": (partial(audit.cross_validation, run), None),
        "sliced": (partial(slices.sliced, run), None),
        "reliability": (partial(slices.reliability_figure, run), None),
        "thresholds": (partial(slices.thresholds, run), None),
        "priors": (partial(prior.priors, run), None),
        "grids": (partial(grids.grids, run), None),
        "prompts": (partial(prompts.prompts, run), None),
        "expectations": (partial(expectations.expectations, run), None),
        "claims": (partial(claims.claims, run), None),
        "facts": (partial(facts.facts, run), None),
        "elsewhere": (partial(elsewhere.elsewhere, run), None),
        "metric_tables": (partial(quality.metric_tables, run), []),
        "data": (partial(tables.data, run), None),
        "pipeline": (partial(pipeline.pipeline, run), None),
        "models": (partial(model_diagram.model_figures, run), []),
        "training": (partial(evidence.training_figure, run), None),
        "confusion": (partial(evidence.confusion_figure, run), None),
        "behaviour": (partial(behaviour.behaviour, run), None),
        "bench": (partial(bench.bench, run), None),
        "sections": (partial(sections.sections, run), []),
        "planted": (partial(tables.planted, run), None),
        "examples": (partial(tables.examples, run), []),
        "lenses": (partial(tables.other_lenses, run), []),
        "limits": (partial(limits.limits, run, found), []),
        "reproduce": (partial(trust.reproduce, run), trust.Reproduce((), None, ())),
        "logged": (partial(_logged, run), None),
    }
    made = {name: broken.made(name, build, otherwise) for name, (build, otherwise) in builders.items()}
    return {
        "run": run,
        "question": (run.study or {}).get("question") or (run.compare or {}).get("question"),
        "scores": found,
        "summaries": written,
        "arms": shown,
        "said_of_texts": SAID[run.texts],
        "gravest": limits.brief(made["limits"]),
        "first_cards": cards.FIRST_SCREEN,
        "damaged": broken.told,
        **made,
    }


def _answer(run: RunFolder, found: Sequence[quality.Score], written: Any) -> list[quality.Piece]:
    if written is not None:
        return list(summaries.answer(run, written))
    if found:
        return quality.answer(run, found)
    if run.inspected:
        return facts.shape(run)
    return [*quality.without_accuracy(run), *strip.inside_sentence(run)]


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
    environment.globals["as_json"] = lambda value: Markup(_document(evidence.payload(value)))
    environment.globals["figure_data"] = _figure_data
    environment.globals["told"] = readings.told
    environment.globals["colours"] = len(style.ARM_COLOURS)
    return environment


def _payload(figure: dict[str, Any], identifier: str) -> Markup:
    """Return a figure as a script element of JSON; a large one packed, for maps of numbers shrink by much."""
    return _json_element(evidence.payload(figure), identifier)


def _figure_data(figure: style.Figure) -> Markup:
    """Return the data that a builder gave with its figure; nothing where the page reads it off the panels."""
    if figure.table is None:
        return Markup()
    table = figure_table(figure)
    document = {"columns": table.columns, "rows": [list(row) for row in table.iter_rows()]}
    return _json_element(style.clean(document), f"{figure.key}-table")


def _json_element(value: Any, identifier: str) -> Markup:
    document = _document(value)
    packed = len(document) > PACKED_FROM
    text_ = base64.b64encode(gzip.compress(document.encode("ascii"), 6, mtime=0)).decode("ascii")
    about = Markup(' data-packed="gzip"') if packed else Markup()
    return Markup('<script type="application/json" id="{}"{}>{}</script>').format(
        identifier, about, Markup(text_ if packed else document)
    )


def _document(value: Any) -> str:
    """Return JSON that is safe inside a script element: no ``<``, ``>`` or ``&`` survives."""
    document = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        document = document.replace(sign, f"\\u{ord(sign):04x}")
    return document


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
