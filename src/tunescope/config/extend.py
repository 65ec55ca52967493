"""A study on top of another: what ``extends:`` and ``profiles:`` merge, and by which rules.

Mappings merge key by key; everything else replaces. A list of named things (arms, lenses, claims, differences) that a
mapping stands over is changed by name: ``NAME: {...}`` merges into the item, ``NAME: null`` takes it away, and
``+NAME: {...}`` adds one. A name that the list does not have is refused, unless it is to go.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunescope.config.problems import Key, Origin, Problem, nearest, shown_value, unknown
from tunescope.config.text import Document, read_document, to_yaml
from tunescope.errors import ConfigError

# Lists whose items have a name, and the key that holds it.
NAMED: dict[Key, str] = {
    ("arms",): "name", ("lenses",): "lens", ("claims",): "claim", ("as_published",): "key",
}  # fmt: skip
# Keys that two forms of one study may differ in without a reason: they say what it is, not what it does.
ABOUT = ("name", "question", "as_published", "claims", "expect", "profiles", "recipe")


def read_chain(file: Path, above: tuple[Path, ...], shipped: Mapping[str, Path]) -> Document:
    """Read a study file on top of what it extends.

    Args:
        file: The study file.
        above: The files that led here.
        shipped: The recipes by name, which ``extends`` may name.

    Raises:
        ConfigError: A file is missing or not readable, or the files extend one another in a circle.
    """
    here = file.resolve()
    if here in above:
        circle = " -> ".join(path.name for path in (*above[above.index(here) :], here))
        raise ConfigError(
            f"{file}: extends goes in a circle: {circle}.", hint="Remove one of these `extends:`."
        )
    return extended(read_document(file), file, (*above, here), shipped)


def extended(
    document: Document, file: Path | None, above: tuple[Path, ...], shipped: Mapping[str, Path]
) -> Document:
    """Return a document on top of the one that its ``extends:`` names, or the document itself.

    Raises:
        ConfigError: ``extends`` names neither a study file nor a recipe.
    """
    if "extends" not in document.value:
        return document
    wanted = document.value.pop("extends")
    place = document.origins.get(("extends",), Origin(file))
    if not isinstance(wanted, str) or not wanted:
        raise ConfigError(
            f"{place}: extends: expected a study file or the name of a recipe; came {shown_value(wanted)}.",
            hint="Write for example `extends: base.yaml` or `extends: quickstart`.",
        )
    path = (file.parent if file is not None else Path()) / expanded(wanted)
    if not path.is_file():
        if wanted not in shipped:
            known = ", ".join(shipped) or "none"
            match = nearest(wanted, shipped)
            raise ConfigError(
                f"{place}: extends: there is no file {path} and no recipe {wanted!r}; recipes: {known}.",
                hint=f"Did you mean {match!r}?"
                if match
                else "Give a path relative to this study, or the name of a recipe.",
            )
        path = shipped[wanted]
    base = read_chain(path, above, shipped)
    merged = on_top(base, document, place)
    _account(base.value, document.value, merged)
    return merged


def on_top(base: Document, over: Document, place: Origin) -> Document:
    """Return ``base`` with ``over`` merged into it; every key keeps the place where it was written."""
    origins = {key: origin for key, origin in base.origins.items() if key}
    origins[()] = over.origins.get((), place)
    problems = [*base.problems, *over.problems]
    value = _merge(base.value, over.value, (), origins, (over.origins, problems))
    return Document(value, origins, problems)


def with_profile(document: Document, profile: str | None) -> Document:
    """Take ``profiles:`` out of a document, and merge the one that was asked for into it.

    Raises:
        ConfigError: There is no such profile.
    """
    profiles = document.value.get("profiles")
    place = document.origins.get(("profiles",), Origin())
    if profiles is not None and not (
        isinstance(profiles, dict) and all(isinstance(one, dict) for one in profiles.values())
    ):
        raise ConfigError(
            f"{place}: profiles: expected a mapping from names to the keys that each changes.".removeprefix(
                ": "
            ),
            hint="Write for example `profiles: {small: {data: {rows: 1000}}}`.",
        )
    profiles = profiles or {}
    if profile is not None and profile not in profiles:
        raise ConfigError(
            f"This study has {'the ' if profiles else 'no '}profiles{': ' + ', '.join(profiles) if profiles else ''}; "
            f"{unknown('profile', profile, profiles)}".rstrip(".?")
            + ".",
            hint="Leave --profile out, or name one of them.",
        )
    kept = {key: value for key, value in document.value.items() if key != "profiles"}
    own = {key: origin for key, origin in document.origins.items() if key[:1] != ("profiles",)}
    plain = Document(kept, own, document.problems)
    if profile is None:
        return plain
    where = _below(document.origins, ("profiles", profile))
    where[()] = own.get((), place)
    return on_top(plain, Document(dict(profiles[profile]), where), place)


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` as the home folder; a name that only looks like that stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


Over = tuple[dict[Key, Origin], list[Problem]]


def _merge(
    base: dict[Any, Any], over: dict[Any, Any], key: Key, origins: dict[Key, Origin], places: Over
) -> dict[Any, Any]:
    """Return ``base`` with ``over`` on top; ``origins`` follows, in place."""
    merged = dict(base)
    for name, value in over.items():
        below = (*key, str(name))
        there = merged.get(name)
        if isinstance(value, dict) and isinstance(there, dict):
            merged[name] = _merge(there, value, below, origins, places)
        elif isinstance(value, dict) and isinstance(there, list) and below in NAMED:
            merged[name] = _merge_named(there, value, below, origins, places)
        else:
            merged[name] = value
            forget(origins, below)
            origins.update(
                {written: at for written, at in places[0].items() if written[: len(below)] == below}
            )
    return merged


def _merge_named(
    base: list[Any], over: dict[Any, Any], key: Key, origins: dict[Key, Origin], places: Over
) -> list[Any]:
    """Change the items of a list by name."""
    holds, (over_origins, problems) = NAMED[key], places
    items = [(item, _below(origins, (*key, str(index)))) for index, item in enumerate(base)]
    for written, change in over.items():
        name = str(written)
        own = _below(over_origins, (*key, name))
        names = [item_name(item, holds) for item, _ in items]
        bare, at = name.removeprefix("+"), own.get((), Origin())
        shown = ".".join((*key, bare))
        if name.startswith("+"):
            if bare in names:
                problems.append(Problem(at, shown, f"it is there already; write {bare!r} without '+'"))
            elif not isinstance(change, dict):
                problems.append(Problem(at, shown, f"expected a mapping; came {shown_value(change)}"))
            else:
                items.append(({holds: bare, **change}, own))
        elif name not in names and change is None:
            continue  # it is not there, which is what was wanted
        elif name not in names:
            known = [one for one in names if one is not None]
            text = f"{unknown('name', name, known)} ('+{name}' adds it)"
            problems.append(Problem(at, shown, text))
        elif change is None:
            del items[names.index(name)]
        elif not isinstance(change, dict):
            problems.append(Problem(at, shown, f"expected a mapping or null; came {shown_value(change)}"))
        else:
            index = names.index(name)
            item, item_origins = items[index]
            item = {holds: item} if isinstance(item, str) else item
            items[index] = (_merge(item, change, (), item_origins, (own, problems)), item_origins)
    top = origins.get(key)
    forget(origins, key)
    if top is not None:
        origins[key] = top
    for index, (_, own) in enumerate(items):
        origins.update({(*key, str(index), *rest): at for rest, at in own.items()})
    return [item for item, _ in items]


def item_name(item: Any, holds: str) -> str | None:
    """Return the name of an item of a list of named things, or None."""
    if isinstance(item, dict):
        item = item.get(holds)
    return item if isinstance(item, str) else None


def forget(origins: dict[Key, Origin], key: Key) -> None:
    """Drop the places of a key and of everything below it."""
    for written in [written for written in origins if written[: len(key)] == key]:
        del origins[written]


def _below(origins: Mapping[Key, Origin], key: Key) -> dict[Key, Origin]:
    return {written[len(key) :]: at for written, at in origins.items() if written[: len(key)] == key}


def flat(value: Any, key: Key = ()) -> dict[str, Any]:
    """Return plain values by dotted key, with the items of named lists under their names."""
    if isinstance(value, list) and key in NAMED and value:
        named = {item_name(item, NAMED[key]) or str(index): item for index, item in enumerate(value)}
        value = {name: {NAMED[key]: one} if isinstance(one, str) else one for name, one in named.items()}
    if isinstance(value, dict) and value:
        return {
            dotted: one
            for name, item in value.items()
            for dotted, one in flat(item, (*key, str(name))).items()
        }
    return {".".join(key): value}


def differing(base: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys in which two studies differ, but for what they say of themselves, with both values."""
    first, second = (
        flat({key: value for key, value in one.items() if key not in ABOUT}) for one in (base, other)
    )
    missing = object()
    return {
        key: (first.get(key), second.get(key))
        for key in dict.fromkeys([*first, *second])
        if first.get(key, missing) != second.get(key, missing)
    }


def _account(base: dict[Any, Any], over: Mapping[Any, Any], merged: Document) -> None:
    """Complete a published form's list of differences with both values, and hold it against what really differs."""
    listed = over.get("as_published")
    if not isinstance(listed, list):
        return
    found, entries = differing(base, merged.value), []
    explained: list[str] = []
    for index, entry in enumerate(listed):
        entries.append(entry)
        key = entry.get("key") if isinstance(entry, dict) else None
        if not isinstance(key, str):
            continue
        own = {one: both for one, both in found.items() if one == key or one.startswith(f"{key}.")}
        explained += own
        if not own:
            at = merged.origins.get(("as_published", str(index)), Origin())
            text = "it is the same in the corrected form, so there is nothing to explain"
            merged.problems.append(Problem(at, f"as_published.{key}", text))
            continue
        entries[-1] = {
            "corrected": _said(key, own, 0), "published": _said(key, own, 1), **entry,
        }  # fmt: skip
    for key in found:
        if key not in explained:
            at = merged.origins.get(tuple(key.split(".")), merged.origins.get((), Origin()))
            text = "the published form differs here; give the reason under as_published"
            merged.problems.append(Problem(at, key, text))
    merged.value["as_published"] = entries


def _said(key: str, own: Mapping[str, tuple[Any, Any]], side: int) -> str:
    """Return the values of one side below a key as one line of YAML; ``-`` where it has none."""
    if set(own) == {key}:
        value = own[key][side]
        return "-" if value is None else to_yaml({"v": value}, flow=True).strip()[4:-1]
    values = {one.removeprefix(f"{key}."): both[side] for one, both in own.items() if both[side] is not None}
    return to_yaml(values, flow=True).strip()[1:-1] if values else "-"
