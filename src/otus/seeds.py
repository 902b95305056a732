"""One seed in the config; every job derives its own from it and from its wildcards."""

import hashlib


def derive_seed(seed: int, *parts: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on every part, the same on all platforms."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
