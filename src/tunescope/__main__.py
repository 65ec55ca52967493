"""``python -m tunescope`` is the same as ``tunescope``."""

from __future__ import annotations

from tunescope.cli import main

if __name__ == "__main__":
    main()
