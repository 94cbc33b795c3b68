"""Numbers and byte strings of any length inside a record: pure, no I/O.

A varint is LEB128: seven bits a byte, lowest first, the top bit set on all but the last; at most ten bytes and 64 bits.
What ends too early raises IndexError, which a decoder turns into the CorruptError that names its record.
"""

from dkfs.errors import CorruptError

_LIMIT = 1 << 64  # exclusive
_SHORT = tuple(bytes((value,)) for value in range(0x80))  # most numbers in a record are small


def varint(value: int) -> bytes:
    """Return the coding of *value*, from 0 to 2^64 - 1."""
    if value < 0x80:
        return _SHORT[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at *at* and the offset after it; raises IndexError at the end of *data*, CorruptError."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    start = at
    for shift in range(7, 70, 7):
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= _LIMIT:
                break
            return value, at + 1
    raise CorruptError(f"number longer than 64 bits at {start} of {len(data)}")


def sized(data: bytes) -> bytes:
    """Return *data* behind its length."""
    return varint(len(data)) + data


def read_sized(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes at *at* and the offset after them; raises IndexError at the end of *data*, CorruptError."""
    length, at = read_varint(data, at)
    end = at + length
    if end > len(data):
        raise IndexError
    return data[at:end], end
