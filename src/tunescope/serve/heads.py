"""Base heads that were fitted before, by a run's own lenses or by an earlier server.

Fitting a probe takes a pass over thousands of train rows; opening a bench should take what loading takes. Runs whose
lenses ablate keep their heads; for the others a head is kept in ``$XDG_CACHE_HOME/tunescope/heads`` under a key of
all that it depends on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunescope import __version__
from tunescope.errors import RunError
from tunescope.fingerprints import sha256_of_json
from tunescope.lenses.bench.heads import put_head, write_head
from tunescope.models import Classifier


def heads_folder() -> Path:
    """Return where fitted heads are kept on this machine."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "tunescope" / "heads"


def with_head(
    base: Classifier, about: Mapping[str, Any], fit: Callable[[], Classifier], known: Sequence[Path] = ()
) -> Classifier:
    """Return a base under its probe head: from a file, else fitted and kept.

    Args:
        base: The base.
        about: All that the head depends on; with the version of tunescope it is the key.
        fit: Fits it.
        known: Files to look at first.
    """
    kept = heads_folder() / f"{sha256_of_json({'tunescope': __version__, **about})}.safetensors"
    if any(put_head(base, path) for path in (*known, kept)):
        return base
    fitted = fit()
    with contextlib.suppress(RunError, OSError):  # a cache that cannot be written costs time, no truth
        write_head(fitted, kept)
    return fitted
