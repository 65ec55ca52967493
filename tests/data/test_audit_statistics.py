"""The numbers of an audit against independent implementations and hand counts."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency
from scipy.stats.contingency import association
from sklearn.feature_extraction.text import CountVectorizer

from tunescope.data.audit import LookupTable, chi_square, corpus_of, is_stop_word, log_odds
from tunescope.data.audit.balance import audit_balance
from tunescope.data.audit.columns import Labelled, audit_columns
from tunescope.data.audit.kinds import counted, percent
from tunescope.data.audit.lengths import audit_lengths
from tunescope.data.audit.token_counts import count_tokens
from tunescope.data.audit.typical import audit_words, count_words

ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=60)


def refit(others: list[tuple[int, int]], value: int) -> int:
    """What a table of other rows says, by the rule as it is documented."""
    overall = Counter(label for _, label in others)
    seen = Counter(label for other, label in others if other == value) or overall
    best = max(seen.values())
    return min((label for label in seen if seen[label] == best), key=lambda label: (-overall[label], label))


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_leaving_one_out_is_what_refitting_without_each_row_says(rows):
    values, labels = (np.asarray(column) for column in zip(*rows, strict=True))
    right = sum(refit(rows[:i] + rows[i + 1 :], value) == label for i, (value, label) in enumerate(rows))
    table = LookupTable.of(values, labels, 7, 4)
    assert table.leave_one_out() == right
    known = [value for value in range(7) if value in set(values)]
    expected = [refit(rows, value) for value in known]
    assert table.predict(np.asarray(known)).tolist() == expected
    assert table.predict(np.asarray([-1])).tolist() == [refit(rows, 99)]
    groups = defaultdict(set)
    for value, label in rows:
        groups[value].add(label)
    assert table.pure[known].sum() == sum(len(found) == 1 for found in groups.values())


def test_a_value_seen_once_is_not_known():
    table = LookupTable.of(np.arange(10), np.asarray([0] * 7 + [1] * 3), 10, 2)
    assert table.pure.all()
    assert table.leave_one_out() == 7  # the majority's rows, not all ten


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 40), min_size=3, max_size=3), min_size=2, max_size=8))
def test_chi_square_and_cramers_v_are_scipys(counts):
    table = np.asarray(counts)
    found = chi_square(table)
    expected = chi2_contingency(table, correction=False)
    assert found["chi_square"] == pytest.approx(expected.statistic)
    assert found["p"] == pytest.approx(expected.pvalue)
    assert found["degrees"] == expected.dof
    assert found["cramers_v"] == pytest.approx(association(table, "cramer"))
    assert found["trusted"] == ((expected.expected_freq < 5).mean() <= 0.2)
    assert 0 <= found["cramers_v_corrected"] <= found["cramers_v"] + 1e-12


def test_cramers_v_at_its_ends_and_by_hand():
    function = chi_square(np.asarray([[30, 0], [0, 50], [20, 0]]))
    assert function["cramers_v"] == pytest.approx(1)
    assert chi_square(np.asarray([[10, 20], [20, 40]]))["cramers_v"] == pytest.approx(0, abs=1e-12)
    # 2 x 2: chi2 = n (ad - bc)^2 / (row and column sums); phi2 corrected by 1 / (n - 1), over 1 - 1 / (n - 1)
    phi = (30 * 35 - 20 * 15) ** 2 / (50 * 50 * 45 * 55)
    corrected = np.sqrt((phi - 1 / 99) / (1 - 1 / 99))
    assert chi_square(np.asarray([[30, 20], [15, 35]]))["cramers_v_corrected"] == pytest.approx(corrected)
    assert set(chi_square(np.asarray([[3, 4], [0, 0]])).values()) == {None}


def labelled(**columns) -> Labelled:
    frame = pl.DataFrame(columns)
    return Labelled(frame, frame.clear(), ("a", "b"))


def test_columns_are_corrected_together_as_statsmodels_does():
    from statsmodels.stats.multitest import multipletests

    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 300)
    columns = {
        f"c{i}": np.where(generator.random(300) < i / 12, label, generator.integers(0, 3, 300))
        for i in range(6)
    }
    records = audit_columns(labelled(label=label, **columns))
    _, q, _, _ = multipletests([record["p"] for record in records], method="fdr_bh")
    assert [record["q"] for record in records] == pytest.approx(q.tolist())
    assert records[0]["column"] == "c5"  # sorted by what the look-up closes


def test_columns_that_cannot_be_tested_say_why():
    n = 40
    records = audit_columns(
        labelled(
            label=np.arange(n) % 2, row_id=[str(i) for i in range(n)], number=np.arange(n), same=["x"] * n,
            name=[f"n{i}" for i in range(n)], parts=[[i] for i in range(n)], kept=["u", "v"] * (n // 2),
        )
    )  # fmt: skip
    why = {record["column"]: record.get("untested") for record in records}
    assert "no value stands twice" in why["number"]
    assert "no value stands twice" in why["name"]
    assert why["same"] == "it has one value"
    assert why["parts"] == "its cells are List(Int64)"
    assert why["kept"] is None
    assert "row_id" not in why


def test_measurements_are_cut_into_quantiles_and_tried_on_test():
    generator = np.random.default_rng(1)
    score, later = generator.normal(size=400), generator.normal(size=50)
    train = pl.DataFrame({"label": (score > 0).astype(int), "score": score.astype(str)})
    test = pl.DataFrame({"label": (later > 0).astype(int), "score": [str(x) for x in later[:-1]] + [""]})
    record = audit_columns(Labelled(train, test, ("a", "b")))[0]
    assert record["quantiles"] == 20
    assert record["closed"] > 0.9
    assert record["test"]["rows"] == 50
    assert record["test"]["unseen"] == 1  # the empty cell
    assert record["test"]["accuracy"] > 0.9


def test_an_empty_cell_is_a_value_of_its_own():
    label = np.asarray([0, 1] * 30)
    record = audit_columns(labelled(label=label, note=[None if i else "x" for i in label]))[0]
    assert (record["values"], record["missing"], record["distinct"], record["closed"]) == (1, 30, 2, 1.0)


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


TEXTS = ["It's GOOD, really good!", "don't; e-mail  me", "", "😀😀 ", "naïve Straße\n2nd", "a_b 'quoted'"]


def test_words_are_those_of_a_plain_regular_expression():
    corpus = corpus_of(pl.Series(TEXTS))
    for i, text in enumerate(TEXTS):
        codes = corpus.codes[corpus.offsets[i] : corpus.offsets[i + 1]]
        assert [corpus.vocabulary[code] for code in codes] == words_of(text)
        assert corpus.normalised[i] == (" ".join(words_of(text)) or text.strip().lower())
    assert corpus.lengths.tolist() == [len(words_of(text)) for text in TEXTS]


def test_counts_of_words_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(list("abcdef"), size=8)) for _ in range(50)]
    labels = generator.integers(-1, 3, 50)
    corpus = corpus_of(pl.Series(texts))
    vectoriser = CountVectorizer(token_pattern=r"\S+", vocabulary=corpus.vocabulary)
    table = vectoriser.transform(texts).toarray()
    expected = np.stack([table[labels == label].sum(axis=0) for label in range(3)])
    assert np.array_equal(count_words(corpus, labels, 3), expected)


def test_log_odds_by_hand():
    counts = np.asarray([[40, 5, 55], [10, 20, 70]])
    scores = log_odds(counts, prior_words=100)
    prior = 100 * np.asarray([50, 25, 125]) / 200

    def odds(own, alpha, n):
        return np.log((own + alpha) / (n + 100 - own - alpha))

    for word, (first, second) in enumerate(counts.T):
        delta = odds(first, prior[word], 100) - odds(second, prior[word], 100)
        z = delta / np.sqrt(1 / (first + prior[word]) + 1 / (second + prior[word]))
        assert scores[0, word] == pytest.approx(z)
        assert scores[1, word] == pytest.approx(-z)


def test_the_prior_keeps_a_rare_word_behind_a_well_attested_one():
    counts = np.asarray([[300, 3, 9_697], [100, 0, 9_900]])
    scores = log_odds(counts)[0]
    assert scores[0] > scores[1] > 0
    assert not log_odds(np.asarray([[5, 3]])).any()
    assert not log_odds(np.zeros((2, 3), dtype=int)).any()


def test_planted_words_are_typical_and_stop_words_are_not_frequent():
    texts = ["the film was a joy"] * 20 + ["the film was a bore"] * 20
    found = audit_words(corpus_of(pl.Series(texts)), np.repeat([0, 1], 20), ("good", "bad"), 3)["classes"]
    assert [word["word"] for word in found["good"]["typical"]] == ["joy"]
    assert [word["word"] for word in found["bad"]["typical"]] == ["bore"]
    assert {word["word"] for word in found["good"]["frequent"]} == {"film", "joy"}
    assert found["good"]["typical"][0] | {"z": 0} == {"word": "joy", "z": 0, "count": 20, "elsewhere": 0}


@pytest.mark.parametrize(
    ("word", "stop"),
    [("the", True), ("don't", True), ("don’t", True), ("dont", True), ("i'm", True), ("x", True), ("7", False),
     ("film", False), ("seller's", False)],
)  # fmt: skip
def test_stop_words(word, stop):
    assert is_stop_word(word) is stop


def rows_of(write, load, lines, test=None):
    path = write("x.csv", "text,label\n" + "\n".join(lines) + "\n")
    given = (
        path
        if test is None
        else {"train": path, "test": write("t.csv", "text,label\n" + "\n".join(test) + "\n")}
    )
    return load(given, validation=0, test=0)


def test_balance_and_shift_by_hand(write, load):
    rows = rows_of(write, load, ["x,a"] * 60 + ["y,b"] * 40, ["x,a"] * 10 + ["y,b"] * 30 + ["z,"] * 2)
    found = audit_balance(rows)
    assert found["counts"] == {"train": {"a": 60, "b": 40}, "test": {"a": 10, "b": 30}}
    assert found["shares"]["test"] == {"a": 0.25, "b": 0.75}
    assert found["ratio"] == {"train": 1.5, "test": 3.0}
    assert found["unlabelled"] == {"train": 0, "test": 2}
    assert found["shift"]["train/test"]["distance"] == pytest.approx(0.35)
    assert found["shift"]["train/test"]["p"] == pytest.approx(
        chi2_contingency([[60, 40], [10, 30]], correction=False).pvalue
    )


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """A byte-level BPE and a BERT word-piece tokenizer, trained on a few words, and one that joins over blanks."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [f"{text} the quick brown fox don't 2nd" for text in TEXTS] * 3
    byte = Tokenizer(models.BPE())
    byte.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    byte.train_from_iterator(texts, trainer)
    bert = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bert.normalizer, bert.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    bert.train_from_iterator(
        texts, trainers.WordPieceTrainer(special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    )
    bert.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    joined = Tokenizer(models.BPE())
    joined.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    return {
        name: PreTrainedTokenizerFast(tokenizer_object=made)
        for name, made in {"byte": byte, "bert": bert, "joined": joined}.items()
    }


HARD = [
    "", " ", "a\x0bb c", "a\u00a0 b\u2003c", " two  blanks\n\nand lines ", "tab\t\tend\t", "İstanbul ı ſ", "日本 語",
    "a" * 300,
]  # fmt: skip


@pytest.mark.parametrize("name", ["byte", "bert", "joined"])
def test_tokens_counted_by_pieces_are_those_of_whole_texts(tokenizers, name):
    texts = [*HARD, *TEXTS, *(f"{a}{b}" for a in HARD for b in TEXTS)] * 2
    made = tokenizers[name]
    expected = [len(made(text)["input_ids"]) for text in texts]
    made.backend_tokenizer.enable_truncation(4)  # a tokenizer's own truncation and padding are ignored
    assert count_tokens(pl.Series(texts), made).tolist() == expected
    assert made.backend_tokenizer.truncation["max_length"] == 4


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(alphabet=" \t\n\x0b\x85\u00a0\u2028ab'é.1😀", max_size=25), min_size=1, max_size=5))
def test_any_white_space_is_counted_alike(tokenizers, texts):
    from tunescope.data.audit import token_counts

    for name in ("byte", "bert"):
        backend = token_counts._backend(tokenizers[name])
        pattern = token_counts._pattern(backend)
        assert pattern is not None
        whole = token_counts._directly(pl.Series(texts), tokenizers[name], backend)
        assert token_counts._by_pieces(pl.Series(texts), backend, pattern).tolist() == whole.tolist()


def test_lengths_and_what_cutting_takes(write, load, tokenizers):
    rows = rows_of(write, load, ["one two three,a", "one,a", "one two,b", "a b c d e f,b"])
    found = audit_lengths(rows, tokenizers["bert"], max_length=6)
    assert found["words"]["train"]["all"] | {"p95": 0} == {
        "rows": 4,
        "mean": 3.0,
        "median": 2.5,
        "p95": 0,
        "max": 6,
    }
    tokens = [len(tokenizers["bert"](text)["input_ids"]) for text in rows.frame["text"]]
    cut = found["tokens"]["train"]
    assert cut["all"]["truncated"] == sum(n > 6 for n in tokens)
    assert cut["all"]["cut"] == pytest.approx(sum(max(n - 6, 0) for n in tokens) / sum(tokens))
    assert cut["b"]["rows"] == 2
    assert found["max_length"] == 6
    assert "tokens" not in audit_lengths(rows)


@pytest.mark.parametrize(
    ("share", "written"),
    [(0, "0 %"), (1, "100 %"), (0.0175, "1.75 %"), (0.44, "44 %"), (0.0051, "0.51 %"), (0.055, "5.5 %"),
     (0.977, "97.7 %"), (0.9974, "99.74 %"), (0.00001, "under 0.01 %"), (0.99999, "over 99.99 %")],
)  # fmt: skip
def test_shares_are_written_so_that_little_is_not_nothing(share, written):
    assert percent(share) == written


def test_counts_take_their_plural():
    assert (counted(1, "text"), counted(1234, "text"), counted(0, "row")) == (
        "1 text",
        "1,234 texts",
        "0 rows",
    )
