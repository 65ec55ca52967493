"""What LoRA and IA3 share: finding projections by name, putting peft's layers in place, what is trained then."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import importlib.util
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunescope.config.problems import nearest
from tunescope.errors import MissingDependencyError, ModelError
from tunescope.models.adapted import is_adapted
from tunescope.seeds import derive_seed
from tunescope.tuning.parameters import finish, start

if TYPE_CHECKING:
    from torch import nn

    from tunescope.models import Classifier

ALL_LINEAR = "all-linear"


def need_peft(method: str) -> None:
    """Refuse a method that needs peft where it is not installed.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingDependencyError(
            f"{method} needs peft, which is not installed.", hint="pip install 'tunescope[peft]'"
        )


def known_to_peft(name: str, given: Any, own: Iterable[str], reasons: Mapping[str, str]) -> Any:
    """Check the names under ``peft:`` against peft's own configuration class, and return what was given.

    Args:
        name: The class in peft, ``LoraConfig`` or ``IA3Config``.
        given: What stands under ``peft:``.
        own: The fields that tunescope passes on.
        reasons: Why it does not pass on others, by field.

    Raises:
        ValueError: A name that peft does not have (the nearest is named), or one that cannot be used here.
        MissingDependencyError: peft is not installed.
    """
    if not isinstance(given, dict):
        return given
    own = list(own)
    wrong = [word for word in given if word not in own]
    if not wrong:
        return given
    need_peft(name.removesuffix("Config").lower())
    import peft

    theirs = [field.name for field in dataclasses.fields(getattr(peft, name))]
    told = []
    for word in wrong:
        if word in theirs:
            why = reasons.get(
                word, "tunescope cannot prove that such an adapter merges and reads back exactly"
            )
            told.append(f"peft's {word} cannot be used here: {why}")
            continue
        match = nearest(str(word), own) or nearest(str(word), theirs)
        meant = f"; did you mean {match!r}?" if match else f"; the fields are {', '.join(own)}"
        told.append(f"peft's {name} has no field {word!r}{meant}")
    raise ValueError("; ".join(told))


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which projections are to be adapted, in peft's words.

    Attributes:
        targets: Names that a module's path ends in, a pattern for the whole path, or ``all-linear``.
        exclude: Names, or a pattern, of modules to leave out.
        layers: Block numbers to adapt, or None for all.
        save: Names of modules of the trunk that are trained whole.
    """

    targets: Sequence[str] | str
    exclude: Sequence[str] | str | None = None
    layers: Sequence[int] | int | None = None
    save: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found for :class:`Wanted`, as paths inside the trunk.

    Attributes:
        targets: Projections to adapt, in the model's order.
        save: Modules that are trained whole.
        frozen: Leading blocks that are not touched, and the embeddings with them.
    """

    targets: tuple[str, ...]
    save: tuple[str, ...]
    frozen: int


def find(classifier: Classifier, wanted: Wanted) -> Found:
    """Find the projections and modules that are wanted, before or after adapters were put in place.

    Raises:
        ModelError: A name or a layer that the model does not have, or nothing is left to adapt.
    """
    layer_of = _projections(classifier)
    layers = _layers(classifier, wanted.layers)
    chosen = _match(classifier, wanted.targets, layer_of, "target_modules")
    if wanted.exclude:
        chosen -= _match(classifier, wanted.exclude, layer_of, "exclude_modules")
    targets = tuple(name for name in layer_of if name in chosen and layer_of[name] in layers)
    if not targets:
        raise ModelError(
            "No projection is left to adapt after exclude_modules and layers_to_transform.",
            hint="Leave fewer modules out.",
        )
    save = _saved(classifier, wanted.save)
    both = [name for name in targets if any(f"{name}.".startswith(f"{one}.") for one in save)]
    if both:
        raise ModelError(
            f"{both[0]} is to be adapted and, by modules_to_save, trained whole; it can be one of both.",
            hint="Leave it out of target_modules or of modules_to_save.",
        )
    return Found(targets, save, _leading(classifier, (*targets, *save)))


def _blocks(classifier: Classifier) -> list[tuple[str, int]]:
    """Return the path and number of every block; an encoder-decoder's encoder and decoder both count from 0."""
    return [(path, layer) for stack in classifier.stacks for layer, path in enumerate(stack.blocks())]


def _projections(classifier: Classifier) -> dict[str, int]:
    """Return the linear layers inside the blocks as paths in the trunk, each with the number of its block."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    found: dict[str, int] = {}
    for block, layer in _blocks(classifier):
        adapted: tuple[str, ...] = ()
        for name, module in classifier.trunk.get_submodule(block).named_modules():
            if name.startswith(adapted) and adapted:
                continue
            if is_adapted(module):
                adapted += (f"{name}.",)
            if is_adapted(module) or isinstance(module, nn.Linear | Conv1D):
                found[f"{block}.{name}"] = layer
    return found


def _layers(classifier: Classifier, given: Sequence[int] | int | None) -> set[int]:
    blocks = max(stack.n_layers for stack in classifier.stacks)
    if given is None:
        return set(range(blocks))
    layers = [given] if isinstance(given, int) else list(given)
    wrong = [layer for layer in layers if not 0 <= layer < blocks]
    if wrong or not layers:
        came = f"came {', '.join(map(str, wrong))}" if layers else "came an empty list"
        raise ModelError(
            f"layers_to_transform: {came}, and the model has {blocks} blocks; layers count from 0 to {blocks - 1}.",
        )
    return set(layers)


def _ends_in(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _match(
    classifier: Classifier, given: Sequence[str] | str, layer_of: Mapping[str, int], what: str
) -> set[str]:
    """Return the projections that peft's rules pick: a list by the end of the path, a text as a pattern."""
    prefix = classifier.model.base_model_prefix
    if given == ALL_LINEAR:
        return set(layer_of)
    if isinstance(given, str):
        try:
            pattern = re.compile(given)
        except re.error as error:
            raise ModelError(f"{what}: {given!r} is not a pattern that can be read ({error}).") from error
        found = {name for name in layer_of if pattern.fullmatch(f"{prefix}.{name}")}
        if not found:
            raise ModelError(
                f"{what}: no projection matches the pattern {given!r}; it must match a whole path such as "
                f"{prefix}.{next(iter(layer_of))}.",
                hint="Give a list of names to match the ends of paths.",
            )
        return found
    found = set()
    for name in given:
        matched = {path for path in layer_of if _ends_in(path, name) or f"{prefix}.{path}" == name}
        if not matched:
            _refuse(classifier, name, layer_of, what)
        found |= matched
    return found


def _refuse(classifier: Classifier, name: str, layer_of: Mapping[str, int], what: str) -> None:
    """Say that no projection has this name, with the nearest ones and all there are."""
    blocks = [f"{block}." for block, _ in _blocks(classifier)]
    inner = list(dict.fromkeys(
        path.removeprefix(next(block for block in blocks if path.startswith(block))) for path in layer_of
    ))  # fmt: skip
    short = list(dict.fromkeys([*(path.rpartition(".")[2] for path in inner), *inner]))
    outside = any(_ends_in(path, name) for path, _ in classifier.model.named_modules())
    reason = (
        "is no projection inside the blocks (embeddings and norms are not adapted; the head is trained whole)"
        if outside
        else f"is no module of this {classifier.family.name} model"
    )
    near = difflib.get_close_matches(name, short, n=3, cutoff=0.5)
    nearest_names = f" The nearest: {', '.join(near)}." if near else ""
    raise ModelError(
        f"{what}: {name!r} {reason}.{nearest_names}", hint=f"The projections of a block: {', '.join(inner)}."
    )


def _saved(classifier: Classifier, names: Sequence[str]) -> tuple[str, ...]:
    """Return the modules of the trunk that are trained whole; the head always is, so its names are passed over."""
    head = {*classifier.family.head_parts, classifier.family.head}
    paths = [path for path, _ in classifier.trunk.named_modules() if path]
    found: list[str] = []
    for name in names:
        if any(_ends_in(path, name) for path in head):
            continue
        matched = [path for path in paths if _ends_in(path, name)]
        if not matched:
            ends = dict.fromkeys(path.rpartition(".")[2] for path in paths)
            near = difflib.get_close_matches(
                name, [end for end in ends if not end.isdigit()], n=3, cutoff=0.4
            )
            raise ModelError(
                f"modules_to_save: {name!r} is no module of this {classifier.family.name} model."
                + (f" The nearest: {', '.join(near)}." if near else "")
            )
        found += matched
    return tuple(dict.fromkeys(found))


def _leading(classifier: Classifier, touched: Sequence[str]) -> int:
    """Return how many leading blocks hold none of the touched modules; 0 if anything below them is touched.

    Of an encoder-decoder 0: its blocks are trained with dropout unless all are frozen.
    """
    if classifier.is_encoder_decoder:
        return 0
    blocks = [classifier.family.path("block", layer) for layer in range(classifier.n_layers)]
    first = len(blocks)
    for name in touched:
        if name == classifier.family.final_norm:
            continue
        inside = (layer for layer, block in enumerate(blocks) if f"{name}.".startswith(f"{block}."))
        first = min(first, next(inside, 0))
    return first


def inject(classifier: Classifier, config: Any, found: Found, train_head_bias: bool) -> None:
    """Put peft's layers in place, seeded by the classifier's seed, and freeze all but them, ``save`` and the head.

    The paths of all modules stay what they were, so sites and families hold; what was a projection is peft's layer
    around it.
    """
    import torch
    from peft import inject_adapter_in_model

    from tunescope.models.language import LanguageModel

    start(classifier)
    devices = [classifier.device] if classifier.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        # peft asks transformers 5.23 for an attribute by its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        torch.manual_seed(derive_seed(classifier.seed, "adapter"))
        bare = copy.deepcopy(config)
        bare.modules_to_save = (
            None  # trained in place, not in peft's wrapper, which would move the head's path
        )
        inject_adapter_in_model(bare, classifier.model)
    classifier.adapter_config = config
    for name in found.save:
        classifier.trunk.get_submodule(name).requires_grad_(True)
    classifier.head.requires_grad_(True)
    bias = None
    if not isinstance(classifier, LanguageModel):
        bias = getattr(classifier.model.get_submodule(classifier.family.head), "bias", None)
    if bias is not None and not train_head_bias:
        bias.requires_grad_(False)
    finish(classifier, found.frozen)


def adapted_at(classifier: Classifier, names: Iterable[str]) -> list[nn.Module]:
    """Return the adapted layers at these paths of the trunk."""
    return [classifier.trunk.get_submodule(name) for name in names]
