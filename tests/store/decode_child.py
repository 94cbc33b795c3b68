"""Run by test_encoders.py in a process of its own: decode damaged payloads with little memory to do it in.

Prints how many were decoded and how many were corrupt. Whatever else happens ends the process with a traceback, or, if
a library in C does it, with a signal.
"""

import bz2
import random
import resource
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dkfs.core.delta import signed
from dkfs.core.location import BSDIFF, EXTENTS, PATCH, XDELTA
from dkfs.core.varint import varint
from dkfs.errors import CorruptError
from dkfs.store.encoders import ENCODERS, Contents, decode_delta
from tests.alike import edit, mutated

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROOM = 24 * 1024 * 1024  # bytes for all that decoding takes
MUTATIONS = 1000


def limit_memory(room: int) -> None:
    """Leave this process *room* more bytes of address space than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def payloads(rng: random.Random) -> list[tuple[int, bytes, bytes, int]]:
    """Return sound payloads of every encoding: encoding, payload, reference, length."""
    made = []
    for size in (0, 100, 5000, 60_000):
        reference = rng.randbytes(size // 2) + b"a line of text\n" * (size // 30)
        data = bytearray(reference)
        for _ in range(5):
            edit(rng, data, reference)
        contents = Contents(bytes(data), partial(bytes, reference), None)
        for encoder in ENCODERS.values():
            payload = encoder.encode(contents)
            if payload is not None:
                made.append((encoder.code, payload, reference, len(data)))
    return made


def bombs() -> Iterator[tuple[int, bytes, bytes, int]]:
    """Find small payloads that ask for much: encoding, payload, reference, length."""
    zeros = bytes(1 << 20)
    compressor = zstd.ZstdCompressor()
    frame = b"".join(compressor.compress(zeros) for _ in range(500)) + compressor.flush()
    whole = zstd.compress(bytes(100 << 20))
    lying = bytearray(whole)
    lying[6:10] = (1000).to_bytes(4, "little")  # the content size, behind magic, flags and window
    assert zstd.get_frame_info(lying).decompressed_size == 1000
    squeezed = bz2.compress(bytes(100 << 20))
    far = bytes.fromhex("d6c3c40000000e9080808080808080000000010300")
    for bomb in (frame, whole, bytes(lying)):
        yield PATCH, bomb, b"reference", 1000
        yield EXTENTS, b"\1\0" + bomb, b"", 1000
        yield BSDIFF, varint(1) + varint(0) + varint(1000) + signed(0) + b"\1" + bomb, b"", 1000
        yield XDELTA, b"\1" + bomb, b"", 1000
    yield BSDIFF, varint(1) + varint(0) + varint(1000) + signed(0) + b"\2" + squeezed, b"", 1000
    yield BSDIFF, varint(1) + varint(0) + varint(1 << 40) + signed(0) + b"\0", b"", 1000
    yield BSDIFF, varint(1 << 40), b"", 1000
    yield EXTENTS, b"\0" + varint(1 << 40), b"", 1000
    yield EXTENTS, b"\0\1\0" + varint(1 << 40) + b"\0", bytes(100), 1000
    most = (8 << 20) - 1  # a slice of all of the reference would be the reference
    again = varint(0) + varint(most) + signed(-most)
    copies = varint(0) + varint(most) + signed(0) + again * 99
    yield EXTENTS, b"\0" + varint(100) + copies, bytes(8 << 20), 3200
    yield XDELTA, b"\0" + far, b"", 1000
    # Every window names all of the reference, which must not be copied each time.
    window = bytes.fromhex("01 84808000 00 05 00 00 00 00 00")
    yield XDELTA, b"\0\xd6\xc3\xc4\0\0" + window * 5000, bytes(8 << 20), 1000


def main() -> None:
    """Decode everything, and print what came of it."""
    rng = random.Random(int(sys.argv[1]))
    sound = payloads(rng)
    for encoding, payload, reference, length in sound:
        decode_delta(encoding, payload, reference, length)
    small = list(bombs())
    assert all(len(payload) < 100_000 for _, payload, _, _ in small)
    limit_memory(ROOM)
    try:
        bytes(2 * ROOM)
        raise AssertionError("there is no limit")
    except MemoryError:
        pass
    for encoding, payload, reference, length in small:
        try:
            decode_delta(encoding, payload, reference, length)
        except CorruptError:
            continue
        raise AssertionError(f"a bomb of encoding {encoding} was decoded: {payload[:40].hex()}")
    decoded = corrupt = 0
    for _ in range(MUTATIONS):
        for encoding, payload, reference, length in sound:
            try:
                data = decode_delta(encoding, mutated(rng, payload), reference, length)
            except CorruptError:
                corrupt += 1
                continue
            assert len(data) == length
            decoded += 1
    print(f"{decoded} decoded, {corrupt} corrupt")


if __name__ == "__main__":
    main()
