"""The public names: listed, importable, and free until used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tunescope


def test_every_public_name_is_there_and_documented():
    for name in tunescope.__all__:
        value = getattr(tunescope, name)
        assert name == "__version__" or value.__doc__, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'comparee'"):
        _ = tunescope.comparee


def test_importing_tunescope_imports_nothing_heavy():
    code = "import tunescope, sys; print('torch' in sys.modules, 'polars' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "False"]
