"""The rules of the house that a machine can check: arrows, sizes, no leftovers, a fast start."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "tunescope"
FILES = sorted(path for path in SOURCE.rglob("*.py"))

# Imports point only downwards: a part may import parts of a lower level, and itself.
LEVELS = {
    "errors": 0, "files": 0, "folders": 0, "fingerprints": 0, "seeds": 0, "progress": 0, "device": 0,
    "environment": 0, "config": 0, "runs": 0, "processes": 0,
    "data": 1, "stats": 1, "rewriting": 1,
    "models": 2,
    "capture": 3, "tuning": 3,
    "training": 4, "evaluation": 4, "prompting": 4,
    "planted": 5, "summaries": 5, "lenses": 6, "foreign": 6, "expect": 6, "behaviour": 6,
    "report": 6,
    "init": 7, "study": 7, "checkpoints": 7, "doctor": 7, "recipes": 7, "watch": 7, "export": 7, "corpus": 7,
    "api": 8, "serve": 8, "commands": 9, "cli": 10, "__main__": 11,
}  # fmt: skip
FREE = {
    "errors",
    "files",
    "folders",
    "fingerprints",
    "seeds",
    "progress",
    "device",
    "environment",
    "config",
    "runs",
    "processes",
}


def part_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Parts of tunescope that a file imports anywhere, inside functions too; typing-only imports do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }  # fmt: skip
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tunescope":
            names = node.module.split(".")
            found |= {names[1]} if len(names) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("tunescope.")}
    return {name for name in found if not name.startswith("__")}


def test_every_part_has_a_level():
    assert {part_of(path) for path in FILES} - {"__init__"} <= set(LEVELS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_only_downwards(path):
    part = part_of(path)
    if part == "__init__":
        return
    wrong = {
        other for other in imports_of(path)
        if other != part and other not in FREE and LEVELS[other] >= LEVELS[part]
    }  # fmt: skip
    if part in FREE:
        wrong |= imports_of(path) - FREE
    assert not wrong, f"{part} (level {LEVELS[part]}) imports {sorted(wrong)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_fit_in_the_head(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = ast.get_docstring(node, clean=False)
            length = (node.end_lineno or 0) - node.lineno + 1 - (doc.count("\n") + 1 if doc else 0)
            assert length <= 60, f"{path.name}:{node.lineno} {node.name} has {length} lines"
    for word in ("TODO", "FIXME", "XXX"):
        assert word not in text


def test_help_answers_without_torch_and_quickly():
    heavy = "('torch', 'transformers', 'polars', 'sklearn')"
    code = f"import sys; import tunescope.cli; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "tunescope", "--help"], capture_output=True, check=True)
    # The promise is half a second on a quiet machine; a loaded one must not make the suite fail.
    assert time.monotonic() - start < 5
