"""The command ``test``: suites of behaviour on a model, with or without its base, and rules about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import ConfigError
from tunescope.progress import Progress

if TYPE_CHECKING:
    from tunescope.config.behaviour import BehaviourConfig
    from tunescope.config.expect import ExpectRule

CORPORA = {
    "eec": ("eec", "gender"),
    "eec-race": ("eec", "race"),
    "winobias": ("winobias", None),
    "pairs": ("pairs", None),
}


@dataclass(frozen=True)
class TestWish:
    """What ``tunescope test`` was asked for, as written on the command line."""

    __test__ = False  # no test of pytest's

    model: str
    suites: Sequence[str]
    base: str | None = None
    data: str | None = None
    text: str = "text"
    label: str | None = None
    label_map: Sequence[str] = ()
    expect: Path | None = None
    rows: int | None = None
    options: Sequence[str] = ()
    output_dir: Path | None = None
    device: str = "auto"
    quiet: bool = False
    as_json: bool = False


def test(wish: TestWish) -> None:
    """Test a model's behaviour and say what was found; end with exit code 8 where a rule is not met.

    Raises:
        ExpectationError: A rule is not met or undecided.
    """
    from tunescope.commands.asked import label_map
    from tunescope.expect import require, summary
    from tunescope.study.suites import TestRequest, run_suites

    rules = [] if wish.expect is None else read_rules(wish.expect)
    request = TestRequest(
        model=wish.model, config=read_suites(wish), folder=wish.output_dir or Path("runs") / "test", base=wish.base,
        data=wish.data, text=wish.text, label=wish.label, label_map=label_map(wish.label_map), rules=rules,
        device=wish.device,
    )  # fmt: skip
    found = run_suites(request, Progress(wish.quiet))
    report = found.folder / "report.html"
    counts: dict[str, Any] = {"expect": summary(found.verdicts)} if rules else {}
    if wish.as_json:
        said = [{"sentence": one.sentence, "verdict": one.verdict} for one in found.findings]
        print(
            json.dumps(
                {
                    "folder": str(found.folder.resolve()),
                    "report": str(report.resolve()),
                    "findings": said,
                    "left_out": found.left_out,
                    **counts,
                }
            )
        )
    elif not wish.quiet:
        for one in found.findings:
            print("".join(letter if letter.isprintable() else " " for letter in one.sentence))
        for sentence in found.left_out:
            print(sentence)
        if rules:
            print("Expectations: " + ", ".join(f"{count} {name}" for name, count in counts["expect"].items()))
        print(f"Report: {report}")
    require(found.verdicts, strict=True)


test.__test__ = False  # type: ignore[attr-defined]


def read_suites(wish: TestWish) -> BehaviourConfig:
    """Return the behaviour section that a command line says.

    ``--suite`` takes names and files, parted by commas: builtins, suite files (YAML), and ``eec=FILE``,
    ``eec-race=FILE``, ``winobias=FILE`` or ``pairs=FILE``.

    Raises:
        ConfigError: A value is not valid.
    """
    from pydantic import ValidationError

    from tunescope.config.behaviour import BehaviourConfig
    from tunescope.config.check import note_errors
    from tunescope.config.problems import Problems
    from tunescope.config.text import parse_value

    names = [name.strip() for one in wish.suites for name in one.split(",") if name.strip()]
    values: dict[str, Any] = {"suites": [_suite(name) for name in names]}
    if wish.rows is not None:
        values["rows"] = {"n": wish.rows}
    for option in wish.options:
        key, equals, text = option.partition("=")
        if not equals:
            raise ConfigError(
                f"--set expected KEY=VALUE; came {option!r}.", hint="For example --set bound=0.2."
            )
        try:
            values[key.strip()] = parse_value(text)
        except ValueError as error:
            raise ConfigError(
                f"--set {option}: the value is not readable as YAML: {error}.", hint="Check it."
            ) from error
    problems = Problems(subject="The choice of suites is")
    try:
        return BehaviourConfig.model_validate(values)
    except ValidationError as error:
        note_errors(error, BehaviourConfig, values, (), problems)
        problems.raise_all()
        raise


def _suite(name: str) -> Any:
    corpus, equals, path = name.partition("=")
    if not equals:
        return name
    if corpus not in CORPORA:
        raise ConfigError(
            f"--suite {name}: there is no corpus {corpus!r}; expected one of {', '.join(CORPORA)}.",
            hint="For example --suite eec=all.parquet.",
        )
    kind, by = CORPORA[corpus]
    return {"suite": corpus, "corpus": kind, "path": path, **({"by": by} if by else {})}


def read_rules(path: Path) -> list[ExpectRule]:
    """Return the rules of a file whose key ``expect`` holds a list; ``lens: behaviour`` may be left out.

    Raises:
        ConfigError: The file is missing or not valid; every problem is told with its line.
    """
    from pydantic import ValidationError

    from tunescope.config.check import note_errors
    from tunescope.config.expect import ExpectRule
    from tunescope.config.problems import Problems, shown_value
    from tunescope.config.text import read_document

    if not path.is_file():
        raise ConfigError(f"There is no file of rules {path}.", hint="Give a YAML file with the key expect.")
    document = read_document(path)
    problems = Problems(document.origins, list(document.problems), subject="The rules are")
    given = document.value.get("expect")
    if not isinstance(given, list) or not given:
        problems.add(("expect",), f"expected a list of rules; came {shown_value(given)}")
    rules = []
    for index, one in enumerate(given if isinstance(given, list) else []):
        values = {"lens": "behaviour", **one} if isinstance(one, dict) else one
        try:
            rules.append(ExpectRule.model_validate(values))
        except ValidationError as error:
            note_errors(error, ExpectRule, values, ("expect", str(index)), problems)
    problems.raise_all()
    return rules
