"""Pages of the documentation that are made from the code: lenses, recipes, commands, Python.

mkdocs calls this as a hook (``mkdocs.yml``); nothing that it makes is committed, so nothing of it can be out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

DOCS = Path(__file__).resolve().parent.parent / "docs"
SECTIONS = ("Formula", "Range", "How to read", "Cost", "Limits")


def on_config(config: Any) -> Any:
    """Give every lens, every recipe and every page of results its line in the navigation."""
    made = [*pages(), *(f"results/{file.name}" for file in sorted((DOCS / "results").glob("*.md")))]
    for entry in config.nav:
        for title, children in entry.items():
            folder = {"Lenses": "lenses/", "Recipes": "recipes/", "Results": "results/"}.get(title)
            if folder is not None:
                children += [page for page in made if page.startswith(folder) and page not in children]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to those of ``docs/``."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def pages() -> dict[str, str]:
    """Return every generated page in Markdown, by its path in the documentation."""
    from tunescope.config import recipes
    from tunescope.lenses import LENSES

    found = {"lenses/index.md": lens_list(), "recipes/index.md": recipe_list()}
    found |= {f"lenses/{name}.md": lens_page(name) for name in LENSES}
    found |= {f"recipes/{name}.md": recipe_page(name) for name in recipes()}
    return found | {"reference/commands.md": commands(), "reference/python.md": python()}


# Lenses


def lens_module(name: str) -> types.ModuleType:
    """Return the module in which a lens is written: its docstring is the page."""
    from tunescope.lenses import LENSES

    lens = LENSES[name]
    return sys.modules[(getattr(lens, "start", None) or lens.run).__module__]


def parts_of(name: str) -> tuple[str, str, dict[str, str]]:
    """Return a lens's docstring as first sentence, explanation, and its sections by title."""
    doc = inspect.getdoc(lens_module(name)) or ""
    pieces = re.split(rf"^({'|'.join(SECTIONS)}):\n", doc, flags=re.MULTILINE)
    first, _, rest = pieces[0].partition("\n")
    sections = dict(zip(pieces[1::2], (inspect.cleandoc(piece) for piece in pieces[2::2]), strict=True))
    return first.strip(), rest.strip(), sections


def lens_list() -> str:
    """Return the table of all lenses."""
    from tunescope.lenses import LENSES

    rows = [f"| [`{name}`]({name}.md) | {_cell(text(parts_of(name)[0]))} |" for name in LENSES]
    head = (
        "# Lenses\n\nA lens looks at one thing, base against tuned, on the same rows. Every effect has an interval "
        "and a control.\nA study names its lenses: `lenses: [cka, {lens: ablation, edits: [mean]}]`; "
        "`tunescope compare` takes `--lens NAME`.\n\n| lens | question |\n| --- | --- |\n"
    )
    return head + "\n".join(rows) + "\n"


def lens_page(name: str) -> str:
    """Return a lens's page: what it measures, formula, range, reading, cost, limits, options, papers, figure."""
    from tunescope.lenses import LENSES
    from tunescope.lenses.works import WORKS, of_lens

    first, rest, sections = parts_of(name)
    lens = LENSES[name]
    lines = [f"# `{name}`", "", text(first), "", text(lens.what), ""]
    picture = DOCS / "images" / "lenses" / f"{name}.png"
    if picture.is_file():
        lines += [f"![A figure of {name}, from the generated corpus](../images/lenses/{name}.png)", ""]
    lines += [text(rest), ""] if rest else []
    for title in SECTIONS:
        if title in sections:
            lines += [f"## {title}", "", text(sections[title]), ""]
    lines += ["## Options", "", "| option | default | meaning |", "| --- | --- | --- |"]
    lines += [
        f"| `{option}` | {_default(default)} | {_cell(text(about))} |"
        for option, default, about in options(lens.options)
    ]
    works = [
        f"- {WORKS[one.key].said}, *{WORKS[one.key].title}* ({one.what}){_arxiv(one.key)}"
        for one in of_lens(name)
    ]
    lines += ["", "## Papers", "", *works] if works else []
    return "\n".join(lines) + "\n"


def _arxiv(key: str) -> str:
    from tunescope.lenses.works import WORKS

    return f", arXiv {WORKS[key].arxiv}" if WORKS[key].arxiv else ""


def options(
    model: type[BaseModel], before: str = "", given: BaseModel | None = None
) -> Iterator[tuple[str, Any, str]]:
    """Yield every option as (name, default, meaning); those of nested models under dotted names.

    ``given`` holds the defaults where a model stands inside another, which may set other ones.
    """
    for name, field in model.model_fields.items():
        about = field.description or ""
        default = (
            inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        )
        default = default if given is None else getattr(given, name)
        nested = next((kind for kind in _kinds(field.annotation) if issubclass(kind, BaseModel)), None)
        if nested is None:
            yield f"{before}{name}", default, about
        else:
            yield f"{before}{name}", ... if isinstance(default, BaseModel) else default, about
            inner = default if isinstance(default, BaseModel) and isinstance(default, nested) else None
            yield from options(nested, f"{before}{name}.", inner)


def _kinds(annotation: Any) -> list[type]:
    """Return the classes that an annotation names, those in unions too."""
    if isinstance(annotation, type):
        return [annotation]
    unions = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return [kind for part in typing.get_args(annotation) for kind in _kinds(part)] if unions else []


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "must be given"
    if value is ...:
        return "see below"
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else _plain(value)
    return _cell(f"`{shown}`")


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return str(value)


# Recipes


def recipe_list() -> str:
    """Return the table of all recipes."""
    from tunescope.config import recipes

    rows = [f"| [`{name}`]({name}.md) | {_cell(_question(path))} |" for name, path in recipes().items()]
    head = (
        "# Recipes\n\nStudies that come with tunescope: `tunescope run NAME`. A recipe is a study file; copy it "
        "and change what you like.\n\n| recipe | question |\n| --- | --- |\n"
    )
    return head + "\n".join(rows) + "\n"


def _question(path: Path) -> str:
    from tunescope.config.text import read_document

    study = read_document(path).value
    return str(study.get("question") or study.get("name") or "")


def recipe_page(name: str) -> str:
    """Return a recipe's page: its question, what its first comment says, and the file itself."""
    from tunescope.config import recipes

    source = recipes()[name].read_text(encoding="utf-8")
    comment = re.match(r"(?:#.*\n)*", source)
    about = " ".join(line.lstrip("# ") for line in comment[0].splitlines()) if comment else ""
    return (
        f"# `{name}`\n\n{_question(recipes()[name])}\n\n{about}\n\n```sh\ntunescope run {name}\n```\n\n"
        f"## The study\n\n```yaml\n{source}```\n"
    )


# Commands


def commands() -> str:
    """Return the reference of all commands, as they are typed."""
    from tunescope.cli import COMMANDS, EXIT_CODES, app

    group: Any = typer.main.get_command(app)
    lines = ["# Commands", "", text(EXIT_CODES), "", "| command | what it does |", "| --- | --- |"]
    lines += [f"| [`{name}`](#{name}) | {_cell(line)} |" for name, _, line in COMMANDS]
    for name, *_ in COMMANDS:
        command = group.commands[name]
        lines += [
            "",
            f"## {name}",
            "",
            *_told(command.help or ""),
            "",
            "| argument or option | default | meaning |",
        ]
        lines += ["| --- | --- | --- |", *map(_parameter, command.params)]
    return "\n".join(lines) + "\n"


def _told(help_text: str) -> list[str]:
    """Return a command's help, its examples as code."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(help_text).replace("\f", "")):
        words = " ".join(paragraph.split())
        found = re.match(r"(Examples?): (.*)", words)
        lines += [f"```sh\n{found[2]}\n```" if found else text(words), ""]
    return lines


def _parameter(parameter: Any) -> str:
    is_option = any(name.startswith("-") for name in parameter.opts)
    names = (
        ", ".join([*parameter.opts, *parameter.secondary_opts])
        if is_option
        else parameter.metavar or parameter.name.upper()
    )
    default = parameter.default if is_option and not callable(parameter.default) else None
    shown = "" if default in (None, False, ()) else f"`{_plain(default)}`"
    return f"| `{names.strip('{}')}` | {_cell(shown)} | {_cell(text(parameter.help or ''))} |"


# Python


def python() -> str:
    """Return the reference of what ``from tunescope import ...`` gives."""
    import tunescope

    lines = ["# Python", "", "Every name here is imported from `tunescope` itself. Tables are polars frames."]
    for name in tunescope.__all__:
        thing = getattr(tunescope, name)
        if callable(thing):
            lines += ["", f"## {name}", "", *_documented(thing, name)]
            lines += _members(thing) if isinstance(thing, type) else []
    return "\n".join(lines) + "\n"


def _documented(thing: Any, name: str) -> list[str]:
    try:
        signature = re.sub(
            r"'([\w .,|\[\]]+)'", r"\1", str(inspect.signature(thing)).replace("tunescope.", "")
        )
    except (TypeError, ValueError):
        signature = ""
    shown = signature if len(signature) < 400 else "(...)"
    return ["```python", f"{name}{shown}", "```", "", docstring(inspect.getdoc(thing) or "")]


def _members(kind: type) -> list[str]:
    """Return the public methods and properties that a class itself has, with their first sentence."""
    found = []
    for name, member in vars(kind).items():
        inner = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or not callable(inner) or not inspect.getdoc(inner):
            continue
        call = "" if isinstance(member, property) else "()"
        found.append(f"| `.{name}{call}` | {_cell(text((inspect.getdoc(inner) or '').splitlines()[0]))} |")
    return ["", "| member | what it is |", "| --- | --- |", *found] if found else []


# Text


def text(source: str) -> str:
    """Return a docstring's paragraphs in Markdown: code marks and references of Sphinx become code."""
    found = re.sub(r":\w+:`~?([^`]+)`", lambda match: f"`{match[1].split('.')[-1]}`", source)
    return re.sub(r"``([^`]+)``", r"`\1`", found).replace("<", "&lt;") if "``" not in found else _coded(found)


def _coded(source: str) -> str:
    """Return text whose double code marks become single ones; angle brackets outside code are text."""
    parts = re.split(r"(``[^`]+``)", source)
    return "".join(
        f"`{part[2:-2]}`" if part.startswith("``") else part.replace("<", "&lt;") for part in parts
    )


def docstring(source: str) -> str:
    """Return a docstring in Google's form as Markdown: sections as bold words, entries as lists."""
    lines: list[str] = []
    for line in source.splitlines():
        section = re.fullmatch(r"(Args|Raises|Returns|Yields|Attributes|Example|Examples):", line)
        entry = re.fullmatch(r" {4}(\*{0,2}\w[\w.*]*)(?: \([^)]*\))?: (.*)", line)
        if section:
            lines += ["", f"**{section[1]}**", ""]
        elif entry:
            lines.append(f"- `{entry[1]}`: {text(entry[2])}")
        else:
            lines.append(text(line) if not line.startswith(" ") else f"  {text(line.strip())}")
    return "\n".join(lines)


def _cell(value: str) -> str:
    return " ".join(value.replace("|", "\\|").split())
