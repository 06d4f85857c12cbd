"""Damage of every kind to bytes and to what JSON holds."""


def damaged(content, rng):
    """Bytes that are changed, cut off, left out or put in."""
    content, at = bytearray(content), rng.randrange(len(content))
    kind = rng.randrange(5)
    if kind <= 1:
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif kind == 2:
        del content[at:]
    elif kind == 3:
        del content[at : at + rng.randint(1, 9)]
    else:
        content[at:at] = rng.randbytes(rng.randint(1, 9))
    return bytes(content)
