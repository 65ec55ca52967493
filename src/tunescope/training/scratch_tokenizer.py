"""The tokenizer of a model trained from nothing: learnt from its texts, its characters, or taken from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope.errors import ModelError
from tunescope.files import sha256_of
from tunescope.fingerprints import sha256_of_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from tunescope.config.scratch import ScratchConfig

END_OF_TEXT, PADDING, UNKNOWN = "<|endoftext|>", "<|pad|>", "<|unknown|>"
LEARNT = ("bpe", "characters")


def make_tokenizer(texts: Sequence[str], config: ScratchConfig) -> PreTrainedTokenizerBase:
    """Return the tokenizer that ``config`` asks for.

    ``bpe`` and ``characters`` are learnt from ``texts``, which are those of training alone. Any other name is a
    folder or hub id, and ``like`` brings its own. No vocabulary is padded (nanoGPT pads GPT-2's 50,257 to 50,304
    for the speed of its kernels): a row that no text can reach would only count as parameters.

    Raises:
        ModelError: The folder or hub id has no tokenizer, or one without an end-of-text token.
    """
    if config.like is not None:
        return _existing(config.like, None)
    if config.tokenizer == "bpe":
        return train_tokenizer(texts, config.vocab_size, config.n_positions)
    if config.tokenizer == "characters":
        return character_tokenizer(texts, config.vocab_size, config.n_positions)
    return _existing(config.tokenizer, config.n_positions)


def train_tokenizer(texts: Sequence[str], vocab_size: int, n_positions: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of at most ``vocab_size`` tokens, end-of-text and padding among them.

    Every byte has a token, so that no text is unknown; the result depends on the texts alone.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return _wrapped(bpe, END_OF_TEXT, n_positions)


def character_tokenizer(texts: Sequence[str], vocab_size: int, n_positions: int) -> PreTrainedTokenizerFast:
    """Give every character of ``texts`` a token, the most frequent ones where they are more than fit.

    End-of-text, padding and unknown come first; a character that the texts do not hold becomes the unknown
    token, one for each. Characters are Unicode code points.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    special = [END_OF_TEXT, PADDING, UNKNOWN]
    kept = sorted(counts, key=lambda one: (-counts[one], one))[: vocab_size - len(special)]
    vocabulary = {token: number for number, token in enumerate([*special, *sorted(kept)])}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    letters.decoder = decoders.Fuse()
    return _wrapped(letters, UNKNOWN, n_positions)


def _wrapped(tokenizer: Any, unknown: str, n_positions: int) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=unknown,
        pad_token=PADDING,
        model_max_length=n_positions,
    )


def _existing(path: str, n_positions: int | None) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    from tunescope.models.source import Source, hub_errors

    with hub_errors(Source(path)):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"The tokenizer of {path} has no end-of-text token, which closes every text that a GPT reads.",
            hint="Use bpe, characters, or the tokenizer of a GPT-2.",
        )
    if n_positions is not None:
        tokenizer.model_max_length = n_positions
    return tokenizer


def source_digests(config: ScratchConfig) -> dict[str, str]:
    """Return checksums of the local files that ``like`` or ``tokenizer`` name; hub ids and learnt ones have none.

    Whoever decides whether a pretrained model is still the right one compares these as well as the settings.
    """
    named = {"like": config.like, "tokenizer": config.tokenizer if config.tokenizer not in LEARNT else None}
    found = {}
    for key, path in named.items():
        if path is not None and Path(path).is_dir():
            files = sorted(one for one in Path(path).glob("*") if one.suffix in (".json", ".txt", ".model"))
            found[key] = sha256_of_json({one.name: sha256_of(one) for one in files})
    return found


def bytes_of_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[np.ndarray]:
    """Return how many bytes of UTF-8 each token of each text stands for, int64 per text.

    A token of a byte-level BPE has one sign a byte, whole characters or not; other tokens cover whole characters.
    """
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if type(getattr(backend, "decoder", None)).__name__ == "ByteLevel":
        sizes = np.array(
            [len(token) for token in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
        )
        return [sizes[np.asarray(ids, dtype=np.int64)] for ids in encoded["input_ids"]]
    return [
        np.array([len(text[start:stop].encode()) for start, stop in places], dtype=np.int64)
        for text, places in zip(texts, encoded["offset_mapping"], strict=True)
    ]
