"""Deltas by bsdiff4: what is alike but for a byte here and there, such as programs with moved addresses.

Not the file format of bsdiff, whose three bzip2 streams cost 150 bytes for the smallest change. A delta is:

    varint   number of steps, then for each of them
      varint   bytes of the reference to which differences are added, from where the last step left off
      varint   new bytes behind them
      signed   how far to go on in the reference then
    rest     the differences of all steps, then the new bytes of all steps, packed (compression.py)

Every step is checked before the library sees it: it gets only what cannot fail.
"""

from collections.abc import Iterator
from typing import Final

from bsdiff4 import core

from dkfs.core.delta import read_signed, signed
from dkfs.core.varint import read_varint, varint
from dkfs.errors import CorruptError
from dkfs.store.compression import pack, unpack

_STEP: Final = 24  # bytes of a step as the library takes it: three numbers


def encode(data: bytes, reference: bytes) -> bytes:
    """Return the delta that makes *data*; takes 20 times the reference of memory."""
    control, differences, new = core.diff(reference, data)
    head = bytearray(varint(len(control) // _STEP))
    for same, added, skip in _numbers(control):
        head += varint(same) + varint(added) + signed(skip)
    return bytes(head) + pack(differences + new)


def decode(payload: bytes, reference: bytes, length: int) -> bytes:
    """Return the *length* bytes that *payload* makes out of *reference*; raises CorruptError."""
    control = bytearray()
    try:
        count, at = read_varint(payload, 0)
        left = length
        position = differences = 0
        for _ in range(count):
            same, at = read_varint(payload, at)
            added, at = read_varint(payload, at)
            skip, at = read_signed(payload, at)
            left -= same + added
            differences += same
            end = position + same
            position = end + skip
            if left < 0 or end > len(reference) or not 0 <= position <= len(reference):
                raise CorruptError(f"bsdiff step of {same} and {added} bytes, then {skip} on")
            for number in (same, added, skip):
                control += core.encode_int64(number)
    except IndexError:
        raise CorruptError(f"bsdiff delta of {len(payload)} bytes ends too early") from None
    if left:
        raise CorruptError(f"bsdiff delta of {length - left} bytes, need {length}")
    body = unpack(payload[at:], length)
    data: bytes = core.patch(
        reference, length, bytes(control), body[:differences], body[differences:]
    )
    return data


def _numbers(control: bytes) -> Iterator[tuple[int, int, int]]:
    """Find the three numbers of each step."""
    for at in range(0, len(control), _STEP):
        same, added, skip = (
            core.decode_int64(bytes(control[i : i + 8])) for i in range(at, at + _STEP, 8)
        )
        yield same, added, skip
