"""The settings that say how contents are cut into chunks and encoded; their names are the seed's."""

import logging
from typing import Final

from dkfs.config.sources import Layer
from dkfs.config.values import Given, boolean, choice, count, size
from dkfs.core.chunking import AVERAGE, MARGIN, MAXIMUM, MINIMUM, PIECE, Chunking
from dkfs.errors import UsageError
from dkfs.store.encoders import EncodingPolicy

_MIB: Final = 1024 * 1024
_SPREAD: Final = 4  # between minimum, average and maximum, where only one of them is given
_WINDOW: Final = 64  # bytes that decide about a cut: a gear hash has as many as bits
_DEPTH_MOST: Final = 250

log = logging.getLogger(__name__)


def chunking_of(given: Layer) -> Chunking:
    """Return how files are cut; raises UsageError. What the cutter cannot do is taken as near as it can."""
    default = Chunking()
    sizes: dict[str, int] = {}
    for name in ("chunk_min", "chunk_avg", "chunk_max"):
        if name in given:
            sizes[name] = size(given[name])
    if "chunk_size" in given:
        sizes.setdefault("chunk_avg", size(given["chunk_size"], unit=_MIB))
    minimum, average, maximum = _three(sizes, default)
    if not 0 < minimum <= average <= maximum:
        raise UsageError(
            f"chunks of {minimum} to {maximum} bytes, {average} on average:"
            " expected 0 < --chunk-min <= --chunk-avg <= --chunk-max"
        )
    if "chunk_hash_window" in given:
        _look_at_window(given["chunk_hash_window"])
    threshold = default.threshold
    if "chunk_threshold" in given:
        threshold = size(given["chunk_threshold"], unit=_MIB)
    average = _within(average, AVERAGE, "--chunk-avg" if "chunk_avg" in sizes else "")
    return Chunking(
        enabled=boolean(given.get("enable_chunking", Given("true", "default enable_chunking"))),
        minimum=_within(
            minimum,
            (MINIMUM[0], min(MINIMUM[1], average - MARGIN)),
            "--chunk-min" if "chunk_min" in sizes else "",
        ),
        average=average,
        maximum=_within(
            maximum,
            (max(MAXIMUM[0], average), MAXIMUM[1]),
            "--chunk-max" if "chunk_max" in sizes else "",
        ),
        threshold=_within(threshold, (0, PIECE), "--chunk-threshold"),
    )


def encoding_of(given: Layer) -> EncodingPolicy:
    """Return how blobs are encoded; raises UsageError."""
    default = EncodingPolicy()
    depth = default.depth
    if "snapshot_interval" in given:
        depth = count(given["snapshot_interval"])
        if depth < 1:
            raise UsageError(f"{given['snapshot_interval'].where}: 0, expected at least 1")
    return EncodingPolicy(
        diff=boolean(given.get("enable_diff", Given("true", "default enable_diff"))),
        library=choice(
            given.get("diff_library", Given(default.library, "default diff_library")),
            ("auto", "extents", "zstd", "bsdiff", "xdelta"),
        ),
        depth=min(depth, _DEPTH_MOST),
    )


def _three(sizes: dict[str, int], default: Chunking) -> tuple[int, int, int]:
    """Return minimum, average and maximum; what is not given follows from what is."""
    if not sizes:
        return default.minimum, default.average, default.maximum
    average = sizes.get("chunk_avg")
    if average is None:
        average = default.average
        if "chunk_min" in sizes:
            average = max(average, sizes["chunk_min"] * _SPREAD)
        if "chunk_max" in sizes:
            average = min(average, max(sizes["chunk_max"] // _SPREAD, sizes.get("chunk_min", 1)))
    minimum = sizes.get("chunk_min", max(1, average // _SPREAD))
    return minimum, average, sizes.get("chunk_max", average * _SPREAD)


def _within(value: int, bounds: tuple[int, int], flag: str) -> int:
    """Return *value* as near as *bounds* allow; say so of what was given by *flag*, empty: by none."""
    taken = min(max(value, bounds[0]), bounds[1])
    if taken != value and flag:
        log.warning("%s %d is taken as %d, the nearest that can be done", flag, value, taken)
    return taken


def _look_at_window(given: Given) -> None:
    window = count(given)
    if window < 1:
        raise UsageError(f"{given.where}: {given.text!r}, expected at least 1")
    if window != _WINDOW:
        log.warning("%s %d: chunks are cut by a hash over %d bytes", given.where, window, _WINDOW)
