"""Draw the pictures of the documentation from generated data: one still a lens, and the first screen of a report.

    python scripts/lens_pictures.py                  # makes the run first, in runs/pictures: some minutes on two cores
    python scripts/lens_pictures.py --run runs/NAME  # draws from a run that is there; it must hold generated data alone

Pictures are taken of the report itself, in Chromium, in the light theme: docs/images/report.png and
docs/images/lenses/LENS.png, each of a few colours and small.
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
WIDTH, FIRST_SCREEN, TALLEST = 1300, 900, 1000  # pixels
MOST_BYTES = 80_000
LENSES: tuple[str | dict[str, Any], ...] = (
    "cka", "ablation", "planted", "weights",
    {"lens": "similarity", "permutations": 200},
    {"lens": "probes", "rows": {"n": 400}, "train_rows": 600},
    "spread",
    {"lens": "dimensions", "random": 5},
    {"lens": "maps", "rows": {"n": 400}, "methods": ["pca"], "axes": [2]},
    {"lens": "logit_lens", "rows": {"n": 400}},
    {"lens": "attribution_direct", "rows": {"n": 200}},
    {"lens": "words", "rows": {"n": 200}, "gradient_rows": 8},
    {"lens": "attention", "rows": {"n": 200}},
    {"lens": "flow", "rows": {"n": 64}},
    {"lens": "activations", "rows": {"n": 200}},
    {"lens": "patching", "rows": {"n": 64}},
    {"lens": "patching_cross", "rows": {"n": 128}},
    {"lens": "grafting", "rows": {"n": 200}},
)  # fmt: skip


def make_run(folder: Path) -> Path:
    """Run the quickstart with every lens that a study can have; the same call again does only what is missing."""
    from tunescope.config import load_study
    from tunescope.progress import Progress
    from tunescope.study import LENSES as KNOWN
    from tunescope.study import METHODS, run

    recipe = ROOT / "src" / "tunescope" / "recipes" / "quickstart.yaml"
    study = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    study["lenses"] = list(LENSES)
    return run(load_study(study, [], methods=METHODS, lenses=KNOWN), folder, progress=Progress())


def pictures(report: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the first screen as ``report`` and the first figure of every lens's section under the lens's name."""
    from playwright.sync_api import sync_playwright

    from tunescope.report.sections import SECTIONS

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        page = browser.new_page(viewport={"width": WIDTH, "height": FIRST_SCREEN}, color_scheme="light")
        page.set_default_timeout(120_000)
        page.goto(report.resolve().as_uri())
        page.wait_for_selector(".plot[data-drawn=done]")
        yield "report", page.screenshot()
        page.set_viewport_size({"width": 1000, "height": TALLEST})
        page.evaluate("document.querySelectorAll('.contents, .saves').forEach((one) => one.remove())")
        for section in SECTIONS:
            figure = page.locator(f"#{section.anchor} figure[data-key]").first
            if figure.count():
                figure.scroll_into_view_if_needed()
                figure.locator(".plot[data-drawn=done]").first.wait_for()
                yield section.lens, figure.screenshot()
        browser.close()


def small(picture: bytes) -> bytes:
    """Return a PNG with as many colours as fit :data:`MOST_BYTES`, else with fewer pixels too."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, TALLEST)))
    while True:
        for colours in (256, 128, 64):
            made = io.BytesIO()
            image.quantize(colours, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
            if made.tell() <= MOST_BYTES:
                return made.getvalue()
        image = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS)


def main() -> None:
    """Make the run where none is given, and write the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, help="a run folder of generated data; runs/pictures is made if not given"
    )
    chosen = parser.parse_args()
    from tunescope.report import write_report

    folder = chosen.run or make_run(ROOT / "runs" / "pictures")
    (IMAGES / "lenses").mkdir(parents=True, exist_ok=True)
    for name, picture in pictures(write_report(folder)):
        path = IMAGES / "report.png" if name == "report" else IMAGES / "lenses" / f"{name}.png"
        content = small(picture)
        path.write_bytes(content)
        print(f"{path.relative_to(ROOT)}: {len(content) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
