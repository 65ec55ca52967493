"""Who cites what: the works behind each lens, tuning method and statistic, and when they stand behind it.

A work is cited only where what it is about was really run: an option that was off, or a metric that the table does
not hold, cites nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ran:
    """What a citation is decided on.

    Attributes:
        options: The lens's options, as its provenance has them.
        metrics: The metrics that its table holds.
        methods: How intervals and tests were made, in the table's words.
        rows: Rows that were looked at, or None where that is not known.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    metrics: Collection[str] = ()
    methods: str = ""
    rows: int | None = None

    def has(self, *beginnings: str) -> bool:
        """Whether the table holds a metric that begins like this."""
        return any(metric.startswith(beginnings) for metric in self.metrics)

    def on(self, key: str, *values: str) -> bool:
        """Whether an option is set, or (with values) is or contains one of them."""
        found = self.options.get(key)
        if not values:
            return bool(found)
        held = found if isinstance(found, (list, tuple)) else [found]
        return any(value in map(str, held) for value in values)


def _always(ran: Ran) -> bool:
    return True


@dataclass(frozen=True)
class Cite:
    """One work behind something.

    Attributes:
        key: Its key in the entries.
        what: What it is cited for.
        when: Whether it stands behind what was run.
    """

    key: str
    what: str
    when: Callable[[Ran], bool] = _always


def _in_blocks(ran: Ran) -> bool:
    """Whether CKA was averaged over blocks: more rows than one block holds."""
    return ran.rows is None or ran.rows > int(ran.options.get("full_below", 1024))


def _holding(word: str) -> Callable[[Ran], bool]:
    """Return whether the table holds a metric with this word; where no table is given, it may."""
    return lambda ran: not ran.metrics or any(word in metric for metric in ran.metrics)


_HSIC = Cite("song2012", "the unbiased estimate of HSIC")
OF_LENS: dict[str, tuple[Cite, ...]] = {
    "cka": (
        Cite("kornblith2019", "CKA"),
        _HSIC,
        Cite("nguyen2021", "CKA over blocks of rows", _in_blocks),
        Cite("gretton2005", "the biased estimate", lambda ran: ran.has("cka_biased")),
    ),
    "similarity": (
        Cite("kriegeskorte2008", "RSA", lambda ran: not ran.metrics or ran.has("rsa")),
        Cite("schonemann1966", "Procrustes", lambda ran: not ran.metrics or ran.has("procrustes")),
    ),
    "other_models": (Cite("kornblith2019", "CKA"), _HSIC, Cite("kriegeskorte2008", "RSA")),
    "spread": (
        Cite("timkey2021", "rogue dimensions"),
        Cite("rudman2023", "five times the mean variance"),
        Cite("rudman2022", "IsoScore", _holding("iso_score")),
    ),
    "dimensions": (Cite("rudman2023", "one dimension as a classifier"),),
    "probes": (Cite("alain2016", "linear probes"), Cite("hewitt2019", "control tasks")),
    "logit_lens": (
        Cite("nostalgebraist2020", "the logit lens"),
        Cite("belrose2023", "where it misleads"),
    ),
    "attribution_direct": (
        Cite("elhage2021", "direct attribution"),
        Cite("kobayashi2021", "norms inside the path"),
    ),
    "attention": (Cite("clark2019", "attention patterns by head"),),
    "activations": (Cite("sun2024", "massive activations"),),
    "weights": (
        Cite("shuttleworth2024", "intruder dimensions", _holding("intruder")),
        Cite("roy2007", "effective rank", _holding("effective_rank")),
    ),
    "flow": (
        Cite("abnar2020", "attention rollout"),
        Cite("wang2023", "effects of single paths", lambda ran: not ran.options or ran.on("edges")),
    ),
    "maps": (
        Cite("vandermaaten2008", "t-SNE", lambda ran: not ran.options or ran.on("methods", "tsne")),
        Cite("mcinnes2018", "UMAP", lambda ran: not ran.options or ran.on("methods", "umap")),
        Cite("venna2001", "trustworthiness", _holding("trustworthiness")),
        Cite("schonemann1966", "turning frames onto one another"),
    ),
    "steps": (
        Cite("vandermaaten2008", "t-SNE", lambda ran: not ran.options or ran.on("methods", "tsne")),
        Cite("mcinnes2018", "UMAP", lambda ran: not ran.options or ran.on("methods", "umap")),
        Cite("venna2001", "trustworthiness", _holding("trustworthiness")),
    ),
    "ablation": (
        Cite("michel2019", "taking out heads"),
        Cite(
            "nanda2023", "attribution patching as a screen", lambda ran: not ran.options or ran.on("screen")
        ),
        Cite("kramar2024", "GradDrop", lambda ran: not ran.options or ran.on("screen")),
    ),
    "patching": (
        Cite("vig2020", "causal mediation"),
        Cite("meng2022", "restoring states"),
        Cite("wang2023", "patching between texts"),
        Cite("heimersheim2024", "denoising and noising"),
    ),
    "patching_cross": (Cite("prakash2024", "patching across models"),),
    "grafting": (Cite("panigrahi2023", "grafts of tuned weights"),),
    "words": (
        Cite("li2016", "leaving words out"),
        Cite(
            "sundararajan2017",
            "integrated gradients",
            lambda ran: not ran.options or ran.on("gradient_rows"),
        ),
    ),
    "behaviour": (
        Cite("ribeiro2020", "kinds of suites"),
        Cite("kiritchenko2018", "the sentences of EEC", lambda ran: "eec" in str(ran.options.get("suites"))),
        Cite("zhao2018", "WinoBias", lambda ran: "winobias" in str(ran.options.get("suites"))),
    ),
    "summaries": (Cite("lin2004", "ROUGE"), Cite("grusky2018", "coverage of the article")),
    "claims": (),
    "planted": (),
    "watch": (),
}

OF_METHOD: dict[str, tuple[Cite, ...]] = {
    "zero_shot": (Cite("zhao2021", "calibration of a prompt"),),
    "lora": (
        Cite("hu2022", "LoRA"),
        Cite("liu2024", "DoRA", lambda ran: ran.on("use_dora") or ran.on("dora")),
    ),
    "bitfit": (Cite("zaken2022", "BitFit"),),
    "ia3": (Cite("liu2022", "IA3"),),
}

# By the word with which tables, comparisons and findings name what was done.
OF_STATISTIC: tuple[tuple[str, Cite], ...] = (
    ("wilson", Cite("wilson1927", "intervals of shares")),
    ("bootstrap", Cite("efron1979", "the bootstrap")),
    ("mcnemar", Cite("mcnemar1947", "McNemar's test")),
    ("two one-sided", Cite("schuirmann1987", "tests of equivalence")),
    ("multi-bootstrap", Cite("sellam2022", "the bootstrap over seeds and rows")),
    ("holm", Cite("holm1979", "the correction for many tests")),
    ("benjamini", Cite("benjamini1995", "the false discovery rate")),
    ("expected_calibration_error", Cite("guo2017", "calibration error")),
    ("prior shift", Cite("saerens2002", "other shares of the classes")),
)

OF_ARCHITECTURE: dict[str, Cite] = {
    "gpt2": Cite("radford2019", "the GPT-2 architecture"),
    "bert": Cite("devlin2019", "the BERT architecture"),
}


def of_lens(lens: str, ran: Ran | None = None) -> list[Cite]:
    """Return what a lens cites: all it can cite without ``ran``, else only what was run.

    A lens that is not listed cites nothing.
    """
    known = OF_LENS.get(lens, ())
    return list(known) if ran is None else [cite for cite in known if cite.when(ran)]
