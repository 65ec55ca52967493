"""A stranger's path: folders trained by scripts that know nothing of tunescope give the logits of those libraries."""

from __future__ import annotations

import json
import shutil
import warnings

import polars as pl
import pytest
import torch
from strangers import NAMES, labelled, our_logits, their_logits, trained
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from tiny import tiny_folder
from tunescope.checkpoints import CompareRequest, compare_folders
from tunescope.config import DataConfig, LensConfig
from tunescope.errors import LensError, ModelError
from tunescope.foreign import kind_of, sentence_encoder
from tunescope.models import load, load_trunk
from tunescope.models.probe import features
from tunescope.models.source import quiet_transformers
from tunescope.stats.results import Result

pytestmark = pytest.mark.usefixtures("no_page")
CKA = (LensConfig(lens="cka", options={"rows": {"n": 20}}),)
TEXTS = labelled(12, seed=5)[0]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("strangers")
    for kind in ("gpt2", "bert"):
        tiny_folder(kind, root / kind, n_labels=2, layers=2, scale=0.08)
    texts, labels = labelled(60, seed=1)
    pl.DataFrame({"text": texts, "label": labels}).write_csv(root / "rows.csv")
    return root


def compared(root, base, tuned, folder, lenses=CKA, **options):
    data = DataConfig(path=str(root / "rows.csv"), text="text", label="label")
    request = CompareRequest(
        str(base), [str(one) for one in tuned], data, folder, lenses=lenses, device="cpu", **options
    )
    return compare_folders(request)


@pytest.mark.parametrize(
    ("kind", "pad", "batch"),
    [
        pytest.param("gpt2", "end", 8, marks=pytest.mark.slow),
        ("gpt2", "[PAD]", 8),
        pytest.param("gpt2", None, 1, marks=pytest.mark.slow),
        ("bert", None, 8),
    ],
    ids=["gpt2-pad-is-end", "gpt2-pad-added", "gpt2-no-pad", "bert"],
)
def test_a_trainer_folder_gives_transformers_logits_and_is_compared(root, tmp_path, kind, pad, batch):
    folder = trained(root / kind, tmp_path / "out", pad=pad, batch=batch, epochs=1)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder)
    expected = their_logits(theirs, AutoTokenizer.from_pretrained(folder), TEXTS)
    assert torch.allclose(our_logits(load(str(folder)), TEXTS), expected, atol=1e-5)
    run = compared(root, root / kind, [folder], tmp_path / "run")
    about = json.loads((run / "compare.json").read_text())
    assert about["kind"] == "classifier"
    added = [
        note for note in Result.load(run / "results", "cka").provenance["notes"] if "entries more" in note
    ]
    assert len(added) == (
        pad == "[PAD]"
    )  # the base is given rows for a token that no text holds, and it is said
    table = Result.load(run / "results", "cka").table
    assert table.filter(pl.col("model") == "base_tuned").height > 0


def test_an_adapter_with_its_head_gives_pefts_logits(root, tmp_path):
    from peft import LoraConfig, PeftModel

    config = LoraConfig(
        task_type="SEQ_CLS", r=2, lora_alpha=8, target_modules=["c_attn"], modules_to_save=["score"]
    )
    folder = trained(root / "gpt2", tmp_path / "out", pad="end", epochs=1, peft=config)
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        base = AutoModelForSequenceClassification.from_pretrained(root / "gpt2", num_labels=2)
        theirs = PeftModel.from_pretrained(base, folder)
    expected = their_logits(theirs, AutoTokenizer.from_pretrained(root / "gpt2"), TEXTS)
    ours = load(str(folder), base=str(root / "gpt2"))
    assert torch.allclose(our_logits(ours, TEXTS), expected, atol=1e-5)
    mapping = {"LABEL_0": "anger", "LABEL_1": "joy"}
    run = compared(root, root / "gpt2", [folder], tmp_path / "run", label_map=mapping)
    assert json.loads((run / "compare.json").read_text())["refused"] == []


@pytest.mark.parametrize("mode", ["mean", pytest.param("cls", marks=pytest.mark.slow)])
def test_a_sentence_transformers_export_gives_its_vectors_and_a_probe_is_its_head(root, tmp_path, mode):
    library = pytest.importorskip("sentence_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers.models import Pooling, Transformer

        first = Transformer(str(root / "bert"), max_seq_length=16)
        encoder = library.SentenceTransformer(modules=[first, Pooling(32, mode)], device="cpu")
        expected = torch.tensor(encoder.encode(TEXTS, show_progress_bar=False))
        with quiet_transformers():
            encoder.save_pretrained(str(tmp_path / "export"))
    folder = str(tmp_path / "export")
    said = sentence_encoder(folder)
    assert (kind_of(folder), said.pooling, said.max_length) == (
        "trunk",
        {"mean": "mean", "cls": "first_raw"}[mode],
        16,
    )
    _assert_vectors(said, expected)
    run = compared(root, root / "bert", [folder], tmp_path / "run")
    note = Result.load(run / "results", "cka").provenance["notes"][0]
    assert "Tuned head: its folder holds none, so probe: logistic regression" in note


def test_the_older_layout_of_an_export_is_read_as_transformers_reads_its_trunk(root, tmp_path):
    folder = _older_export(root / "bert", tmp_path / "export", {"pooling_mode_mean_tokens": True})
    said = sentence_encoder(str(folder))
    assert (said.pooling, said.max_length, said.left_out) == ("mean", 24, ("Normalize",))
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS]
    _assert_vectors(said, torch.stack([one.mean(0) for one in states]))
    run = compared(root, root / "bert", [folder], tmp_path / "run")
    (assumed,) = json.loads((run / "compare.json").read_text())["assumptions"]
    assert assumed.endswith("its vectors are read after mean pooling, before Normalize")


def test_an_export_that_pools_by_maximum_is_refused_in_a_line(root, tmp_path):
    folder = _older_export(root / "bert", tmp_path / "export", {"pooling_mode_max_tokens": True})
    with pytest.raises(
        ModelError, match="pools by pooling_mode_max_tokens; read by mask are the first token"
    ):
        compared(root, root / "bert", [folder], tmp_path / "run")


def _older_export(base, folder, pooling):
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24, "do_lower_case": false}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    return folder


def _assert_vectors(said, expected):
    from tunescope.data.labels import LabelMap
    from tunescope.data.rows import rows_of_texts
    from tunescope.data.tokens import tokenize

    trunk = load_trunk(said.folder, labels=LabelMap(tuple(NAMES)), pooling=said.pooling)
    tokens = tokenize(rows_of_texts(TEXTS, trunk.labels), trunk.tokenizer, said.max_length)
    assert torch.allclose(torch.tensor(features(trunk, tokens)), expected, atol=1e-5)


def test_a_plain_save_without_a_tokenizer_takes_the_bases_and_says_so(root, tmp_path):
    folder = tmp_path / "plain"
    model = AutoModelForSequenceClassification.from_pretrained(root / "gpt2", id2label=dict(enumerate(NAMES)))
    model.save_pretrained(folder)
    with pytest.raises(
        ModelError, match=r"holds a model and no tokenizer.*\nNext: Save the tokenizer of its training"
    ):
        load(str(folder))
    ours = load(str(folder), tokenizer_of=str(root / "gpt2"))
    expected = their_logits(model, AutoTokenizer.from_pretrained(root / "gpt2"), TEXTS)
    assert torch.allclose(our_logits(ours, TEXTS), expected, atol=1e-5)
    run = compared(root, root / "gpt2", [folder], tmp_path / "run")
    assumed = json.loads((run / "compare.json").read_text())["assumptions"]
    assert f"plain: tokenizer: that of {root / 'gpt2'}, for the folder holds none" in assumed


def test_a_language_model_as_base_lends_its_trunk_and_a_probe_is_its_head(root, tmp_path):
    tiny_folder("gpt2", tmp_path / "language", layers=2, language=True, scale=0.08)
    folder = trained(tmp_path / "language", tmp_path / "out", pad="end", epochs=1)
    ablation = LensConfig(
        lens="ablation", options={"rows": {"n": 8}, "reference_rows": 8, "random_control": False}
    )
    run = compared(root, tmp_path / "language", [folder], tmp_path / "run", lenses=(*CKA, ablation))
    assert set(Result.load(run / "results", "ablation").table["base_head"].drop_nulls()) >= {"probe"}
    own = compared(
        root, tmp_path / "language", [folder], tmp_path / "none", lenses=(ablation,), base_head="none"
    )
    assert set(Result.load(own / "results", "ablation").table["model"]) == {"tuned"}
    with pytest.raises(
        ModelError, match="is a language model: it has no head of its own that tells these classes"
    ):
        compared(root, tmp_path / "language", [folder], tmp_path / "own", base_head="own")


def test_a_head_that_does_not_tell_one_class_from_the_others_is_refused(root, tmp_path):
    for problem, labels in (("regression", 1), ("multi_label_classification", 2)):
        folder = tmp_path / problem
        shutil.copytree(root / "bert", folder)
        config = json.loads((folder / "config.json").read_text())
        names = {str(i): f"LABEL_{i}" for i in range(labels)}
        config |= {"id2label": names, "problem_type": problem if labels > 1 else None}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(
            ModelError, match=f"was trained for {problem.replace('_', '-')}, not to tell classes apart"
        ):
            compared(root, root / "bert", [folder], tmp_path / "run")


def test_models_of_other_tokens_are_refused_with_the_reason(root, tmp_path):
    tuned = AutoModelForSequenceClassification.from_pretrained(root / "bert", id2label=dict(enumerate(NAMES)))
    tuned.save_pretrained(tmp_path / "other")
    shutil.copy(root / "bert" / "tokenizer_config.json", tmp_path / "other")
    swapped = (root / "bert" / "tokenizer.json").read_text()
    numbers = json.loads(swapped)["model"]["vocab"]
    there = json.loads(swapped)
    there["model"]["vocab"] = {**numbers, "cat": numbers["day"], "day": numbers["cat"]}
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(there))
    with pytest.raises(LensError, match=r"different vocabularies \(2 of \d+ entries differ"):
        compared(root, root / "bert", [tmp_path / "other"], tmp_path / "run")
    there = json.loads(swapped)
    there["post_processor"] = None  # one vocabulary, and no [CLS] and [SEP] around the text
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(there))
    with pytest.raises(LensError, match="make different tokens of row"):
        compared(root, root / "bert", [tmp_path / "other"], tmp_path / "run")
