"""Compression inside deltas: zstd and bzip2, and zstd with other bytes as its dictionary.

Nothing is decompressed into more bytes than the caller says there are. Frames declare their content size and have no
checksum: what is decoded is hashed anyway.
"""

import bz2
import sys
import threading
from typing import Final

from dkfs.errors import CorruptError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL: Final = 1  # zstd; higher ones gain little on what is left of a delta, and are slower than the store may be
WINDOW_LOG_MAX: Final = 27  # what every decoder of zstd allows without being told: 128 MiB
_WORTH_TRYING: Final = 64  # bytes; below this the frame's header eats the gain
_SHORTEST_PREFIX: Final = 8  # bytes; zstd refuses shorter ones

_PLAIN: Final = 0
_ZSTD: Final = 1
_BZIP2: Final = 2

_Parameter = zstd.CompressionParameter


class _Own(threading.local):
    """This thread's compressors, by level: one must not be used by two threads at once."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstd.ZstdCompressor] = {}


_own = _Own()


def compress(data: bytes, level: int = LEVEL) -> bytes:
    """Return *data* as one frame; for what is very short, *data* itself, for no frame is shorter."""
    if len(data) < _WORTH_TRYING:
        return data
    compressor = _compressor(level)
    return compressor.compress(data, compressor.FLUSH_FRAME)


def decompress(frame: bytes, length: int) -> bytes:
    """Return the *length* bytes in *frame*; raises CorruptError."""
    return _decompress(frame, length, b"")


def compress_like(data: bytes, reference: bytes, level: int = LEVEL) -> bytes | None:
    """Return *data* as one frame that needs *reference* to be decompressed; None if both are too long for that."""
    window_log = max((len(data) + len(reference)).bit_length(), 10)
    if window_log > WINDOW_LOG_MAX:
        return None
    options: dict[int, int] = {
        _Parameter.compression_level: level,
        _Parameter.window_log: window_log,  # so that the last byte can refer to the first of the reference
        _Parameter.enable_long_distance_matching: 1,
        _Parameter.content_size_flag: 1,
        _Parameter.checksum_flag: 0,
    }
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=_prefix(reference))
    compressor.set_pledged_input_size(len(data))
    return compressor.compress(data, compressor.FLUSH_FRAME)


def decompress_like(frame: bytes, reference: bytes, length: int) -> bytes:
    """Return the *length* bytes of which compress_like() made *frame*; raises CorruptError."""
    return _decompress(frame, length, reference)


def pack(data: bytes) -> bytes:
    """Return the smallest of several codings of *data*, behind the byte that names it."""
    # bzip2 beats zstd on the differences of bsdiff: few values, far apart, no repeats.
    coded = [(_PLAIN, data), (_ZSTD, zstd.compress(data, 3)), (_BZIP2, bz2.compress(data))]
    coding, smallest = min(coded, key=lambda one: len(one[1]))
    return bytes((coding,)) + smallest


def unpack(packed: bytes, length: int) -> bytes:
    """Return the *length* bytes of which pack() made *packed*; raises CorruptError."""
    coding, body = packed[:1], packed[1:]
    if coding == b"\0":
        data = body
    elif coding == b"\1":
        data = decompress(body, length)
    elif coding == b"\2":
        data = _bunzip2(body, length)
    else:
        raise CorruptError(f"delta packed with coding {coding.hex() or 'nothing'}, need 00 to 02")
    if len(data) != length:
        raise CorruptError(f"delta with {len(data)} packed bytes, need {length}")
    return data


def frame_length(frame: bytes) -> int:
    """Return how many bytes *frame* says it has; raises CorruptError."""
    try:
        length = zstd.get_frame_info(frame).decompressed_size
    except zstd.ZstdError as exc:
        raise CorruptError(f"zstd frame of {len(frame)} bytes: {exc}") from None
    if length is None:
        raise CorruptError(f"zstd frame of {len(frame)} bytes that does not declare its size")
    return length


def _compressor(level: int) -> zstd.ZstdCompressor:
    """Return one at the beginning of a frame: to make it takes longer than 50 KB of random bytes do."""
    found = _own.compressors.get(level)
    if found is None:
        found = _own.compressors[level] = zstd.ZstdCompressor(level)
    return found


def _prefix(reference: bytes) -> tuple[zstd.ZstdDict, int] | None:
    if len(reference) < _SHORTEST_PREFIX:
        return None
    return zstd.ZstdDict(reference, is_raw=True).as_prefix


def _decompress(frame: bytes, length: int, reference: bytes) -> bytes:
    declared = frame_length(frame)
    if declared != length:
        raise CorruptError(f"zstd frame of {declared} bytes, need {length}")
    decompressor = zstd.ZstdDecompressor(zstd_dict=_prefix(reference))
    try:
        data = decompressor.decompress(frame, length + 1)
    except zstd.ZstdError as exc:
        raise CorruptError(f"zstd frame of {len(frame)} bytes: {exc}") from None
    if not decompressor.eof or decompressor.unused_data or len(data) != length:
        raise CorruptError(f"zstd frame of {len(data)} bytes that is not one whole frame")
    return data


def _bunzip2(body: bytes, length: int) -> bytes:
    decompressor = bz2.BZ2Decompressor()
    try:
        data = decompressor.decompress(body, length + 1)
    except OSError as exc:
        raise CorruptError(f"bzip2 stream of {len(body)} bytes: {exc}") from None
    if not decompressor.eof or decompressor.unused_data:
        raise CorruptError(f"bzip2 stream of {len(body)} bytes, of which {length} must come")
    return data
