"""Contents that resemble others: what deltas are tested with."""

import random

from hypothesis import strategies as st


@st.composite
def alike(draw: st.DrawFn, max_size: int = 3000) -> tuple[bytes, bytes]:
    """Draw new contents and a reference that they were made of by a few edits."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    reference = _contents(rng, draw(st.integers(0, max_size)))
    data = bytearray(reference)
    for _ in range(draw(st.integers(0, 6))):
        edit(rng, data, reference)
    return bytes(data), reference


def edit(rng: random.Random, data: bytearray, reference: bytes) -> None:
    """Change *data* somewhere: bytes overwritten, put in, taken out, taken from the reference, or changed a little."""
    at = rng.randint(0, len(data))
    size = rng.choice((1, 10, 40, 200, 1000))
    what = rng.randrange(5)
    if what == 0:
        data[at : at + size] = rng.randbytes(size)
    elif what == 1:
        data[at:at] = rng.randbytes(size)
    elif what == 2:
        del data[at : at + size]
    elif what == 3:
        source = rng.randint(0, len(reference))
        data[at:at] = reference[source : source + size]
    else:
        data[at : at + size] = bytes((byte + 1) % 256 for byte in data[at : at + size])


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Damage *data*: bits flipped, bytes replaced, cut off, doubled, or taken out."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(damaged) + 1)
        what = rng.randrange(6)
        if what == 0 and at < len(damaged):
            damaged[at] ^= 1 << rng.randrange(8)
        elif what == 1 and at < len(damaged):
            damaged[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif what == 2:
            del damaged[at:]
        elif what == 3:
            damaged[at:at] = damaged[: rng.randrange(20)]
        elif what == 4:
            del damaged[at : at + rng.randint(1, 5)]
        else:
            damaged[at:at] = b"\xff" * rng.randint(1, 11)
    return bytes(damaged)


def _contents(rng: random.Random, size: int) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(size)
    if kind == 1:
        return bytes(size)
    period = rng.randbytes(rng.randint(1, 100)) if kind == 2 else b"some words of a text, "
    return (period * (size // len(period) + 1))[:size]
