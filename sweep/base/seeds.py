"""Seeds derive from keys: the same key and purpose give the same randomness wherever and whenever."""

import hashlib


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from a key and a purpose, e.g. ``derive_seed(weights_key, "epoch", 3)``."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
