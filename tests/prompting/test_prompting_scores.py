"""The probability of an answer against a naive pass over every single sequence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prompting_models import naive_causal, rows_of
from tokenizers import AddedToken, processors

from tiny import TEXTS
from tunescope.config.window import WindowConfig
from tunescope.prompting import Reading, ZeroShot, truncation_by_label
from tunescope.prompting.scores import Prompt, log_probabilities
from tunescope.tuning.zero_shot import ZeroShotOptions

PROMPT = "Review: {text} Sentiment:"
WORDS = {"bad": " a rather negative one", "good": " Positive"}


def options(**more) -> ZeroShotOptions:
    return ZeroShotOptions.model_validate({"prompt": PROMPT, "verbalizers": WORDS, **more})


def logits_of(table, names=("bad", "good")):
    return table.select([f"logit_{name}" for name in names]).to_numpy()


def test_scores_equal_one_full_pass_per_sequence(gpt2_lm):
    rows = rows_of(TEXTS, [0, 1] * 4)
    arm = ZeroShot(gpt2_lm, options(), rows.labels).fit(rows)
    table = arm.predict(rows)
    encode = lambda text: gpt2_lm.tokenizer(text)["input_ids"]  # noqa: E731
    expected = [
        [
            naive_causal(gpt2_lm.model, encode(f"Review: {text} Sentiment:"), encode(WORDS[name]))
            for name in WORDS
        ]
        for text in TEXTS
    ]
    assert min(len(encode(word)) for word in WORDS.values()) > 1
    assert logits_of(table) == pytest.approx(np.array(expected), abs=2e-5)
    shares = table.select("probability_bad", "probability_good").to_numpy()
    assert shares.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert table.columns == [
        "row_id", "prediction", "logit_bad", "logit_good", "probability_bad", "probability_good", "tokens",
        "truncated",
    ]  # fmt: skip
    assert table["tokens"].to_list() == [len(encode(f"Review: {text} Sentiment:")) for text in TEXTS]


def test_the_probabilities_of_all_answers_sum_to_one(gpt2_lm):
    """Every token as an answer of one token is the whole distribution of the next token."""
    prompts = [Prompt((5, 9, 200)), Prompt((7,))]
    answers = [(token,) for token in range(gpt2_lm.model.config.vocab_size)]
    assert np.exp(log_probabilities(gpt2_lm, prompts, answers)).sum(axis=1) == pytest.approx(1, abs=1e-9)
    # And the chain rule: the answers (a, b) over all b sum to the probability of (a).
    pairs = [(11, token) for token in range(12)] + [(11,)]
    some = np.exp(log_probabilities(gpt2_lm, prompts, pairs))
    rest = np.exp(log_probabilities(gpt2_lm, prompts, [(11, t) for t in range(12, len(answers))]))
    assert some[:, :12].sum(axis=1) + rest.sum(axis=1) == pytest.approx(some[:, 12], rel=1e-5)


def test_a_row_does_not_depend_on_batch_mates_or_padding_side(gpt2_lm):
    rows = rows_of([*TEXTS, TEXTS[0]], [0, 1] * 4 + [0])
    arm = ZeroShot(gpt2_lm, options(), rows.labels).fit(rows)
    together = logits_of(arm.predict(rows))
    alone = np.vstack([logits_of(arm.predict(rows_of([text], [0]))) for text in [*TEXTS, TEXTS[0]]])
    assert together == pytest.approx(alone, abs=1e-5)
    assert (together[0] == together[-1]).all()
    gpt2_lm.tokenizer.padding_side = "left"
    try:
        assert (logits_of(arm.predict(rows)) == together).all()
    finally:
        gpt2_lm.tokenizer.padding_side = "right"
    answers = [tuple(ids) for ids in arm.answers]
    prompt = Prompt(tuple(range(2, 14)))
    one = log_probabilities(gpt2_lm, [prompt], answers)
    order = log_probabilities(gpt2_lm, [prompt], answers[::-1])[:, ::-1]
    single = np.hstack([log_probabilities(gpt2_lm, [prompt], [answer]) for answer in answers])
    assert one == pytest.approx(order, abs=1e-5)
    assert one == pytest.approx(single, abs=1e-5)


def test_the_mean_divides_by_the_number_of_tokens(gpt2_lm):
    rows = rows_of(TEXTS, [0, 1] * 4)
    summed = logits_of(ZeroShot(gpt2_lm, options(), rows.labels).fit(rows).predict(rows))
    arm = ZeroShot(gpt2_lm, options(normalise="mean"), rows.labels).fit(rows)
    sizes = np.array([len(answer) for answer in arm.answers])
    assert sizes[0] > sizes[1]
    assert logits_of(arm.predict(rows)) * sizes == pytest.approx(summed, rel=1e-9)


@pytest.mark.parametrize("template", ["it was {mask} . {text}", "{text} and it was {mask} rain"])
def test_masked_models_fill_one_mask_a_token(masked_lm, template):
    """Against transformers' own full pass over the joined text, with one mask a token."""
    words = {"bad": "sad old house", "good": "love"}
    rows = rows_of(TEXTS, [0, 1] * 4)
    own = options(prompt=template, verbalizers=words)
    table = ZeroShot(masked_lm, own, rows.labels).fit(rows).predict(rows)
    tokenizer, mask = masked_lm.tokenizer, masked_lm.tokenizer.mask_token
    for row, text in enumerate(TEXTS):
        for column, words_of in enumerate(words.values()):
            answer = tokenizer(words_of, add_special_tokens=False)["input_ids"]
            joined = template.replace("{mask}", " ".join([mask] * len(answer))).replace("{text}", text)
            inputs = tokenizer(joined, return_tensors="pt")
            inputs.pop("token_type_ids", None)
            with torch.no_grad():
                logs = masked_lm.model(**inputs).logits[0].double().log_softmax(-1)
            places = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0].tolist()
            expected = sum(float(logs[place, token]) for place, token in zip(places, answer, strict=True))
            assert logits_of(table)[row, column] == pytest.approx(expected, abs=2e-5)


def test_a_text_that_spells_the_mask_does_not_move_the_answer(masked_lm):
    mask = masked_lm.tokenizer.mask_token
    rows = rows_of([f"the {mask} sat", "the cat sat"], [0, 1])
    own = options(prompt="{text} : {mask} rain", verbalizers={"bad": "sad", "good": "good"})
    arm = ZeroShot(masked_lm, own, rows.labels).fit(rows)
    table = arm.predict(rows)
    inputs = masked_lm.tokenizer(f"the {mask} sat : {mask} rain", return_tensors="pt")
    inputs.pop("token_type_ids", None)
    place = (inputs["input_ids"][0] == masked_lm.tokenizer.mask_token_id).nonzero()[-1, 0]
    with torch.no_grad():
        logs = masked_lm.model(**inputs).logits[0, place].double().log_softmax(-1)
    assert logits_of(table)[0] == pytest.approx(logs[[answer[0] for answer in arm.answers]].numpy(), abs=2e-5)


@pytest.mark.parametrize("keep", ["head", "tail", "head_tail", "sliding"])
def test_a_long_text_is_cut_and_never_the_template_or_the_answer(gpt2_lm, keep):
    words = [f"w{number}" for number in range(60)]
    rows = rows_of([" ".join(words), "rain", "w1 w2"], [0, 1, 0])
    reading = Reading(40, WindowConfig.model_validate(keep))
    arm = ZeroShot(gpt2_lm, options(), rows.labels, reading).fit(rows)
    table = arm.predict(rows)
    longest = max(len(answer) for answer in arm.answers)
    (long, short, _) = arm._encode(arm.templates[0], rows)
    assert (len(long.prompts) > 1) == (keep == "sliding")
    shown = [gpt2_lm.tokenizer.decode(prompt.before) for prompt in long.prompts]
    for prompt, text in zip(long.prompts, shown, strict=True):
        assert len(prompt.before) + longest - 1 <= 40
        assert text.startswith("Review: ")
        assert text.endswith(" Sentiment:")
    assert max(len(prompt.before) for prompt in long.prompts) + longest - 1 >= 38  # nothing is wasted
    inside = [text.removeprefix("Review: ").removesuffix(" Sentiment:") for text in shown]
    whole = " ".join(words)
    if keep == "head":
        assert whole.startswith(inside[0])
    elif keep == "tail":
        assert whole.endswith(inside[0])
    elif keep == "head_tail":
        half = len(inside[0]) // 3
        assert whole.startswith(inside[0][:half])
        assert whole.endswith(inside[0][-half:])
    else:
        assert all(part.strip() in whole for part in inside)
        single = [log_probabilities(gpt2_lm, [prompt], arm.answers)[0] for prompt in long.prompts]
        assert logits_of(table)[0] == pytest.approx(np.mean(single, axis=0), abs=1e-5)
    assert table["truncated"].to_list() == [True, False, False]
    assert table["tokens"][0] > 100
    assert short.prompts[0].before == tuple(gpt2_lm.tokenizer("Review: rain Sentiment:")["input_ids"])
    assert truncation_by_label(rows, table) == {
        "bad": {"rows": 2, "truncated": 1},
        "good": {"rows": 1, "truncated": 0},
    }


def test_of_several_fields_the_longest_is_cut_first(gpt2_lm):
    rows = rows_of(["rain", "rain"], [0, 1], other=["the cat " * 40, "x"])
    own = options(prompt="{text}; {other} Sentiment:")
    arm = ZeroShot(gpt2_lm, own, rows.labels, Reading(40)).fit(rows)
    text = gpt2_lm.tokenizer.decode(arm._encode(arm.templates[0], rows)[0].prompts[0].before)
    assert text.startswith("rain; the cat the cat")
    assert text.endswith(" Sentiment:")


def test_masked_prompts_keep_their_special_tokens_when_cut(masked_lm):
    rows = rows_of(["the cat sat on the warm mat " * 20, "rain"], [0, 1])
    own = options(prompt="{text} : {mask} rain", verbalizers={"bad": "sad", "good": "good love"})
    arm = ZeroShot(masked_lm, own, rows.labels, Reading(20)).fit(rows)
    prompt = arm._encode(arm.templates[0], rows)[0].prompts[0]
    tokenizer = masked_lm.tokenizer
    assert prompt.before[0] == tokenizer.cls_token_id
    assert prompt.after[-1] == tokenizer.sep_token_id
    assert len(prompt.before) + len(prompt.after) + 2 == 20
    assert tokenizer.decode(prompt.after[:-1]) == "rain"


def test_a_mask_that_swallows_the_space_before_it_is_read_as_in_one_text(tmp_path):
    """RoBERTa's real tokenizer: byte-level, with a mask token that takes the space before it."""
    from transformers import RobertaConfig, RobertaForMaskedLM

    from tiny import byte_bpe
    from tunescope.prompting import load_language_model

    tokenizer = byte_bpe()
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    tokenizer.add_special_tokens({**names, "mask_token": AddedToken("<mask>", lstrip=True, special=True)})
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<s>", "</s>")}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=list(ids.items())
    )
    tokenizer.save_pretrained(tmp_path)
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 16}
    own = RobertaConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, max_position_embeddings=400, **shape
    )
    RobertaForMaskedLM(own).save_pretrained(tmp_path)
    model = load_language_model(str(tmp_path))
    rows = rows_of(TEXTS, [0, 1] * 4)
    words = {"bad": " sad", "good": " love"}
    arm = ZeroShot(model, options(prompt="{text} It was {mask} .", verbalizers=words), rows.labels).fit(rows)
    for text, encoded in zip(TEXTS, arm._encode(arm.templates[0], rows), strict=True):
        (prompt,) = encoded.prompts
        joined = [*prompt.before, tokenizer.mask_token_id, *prompt.after]
        assert joined == model.tokenizer(f"{text} It was <mask> .")["input_ids"]
