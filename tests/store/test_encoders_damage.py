import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core.location import BSDIFF, EXTENTS, PATCH, PLAIN, XDELTA
from dkfs.errors import CorruptError
from dkfs.store.encoders import ENCODERS, Contents, Library, decode_delta
from tests.alike import alike, mutated

CHECKOUT = Path(__file__).resolve().parents[2]
RANDOM = random.Random(1).randbytes(65_536)
CHANGED = RANDOM[:30_000] + random.Random(2).randbytes(100) + RANDOM[30_100:]
CODES: dict[Library, int] = {"extents": EXTENTS, "zstd": PATCH, "bsdiff": BSDIFF, "xdelta": XDELTA}


def test_a_delta_of_an_unknown_encoding_is_corrupt() -> None:
    for encoding in (PLAIN, 6, 255):
        with pytest.raises(CorruptError, match=f"delta of encoding {encoding}, need 2 to 5"):
            decode_delta(encoding, b"", b"", 0)


@pytest.mark.parametrize("encoding", CODES.values())
@given(payload=st.binary(), reference=st.binary(max_size=50), length=st.integers(0, 2000))
def test_any_bytes_make_as_many_bytes_or_are_corrupt(
    encoding: int, payload: bytes, reference: bytes, length: int
) -> None:
    try:
        made = decode_delta(encoding, payload, reference, length)
    except CorruptError:
        return
    assert len(made) == length


@pytest.mark.parametrize("library", CODES)
@given(contents=alike(), seed=st.integers(0, 2**32))
def test_a_damaged_payload_makes_as_many_bytes_or_is_corrupt(
    library: Library, contents: tuple[bytes, bytes], seed: int
) -> None:
    data, reference = contents
    encoder = ENCODERS[library]
    payload = encoder.encode(Contents(data, lambda: reference, None)) or b""

    try:
        damaged = mutated(random.Random(seed), payload)
        made = decode_delta(encoder.code, damaged, reference, len(data))
    except CorruptError:
        return
    assert len(made) == len(data)


@pytest.mark.parametrize("library", CODES)
def test_a_payload_makes_no_other_length(library: Library) -> None:
    payload = ENCODERS[library].encode(Contents(CHANGED, lambda: RANDOM, None))
    assert payload is not None

    for length in (0, len(CHANGED) - 1, len(CHANGED) + 1, 1 << 40):
        with pytest.raises(CorruptError):
            decode_delta(CODES[library], payload, RANDOM, length)


@pytest.mark.parametrize("library", CODES)
def test_a_payload_that_is_cut_is_corrupt(library: Library) -> None:
    payload = ENCODERS[library].encode(Contents(CHANGED, lambda: RANDOM, None))
    assert payload is not None

    for end in range(len(payload)):
        with pytest.raises(CorruptError):
            decode_delta(CODES[library], payload[:end], RANDOM, len(CHANGED))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_payloads_and_bombs_need_little_memory_and_end_no_process(seed: int) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "tests.store.decode_child", str(seed)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert child.returncode == 0, child.stderr
    assert "corrupt" in child.stdout
