import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.journal import (
    TABLES_JOURNALED,
    JournalPart,
    Row,
    decode_journal,
    decode_journal_head,
    encode_journal,
)
from dkfs.errors import CorruptError

rows = st.builds(
    Row,
    table=st.sampled_from(TABLES_JOURNALED),
    key=st.binary(max_size=300),
    record=st.none() | st.binary(max_size=300),
)
parts = st.builds(
    JournalPart,
    txn=st.integers(0, 2**64 - 1),
    part=st.integers(0, 2**32 - 1),
    is_last=st.booleans(),
    is_checkpoint=st.booleans(),
    rows=st.lists(rows, max_size=8).map(tuple),
)
PART = JournalPart(
    7,
    1,
    is_last=True,
    is_checkpoint=False,
    rows=(Row("log", b"key", b"record"), Row("tags", b"t", None), Row("meta", b"", b"")),
)


@given(parts)
def test_a_part_comes_back_as_it_was(part: JournalPart) -> None:
    data = encode_journal(part)

    assert decode_journal(data) == part
    head = decode_journal_head(data)
    assert (head.txn, head.part, head.rows) == (part.txn, part.part, ())
    assert (head.is_last, head.is_checkpoint) == (part.is_last, part.is_checkpoint)


@given(st.binary(max_size=100))
def test_any_bytes_decode_or_are_corrupt(data: bytes) -> None:
    for start in (b"", b"\1\1" + bytes(12)):
        try:
            decode_journal(start + data)
        except CorruptError:
            continue


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_part_with_any_byte_changed_decodes_or_is_corrupt(at: int, bits: int) -> None:
    data = bytearray(encode_journal(PART))
    data[at % len(data)] ^= bits

    try:
        decode_journal(bytes(data))
    except CorruptError:
        pass


def test_a_part_cut_anywhere_is_never_taken_for_the_whole() -> None:
    data = encode_journal(PART)

    for length in range(len(data)):
        try:
            assert decode_journal(data[:length]) != PART
        except CorruptError:
            continue


def test_the_bytes_of_a_part_are_those_of_the_format() -> None:
    assert encode_journal(PART).hex() == (
        "0101" + f"{7:016x}" + "00000001"
        "01" + "036b6579" + "067265636f7264"
        "84" + "0174"
        "00" + "00" + "00"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "0 bytes, need 14"),
        ("02" + "00" * 13, "format 2"),
        ("0104" + "00" * 12, "flags 4"),
        ("0100" + "00" * 12 + "06" + "0000", "table 6"),
        ("0100" + "00" * 12 + "01" + "ffffffff0f", "too early"),
        ("0100" + "00" * 12 + "01" + "01", "too early"),
    ],
)
def test_a_part_that_cannot_be_is_corrupt(data: str, why: str) -> None:
    with pytest.raises(CorruptError, match=why):
        decode_journal(bytes.fromhex(data))
