"""Moving pictures: what draws their frames, and how frames become one file."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from tunescope.errors import MissingDependencyError

COLOURS = 64  # enough for scales and names; more makes large files


def pillow() -> Any:
    """Return Pillow's ``Image``, ``ImageDraw`` and ``ImageFont``.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise MissingDependencyError(
            "Pillow is not installed, so no animated pictures can be drawn.", hint="pip install pillow"
        ) from error
    return SimpleNamespace(Image=Image, ImageDraw=ImageDraw, ImageFont=ImageFont)


def animated(frames: list[Any], milliseconds: int) -> bytes:
    """Return pictures of one size as a GIF that begins again at its end.

    Args:
        frames: Pillow's images, at least one.
        milliseconds: How long each stands.
    """
    first, *rest = [frame.quantize(COLOURS) for frame in frames]
    out = io.BytesIO()
    first.save(
        out, format="GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0, optimize=False
    )
    return out.getvalue()
