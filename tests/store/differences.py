"""Contents that resemble each other, for tests of what is stored as a difference."""

import random
from collections.abc import Sequence

from dkfs.core.delta import Copy, Like
from dkfs.core.location import EXTENTS, BlobLocation, encode_blob_location
from dkfs.model.ids import BlobId
from dkfs.store import Store, Writer
from dkfs.store.blobs import join_delta

SIZE = 20_000


def noise(seed: int, size: int = SIZE) -> bytes:
    """Return bytes that are like nothing else."""
    return random.Random(seed).randbytes(size)


def changed(data: bytes, seed: int, size: int = 100) -> bytes:
    """Return *data* with *size* other bytes, elsewhere for each *seed*."""
    start = seed * 500
    return data[:start] + noise(seed, size) + data[start + size :]


def copies_of(data: bytes, seed: int, size: int = 100) -> tuple[Copy, ...]:
    """Return what changed() left alone."""
    end = seed * 500 + size
    return (Copy(0, 0, end - size), Copy(end, end, len(data) - end))


def like(*bases: BlobId, copies: Sequence[Copy] | None = None) -> Like:
    """Return the hint that names *bases*."""
    return Like(bases, None if copies is None else tuple(copies))


def location(store: Store, blob: BlobId) -> BlobLocation:
    """Return where *blob* is."""
    with store.read() as reader:
        found = reader.location(blob)
    assert found is not None
    return found


def put_chain(writer: Writer, length: int) -> list[BlobId]:
    """Store contents, and *length* times a change of them as a difference to the one before."""
    data = noise(0)
    blobs = [writer.put_blob(data).blob]
    for i in range(1, length + 1):
        data = changed(data, i)
        blobs.append(writer.put_blob(data, like=like(blobs[-1], copies=copies_of(data, i))).blob)
    return blobs


def chain_data(length: int) -> list[bytes]:
    """Return the contents that put_chain() stores."""
    data = [noise(0)]
    for i in range(1, length + 1):
        data.append(changed(data[-1], i))
    return data


def flip(store: Store, blob: BlobId) -> None:
    """Flip a bit in the last of the stored bytes of *blob*."""
    at = location(store, blob)
    segment = store.path / "segments" / f"{at.segment:08d}.seg"
    data = bytearray(segment.read_bytes())
    data[at.offset + 45 + at.stored_length - 1] ^= 1
    segment.write_bytes(data)


def put_difference(
    writer: Writer, blob: BlobId, bases: Sequence[BlobId], *, depth: int = 1, length: int = 64
) -> None:
    """Store a difference to *bases* that makes the first *length* bytes of them, of whatever depth it says."""
    payload = bytes.fromhex("000100") + bytes((length, 0))
    stored = join_delta(bases, payload)
    at = writer._side.output.append(blob, stored, encoding=EXTENTS, length=length)
    row = BlobLocation(at.segment, at.offset, len(stored), length, EXTENTS, depth, 100)
    writer.put_row("blobs", blob, encode_blob_location(row))


def name(number: int) -> BlobId:
    """Return an id that names nothing."""
    return BlobId(number.to_bytes(32, "big"))
