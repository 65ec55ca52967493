"""Zero-shot classification: a language model chooses among verbalizers after (or inside) a prompt.

What a study calls for an arm whose method is ``zero_shot`` (``METHODS["zero_shot"].kind == "prompt"``); no
classifier is loaded, no head is made, and the stages ``train`` and ``evaluate`` become::

    options = METHODS[arm.method].options.model_validate(arm.options)      # tuning.zero_shot.ZeroShotOptions
    model = prompting.load_language_model(path, device, arm.revision)
    reading = prompting.Reading(max_length=study.data.max_length, window=study.data.window)   # a WindowConfig
    arm = prompting.ZeroShot(model, options, rows.labels, reading, seed=derive_seed(seed, "zero_shot"))
    arm.fit(rows.split("train"), progress)     # chooses prompt and calibration, on train rows only
    arm.save(folder / "model")                 # a small JSON that refers to the base model; no weights

    arm = prompting.ZeroShot.load(folder / "model", device)
    table = arm.predict(rows.split("test"), progress)      # the columns of evaluation.predict
    cut = prompting.truncation_by_label(rows.split("test"), table)   # for data/summary.json

``arm.record`` (also in ``model/zero_shot.json``) is JSON-able and holds ``prompt`` (the chosen one),
``calibration``, ``candidates`` (every prompt with its accuracy and Wilson interval on the train folds, and per
fold), ``chosen_folds``, ``selection_accuracy`` (each fold scored with the prompt chosen without it), ``spread``,
``rows`` (how many train rows were asked), ``tokens`` (ids per verbalizer), ``model`` and ``parameters``. There
is nothing trained: trainable parameters are 0, ``stored_bytes`` that of the folder, and no ``log.jsonl``. Its
logits are the (calibrated) sums of log-probabilities, so that softmax gives the share of each verbalizer; they
enter metrics and comparisons as those of any arm. Lenses skip the arm: base and tuned are one model.
"""

from __future__ import annotations

from tunescope.prompting.language_model import LanguageModel, load_language_model
from tunescope.prompting.templates import Reading
from tunescope.prompting.zero_shot import ZeroShot, truncation_by_label

__all__ = ["LanguageModel", "Reading", "ZeroShot", "load_language_model", "truncation_by_label"]
