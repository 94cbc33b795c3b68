"""The seed's flags: those of contents, which mean here what they meant there, and those for what this release does not do.

Of the latter the value that says so passes, any other is refused. Names of the seed that are dkfs's too (state-dir,
store, debug, metrics-addr, hash-algo) are ordinary settings and are not in this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dkfs.config.values import Given, boolean
from dkfs.errors import UsageError


@dataclass(frozen=True, slots=True)
class SeedFlag:
    """A flag of the seed; without a *help* only one value of it is true of this release."""

    flag: str | None  # without the dashes; None: environment only
    env: str | None  # without the prefix; None: flag only
    same: str | None = None  # the value that says what this release does; None: all are refused
    is_bool: bool = False
    help: str | None = None  # what it does here; see config/contents.py
    shown: str | None = None  # in the help, although there is only one value

    @property
    def name(self) -> str:
        """Return the key under which a given value is kept."""
        return (self.flag or self.env or "").lower().replace("-", "_")


def _switch(flag: str | None, env: str | None, same: str) -> SeedFlag:
    return SeedFlag(flag, env, same, is_bool=True)


def _used(flag: str, env: str, text: str, *, is_bool: bool = False) -> SeedFlag:
    return SeedFlag(flag, env, is_bool=is_bool, help=text)


CONTENT_FLAGS: Final = (
    _used(
        "enable-diff",
        "ENABLE_DIFF",
        "store new contents as differences to older ones",
        is_bool=True,
    ),
    _used("diff-library", "DIFF_LIBRARY", "auto (default), extents, zstd, bsdiff or xdelta"),
    _used("snapshot-interval", "SNAPSHOT_INTERVAL", "so many differences before a whole copy (10)"),
    _used("enable-chunking", "ENABLE_CHUNKING", "cut large files by their contents", is_bool=True),
    _used(
        "chunk-threshold",
        "CHUNK_THRESHOLD_MB",
        "files up to this size are one chunk (64K; a bare number is MiB)",
    ),
    _used("chunk-min", "CHUNK_MIN_BYTES", "size of the smallest chunk (16K)"),
    _used("chunk-avg", "CHUNK_AVG_BYTES", "size of chunks on average (64K)"),
    _used("chunk-max", "CHUNK_MAX_BYTES", "size of the largest chunk (256K)"),
    _used("chunk-size", "CHUNK_SIZE_MB", "the same as --chunk-avg, a bare number is MiB"),
    _used("chunk-hash-window", "CHUNK_HASH_WINDOW", "accepted; a cut is decided by 64 bytes"),
)

SEED_FLAGS: Final = (
    *CONTENT_FLAGS,
    SeedFlag(
        "dedup-scope",
        "DEDUP_SCOPE",
        "container",
        shown="container: equal contents are stored once in each store (cluster comes later)",
    ),
    _switch("enable-ebpf", "ENABLE_EBPF", "false"),
    SeedFlag("ebpf-program", "EBPF_PROGRAM"),
    _switch("fallback-fsnotify", "EBPF_FALLBACK_FSNOTIFY", "false"),
    SeedFlag("profiler-interval", "EBPF_PROFILER_INTERVAL"),
    _switch("enable-profiler", "EBPF_ENABLE_PROFILER", "false"),
    SeedFlag(None, "EBPF_PROFILER_ALPHA"),
    SeedFlag(None, "EBPF_HOT_PATH_THRESHOLD"),
    _switch("auto-inject", "EBPF_AUTO_INJECT", "false"),
    SeedFlag("injector-cmd", "EBPF_INJECTOR_CMD"),
    _switch(None, "EBPF_LIFECYCLE_TRACING", "false"),
    SeedFlag(None, "EBPF_EVENT_BUFFER"),
    SeedFlag(None, "EBPF_LIFECYCLE_BUFFER"),
    SeedFlag("btf-cache-dir", "BTF_CACHE_DIR"),
    SeedFlag("btfhub-mirror", "BTF_MIRROR"),
    _switch("disable-btfhub-download", None, "true"),
    _switch(None, "BTF_ALLOW_DOWNLOAD", "false"),
    _switch("no-exec", None, "false"),
)


def check_seed(given: Mapping[str, Given]) -> None:
    """Raise UsageError if *given* asks for something of the seed that this release does not do."""
    for seed in SEED_FLAGS:
        value = given.get(seed.name)
        if value is None or seed.help is not None:
            continue
        text = value.text
        if seed.is_bool:
            text = "true" if boolean(value) else "false"
        if text != seed.same:
            expected = "leave it out" if seed.same is None else f"only {seed.same} is accepted"
            raise UsageError(f"{value.where}={value.text} is not in this release: {expected}")
