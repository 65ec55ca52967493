"""How long `tunescope compare` takes from command to report on a twelve-layer model of GPT-2 small's width.

The models are random (their time is that of trained ones): a base of 12 layers of 12 heads, width 768, with GPT-2's own
tokenizer, and a tuned classifier whose every weight was moved. 500 labelled rows are given; 200 fit the base's head and
300 are looked at, through the lenses that a comparison takes where none is named. The command runs in a process of its
own, so importing libraries counts. Prints one JSON object a line: a stage and its seconds, then the whole.

    OMP_NUM_THREADS=1 python benchmarks/compare.py --rows 500
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARED = Path(os.environ.get("TUNESCOPE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def write_models(folder: Path, layers: int) -> tuple[Path, Path]:
    """Write a random base and a tuned classifier made of it; return both folders."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, GPT2Model

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(SHARED / "tokenizers" / "gpt2")
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    config = GPT2Config(n_layer=layers, pad_token_id=tokenizer.eos_token_id, **names)
    base = GPT2Model(config)
    tuned = GPT2ForSequenceClassification(config)
    tuned.transformer.load_state_dict(base.state_dict())
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(torch.randn_like(parameter) * 1e-3)
    for name, model in (("base", base), ("tuned", tuned)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder / "base", folder / "tuned"


def write_rows(folder: Path, rows: int) -> Path:
    """Write rows of SST-2 with their labels' names."""
    import polars as pl

    table = pl.read_parquet(SHARED / "data" / "sst2" / "train.parquet").head(rows)
    text = next(name for name in ("sentence", "text") if name in table.columns)
    label = (
        pl.when(pl.col("label").cast(pl.Int64) == 1).then(pl.lit("positive")).otherwise(pl.lit("negative"))
    )
    table.select(pl.col(text).alias("text"), label.alias("label")).write_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def main() -> None:
    """Run the command once and print where its time went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--keep", type=Path, help="write the run folder here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base, tuned = write_models(folder, options.layers)
        rows = write_rows(folder, options.rows)
        run = options.keep or folder / "run"
        command = [
            sys.executable, "-m", "tunescope", "compare", str(base), str(tuned), "--data", str(rows), "--text", "text",
            "--label", "label", "--output-dir", str(run), "--device", "cpu",
        ]  # fmt: skip
        start = time.monotonic()
        subprocess.run(command, check=True)
        seconds = time.monotonic() - start
        processor = os.times().children_user + os.times().children_system
        about = json.loads((run / "compare.json").read_text(encoding="utf-8"))
        for stage in about["stages"]:
            print(json.dumps(stage))
        page = (run / "report.html").stat().st_size
        threads = os.environ.get("OMP_NUM_THREADS")
        print(json.dumps({
            "stage": "command to report", "seconds": round(seconds, 1), "processor_seconds": round(processor, 1),
            "rows": options.rows, "layers": options.layers,
            "threads": threads, "page_megabytes": round(page / 1e6, 2),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
