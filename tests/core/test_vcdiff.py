import random
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core import vcdiff
from dkfs.core.matches import copies_by_content
from dkfs.errors import CorruptError
from tests.alike import alike, edit, mutated

XDELTA3 = shutil.which("xdelta3")
MAGIC = bytes.fromhex("d6c3c40000")

# RFC 3284 leaves no test vectors; these use what encode() does not.
REFERENCE = b"abcdefghijklmnop"


def window(target: int, sections: tuple[bytes, bytes, bytes], *, head: str = "011000") -> bytes:
    """Return a delta of one window over all of REFERENCE."""
    literals, instructions, addresses = sections
    sizes = bytes((target, 0, *map(len, sections)))
    body = sizes + literals + instructions + addresses
    return MAGIC + bytes.fromhex(head) + bytes((len(body),)) + body


def encode(data: bytes, reference: bytes) -> bytes:
    return vcdiff.encode(data, len(reference), copies_by_content(data, reference))


@given(alike())
def test_a_delta_makes_what_it_was_made_of(contents: tuple[bytes, bytes]) -> None:
    data, reference = contents

    assert vcdiff.decode(encode(data, reference), reference, len(data)) == data


@pytest.mark.parametrize(
    ("sections", "made"),
    [
        ((b"", b"\x14", b"\x04"), b"efgh"),  # COPY 4, mode 0: from address 4
        ((b"", b"\x24", b"\x04"), b"mnop"),  # mode 1: 4 back from here
        ((b"", b"\x14\x34", b"\x04\x01"), b"efghfghi"),  # mode 2: 1 behind the first near one
        ((b"", b"\x14\x74", b"\x04\x04"), b"efghefgh"),  # mode 6: the one that ended in 4
        ((b"", b"\x13\x0c\x13\x08", b"\x0c\x10"), b"mnop" * 5),  # past the reference, onto itself
        ((b"", b"\x13\x0a", b"\x0e"), b"op" * 5),
        ((b"z", b"\x00\x05", b""), b"zzzzz"),  # RUN
        ((b"xy", b"\xa6", b"\x04"), b"xyefgh"),  # ADD 2, COPY 4
        ((b"x", b"\xf7", b"\x04"), b"efghx"),  # COPY 4, ADD 1
        ((b"q" * 18, b"\x01\x12", b""), b"q" * 18),  # ADD of a size that is written out
    ],
)
def test_every_kind_of_instruction_is_understood(
    sections: tuple[bytes, bytes, bytes], made: bytes
) -> None:
    assert vcdiff.decode(window(len(made), sections), REFERENCE, len(made)) == made


def test_several_windows_are_joined() -> None:
    one = window(4, (b"", b"\x14", b"\x04"))
    other = window(4, (b"", b"\x14", b"\x01"), head="010802")  # over bytes 2 to 10 only

    assert vcdiff.decode(one + other[5:], REFERENCE, 8) == b"efghdefg"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "starts with , need d6c3c40000"),
        (b"\xd6\xc3\xc4\x00\x01", "starts with d6c3c40001"),
        (MAGIC, "of 0 bytes, need 4"),
        (MAGIC + b"\2", "window of type 0x02"),
        (MAGIC + b"\1\x11\0", "copies bytes 0 to 17 of 16"),
        (window(5, (b"abcd", b"\5", b"")), "window of 5 bytes"),
        (window(3, (b"abcd", b"\5", b"")), "makes 4 bytes where 3 are left"),
        (window(4, (b"abc", b"\5", b"")), "ends too early"),
        (window(4, (b"abcde", b"\5", b"")), "sections that are longer"),
        (window(4, (b"abc", b"\4", b"")), "sections that are longer"),
        (MAGIC + b"\0\x0b" + b"\4\0\4\1\0" + b"abcd" + b"\5" + b"!", "sections that are longer"),
        (window(4, (b"", b"\x14", b"\x10")), "copies from 16, need less than 16"),
        (window(4, (b"", b"\x24", b"\x11")), "copies from -1"),
        (window(4, (b"", b"\x14", b"\xff" * 9 + b"\0")), "longer than 63 bits"),
        (window(4, (b"", b"\x14", b"")), "ends too early"),
        (MAGIC + bytes.fromhex("00 06 04 01 04 00 00 00"), "compression 1"),
        (MAGIC + b"\0\x0a" + b"\xff" * 8 + b"\x7f\0\0\0\0", "window of 9223372036854775807 bytes"),
    ],
)
def test_a_delta_that_cannot_be_is_corrupt(payload: bytes, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        vcdiff.decode(payload, REFERENCE, 4)


@given(alike(), st.integers(0, 2**32))
def test_a_damaged_delta_makes_as_many_bytes_or_is_corrupt(
    contents: tuple[bytes, bytes], seed: int
) -> None:
    data, reference = contents

    try:
        damaged = mutated(random.Random(seed), encode(data, reference))
        made = vcdiff.decode(damaged, reference, len(data))
    except CorruptError:
        return
    assert len(made) == len(data)


@given(st.binary(), st.integers(0, 30))
def test_any_bytes_make_as_many_bytes_or_are_corrupt(body: bytes, length: int) -> None:
    for payload in (body, MAGIC + body, window(length, (body[:9], body[9:30], body[30:50]))):
        try:
            made = vcdiff.decode(payload, REFERENCE, length)
        except CorruptError:
            continue
        assert len(made) == length


def test_a_delta_needs_little_more_than_twice_the_length_it_makes() -> None:
    size = bytes.fromhex("c08000")  # 1 MiB
    payload = MAGIC + b"\0\x0c" + size + b"\0\1\4\0" + b"z" + b"\0" + size

    tracemalloc.start()
    try:
        made = vcdiff.decode(payload, b"", 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert made == b"z" * (1 << 20)
    assert peak < 2.5 * len(made)


@pytest.mark.skipif(XDELTA3 is None, reason="xdelta3 is not installed")
@pytest.mark.parametrize("size", [1, 300, 4096, 300_000])
def test_xdelta3_understands_what_is_written_and_is_understood(size: int, tmp_path: Path) -> None:
    rng = random.Random(size)
    reference = rng.randbytes(size)
    data = bytearray(reference)
    for _ in range(20):
        edit(rng, data, reference)
    new = bytes(data) + b"end"
    paths = {name: tmp_path / name for name in ("old", "new", "ours", "theirs", "made")}
    paths["old"].write_bytes(reference)
    paths["new"].write_bytes(new)
    paths["ours"].write_bytes(encode(new, reference))

    run: list[str | Path] = [XDELTA3 or "", "-f", "-s", paths["old"]]
    subprocess.run([*run, "-d", paths["ours"], paths["made"]], check=True)
    # -A: no name of a file in it; -n: no checksum; -S: no secondary compression.
    subprocess.run(
        [*run, "-e", "-A", "-n", "-S", "none", paths["new"], paths["theirs"]], check=True
    )

    assert paths["made"].read_bytes() == new
    assert vcdiff.decode(paths["theirs"].read_bytes(), reference, len(new)) == new
