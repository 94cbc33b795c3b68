"""Every decoder of the store and the decoder of requests of the kernel, what it may do with any bytes, and sound bytes to begin with.

Bytes either decode or raise a named error; what was decoded can be encoded again and decodes to the same, and, where
there is one way only to write a thing, to the same bytes; and no input takes more memory than its decoder states.
"""

import atexit
import random
import shutil
import struct
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from bench import fuzz_requests
from dkfs.core import codec, journal, location, manifest, stream
from dkfs.core.location import BSDIFF, EXTENTS, PATCH, XDELTA, BlobLocation
from dkfs.errors import CorruptError, DkfsError
from dkfs.model.ids import BlobId, NodeId, Seq
from dkfs.model.node import Attr, Chunk, Kind, NodeState
from dkfs.model.operation import LogRecord, Operation, OpKind, Origin, Tag
from dkfs.store import blobs, index, journals, pages, segments
from dkfs.store.encoders import ENCODERS, Contents, Library, decode_delta
from dkfs.store.salvage import Salvage

_T = TypeVar("_T")

_ROOM = 64 * 1024  # bytes that any input may take, however short it is
_IDS = tuple(BlobId(bytes((n,)) * 32) for n in range(1, 9))
_U16 = struct.Struct(">H")
_RNG = random.Random(1)
_REFERENCE = _RNG.randbytes(3000) + b"a line of a text\n" * 100
_CHANGED = _REFERENCE[:1000] + b"new" + _REFERENCE[1000:4000] + bytes(500) + _REFERENCE[100:400]


@dataclass(frozen=True)
class Decoder:
    """A function that must cope with any bytes."""

    name: str
    decode: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    rewrite: Callable[[bytes], bytes] | None = None  # decode and encode again
    is_canonical: bool = False  # equal values have equal bytes
    limit: Callable[[bytes], int] = lambda data: 100 * len(data) + _ROOM
    errors: type[DkfsError] = CorruptError


class FuzzError(Exception):
    """A decoder did what none may do."""


def check(decoder: Decoder, data: bytes) -> bool:
    """Decode *data*; return whether that went well; raises FuzzError, or what the decoder must not raise."""
    value, peak = _measured(decoder, data)
    if peak > decoder.limit(data):
        raise FuzzError(
            f"{decoder.name}: {len(data)} bytes took {peak}, {decoder.limit(data)} are stated"
        )
    if value is None or decoder.rewrite is None:
        return value is not None
    again = decoder.rewrite(data)
    if decoder.is_canonical and again != data:
        raise FuzzError(f"{decoder.name}: {data.hex()} is written as {again.hex()}")
    if decoder.decode(again) != value:
        raise FuzzError(
            f"{decoder.name}: {data.hex()} is {value}, but not when it is written again"
        )
    return True


def _measured(decoder: Decoder, data: bytes) -> tuple[object, int]:
    """Return what *data* decodes to, None if it was refused, and how much memory that took, in bytes."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        value = decoder.decode(data)
    except decoder.errors:
        value = None
    finally:
        peak = tracemalloc.get_traced_memory()[1] - before
        if not was_tracing:
            tracemalloc.stop()
    return value, peak


# ---- records


def _states() -> list[NodeState]:
    attr = Attr(Kind.FILE, 0o644, 1000, 100, 1_700_000_000_123_456_789, -1, 70_000, 0)
    link = Attr(Kind.SYMLINK, 0o777, 0, 0, 0, 0, 6, 0)
    device = Attr(Kind.CHAR, 0o600, 0, 0, 0, 0, 0, 259)
    tree = NodeState(
        attr, NodeId(1), b"name", _IDS[0], is_manifest=True, target=b"", xattrs=_IDS[1]
    )
    plain = replace(tree, content=None, is_manifest=False, xattrs=None)
    return [
        tree,
        replace(plain, is_forgotten=True),
        replace(plain, attr=link, target=b"target"),
        replace(plain, attr=device, name=b"zero"),
    ]


def _logs() -> list[LogRecord]:
    origin = Origin(4711, 1000, b"vi")
    rename = Operation(
        OpKind.RENAME,
        1_700_000_000_000_000_000,
        origin,
        NodeId(5),
        NodeId(1),
        b"a",
        NodeId(2),
        b"b",
    )
    undo = Operation(
        OpKind.UNDO,
        1,
        origin,
        NodeId(0),
        NodeId(0),
        target=Seq(3),
        undoes=Seq(4),
        paths=(b"x", b"y"),
    )
    nodes, names = (NodeId(5), NodeId(1)), ((NodeId(1), b"a"), (NodeId(2), b"b"))
    return [LogRecord(Seq(9), rename, nodes, names), LogRecord(Seq(9), undo, (), (), nodes, names)]


def _encode_log(record: LogRecord) -> bytes:
    return codec.encode_log(
        record.operation, record.nodes, record.names, record.folded_nodes, record.folded_names
    )


def _chunks(count: int) -> list[Chunk]:
    return [Chunk(65_536 + n, _IDS[n % 8] if n % 3 else None) for n in range(count)]


def _manifests() -> list[bytes]:
    return [
        b"\1" + struct.pack(">BQI", 1, 65536, 8) + b"".join(_IDS) + struct.pack(">BQI", 0, 1, 1),
        manifest.encode_manifest_node(0, _chunks(10)),
        manifest.encode_manifest_node(1, [Chunk(1 << 20, blob) for blob in _IDS]),
    ]


def _journal() -> journal.JournalPart:
    rows = [
        journal.Row(table, table.encode(), record)
        for table in journal.TABLES_JOURNALED
        for record in (b"a record", None)
    ]
    return journal.JournalPart(7, 1, is_last=True, is_checkpoint=False, rows=tuple(rows))


_FRAMED = journal.encode_journal(_journal())


def _rewrite_manifest(data: bytes) -> bytes:
    node = manifest.decode_manifest_node(data)
    if data[:1] == b"\1":
        return data  # the old format is only read
    return manifest.encode_manifest_node(node.level, node.entries)


def _frames() -> list[bytes]:
    compress = blobs.Encoder().compress
    return [compress(plain) for plain in (_FRAMED, bytes(len(_FRAMED)), _REFERENCE[: len(_FRAMED)])]


def _framed(data: bytes) -> int:
    return 100 * (len(data) + len(_FRAMED)) + _ROOM


def _items() -> list[stream.Item]:
    header = stream.Header(bytes(16), "blake3", Seq(0), stream.NO_DIGEST, Seq(9), bytes(range(32)))
    return [
        header,
        stream.Version(_logs()[0]),
        stream.Blob(_IDS[0], 1, 1000, b"stored"),
        stream.Links(NodeId(4), ((NodeId(1), b"name"),)),
        stream.Nodes(tuple(_states())),
        stream.Names((NodeId(4), NodeId(0))),
        stream.TagItem(Tag("tag", Seq(3), 5, is_hold=True, expires_ns=7)),
        stream.End(Seq(9), 9, NodeId(12), Seq(0)),
    ]


def _written(item: stream.Item) -> bytes:
    head, data, _ = stream.frame(item, 0)
    return head[:1] + data


def _item(data: bytes) -> stream.Item:
    return stream.decode(data[0] if data else 0, data[1:])


def _rewrite_item(data: bytes) -> bytes:
    return _written(_item(data))


def _records(
    name: str,
    decode: Callable[[bytes], _T],
    encode: Callable[[_T], bytes],
    values: Sequence[_T],
    *,
    old: Sequence[bytes] = (),
    is_canonical: bool = False,
) -> Decoder:
    """Return the decoder of a record; *old*: sound bytes of formats that are only read."""
    return Decoder(
        name,
        decode,
        lambda: [*map(encode, values), *old],
        lambda data: encode(decode(data)),
        is_canonical=is_canonical,
    )


# ---- deltas: two bytes of length, then the payload; the reference is always the same


def _delta(library: Library, encoding: int) -> Decoder:
    def decode(data: bytes) -> object:
        if len(data) < _U16.size:
            raise CorruptError("no length")
        return decode_delta(encoding, data[_U16.size :], _REFERENCE, _length(data))

    def seeds() -> list[bytes]:
        found = []
        for made in (_CHANGED, _REFERENCE[:40], b"quite unlike", _RNG.randbytes(2000)):
            payload = ENCODERS[library].encode(Contents(made, lambda: _REFERENCE, None))
            if payload is not None:
                found.append(_U16.pack(len(made)) + payload)
        return found

    return Decoder(
        f"delta-{library}",
        decode,
        seeds,
        limit=lambda data: 10 * (len(data) + _length(data)) + (8 << 20),
    )


def _length(data: bytes) -> int:
    return int.from_bytes(data[: _U16.size], "big")


# ---- files


_directory: list[Path] = []


def _file(data: bytes) -> Path:
    if not _directory:
        _directory.append(Path(tempfile.mkdtemp(prefix="dkfs-fuzz-")))
        atexit.register(shutil.rmtree, _directory[0], ignore_errors=True)
    path = _directory[0] / "file"
    path.write_bytes(data)
    return path


def _scan(data: bytes) -> object:
    """Look for records in a file; raises FuzzError unless what is found is all of it, in order."""
    start = segments.HEADER_SIZE
    with Salvage(_file(data), 1) as salvage:
        found = list(salvage.records())
    ends = [start, *(piece.end for piece in found)]
    if any(piece.offset != end for piece, end in zip(found, ends, strict=False)):
        raise FuzzError(f"segment: pieces that do not follow each other: {found}")
    if found and ends[-1] != len(data):
        raise FuzzError(f"segment: {len(data)} bytes, but the last piece ends at {ends[-1]}")
    if any(one >= other for one, other in pairwise(ends)):
        raise FuzzError(f"segment: a piece of nothing: {found}")
    return found


def _segments() -> list[bytes]:
    head = segments.header(1, bytes(16))
    whole = head + b"".join(
        segments.record(blob, bytes(20), encoding=0, length=20) for blob in _IDS[:3]
    )
    frame = blobs.Encoder().compress(journal.encode_journal(_journal()))
    delta = blobs.join_delta(_IDS[:1], b"\0\0abc")
    mixed = (
        head
        + segments.record(_IDS[3], frame, encoding=location.JOURNAL, length=100)
        + b"damage"
        + segments.record(_IDS[4], delta, encoding=EXTENTS, length=3)
    )
    return [whole + segments.footer(3, len(whole)), mixed]


def _pages(data: bytes) -> object:
    return pages.verify_pages(_file(data))


def _indexes() -> list[bytes]:
    path = Path(tempfile.mkdtemp(prefix="dkfs-fuzz-")) / index.INDEX_NAME
    try:
        index.create_index(path, {b"uuid": bytes(16), b"hash": b"blake3"})
        return [path.read_bytes()]
    finally:
        shutil.rmtree(path.parent)


# ---- all of them

_OLD_NODE = bytes.fromhex(
    "01 21 01a4 000003e8 00000064 000000006553f100 075bcd15 ffffffffffffffff 3b9ac9ff"
    " 0000000000011170 0000000000000001 04 6e616d65" + "01" * 32
)
_OLD_LOG = bytes.fromhex(
    "01 01 00 17979cfe362a0000 00001267 000003e8 0000000000000005 0000000000000001"
    " 02 7669 01 61 01 0000000000000005 00"
)

DECODERS: tuple[Decoder, ...] = (
    _records("node", codec.decode_node, codec.encode_node, _states(), old=[_OLD_NODE]),
    _records("log", partial(codec.decode_log, Seq(9)), _encode_log, _logs(), old=[_OLD_LOG]),
    _records(
        "xattr",
        codec.decode_xattrs,
        codec.encode_xattrs,
        [{}, {b"user.a": b"1", b"user.b": bytes(300)}],
        is_canonical=True,
    ),
    _records(
        "tag",
        codec.decode_tag,
        codec.encode_tag,
        [Tag("tag", Seq(3), 5), Tag("held", Seq(3), 5, is_hold=True, expires_ns=7)],
        old=[b"\1" + bytes(7) + b"\3" + bytes(8) + b"old"],
    ),
    _records(
        "location",
        location.decode_blob_location,
        location.encode_blob_location,
        [
            BlobLocation(1, 36, 500, 1000, location.ZSTD),
            BlobLocation(3, 1 << 20, 300, 65_536, EXTENTS, 3, 70_000),
        ],
        old=[bytes.fromhex("01 01 00000001 0000000000000024 000001f4 000003e8")],
    ),
    _records(
        "segment-row",
        location.decode_segment,
        location.encode_segment,
        [location.SegmentRow(1 << 28, 5000, 17), location.SegmentRow(100, is_dead=True, death=9)],
        is_canonical=True,
    ),
    Decoder(
        "manifest-node",
        manifest.decode_manifest_node,
        _manifests,
        _rewrite_manifest,
    ),
    _records("journal", journal.decode_journal, journal.encode_journal, [_journal()]),
    Decoder(
        "journal-frame",
        partial(journals.unpack_journal, length=len(_FRAMED)),
        _frames,
        limit=_framed,
    ),
    Decoder("delta-head", blobs.split_delta, lambda: [blobs.join_delta(_IDS, b"payload")]),
    Decoder("frame", partial(blobs.decompress, length=len(_FRAMED)), _frames, limit=_framed),
    _delta("extents", EXTENTS),
    _delta("zstd", PATCH),
    _delta("bsdiff", BSDIFF),
    _delta("xdelta", XDELTA),
    Decoder("segment", _scan, _segments, limit=lambda data: 100 * len(data) + (5 << 20)),
    Decoder("stream", _item, lambda: list(map(_written, _items())), _rewrite_item),
    Decoder(
        "index-pages",
        _pages,
        _indexes,
        limit=lambda data: 100 * len(data) + (8 << 20),
        errors=DkfsError,
    ),
    # Each request may ask for a read of a mebibyte; the file system that serves them takes the rest.
    Decoder(
        "requests",
        fuzz_requests.serve,
        fuzz_requests.seeds,
        limit=lambda data: (1 << 16) * len(data) + (64 << 20),
    ),
)
