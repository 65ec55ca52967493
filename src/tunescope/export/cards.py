"""Model cards for the Hugging Face hub: one a training, with what was measured and what is not known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tunescope import __version__
from tunescope.export.words import code, markdown, slug
from tunescope.report.cards import by_importance
from tunescope.report.limits import limits
from tunescope.report.read import ArmRun, RunFolder
from tunescope.report.text import finite, interval, listed, number, plural, short_path

# The hub's names of tasks by what a run does.
PIPELINES = {"classify": "text-classification", "summarise": "summarization"}
METRICS = (
    "accuracy",
    "balanced_accuracy",
    "f1_macro",
    "f1_weighted",
    "matthews_corrcoef",
    "roc_auc_ovr",
    "log_loss",
)
HUB_NAMES = {
    "f1_macro": "f1",
    "f1_weighted": "f1",
    "roc_auc_ovr": "roc_auc",
    "matthews_corrcoef": "matthews_correlation",
}
UNKNOWN_USE = (
    "Not known. The run that this card is written from says how the model was made and measured; it does not say what "
    "the model is for. Whoever publishes it should say so here, and whom it must not be used on."
)


def model_cards(run: RunFolder) -> Iterator[tuple[str, str]]:
    """Yield a card for every training of the run as (file name, content).

    The card's head is YAML that the hub reads (``model-index`` with the metrics of the headline split). Hub ids are
    named as base model and data only where the study gave hub ids; paths of this machine are not published.
    """
    told = limits(run)
    for item in run.arms:
        if item.metrics is None:
            continue
        seed = "" if item.seed is None else f"seed-{item.seed}/"
        yield f"cards/{slug(item.arm)}/{seed}README.md", _card(run, item, told)


def _card(run: RunFolder, item: ArmRun, told: list[str]) -> str:
    head = yaml.safe_dump(_head(run, item), sort_keys=False, allow_unicode=True, width=100)
    seed = "" if item.seed is None else f", seed {item.seed}"
    parts = [
        ("Model", [_made(run, item)]),
        ("Intended use", [UNKNOWN_USE]),
        ("Data", _data(run)),
        ("Results", _results(run, item)),
        ("What changed inside", _findings(run, item.arm, behaviour=False)),
        ("Behaviour and bias", _findings(run, item.arm, behaviour=True) or [_NO_BEHAVIOUR]),
        ("Limits", [f"- {markdown(one)}" for one in told]),
        ("Made with", [f"tunescope {__version__}; `methods.md` beside this card's folder says how, with references."]),
    ]  # fmt: skip
    body = "\n".join(f"## {title}\n\n" + "\n".join(lines) + "\n" for title, lines in parts if lines)
    return f"---\n{head}---\n\n# {markdown(item.arm)}{seed}\n\n{body}"


_NO_BEHAVIOUR = (
    "Not measured: the run holds no suites of pairs, so whether the model treats people differently is not known."
)  # fmt: skip


def _head(run: RunFolder, item: ArmRun) -> dict[str, Any]:
    found = item.metrics or {}
    task = PIPELINES.get(str(found.get("task") or (run.study or {}).get("task") or "classify"), "other")
    base, data = hub_id(found.get("model")), _data_id(run)
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": task, "tags": ["tunescope"]}
    if base:
        head["base_model"] = base
    if data:
        head["datasets"] = [data]
    results = [
        {
            "type": HUB_NAMES.get(metric, metric),
            "name": _metric_name(metric, record),
            "value": round(value, 6),
        }
        for metric, record, value in _measured(run, found)
    ]
    if results:
        name = f"{item.arm}" + ("" if item.seed is None else f", seed {item.seed}")
        dataset = {"name": _data_name(run), "type": data or "unknown", "split": str(run.split)}
        head["metrics"] = list(dict.fromkeys(one["type"] for one in results))
        head["model-index"] = [
            {"name": name, "results": [{"task": {"type": task}, "dataset": dataset, "metrics": results}]}
        ]
    return head


def _measured(run: RunFolder, found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], float]]:
    records = {
        str(record.get("metric")): record
        for record in found.get("records", [])
        if record.get("split") == run.split and record.get("class") is None
    }
    known = [(metric, records[metric]) for metric in METRICS if metric in records]
    if not known:  # summaries have other metrics
        known = list(records.items())
    return [
        (metric, record, value)
        for metric, record in known
        if (value := finite(record.get("value"))) is not None
    ]


def _metric_name(metric: str, record: Mapping[str, Any]) -> str:
    low, high, n = finite(record.get("low")), finite(record.get("high")), record.get("n")
    bounds = "" if low is None or high is None else f", 95 % interval {low:.4f} to {high:.4f}"
    return f"{metric.replace('_', ' ')}{bounds}" + (f", n = {n}" if n else "")


def hub_id(name: Any) -> str:
    """Return a name if it can be an id of the hub (``owner/name`` or a bare old one), else an empty text."""
    text = str(name or "")
    parts = text.split("/")
    harmless = all(
        part and part[0].isalnum() and part.replace("-", "").replace("_", "").replace(".", "").isalnum()
        for part in parts
    )
    local = (
        text.startswith((".", "~", "/"))
        or "\\" in text
        or ":" in text
        or text in ("scratch", "base", "model")
    )
    return text if text and harmless and len(parts) == 2 and not local else ""


def _data_id(run: RunFolder) -> str:
    """Return the data's id on the hub, where the study gave one and not a path."""
    given = (run.study or {}).get("data")
    path = given.get("path") if isinstance(given, Mapping) else None
    text = path.removeprefix("hf://datasets/") if isinstance(path, str) else ""
    is_file = text.rsplit(".", 1)[-1] in ("csv", "tsv", "json", "jsonl", "parquet", "arrow", "txt", "gz")
    return "" if is_file or (isinstance(path, str) and (run.folder.parent / path).exists()) else hub_id(text)


def _data_name(run: RunFolder) -> str:
    return _data_id(run) or f"data of the study {run.name}"


def _made(run: RunFolder, item: ArmRun) -> str:
    found = item.metrics or {}
    model = short_path(str(found.get("model") or "an unknown model"))
    trained, every = found.get("trainable_parameters"), found.get("parameters")
    parts = [f"{code(model)} tuned by the method {code(found.get('method'))}"]
    if isinstance(trained, int) and isinstance(every, int):
        parts.append(f"{number(trained)} of {number(every)} parameters trained")
    if item.seed is not None:
        parts.append(f"seed {item.seed} of {plural(len(run.of(item.arm)), 'training')}")
    labels = f" Classes: {listed(map(markdown, run.labels))}." if run.labels else ""
    return f"{'; '.join(parts)}.{labels}"


def _data(run: RunFolder) -> list[str]:
    rows = (run.summary or {}).get("rows") or {}
    if not rows:
        return ["Not recorded."]
    splits = listed(f"{plural(count, 'row')} of {split}" for split, count in rows.items())
    return [f"{markdown(_data_name(run))}: {splits}."]


def _results(run: RunFolder, item: ArmRun) -> list[str]:
    found = item.metrics or {}
    measured = _measured(run, found)
    if not measured:
        return ["No metrics are recorded."]
    majority = (found.get("majority") or {}).get(str(run.split)) or {}
    lines = [
        f"On {markdown(run.split)}, with 95 % intervals:",
        "",
        "| metric | value | rows |",
        "| --- | --- | --- |",
    ]
    for metric, record, value in measured:
        shown = interval(value, record.get("low"), record.get("high"))
        lines.append(f"| {metric.replace('_', ' ')} | {shown} | {record.get('n') or ''} |")
    if majority.get("accuracy") is not None:
        lines += ["", f"Always the most frequent class has accuracy {number(majority['accuracy'])}."]
    return lines


def _findings(run: RunFolder, arm: str, behaviour: bool) -> list[str]:
    own = [
        one
        for one in run.findings or []
        if one.get("arm") in (arm, None, "") and (one.get("lens") == "behaviour") == behaviour
    ]
    lines = [
        f"- {markdown(one.get('sentence'))} ({markdown(one.get('verdict'))})" for one in by_importance(own)
    ]
    several = len(run.of(arm)) > 1
    return ["Of all seeds of this arm:", "", *lines] if lines and several else lines
