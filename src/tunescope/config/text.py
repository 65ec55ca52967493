"""YAML to plain values with the line of every key, and back.

Scalars follow YAML 1.2: only ``true`` and ``false`` are booleans, so that a label named ``no`` stays a word,
and ``1e-4`` is a number. Everything else is ``yaml.safe_load``: no tags, no objects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunescope.config.problems import Key, Origin, Problem
from tunescope.errors import ConfigError

LARGEST_FILE = 1_000_000  # bytes; a study is a page of text
MOST_VALUES = 50_000  # aliases can make a small file unfold into very many values

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOLEAN = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INTEGER = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """``yaml.SafeLoader`` with the scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own name and type)


class _Dumper(yaml.SafeDumper):
    """``yaml.SafeDumper`` that also quotes what only YAML 1.2 would read as a number, and uses no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        """Escape the line breaks that only YAML knows, which other quotes would turn into spaces."""
        style = '"' if any(mark in data for mark in "\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


for _tag, _pattern, _first in (
    ("null", _NULL, [*"~nN", ""]),
    ("bool", _BOOLEAN, [*"tTfF"]),
    ("int", _INTEGER, [*"-+0123456789"]),
    ("float", _FLOAT, [*"-+.0123456789"]),
    ("merge", re.compile(r"^<<$"), ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, [*"-+.0123456789"])


@dataclass
class Document:
    """A YAML file as plain values, with where each key was written and what is wrong with the file itself."""

    value: dict[Any, Any]
    origins: dict[Key, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_document(file: Path) -> Document:
    """Read a study file.

    Raises:
        ConfigError: The file is missing, not UTF-8, too large, not YAML, or not a mapping.
    """
    text = _read_text(file)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(
                f"{file} is empty; expected a study.", hint="Write one with `tunescope init DATA`."
            )
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(
                f"{file}:{_line(node)}: expected a mapping of keys (name, data, arms, ...) at the top.",
                hint="Write one with `tunescope init DATA` to see what a study looks like.",
            )
        document = Document({})
        _Walk(file, loader, document).visit(node, (), ())
        document.value = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        said = (error.problem or error.context or "not YAML").replace("\n", " ")
        raise ConfigError(f"{file}{line}: not readable as YAML: {said}.", hint=_yaml_hint(said)) from error
    except yaml.YAMLError as error:
        said = str(error).split("\n")[0]
        raise ConfigError(
            f"{file}: not readable as YAML: {said}.", hint="Save the file as plain UTF-8 text."
        ) from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(
            f"{file}: not readable as YAML: {error}.", hint="Write the study out plainly."
        ) from error
    return document


def _read_text(file: Path) -> str:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise ConfigError(
                f"{file} holds {file.stat().st_size:,} bytes; a study is at most {LARGEST_FILE:,}.",
                hint="Give the study, not the data; `tunescope init DATA` writes a study for a data file.",
            )
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no study file {file}.",
            hint="Check the path, or write a study with `tunescope init DATA`.",
        ) from error
    except IsADirectoryError as error:
        raise ConfigError(
            f"{file} is a folder; expected a study file.", hint="Name the YAML file in it."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}).",
            hint="Give the study file, saved as UTF-8.",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror or error}.", hint="Check the path."
        ) from error


def _yaml_hint(said: str) -> str:
    if "\\t" in said or "tab" in said:
        return "Indent with spaces, not tabs."
    if "tag" in said:
        return "A study holds plain values; remove the !tag."
    return "Check the indentation, colons and quotes of that line."


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Walk:
    """Notes the line of every key and finds keys that stand twice."""

    def __init__(self, file: Path, loader: _Loader, document: Document) -> None:
        self.file, self.loader, self.document = file, loader, document
        self.visited = 0

    def visit(self, node: yaml.Node, key: Key, above: tuple[int, ...]) -> None:
        self.visited += 1
        if id(node) in above:
            raise ValueError(f"line {_line(node)} refers to itself by an alias")
        if self.visited > MOST_VALUES:
            raise ValueError(f"it unfolds into more than {MOST_VALUES:,} values")
        self.document.origins.setdefault(key, Origin(self.file, _line(node)))
        above = (*above, id(node))
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*key, str(index)), above)
        elif isinstance(node, yaml.MappingNode):
            self._visit_pairs(node, key, above)

    def _visit_pairs(self, node: yaml.MappingNode, key: Key, above: tuple[int, ...]) -> None:
        first: dict[tuple[str, str], int] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise ValueError(f"line {_line(name)} uses a list or mapping as a key")
            same = (name.tag, name.value)
            is_merge = name.tag.endswith(":merge")
            word = name.value if is_merge else str(self.loader.construct_object(name))
            below = (*key, word)
            if same in first:
                text = f"the key stands twice; it was given on line {first[same]} already"
                self.document.problems.append(Problem(Origin(self.file, _line(name)), ".".join(below), text))
            first.setdefault(same, _line(name))
            if is_merge:
                self.visit(value, below, above)
                continue
            self.document.origins[below] = Origin(self.file, _line(name))
            self.visit(value, below, above)


def parse_value(text: str) -> Any:
    """Return the plain value that a piece of YAML text says, as after ``--set key=``.

    Raises:
        ValueError: The text is not YAML.
    """
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error).split("\n")[0]) from error


def to_yaml(value: dict[str, Any], *, flow: bool = False) -> str:
    """Return plain values as YAML that any reader reads back as the same; ``flow`` is all on one line."""
    width = 2**31 if flow else 110
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width, default_flow_style=flow
    )
