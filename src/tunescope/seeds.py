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


def seed_torch(seed: int) -> None:
    """Seed the generators of the processor and of every device that is in use, as ``torch.manual_seed`` does.

    ``torch.manual_seed`` also notes the seed, and the whole stack of its call as text, for every kind of device that is
    *not* in use; where every step is seeded, writing these stacks takes a percent of the time.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    for kind in (torch.cuda, torch.xpu):
        if kind.is_initialized():
            kind.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
