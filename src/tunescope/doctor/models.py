"""Checks of models: families against transformers, pooling by mask, rows without padding, predictions, adapters."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tunescope.capture.sites import Site
from tunescope.data.batches import collate
from tunescope.data.labels import LabelMap
from tunescope.data.packed import pack
from tunescope.data.tokens import Tokens
from tunescope.doctor.check import Bench, Line, at_most, same
from tunescope.doctor.subjects import a_model, random_rows, subject_of
from tunescope.lenses.subject import LensRows
from tunescope.models import Classifier, load, load_trunk
from tunescope.models.families import FAMILIES
from tunescope.planted.random_models import CAUSAL, LABELS, TWO_STACKS

EXACT = 1e-4  # logits of random models are of the size of 1 to 10


def families(bench: Bench) -> Iterable[Line]:
    """Verify every architecture's table on a tiny random model, and its logits against transformers' own class."""
    from tunescope.capture.edits import editing, zero
    from tunescope.capture.verify import verify

    for kind in (kind for family in FAMILIES for kind in family.model_types):
        model = verify(a_model(bench.folder, kind))
        tokens = _tokens(model)
        theirs = _plain(model, tokens)
        yield at_most(
            f"{kind}: sites verified; logits minus transformers' own, rows run alone",
            EXACT * max(1.0, float(theirs.abs().max())),
            float((_alone(model, tokens) - theirs).abs().max()),
        )
        stack: Literal["decoder"] | None = "decoder" if kind in TWO_STACKS else None
        before = _alone(model, tokens)
        with editing(model, [zero(Site("head_z", 1, stack), (0,))]) as report:
            changed = float((_alone(model, tokens) - before).abs().max())
        hit = sum(report.elements.values())
        yield Line(
            f"{kind}: head 0 of layer 1 taken out", "hits numbers, changes logits, leaves no trace",
            f"{hit} numbers, {changed:.3g} logits",
            hit > 0 and changed > EXACT and bool(torch.equal(before, _alone(model, tokens))),
        )  # fmt: skip


def _tokens(model: Classifier, n: int = 8) -> Tokens:
    return subject_of(model, model, random_rows(2 * n)).draw(LensRows(n=n))


def _alone(model: Classifier, tokens: Tokens) -> torch.Tensor:
    """Return the logits of rows that run one by one, without padding."""
    with torch.no_grad():
        return torch.cat(
            [model(**collate(tokens, np.array([index])).inputs()) for index in range(len(tokens))]
        )


def _plain(model: Classifier, tokens: Tokens) -> torch.Tensor:
    """Return transformers' own logits of the same rows, one by one."""
    found = []
    with torch.no_grad():
        for ids in tokens.input_ids:
            row = torch.tensor(np.asarray(ids, dtype=np.int64))[None]
            extra: dict[str, Any] = {"use_cache": False} if model.family.caches else {}
            found.append(model.model(input_ids=row, attention_mask=torch.ones_like(row), **extra).logits)
    return torch.cat(found)


def pooling(bench: Bench) -> Iterable[Line]:
    """Pad rows on either side, by any amount and with any id, and show that no logit moves."""
    for kind in ("gpt2", "llama", "bert", "roberta", "t5"):
        model = a_model(bench.folder, kind)
        tokens = _tokens(model)
        alone = _alone(model, tokens)
        size = max(1.0, float(alone.abs().max()))
        filler = int(tokens.input_ids[0][1])
        ways: dict[str, dict[str, Any]] = {
            "right": {},
            "left": {"left": True},
            "right by 9 more": {"more": 9},
        }
        if kind not in TWO_STACKS:  # T5 and BART read their end token by its id
            ways["right with the id of a word"] = {"more": 3, "pad": filler}
        for way, options in ways.items():
            with torch.no_grad():
                padded = model(**_padded(model, tokens, **options))
            yield at_most(f"{kind}: padded on the {way}", EXACT * size, float((padded - alone).abs().max()))
        for how in ("mean", "last") if kind in CAUSAL else ("mean",):
            other = load(str(model.record["path"]), pooling=how)  # type: ignore[arg-type]
            with torch.no_grad():
                gap = other(**_padded(other, tokens, more=9)) - _alone(other, tokens)
            yield at_most(f"{kind}: {how} pooling, padded by 9 more", EXACT * size, float(gap.abs().max()))


def _padded(
    model: Classifier, tokens: Tokens, left: bool = False, more: int = 0, pad: int | None = None
) -> dict[str, torch.Tensor]:
    length = max(map(len, tokens.input_ids)) + more
    filler = int(model.tokenizer.pad_token_id) if pad is None else pad
    ids = torch.full((len(tokens), length), filler)
    mask = torch.zeros(len(tokens), length, dtype=torch.long)
    for index, row in enumerate(tokens.input_ids):
        place = slice(length - len(row), length) if left else slice(0, len(row))
        ids[index, place] = torch.tensor(np.asarray(row, dtype=np.int64))
        mask[index, place] = 1
    return {"input_ids": ids, "attention_mask": mask}


def packed(bench: Bench) -> Iterable[Line]:
    """Run rows in one line without padding, and show that logits and gradients are those of padded rows."""
    for kind in ("gpt2", "bert", "distilbert", "roberta", "gpt_neox", "llama", "qwen2", "qwen3"):
        model = a_model(bench.folder, kind)
        tokens = _tokens(model)
        batch = pack(tokens, list(range(len(tokens))))
        found, gradients = {}, {}
        for name, inputs in (
            ("line", batch.inputs()),
            ("padded", _padded(model, tokens.take(batch.index), more=2)),
        ):
            model.zero_grad()
            logits = model(**inputs)
            logits.logsumexp(1).sum().backward()
            found[name] = logits.detach()
            gradients[name] = {
                key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None
            }
        size = max(1.0, float(found["padded"].abs().max()))
        gap = float((found["line"] - found["padded"]).abs().max())
        yield at_most(f"{kind}: logits without padding minus with it", EXACT * size, gap)
        worst = max(
            float((gradients["line"][key] - value).abs().max()) / max(1.0, float(value.abs().max()))
            for key, value in gradients["padded"].items()
        )
        yield at_most(f"{kind}: gradients without padding minus with it, relative", EXACT, worst)


def predictions(bench: Bench) -> Iterable[Line]:
    """Show that every class's column holds its own softmax, and that predictions are the same twice."""
    from tunescope.evaluation.predict import predict

    for kind in ("gpt2", "bert"):
        model = a_model(bench.folder, kind)
        tokens = _tokens(model, 24)
        model.train()  # as after a training that was not ended; predicting must switch dropout off
        frame, again = predict(model, tokens), predict(model, tokens)
        model.eval()
        shares = torch.softmax(_plain(model, tokens).double(), 1).numpy()
        for column, name in enumerate(LABELS):
            gap = float(np.abs(frame[f"probability_{name}"].to_numpy() - shares[:, column]).max())
            yield at_most(f"{kind}: P({name}) minus transformers' softmax", 1e-5, gap)
        told = frame["prediction"].to_list()
        yield same(f"{kind}: predicted classes", shares.argmax(1).tolist(), told)
        yield Line(
            f"{kind}: predicted twice, in training mode", "the same bits", _same_bits(frame.equals(again)),
            frame.equals(again),
        )  # fmt: skip


def _same_bits(equal: bool) -> str:
    return "the same bits" if equal else "different numbers"


def lora(bench: Bench) -> Iterable[Line]:
    """Show that LoRA starts at the pretrained model, moves its own matrices alone, by rank r, and survives saving."""
    from tunescope.models.matrices import matrices
    from tunescope.stats.weight_change import rounding, spectrum
    from tunescope.tuning import METHODS

    for kind in ("gpt2", "bert"):
        folder = a_model(bench.folder, kind).record["path"]
        base = load_trunk(str(folder), labels=LabelMap(LABELS))
        tuned = load_trunk(str(folder), labels=LabelMap(LABELS))
        method = METHODS["lora"]
        options = method.options.model_validate({"peft": {"r": 2, "lora_alpha": 4}})
        method.prepare(tuned, options)
        tuned.eval()
        tokens = _tokens(base)
        start = float((_alone(tuned, tokens) - _alone(base, tokens)).abs().max())
        yield at_most(f"{kind}: logits with a fresh adapter minus the pretrained model's", 0.0, start)
        _shake(tuned, bench.seed)
        after = _alone(tuned, tokens)
        moved = float((after - _alone(base, tokens)).abs().max())
        yield Line(
            f"{kind}: change by a trained adapter, logits", "above 0.001", f"{moved:.3g}", moved > 1e-3
        )
        tuned.save(Path(bench.folder) / f"lora-{kind}")
        merged = load(str(Path(bench.folder) / f"lora-{kind}"))
        gap = float((_alone(merged, tokens) - after).abs().max())
        yield at_most(f"{kind}: logits of the saved, merged model minus the live one's", EXACT, gap)
        ranks: dict[str, set[int]] = {}
        for before, now in zip(matrices(base), matrices(merged), strict=True):
            update = (now.weight - before.weight).detach().double().numpy()
            rank = spectrum(update).rank(rounding(before.weight.detach().double().numpy()))
            ranks.setdefault(before.part, set()).add(rank)
        wanted = {part: {2} if part in ("query", "value") else {0} for part in ranks}
        yield same(f"{kind}: rank of the change by matrix", _ranks(wanted), _ranks(ranks))


def _ranks(found: dict[str, set[int]]) -> str:
    return ", ".join(f"{part} {'/'.join(map(str, sorted(ranks)))}" for part, ranks in found.items())


def _shake(model: Classifier, seed: int) -> None:
    """Give the adapter's second factors numbers, as a training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
