"""The report of a watched folder: its curves, and no empty section of a study."""

from __future__ import annotations

import re

from tunescope.report.page import write_report
from tunescope.stats.results import result_table
from tunescope.watch.records import Records


def test_a_watched_folder_has_a_page_of_its_own_without_a_studys_empty_sections(tmp_path):
    records = Records(tmp_path)
    for step in (0, 1, 2):
        table = result_table([
            {"model": "tuned", "site": "attn_pattern", "layer": layer, "head": 0, "metric": "entropy_without_sink",
             "value": 0.5 + 0.1 * step * layer}
            for layer in (0, 1)
        ])  # fmt: skip
        records.add(step, {"attention": table})
    records.finish({"texts": 12, "share_looking": 0.04})
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Training as it happened" in page
    assert "3 looks at 12 fixed texts" in page
    links = re.findall(r'<li><a href="#([\w-]+)"', page)
    assert links == ["watch", "limits", "reproduce"]
    for anchor in ("arms", "data", "training", "metrics", "errors", "cka", "ablation"):
        assert f'id="{anchor}"' not in page
