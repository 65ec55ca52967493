"""From a run folder to a bench: base under its base head and tuned, as the run's own lenses saw them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunescope.checkpoints.pair import PairLoader
from tunescope.checkpoints.request import BaseHead, CompareRequest
from tunescope.config import ArmConfig, load_data, load_study
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens
from tunescope.errors import RunError
from tunescope.files import read_json, sha256_of
from tunescope.fingerprints import model_digest
from tunescope.foreign.targets import Checkpoint, Pair
from tunescope.lenses.bench import Bench
from tunescope.lenses.bench.bench import REFERENCE_ROWS
from tunescope.lenses.bench.heads import HEAD
from tunescope.lenses.subject import Subject
from tunescope.models import Classifier, fit_probe
from tunescope.models.source import quiet_transformers
from tunescope.models.store import ActivationStore
from tunescope.progress import SILENT, Progress
from tunescope.runs import RunFolder
from tunescope.serve.heads import with_head
from tunescope.study import LENSES, METHODS
from tunescope.study.context import ROWS, Context
from tunescope.study.look import base_head, subject_of
from tunescope.study.stages import BENCH, part_folder


class _ReadingContext(Context):
    """A run that is only read: nothing is kept in its folder."""

    def store(self, arm: ArmConfig) -> ActivationStore | None:
        """Return no store."""
        return None

    def splits(self, arm: ArmConfig, classifier: Classifier) -> dict[str, Tokens]:
        """Return the train rows alone: heads and means are made of them, and the bench reads no others."""
        return {"train": self.tokens(arm, classifier, "train")}


def open_bench(folder: Path, arm: str, seed: int, device: str, progress: Progress = SILENT) -> Bench:
    """Load one training of a run and give its base the head that the run's results were made with.

    Args:
        folder: The run folder; nothing is written into it.
        arm: An arm of the study, or a tuned checkpoint of a comparison.
        seed: The training's seed.
        device: Where to compute.
        progress: Is told of the features that the base's head is fitted on.

    Raises:
        RunError: There is no such arm or seed.
        TunescopeError: A model or the rows cannot be read any more.
    """
    with quiet_transformers():
        if (folder / "compare.json").is_file():
            return Bench(_compared(folder, arm, seed, device, progress))
        study = load_study(folder / "study.resolved.yaml", methods=METHODS, lenses=LENSES)
        found = next((one for one in study.arms if one.name == arm), None)
        if found is None or seed not in study.seeds:
            raise RunError(f"{folder} has no training of {arm!r} with seed {seed}.")
        context = _ReadingContext(study, RunFolder(folder), device, progress)
        window = study.data.window
        options: dict[str, Any] = next((one.options for one in study.lenses if one.lens == "ablation"), {})
        rows = int(options.get("reference_rows", REFERENCE_ROWS))
        return Bench(_studied(context, found, seed), window, rows)


def _studied(context: Context, arm: ArmConfig, seed: int) -> Subject:
    """Return a training as the study's lenses see it; a probe head that was fitted before is not fitted again."""
    if arm.base_head != "probe":
        return subject_of(context, arm, seed)
    about = {
        "rows": sha256_of(context.path / ROWS), "base": model_digest(context.model_path(arm)),
        "arm": arm.model_dump(mode="json"), "data": context.study.data.model_dump(mode="json"), "seed": seed,
    }  # fmt: skip
    bare = subject_of(context, arm.model_copy(update={"base_head": "none"}), seed)
    known = [context.path / part_folder(arm, seed, BENCH) / HEAD]
    base = with_head(bare.base, about, lambda: base_head(context, arm, seed, bare.base, bare.tuned), known)
    return replace(bare, base=base, base_head="probe")


def _compared(folder: Path, arm: str, seed: int, device: str, progress: Progress) -> Subject:
    """Load a base and a checkpoint that was trained elsewhere, as ``tunescope compare`` did."""
    about = read_json(folder / "compare.json")
    pair, rows = _pair(folder, about, arm, seed), Rows.load(folder / "data" / "rows.parquet")
    request = CompareRequest(
        pair.base, [pair.tuned.path], load_data(about["data"]), folder, label_map=about.get("label_map") or {},
        device=device, seed=int(about.get("seed") or 0),
    )  # fmt: skip
    head: BaseHead = about.get("base_head") or "probe"
    train = rows.split("train")
    loader = PairLoader(request, train, device, about.get("kind") or "classifier",
                        "none" if head == "probe" else head, progress)  # fmt: skip
    bare = loader.load(pair)
    if head != "probe":
        return bare
    about_head = {
        "rows": sha256_of(folder / "data" / "rows.parquet"), "base": model_digest(pair.base) or pair.base,
        "pooling": bare.base.pooling, "max_length": bare.base.max_length, "seed": request.seed,
    }  # fmt: skip
    known = [folder / "looks" / arm / f"seed-{seed}" / BENCH / HEAD]
    fresh, tokens = bare.base, bare.splits["train"]
    base = with_head(
        fresh, about_head, lambda: fit_probe(fresh, tokens, seed=request.seed, progress=progress), known
    )
    return replace(bare, base=base, base_head="probe")


def _pair(folder: Path, about: Mapping[str, Any], arm: str, seed: int) -> Pair:
    listed = about.get("pairs") or [
        {"arm": name, "seed": None, "base": about.get("base"), "tuned": path}
        for name, path in (about.get("tuned") or {}).items()
    ]
    for one in listed:
        if one["arm"] == arm and (one["seed"] or 0) == seed:
            return Pair(str(one["base"]), Checkpoint(one["arm"], one["seed"], str(one["tuned"])))
    raise RunError(f"{folder} compares no checkpoint {arm!r} with seed {seed}.")
