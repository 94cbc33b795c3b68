"""Items of a stream to bytes and back: every record is checked before it is believed."""

from collections.abc import Callable, Iterable, Iterator
from zlib import crc32

from dkfs.core import stream
from dkfs.core.stream import CHECKSUM, HEAD, LENGTH_LIMIT, START, End, Item
from dkfs.errors import CorruptError

_PIECE = 1 << 20  # bytes asked for at once: a length that is damaged allocates no more than comes

Read = Callable[[int], bytes]  # like BinaryIO.read
Write = Callable[[bytes], object]


def write_stream(items: Iterable[Item], write: Write) -> int:
    """Write *items* as a stream; return the bytes."""
    write(START)
    size, checksum = len(START), 0
    for item in items:
        head, data, checksum = stream.frame(item, checksum)
        write(head)
        write(data)
        write(CHECKSUM.pack(checksum))
        size += len(head) + len(data) + CHECKSUM.size
    return size


def read_stream(read: Read) -> Iterator[Item]:
    """Yield the items up to the End; raises CorruptError, StoreFormatError."""
    stream.check_start(_exactly(read, len(START), "the start"))
    checksum = 0
    while True:
        head = _exactly(read, HEAD.size, "a record")
        kind, length = HEAD.unpack(head)
        if length > LENGTH_LIMIT:
            raise CorruptError(f"stream record of {length} bytes, the limit is {LENGTH_LIMIT}")
        data = _exactly(read, length, "a record")
        checksum = crc32(data, crc32(head, checksum))
        if _exactly(read, CHECKSUM.size, "a record") != CHECKSUM.pack(checksum):
            raise CorruptError(f"stream record of type {kind} does not match its checksum")
        item = stream.decode(kind, data)
        yield item
        if isinstance(item, End):
            return


def _exactly(read: Read, length: int, what: str) -> bytes:
    parts = []
    left = length
    while left:
        data = read(min(left, _PIECE))
        if not data:
            raise CorruptError(f"the stream ends within {what}: {length - left} bytes of {length}")
        parts.append(data)
        left -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)
