"""dkfs.config.contents: each flag has its effect on how files are cut and blobs encoded."""

import logging

import pytest

from dkfs.config.contents import chunking_of, encoding_of
from dkfs.config.sources import Layer, from_environment
from dkfs.config.values import Given
from dkfs.core.chunking import Chunking
from dkfs.errors import UsageError
from dkfs.store.encoders import EncodingPolicy

KIB, MIB = 1024, 1024 * 1024


def layer(**given: str) -> Layer:
    return {name: Given(text, f"--{name}") for name, text in given.items()}


def test_nothing_given_is_the_default() -> None:
    assert chunking_of({}) == Chunking()
    assert encoding_of({}) == EncodingPolicy()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"enable_chunking": "false"}, Chunking(enabled=False)),
        ({"chunk_threshold": "1"}, Chunking(threshold=MIB)),
        ({"chunk_threshold": "16K"}, Chunking(threshold=16 * KIB)),
        ({"chunk_avg": "8K"}, Chunking(minimum=2 * KIB, average=8 * KIB, maximum=32 * KIB)),
        ({"chunk_size": "1"}, Chunking(minimum=256 * KIB, average=MIB, maximum=4 * MIB)),
        ({"chunk_size": "1", "chunk_avg": "64K"}, Chunking()),
        ({"chunk_min": "32K"}, Chunking(minimum=32 * KIB, average=128 * KIB, maximum=512 * KIB)),
        ({"chunk_max": "128K"}, Chunking(minimum=8 * KIB, average=32 * KIB, maximum=128 * KIB)),
        (
            {"chunk_min": "1K", "chunk_avg": "4K", "chunk_max": "9K"},
            Chunking(minimum=KIB, average=4 * KIB, maximum=9 * KIB),
        ),
    ],
)
def test_flags_of_chunks_have_their_effect(given: dict[str, str], expected: Chunking) -> None:
    assert chunking_of(layer(**given)) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"enable_diff": "false"}, EncodingPolicy(diff=False)),
        ({"diff_library": "bsdiff"}, EncodingPolicy(library="bsdiff")),
        ({"diff_library": "xdelta"}, EncodingPolicy(library="xdelta")),
        ({"diff_library": "zstd"}, EncodingPolicy(library="zstd")),
        ({"diff_library": "extents"}, EncodingPolicy(library="extents")),
        ({"snapshot_interval": "3"}, EncodingPolicy(depth=3)),
        ({"snapshot_interval": "99999"}, EncodingPolicy(depth=250)),
    ],
)
def test_flags_of_encoding_have_their_effect(
    given: dict[str, str], expected: EncodingPolicy
) -> None:
    assert encoding_of(layer(**given)) == expected


@pytest.mark.expect_logs("is taken as")
def test_the_seeds_own_defaults_are_taken_as_near_as_can_be() -> None:
    environment = {
        "DIFFKEEPER_CHUNK_MIN_BYTES": "1048576",
        "DIFFKEEPER_CHUNK_AVG_BYTES": "8388608",
        "DIFFKEEPER_CHUNK_MAX_BYTES": "67108864",
        "DIFFKEEPER_CHUNK_THRESHOLD_MB": "1024",
        "DIFFKEEPER_CHUNK_HASH_WINDOW": "64",
        "DIFFKEEPER_SNAPSHOT_INTERVAL": "10",
        "DIFFKEEPER_DIFF_LIBRARY": "bsdiff",
    }

    assert chunking_of(from_environment(environment)) == Chunking(
        minimum=MIB, average=4 * MIB, maximum=16 * MIB, threshold=16 * MIB
    )
    assert encoding_of(from_environment(environment)) == EncodingPolicy(library="bsdiff")


@pytest.mark.expect_logs("over 64 bytes")
def test_a_window_that_is_not_the_cutters_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert chunking_of(layer(chunk_hash_window="48")) == Chunking()

    assert "over 64 bytes" in caplog.text


@pytest.mark.parametrize(
    "given",
    [
        {"chunk_min": "128K", "chunk_avg": "64K"},
        {"chunk_avg": "64K", "chunk_max": "32K"},
        {"chunk_avg": "0"},
        {"chunk_avg": "x"},
        {"chunk_hash_window": "0"},
        {"enable_chunking": "perhaps"},
    ],
)
def test_what_makes_no_sense_of_chunks_is_an_error(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="expected"):
        chunking_of(layer(**given))


@pytest.mark.parametrize(
    "given", [{"snapshot_interval": "0"}, {"diff_library": "rsync"}, {"enable_diff": "2"}]
)
def test_what_makes_no_sense_of_encoding_is_an_error(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="expected"):
        encoding_of(layer(**given))


@pytest.mark.expect_logs("--chunk-min 1073741824 is taken as")
def test_only_what_was_given_is_said_to_be_taken_as_something_else() -> None:
    taken = chunking_of(layer(chunk_min="1G"))

    assert taken.minimum < taken.average <= taken.maximum
