"""From what a study or a command names to suites: builtins, suite files, corpora and tables of pairs."""

from __future__ import annotations

from pathlib import Path

from tunescope.behaviour.builtin import BUILTIN, Material, builtin_suite, lexicon_suite, perturbed_suite
from tunescope.behaviour.corpora import PairColumns, equity_suite, table_suite, winobias_suite
from tunescope.behaviour.form import SuiteForm, read_form, suite_from_templates
from tunescope.behaviour.suite import Suite
from tunescope.config.behaviour import SuiteConfig
from tunescope.config.problems import unknown
from tunescope.errors import ConfigError
from tunescope.progress import SILENT, Progress

FORM_SUFFIXES = (".yaml", ".yml")


def needs_rows(config: SuiteConfig) -> bool:
    """Return whether a suite rewrites rows of the data, or brings its own texts.

    Raises:
        ConfigError: There is no such suite, or its file is not valid.
    """
    if config.corpus is not None:
        return False
    if config.suite in BUILTIN:
        return True
    form, _ = read_form(_form_path(config.suite))
    return form.lexicon is not None or form.perturb is not None


def load_suite(config: SuiteConfig, material: Material | None, progress: Progress = SILENT) -> Suite:
    """Return the suite that a study or a command names.

    Args:
        config: Its name, file and columns.
        material: The rows, for suites that rewrite them; None where there are none.
        progress: Where to report.

    Raises:
        ConfigError: There is no such suite, its file is not valid, or it needs rows and there are none.
        DataError: A table cannot be read.
    """
    if config.corpus is not None:
        return _corpus(config)
    if config.suite in BUILTIN:
        return builtin_suite(config.suite, _rows(config.suite, material), progress)
    path = _form_path(config.suite)
    form, _ = read_form(path)
    return _formed(form, path, material, progress)


def _form_path(name: str) -> Path:
    path = Path(name)
    if path.suffix.lower() not in FORM_SUFFIXES:
        raise ConfigError(
            f"There is no suite {name!r}: {unknown('suite', name, BUILTIN)}.",
            hint="Name a builtin suite, a suite file (.yaml), or a corpus as eec=FILE, winobias=FILE or pairs=FILE.",
        )
    return path


def _rows(name: str, material: Material | None) -> Material:
    if material is None:
        raise ConfigError(
            f"The suite {name!r} rewrites rows, and there are none.", hint="Give rows with --data FILE."
        )
    return material


def _corpus(config: SuiteConfig) -> Suite:
    assert config.path is not None
    if config.corpus == "eec":
        return equity_suite(config.path, config.suite, config.by, config.label_map)
    if config.corpus == "winobias":
        return winobias_suite(config.path, config.suite)
    columns = PairColumns(
        config.original, config.rewritten, config.label, config.direction, config.term, config.clusters,
        config.label_map,
    )  # fmt: skip
    return table_suite(config.path, config.suite, columns)


def _formed(form: SuiteForm, path: Path, material: Material | None, progress: Progress) -> Suite:
    """Return the suite of a suite file; paths in it count from the file's folder."""
    name = form.suite or path.stem
    if form.templates is not None:
        return suite_from_templates(form, name)
    more = {"kind": form.kind, "expected": form.expected, "tolerated": form.tolerated}
    if form.pairs is not None:
        one = form.pairs
        columns = PairColumns(one.original, one.rewritten, one.label, one.direction, one.term, one.clusters)
        about = form.about or f"pairs of {one.path}"
        return table_suite(_beside(one.path, path), name, columns, about=about, **more)
    rows = _rows(name, material)
    if form.lexicon is not None:
        about = form.about or f"rows rewritten by the lexicon {form.lexicon}"
        return lexicon_suite(name, _beside(form.lexicon, path), about, rows, progress, **more)
    assert form.perturb is not None
    return perturbed_suite(
        name, form.perturb, form.about or f"rows perturbed: {form.perturb}", rows, progress, **more
    )


def _beside(name: str, file: Path) -> str:
    """Return a path of a suite file as it lies beside that file; names and other paths stay as they are."""
    whole = file.parent / name
    return str(whole) if whole.is_file() else name
