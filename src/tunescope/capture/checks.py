"""What every proof of a table checks: shapes, equal numbers, edits that change something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from tunescope.capture.edits import editing, zero
from tunescope.capture.sites import Site
from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier

TOLERANCE = 1e-4
HINT = "The family's table does not describe this model; see docs/adding-an-architecture.md."


def check_edits(
    classifier: Classifier,
    inputs: dict[str, torch.Tensor],
    found: Mapping[str, torch.Tensor],
    sites: Sequence[Site],
) -> None:
    """Check that zeroing each site changes the final states, unless it was zero already.

    Args:
        classifier: The model.
        inputs: One batch.
        found: What stands at the sites, by the site's name.
        sites: The sites.

    Raises:
        SiteError: An edit changed nothing: the path leads elsewhere.
    """
    with torch.no_grad():
        clean = classifier.hidden(**inputs)
        for site in sites:
            with editing(classifier, [zero(site)]):
                edited = classifier.hidden(**inputs)
            if torch.equal(edited, clean) and bool(found[site.name].any()):
                raise SiteError(
                    f"{classifier.family.name}: zeroing {site} changed nothing; its path is wrong."
                )


def check_shape(value: torch.Tensor, expected: tuple[int, ...], classifier: Classifier, what: str) -> None:
    """Check the shape of an activation.

    Raises:
        SiteError: It is another.
    """
    if tuple(value.shape) != expected:
        raise SiteError(
            f"{classifier.family.name}, {what}: expected shape {expected}, came {tuple(value.shape)}."
        )


def check_close(ours: torch.Tensor, theirs: torch.Tensor, classifier: Classifier, what: str) -> None:
    """Check that two activations are the same up to rounding, by the scale of the second.

    Raises:
        SiteError: They are not.
    """
    scale = max(1.0, float(theirs.abs().max()))
    gap = float((ours - theirs).abs().max())
    if not gap <= TOLERANCE * scale:
        raise SiteError(
            f"{classifier.family.name}: {what}: differs by {gap:.2g}, more than rounding explains.", hint=HINT
        )
