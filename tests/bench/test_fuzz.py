"""The decoders of the store bear any bytes: what is sound at once, and a second of looking for what is not."""

import importlib.util
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.fuzz import fuzz
from bench.fuzz_decoders import DECODERS, Decoder, FuzzError, check
from dkfs.errors import CorruptError
from tests.alike import mutated

NAMES = [decoder.name for decoder in DECODERS]
HOARD: list[bytes] = []


def take(data: bytes) -> bytes:
    """Take a mebibyte for one byte."""
    HOARD[:] = [bytes(1 << 20)]
    return data


def refuse(data: bytes) -> bytes:
    raise CorruptError("bytes that are refused")


def fail(data: bytes) -> bytes:
    raise IndexError("bytes that nobody thought of")


def fake(
    decode: Callable[[bytes], bytes],
    encode: Callable[[bytes], bytes] | None = None,
    *,
    is_canonical: bool = False,
) -> Decoder:
    return Decoder("fake", decode, list, encode, is_canonical=is_canonical)


def test_every_decoder_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("decoder", DECODERS, ids=NAMES)
def test_a_decoder_accepts_what_it_begins_with(decoder: Decoder) -> None:
    seeds = decoder.seeds()

    assert seeds
    assert True in [check(decoder, seed) for seed in seeds]


@pytest.mark.parametrize("decoder", DECODERS, ids=NAMES)
def test_a_decoder_bears_damage(decoder: Decoder) -> None:
    rng = random.Random(1)

    for seed in decoder.seeds():
        for _ in range(20):
            check(decoder, mutated(rng, seed))


def test_refused_bytes_are_no_trouble() -> None:
    assert check(fake(bytes), b"x") is True
    assert check(fake(refuse), b"x") is False


def test_another_error_than_the_one_that_is_named_is_trouble() -> None:
    with pytest.raises(IndexError):
        check(fake(fail), b"x")

    assert not tracemalloc.is_tracing()


def test_more_memory_than_is_stated_is_trouble() -> None:
    with pytest.raises(FuzzError, match="1 bytes took"):
        check(fake(take), b"x")


def test_a_value_that_is_written_as_another_is_trouble() -> None:
    with pytest.raises(FuzzError, match="but not when it is written again"):
        check(fake(bytes, bytes.upper), b"x")


def test_a_value_that_can_be_written_in_two_ways_is_trouble_if_it_must_not_be() -> None:
    assert check(fake(bytes.lower, bytes.lower), b"X") is True
    with pytest.raises(FuzzError, match="58 is written as 78"):
        check(fake(bytes.lower, bytes.lower, is_canonical=True), b"X")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed",
)
@pytest.mark.parametrize("name", NAMES)
def test_a_second_of_fuzzing_finds_nothing(name: str, tmp_path: Path) -> None:
    has_found, said = fuzz(name, seconds=1, keep=tmp_path)

    texts = [path.read_text(errors="replace") for path in tmp_path.glob("*.txt")]
    assert not has_found, "\n".join([said, *texts])
    assert " runs in " in said
