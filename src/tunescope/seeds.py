"""Random streams: one study seed, and one derived seed for every purpose."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return the seed of one random stream, a whole number from 0 to 2**31 - 1.

    Streams of different purposes are independent, and none changes when another is drawn from more often.

    Args:
        seed: The study's seed.
        purpose: What the stream is for, for example ``"head"`` or ``"dropout", 120``.
    """
    key = "/".join(str(part) for part in (seed, *purpose)).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big") >> 1
