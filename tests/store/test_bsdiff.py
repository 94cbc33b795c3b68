import random

import pytest
from hypothesis import given

from dkfs.core.delta import signed
from dkfs.core.varint import varint
from dkfs.errors import CorruptError
from dkfs.store import bsdiff
from tests.alike import alike

REFERENCE = b"abcdefghijklmnop"


@given(alike(max_size=500))
def test_a_delta_makes_what_it_was_made_of(contents: tuple[bytes, bytes]) -> None:
    data, reference = contents

    assert bsdiff.decode(bsdiff.encode(data, reference), reference, len(data)) == data


def test_the_bytes_of_a_delta_are_those_of_the_format() -> None:
    # Four bytes with 1 added to each, two new ones, then back by 4 and three bytes as they are.
    payload = bytes((2, 4, 2, 7, 3, 0, 0)) + b"\0" + b"\1\1\1\1" + b"\0\0\0" + b"XY"

    assert bsdiff.decode(payload, REFERENCE, 9) == b"bcde" + b"XY" + b"abc"


def test_a_byte_changed_everywhere_is_a_small_delta() -> None:
    reference = random.Random(1).randbytes(20_000)
    data = bytearray(reference)
    for at in range(0, 20_000, 100):
        data[at] ^= 0x40

    assert len(bsdiff.encode(bytes(data), reference)) < 400


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "ends too early"),
        (b"\1\4", "ends too early"),
        (b"\0\0", "of 0 bytes, need 4"),
        (b"\1\3\0\0\0\0\0\0", "of 3 bytes, need 4"),
        (b"\1\5\0\0", "step of 5 and 0 bytes"),
        (b"\1\0\4\1\0XYZW", "then -1 on"),
        (b"\1\4\0" + signed(13) + b"\0", "then 13 on"),
        (b"\2\0\0" + signed(13) + b"\4\0\0\0\0\0\0\0", "step of 4 and 0 bytes"),
        (b"\1\4\0" + signed(2**62) + b"\0", "step of 4 and 0 bytes"),
        (b"\1" + varint(2**63) + b"\0\0", "step of 9223372036854775808"),
        (b"\1\4\0\0\0abc", "3 packed bytes, need 4"),
    ],
)
def test_a_delta_that_cannot_be_is_corrupt(payload: bytes, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        bsdiff.decode(payload, REFERENCE, 4)


def test_a_step_that_leaves_the_reference_is_corrupt_even_if_it_comes_back() -> None:
    payload = b"\2\x0e\0" + signed(0) + b"\3\0" + signed(-3) + b"\0" + bytes(17)

    with pytest.raises(CorruptError, match="step of 3 and 0 bytes"):
        bsdiff.decode(payload, REFERENCE, 17)
