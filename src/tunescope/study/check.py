"""What can be refused before anything is computed: metrics, methods and models that do not fit one another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunescope.config import ArmConfig, StudyConfig
from tunescope.config.problems import unknown
from tunescope.data.rows import Rows
from tunescope.errors import ConfigError, DataError
from tunescope.evaluation.comparison import METRICS
from tunescope.lenses.claims.verdicts import RULES
from tunescope.study.context import is_prompted

INSIDE = ("row_id", "position", "split", "label")  # columns of the rows that are no fields of a prompt


def check_study(study: StudyConfig) -> None:
    """Refuse what no run of the study can do; local models are looked at, the data is not.

    Raises:
        ConfigError: With every problem that was found.
    """
    if study.task == "summarise":
        from tunescope.study.summarise import check_summaries

        check_summaries(study)
    _raise_all(
        [
            *_metric_problems(study),
            *_rule_problems(study),
            *_lens_problems(study),
            *(one for arm in study.arms for one in _arm_problems(arm)),
        ]
    )


def check_rows(study: StudyConfig, rows: Rows) -> None:
    """Refuse arms that the rows do not fit, before the first of them is trained.

    Raises:
        ConfigError: With every problem that was found.
        DataError: A grid has no validation rows to choose on.
    """
    columns = [name for name in rows.frame.columns if name not in INSIDE]
    problems: list[str] = []
    for arm in study.arms:
        if is_prompted(arm):
            problems += _prompt_problems(arm, columns, list(rows.labels.names))
        if arm.head == "sigmoid" and len(rows.labels.names) != 2:
            count = len(rows.labels.names)
            problems.append(f"arms.{arm.name}.head: sigmoid tells two labels apart, and the data has {count}")
    problems += _prior_problems(study, list(rows.labels.names))
    _raise_all(problems)
    if any(arm.grid for arm in study.arms) and not _labelled(rows, "validation"):
        raise DataError(
            "A grid chooses its trial on validation rows, and there are no labelled ones.",
            hint="Set data.validation above 0, or give a validation split; test rows are never used to choose.",
        )


def _prior_problems(study: StudyConfig, labels: list[str]) -> Iterator[str]:
    """Yield the labels that the target shares name and the data lacks, or the other way round."""
    given = study.prior if isinstance(study.prior, dict) else dict.fromkeys(labels)
    for name in given:
        if name not in labels:
            yield f"prior: {unknown('label', name, labels)}"
    for name in labels:
        if name not in given:
            yield f"prior: the label {name!r} has no share; name every label"


def check_elsewhere(study: StudyConfig, rows: Rows) -> None:
    """Read what the arms are looked at elsewhere with, so that a wrong path or label is known before training.

    Raises:
        ConfigError: A map names labels that are not there.
        DataError: A file cannot be read.
    """
    from tunescope.evaluation.elsewhere import load_cross_data, read_documents

    wanted = study.elsewhere
    if wanted is None:
        return
    if wanted.text is not None:
        read_documents(wanted.text, wanted.text_column, wanted.documents)
    for data in wanted.data:
        load_cross_data(data, rows.labels, study.data.template, study.data.seed)


def _labelled(rows: Rows, split: str) -> bool:
    return split in rows.splits and bool((rows.split(split).label_array >= 0).any())


def _raise_all(problems: list[str]) -> None:
    if not problems:
        return
    problems = list(dict.fromkeys(problems))
    if len(problems) == 1:
        message = f"The study cannot be run. {problems[0]}"
    else:
        listed = "\n".join(f"  {problem}" for problem in problems)
        message = f"The study cannot be run; it has {len(problems)} problems:\n{listed}"
    raise ConfigError(message, hint="Correct these keys and try again.")


def _metric_problems(study: StudyConfig) -> Iterator[str]:
    for key, metric in (("selection", study.selection.metric), ("compare", study.compare.metric)):
        if metric not in METRICS:
            yield f"{key}.metric: {unknown('metric', metric, METRICS)}"


def _rule_problems(study: StudyConfig) -> Iterator[str]:
    arms = list(dict.fromkeys(name for arm in study.arms for name in (arm.grid or arm.name, arm.name)))
    lenses = [*(lens.lens for lens in study.lenses), *(["behaviour"] if study.behaviour is not None else [])]
    for index, rule in enumerate(study.expect):
        for key, known in (("arm", arms), ("against", arms), ("lens", lenses)):
            name = getattr(rule, key)
            if name is not None and name not in known:
                yield f"expect.{index}.{key}: {unknown(key if key == 'lens' else 'arm', name, known)}"
    for claim in study.claims:
        for name in claim.arms or ():
            if name not in arms:
                yield f"claims.{claim.claim}.arms: {unknown('arm', name, arms)}"
        for number in claim.numbers:
            for key, known in (("arm", arms), ("against", arms), ("lens", lenses)):
                name = getattr(number, key)
                if name is not None and name not in known:
                    yield f"claims.{claim.claim}.{key}: {unknown(key if key == 'lens' else 'arm', name, known)}"
        rule_name = claim.rule
        if rule_name is not None and rule_name not in RULES:
            yield f"claims.{claim.claim}.rule: {unknown('rule', rule_name, RULES)}"
        elif rule_name is not None:
            for name in claim.options:
                if name not in RULES[rule_name].options:
                    yield f"claims.{claim.claim}.options: {unknown('option', name, RULES[rule_name].options)}"


def _arm_problems(arm: ArmConfig) -> Iterator[str]:
    """Yield what does not fit an arm's model, once for all trials of a grid."""
    blocks = _blocks(arm)
    where = f"arms.{arm.grid or arm.name}"
    if blocks is None:
        return
    k = arm.options.get("k")
    if isinstance(k, int) and k > blocks:
        yield f"{where}.k: the model has {blocks} blocks, so k is 1 to {blocks}; came {k}"
    layers = (arm.options.get("peft") or {}).get("layers_to_transform")
    for layer in layers if isinstance(layers, list) else [layers]:
        if isinstance(layer, int) and not 0 <= layer < blocks:
            yield (
                f"{where}.peft.layers_to_transform: the model has the blocks 0 to {blocks - 1}; came {layer}"
            )


def _lens_problems(study: StudyConfig) -> Iterator[str]:
    """Yield the lenses that know one stack of blocks alone, where an arm's model has two."""
    from tunescope.lenses import LENSES

    two = [
        arm.name for arm in study.arms
        if not is_prompted(arm) and getattr(_config(arm), "is_encoder_decoder", False)
    ]  # fmt: skip
    able = [name for name, lens in LENSES.items() if lens.two_stacks]
    for lens in study.lenses:
        if two and lens.lens not in able:
            yield (
                f"lenses.{lens.lens}: it cannot yet look at an encoder-decoder, which the model of "
                f"{', '.join(dict.fromkeys(two))} is; the lenses that can: {', '.join(able)}"
            )


def _blocks(arm: ArmConfig) -> int | None:
    """Return the number of blocks of a model that can be looked at without a network, or None."""
    if arm.scratch is not None and arm.scratch.like is None:
        return arm.scratch.n_layer
    config = _config(arm)
    return None if config is None else int(config.num_hidden_layers)


def _config(arm: ArmConfig) -> Any | None:
    """Return the configuration of a model that can be looked at without a network, or None."""
    from tunescope.models.source import Source, read_config

    model = arm.model if arm.scratch is None else str(arm.scratch.like)
    if not (Path(model) / "config.json").is_file():
        return None
    return read_config(Source(model, arm.revision))[0]


def _prompt_problems(arm: ArmConfig, columns: list[str], labels: list[str]) -> Iterator[str]:
    from tunescope.tuning.zero_shot import MASK, fields_of

    options: dict[str, Any] = arm.options
    for template in [options["prompt"]] if options.get("prompt") else options.get("prompts") or []:
        for _, name in fields_of(template):
            if name is not None and name != MASK and name not in columns:
                yield f"arms.{arm.name}.prompt: {unknown('field', name, columns)}"
    given = list(options.get("verbalizers") or {})
    for label in labels:
        if label not in given:
            yield f"arms.{arm.name}.verbalizers: the label {label!r} has no verbalizer"
    for name in given:
        if name not in labels:
            yield f"arms.{arm.name}.verbalizers: {unknown('label', name, labels)}"
