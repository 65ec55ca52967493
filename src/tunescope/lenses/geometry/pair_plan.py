"""How many pairs of places a comparison makes and what they cost, said before it starts."""

from __future__ import annotations

from tunescope.errors import LensError
from tunescope.lenses.subject import Subject

SAID_FROM = 1000  # pairs: below, there is nothing to plan
MOST = 100_000  # pairs: beyond, tables and pages no longer hold them


def say_pairs(subject: Subject, lens: str, sites: int, rows: int) -> int:
    """Say how many pairs of sites are compared, where they are many, and return their number.

    CKA of S sites on blocks of B rows takes S Gram matrices and S (S + 1) / 2 products of B x B numbers a block, so
    with B = 256 about ``256 S^2 rows`` multiplications beside the Gram matrices.

    Raises:
        LensError: There are more than 100,000.
    """
    pairs = sites * (sites + 1) // 2
    if pairs > MOST:
        raise LensError(
            f"{lens}: {sites} sites make {pairs:,} pairs; at most {MOST:,} are compared.",
            hint="Compare fewer models at a time.",
        )
    if pairs >= SAID_FROM:
        work = 256.0 * sites * sites * rows / 1e9
        subject.progress.say(
            f"{subject.arm}: {lens}: {sites} sites, {pairs:,} pairs on {rows:,} rows, about {work:,.1f} billion "
            "multiplications a variant"
        )
    return pairs
