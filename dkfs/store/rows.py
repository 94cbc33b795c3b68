"""The rows of the index: their keys, and the checksum that binds a row to its key.

LMDB notices less than 2 % of flipped bits, so every value ends in a CRC-32 over key and record: a damaged row, and a
sound row under another's key, is refused. Keys are big-endian, so that key order is log order.
"""

import struct
from typing import Final
from zlib import crc32

from dkfs.errors import CorruptError, StoreError
from dkfs.model.ids import NodeId, Seq

SEQ: Final = struct.Struct(">Q")
NODE_KEY: Final = struct.Struct(">QQ")  # node, seq
NAME_LIMIT: Final = 255  # bytes of a name in a directory, and of a tag
_CHECKSUM_SIZE: Final = 4

FORMAT: Final = 2  # of the whole store; in the row "format" of the table meta
INTENT_FORMAT: Final = FORMAT | 1 << 31  # and versions that were promised may wait in an intent log
OLD_FORMAT: Final = (
    1  # is read, and written by no one any more: `dkfs migrate` makes it a store of FORMAT
)
FORMAT_KEY: Final = b"format"  # u32, without a checksum, so that every dkfs can read it for ever
UUID_KEY: Final = b"uuid"  # 16 bytes
HASH_KEY: Final = b"hash"  # the name of the algorithm
TAIL_KEY: Final = b"tail"  # u32 segment, u64 length, u32 records, u64 transactions, u64 journals
FORGOTTEN_KEY: Final = b"forgotten"  # u64: how many versions are not in the log any more
CHECKPOINT_KEY: Final = b"checkpoint"  # u64: the transaction of the newest complete checkpoint
NEXT_NODE_KEY: Final = b"next-node"  # u64
CLEAN_KEY: Final = b"clean"  # one byte, 0 or 1
UNJOURNALED: Final = frozenset((FORMAT_KEY, TAIL_KEY, CHECKPOINT_KEY, CLEAN_KEY))  # rows of meta
NOTE_PREFIX: Final = b"note:"  # before the names of what history keeps in the table meta
TAIL: Final = struct.Struct(">IQIQQ")
OLD_TAIL: Final = struct.Struct(">IQI")
SEGMENT_KEY: Final = struct.Struct(">I")


def name_key(parent: NodeId, name: bytes, seq: int) -> bytes:
    """Return the key of what *name* in *parent* led to from version *seq* on."""
    return b"%b%b\0%b" % (SEQ.pack(parent), name, SEQ.pack(seq))


def split_name_key(key: bytes) -> tuple[bytes, Seq]:
    """Return name and version of a key of name_key; raises CorruptError."""
    if len(key) < 18 or key[-9]:
        raise CorruptError(f"index: names key {key.hex()} is not parent, name, 0, version")
    return key[8:-9], Seq(int.from_bytes(key[-8:], "big"))


def seal(key: bytes, record: bytes) -> bytes:
    """Return the value of the row at *key* that holds *record*."""
    return record + crc32(record, crc32(key)).to_bytes(4, "big")


def is_sealed(key: bytes, value: bytes) -> bool:
    """Return whether the *value* of the row at *key* matches its checksum."""
    return crc32(value[:-_CHECKSUM_SIZE], crc32(key)) == int.from_bytes(
        value[-_CHECKSUM_SIZE:], "big"
    )


def unseal(table: str, key: bytes, value: bytes) -> bytes:
    """Return the record in the *value* of the row at *key*; raises CorruptError."""
    record = value[:-_CHECKSUM_SIZE]
    if crc32(record, crc32(key)) != int.from_bytes(value[-_CHECKSUM_SIZE:], "big"):
        raise CorruptError(f"index: {table} row {key.hex()} does not match its checksum")
    return record


def tag_key(name: str) -> bytes:
    """Return the key of the tag *name*; raises StoreError if it can be no name of a tag."""
    key = name.encode(errors="surrogateescape")
    if not 0 < len(key) <= NAME_LIMIT:
        raise StoreError(f"tag name of {len(key)} bytes, need 1 to {NAME_LIMIT}")
    return key
