"""What is wrong with a study is told: file, line, key, what was expected, what came, the nearest key."""

from __future__ import annotations

import re

import pytest

from config.studies import GOOD, LENSES, METHODS, load
from tunescope.config import load_study
from tunescope.errors import ConfigError

# what to replace in the good study, by what, the line of the problem, and its text
TABLE = [
    ("name: demo", "name: a/b", 1, r"name: expected a name of at most 64 letters, .* came 'a/b'"),
    ("name: demo", "name: CON", 1, r"name: expected a name .* \(it cannot be a folder's name everywhere\)"),
    (
        "name: demo",
        "name: 5",
        1,
        r"name: expected a name .*; came the number 5; put it in quotes if it is text",
    ),
    ("name: demo", "nmae: demo", 1, r"nmae: unknown key 'nmae'; did you mean 'name'\?"),
    (
        "name: demo",
        "name: demo\nname: demo",
        2,
        r"name: the key stands twice; it was given on line 1 already",
    ),
    (
        "name: demo",
        "name: demo\nlearning_rate: 1",
        2,
        r"it belongs under 'training:', as training\.learning_rate",
    ),
    ("name: demo", "name: demo\nexpect: [{metric: accuracy}]", 2, r"expect.*a rule needs a bound"),
    ("name: demo", "name: demo\nexpect: [{metrc: accuracy, lower: 1}]", 2, r"metrc.*did you mean 'metric'"),
    ("name: demo", "name: demo\nselection: {metrik: loss}", 2, r"selection\.metrik.*did you mean 'metric'"),
    ("name: demo", "name: demo\ncompare: {correction: x}", 2, r"compare\.correction: expected holm or bh"),
    ("name: demo", "name: demo\nelsewhere: {}", 2, r"elsewhere: .*it names neither a text nor data"),
    ("name: demo", "name: demo\naudit: maybe", 2, r"audit: expected true or false"),
    ("text: review", "text: review\n  fold: 2", 2, r"fold 2 does not exist: there are no folds"),
    (
        "text: review",
        "text: review\n  clean: [lowr]",
        5,
        r"data\.clean\.0: unknown step 'lowr'; did you mean 'lower'\?",
    ),
    (
        "text: review",
        "text: review\n  clean: [lower, {step: speaker_turns, kep: agent}]",
        5,
        r"data\.clean\.1\.kep: unknown key 'kep'; did you mean 'keep'",
    ),
    ("text: review", "text: review\n  clean: [{keep: x}]", 5, r"data\.clean\.0: missing 'step'"),
    ("text: review", "text: review\n  deduplicate: fuzzy", 5, r"expected exact, normalised, near or null"),
    (
        "text: review",
        "text: review\n  window: middle",
        5,
        r"window: expected which part .*head_tail.*came 'middle'",
    ),
    ("method: last_k", "method: last_k\n    train_share: 0", 11, r"above 0, at most 1; came the number 0"),
    ("method: last_k", "method: last_k\n    head: tanh", 11, r"expected softmax, or sigmoid"),
    ("method: last_k", "method: last_k\n    grid: x", 8, r"written by a run, both or neither"),
    ("name: demo", "name: demo\n7: x", 2, r"7: expected a key that is text|7: .*keys should be strings"),
    ("  label: stars\n", "", 2, r"data\.label: missing; expected the column that holds the label"),
    (
        "text: review",
        "text: []",
        4,
        r"data\.text: expected the column that holds the text, or a mapping .* an empty",
    ),
    ("text: review", "text: {}", 4, r"data\.text: expected .*; came an empty mapping \(it is empty\)"),
    ("path: reviews.csv", "path: {trian: a}", 3, r"data\.path\.trian: unknown key 'trian'; expected .*train"),
    ("path: reviews.csv", "path: []", 3, r"data\.path: expected a file, glob, .*; came an empty list"),
    ("path: reviews.csv", "path:", 3, r"data\.path: expected .*; came nothing \(null\)"),
    ("text: review", "text: review\n  format: xls", 5, r"data\.format: expected csv, .*; came 'xls'"),
    (
        "text: review",
        "text: review\n  encoding: utf-9",
        5,
        r"data\.encoding: .* \(Python knows no encoding 'utf-9'\)",
    ),
    (
        "text: review",
        "text: review\n  rows: 0",
        5,
        r"data\.rows: expected how many rows .*; came the number 0",
    ),
    ("text: review", "text: review\n  rows: true", 5, r"data\.rows: expected how many rows .*; came true"),
    ("text: review", "text: review\n  test: 1.0", 5, r"data\.test: .* 0 to below 1; came the number 1\.0"),
    ("text: review", "text: review\n  test: .nan", 5, r"data\.test: .*; came the number nan"),
    (
        "text: review",
        "text: review\n  test: 0.95",
        2,
        r"data: validation \(0\.1\) and test \(0\.95\) must leave rows",
    ),
    ("text: review", "text: review\n  labels: [a, a]", 5, r"data\.labels: .*\(a label stands in it twice\)"),
    ("text: review", "text: review\n  template: '{txt}'", 2, r"data: template '\{txt\}' may use \{text\}"),
    ("text: review", "text: review\n  template: '{'", 2, r"data: template '\{' cannot be read .* write \{\{"),
    ("model: gpt2}", "modle: gpt2}", 7, r"arms\.all\.modle: unknown key 'modle'; did you mean 'model'\?"),
    ("model: gpt2}", "method: full}", 7, r"arms\.all\.model: missing; expected a model folder, a hub id"),
    (
        "model: gpt2}",
        "model: gpt2, pooling: max}",
        7,
        r"pooling: expected last, mean, first or first_raw.*'max'",
    ),
    ("model: gpt2}", "model: gpt2, k: 3}", 7, r"arms\.all\.k: unknown key 'k'; expected one of: name, model"),
    (
        "model: gpt2}",
        "model: gpt2, method: ful}",
        7,
        r"arms\.all\.method: unknown method 'ful'; did you mean 'full'\?",
    ),
    (
        "model: gpt2}",
        "model: gpt2, method: zzz}",
        7,
        r"unknown method 'zzz'; expected one of: full, head_only, last_k",
    ),
    ("model: gpt2}", "model: gpt2, method: 3}", 7, r"arms\.all\.method: expected the tuning method"),
    ("model: gpt2}", "model: gpt2, scratch: {}}", 7, r"scratch belongs to 'model: scratch', .* 'gpt2'"),
    (
        "model: gpt2}",
        "model: scratch, scratch: {n_embd: 10}}",
        7,
        r"n_embd \(10\) must be a multiple of n_head \(4\)",
    ),
    (
        "model: gpt2}",
        "model: scratch, scratch: {n_layers: 2}}",
        7,
        r"unknown key 'n_layers'; did you mean 'n_layer'",
    ),
    ("{name: all, model: gpt2}", "gpt2", 7, r"arms\.0: expected a mapping; came 'gpt2'"),
    (
        "name: all",
        "name: Last",
        6,
        r"arms: two arms are named 'Last' and 'last'; each arm needs its own name",
    ),
    (
        "    k: 3",
        "    k: 0",
        11,
        r"arms\.last\.k: expected how many last blocks to tune: 1 or more; came the number 0",
    ),
    ("lenses: [cka]", "lenses: [ckaa]", 12, r"lenses\.ckaa: unknown lens 'ckaa'; did you mean 'cka'\?"),
    (
        "lenses: [cka]",
        "lenses: [{lens: cka, blok: 1}]",
        12,
        r"lenses\.cka\.blok: unknown key 'blok'; .* 'block'\?",
    ),
    ("lenses: [cka]", "lenses: [{block: 1}]", 12, r"lenses\.0\.lens: missing; expected the name of a lens"),
    ("lenses: [cka]", "lenses: [7]", 12, r"lenses\.0: expected the name of a lens, .*; came the number 7"),
    ("lenses: [cka]", "lenses: [cka, cka]", 12, r"lenses: two lenses are named 'cka' and 'cka'"),
    ("lenses: [cka]", "lenses: cka", 12, r"lenses: expected a list of lenses: .*; came 'cka'"),
    ("lenses: [cka]", "seeds: [0, 0]", 12, r"seeds: .*\(a seed stands in it twice\)"),
    ("lenses: [cka]", "seeds: [-1]", 12, r"seeds\.0: expected a list of one or more different whole numbers"),
    ("lenses: [cka]", "seeds: []", 12, r"seeds: expected a list of one or more .*; came an empty list"),
    ("lenses: [cka]", "training: 5", 12, r"training: expected a mapping of fields of .*; came the number 5"),
    ("lenses: [cka]", "training: {output_dir: x}", 12, r"use instead: --output-dir of `tunescope run`"),
    ("lenses: [cka]", "training: {seed: 1}", 12, r"training\.seed: .* use instead: seeds: of the study"),
    ("lenses: [cka]", "training: {push_to_hub: true}", 12, r"tunescope uploads nothing"),
    (
        "lenses: [cka]",
        "training: {hub_token: secret}",
        12,
        r"training\.hub_token: .*tunescope uploads nothing",
    ),
    ("lenses: [cka]", "training: {use_cpu: true}", 12, r"use instead: --device cpu"),
    (
        "lenses: [cka]",
        "training: {warmup_ratio: 0.1}",
        12,
        r"use instead: warmup_steps, where a number below 1",
    ),
    (
        "lenses: [cka]",
        "training: {learning_rat: 1}",
        12,
        r"unknown training field 'learning_rat'; did you mean 'learning_r",
    ),
    (
        "lenses: [cka]",
        "training: {zzzzzz: 1}",
        12,
        r"unknown training field 'zzzzzz'; expected a field of transformers",
    ),
    (
        "lenses: [cka]",
        "training: {learning_rate: fast}",
        12,
        r"learning_rate: expected a number from 0; came 'fast'",
    ),
    ("lenses: [cka]", "training: {learning_rate: -1}", 12, r"expected a number from 0; came the number -1"),
    ("lenses: [cka]", "training: {learning_rate: true}", 12, r"expected a number from 0; came true"),
    ("lenses: [cka]", "training: {num_train_epochs: 0}", 12, r"expected a number above 0; came the number 0"),
    ("lenses: [cka]", "training: {max_steps: 2.5}", 12, r"expected a whole number; came the number 2\.5"),
    ("lenses: [cka]", "training: {bf16: 3}", 12, r"expected true or false or auto; came the number 3"),
    (
        "lenses: [cka]",
        "training: {eval_strategy: never}",
        12,
        r"expected one of no, steps, epoch; came 'never'",
    ),
    (
        "lenses: [cka]",
        "training: {optim: adamw}",
        12,
        r"optim: unknown value 'adamw'; did you mean 'adamw_torch'\?",
    ),
    ("lenses: [cka]", "training: {bf16: true, fp16: true}", 12, r"bf16 and fp16 cannot both be true"),
    ("lenses: [cka]", "training: {eval_strategy: steps}", 12, r"'steps' needs eval_steps"),
    (
        "lenses: [cka]",
        "training: {load_best_model_at_end: true, eval_strategy: no}",
        12,
        r"load_best_model_at_end: it needs evaluations while training; eval_strategy is 'no'",
    ),
    (
        "model: gpt2}",
        "model: gpt2, training: {seed: 1}}",
        7,
        r"arms\.all\.training\.seed: .*use instead: seeds:",
    ),
]


@pytest.mark.parametrize(("old", "new", "line", "text"), TABLE, ids=[row[1][:60] for row in TABLE])
def test_bad_studies(tmp_path, old, new, line, text):
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load(GOOD.replace(old, new, 1), tmp_path)
    message = str(caught.value)
    place = re.escape(f"{tmp_path / 'study.yaml'}:{line}: ")
    assert re.search(rf"^(?:The study is not valid\. |  ){place}.*{text}", message, re.MULTILINE), message
    assert "secret" not in message
    assert caught.value.exit_code == 2


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path):
    text = (
        GOOD.replace("name: demo", "nmae: demo")
        .replace("label: stars", "lable: stars")
        .replace("[cka]", "[cak]")
    )
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path, "training.nope=1", "seeds=[x]", "arms.none.k=1")
    lines = str(caught.value).splitlines()
    assert lines[0] == "The study is not valid; it has 8 problems:"
    assert [re.sub(r".*study\.yaml:(\d+).*", r"\1", line) for line in lines[1:6]] == [
        "1",
        "1",
        "2",
        "5",
        "12",
    ]
    assert "  --set arms.none.k=1: arms.none.k: arms has no item 'none'; items: all, last" in lines
    assert "  --set training.nope=1: training.nope: unknown training field 'nope'" in str(caught.value)
    assert lines[-1].startswith("Next: ")


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("zzz", r"--set zzz: expected KEY=VALUE"),
        ("=3", r"--set =3: expected KEY=VALUE"),
        ("data..x=3", r"a part of the dotted key is empty"),
        ("data.text.deep=3", r"data\.text is 'review', so it has no key 'deep'"),
        ("arms.9.k=3", r"arms has no item '9'; items: all, last"),
        ("seeds=[", r"the value '\[' is not readable as YAML"),
        ("extends=x", r"extends stands in the study file; it cannot be overridden"),
        ("data.lable=x", r"--set data\.lable=x: data\.lable: unknown key 'lable'; did you mean 'label'\?"),
    ],
)
def test_bad_overrides(tmp_path, override, text):
    with pytest.raises(ConfigError, match=text):
        load(GOOD, tmp_path, override)


# five lines that stand for 9^5 values
BOMB = b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(
    b"%s: &%s [" % (name, name) + b",".join([b"*" + below] * 9) + b"]\n"
    for below, name in zip(b"a b c d".split(), b"b c d e".split(), strict=True)
)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", r"study\.yaml is empty; expected a study"),
        (b"# only a comment\n", r"study\.yaml is empty"),
        (b"- a\n- b\n", r"study\.yaml:1: expected a mapping of keys"),
        (b"name: [a\nb: c\n", r"study\.yaml:\d: not readable as YAML"),
        (b"name: a\n\tdata: b\n", r"study\.yaml:2: not readable as YAML.*\nNext: Indent with spaces"),
        (b"name: !!python/object/apply:os.system [ls]\n", r"study\.yaml:1: .*\nNext: .*remove the !tag"),
        (b"name: \xff\xfe\n", r"study\.yaml is not UTF-8 text \(byte 6 is 0xff\)"),
        (b"a: 1\n---\nb: 2\n", r"study\.yaml:2: not readable as YAML"),
        (b"a: &a [*a]\n", r"refers to itself by an alias"),
        (b"? [a, b]\n: 1\n", r"uses a list or mapping as a key"),
        (BOMB, r"unfolds into more than 50,000"),
        (b"x" * 1_000_001, r"holds 1,000,001 bytes; a study is at most 1,000,000"),
        (b"name: a\x00b\n", r"not readable as YAML"),
        (b"[" * 5000, r"not readable as YAML"),
    ],
)  # fmt: skip
def test_files_that_are_no_studies(tmp_path, content, text):
    file = tmp_path / "study.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=text) as caught:
        load_study(file, methods=METHODS, lenses=LENSES)
    assert len(str(caught.value)) < 600


def test_a_missing_file_a_folder_and_an_unknown_recipe(tmp_path):
    for source, text in (
        (tmp_path / "none.yaml", r"There is no study file .*none\.yaml"),
        (tmp_path, r"is a folder; expected a study file"),
        ("quikstart", r"There is no study file and no recipe 'quikstart'"),
    ):
        with pytest.raises(ConfigError, match=text):
            load_study(source, methods=METHODS, lenses=LENSES)


def test_a_mapping_names_no_file():
    study = {"nmae": "x", "name": "a", "data": {"path": "x", "text": "t", "label": "l", "rows": -1}}
    with pytest.raises(
        ConfigError, match=r"^The study is not valid; it has 3 problems:\n  data.rows: expected"
    ):
        load_study(study, methods=METHODS, lenses=LENSES)
