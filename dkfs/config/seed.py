"""The seed's flags for what this release does not do: the value that says so passes, any other is refused.

Names of the seed that mean something here (state-dir, store, debug, metrics-addr, hash-algo) are ordinary
settings and are not in this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dkfs.config.values import Given, boolean
from dkfs.errors import UsageError


@dataclass(frozen=True, slots=True)
class SeedFlag:
    """A flag of the seed that only one value of is true of this release."""

    flag: str | None  # without the dashes; None: environment only
    env: str | None  # without the prefix; None: flag only
    same: str | None = None  # the value that says what this release does; None: all are refused
    is_bool: bool = False

    @property
    def name(self) -> str:
        """Return the key under which a given value is kept."""
        return (self.flag or self.env or "").lower().replace("-", "_")


def _switch(flag: str | None, env: str | None, same: str) -> SeedFlag:
    return SeedFlag(flag, env, same, is_bool=True)


SEED_FLAGS: Final = (
    _switch("enable-diff", "ENABLE_DIFF", "false"),
    SeedFlag("diff-library", "DIFF_LIBRARY"),
    _switch("enable-chunking", "ENABLE_CHUNKING", "true"),
    SeedFlag("chunk-size", "CHUNK_SIZE_MB"),
    SeedFlag("chunk-min", "CHUNK_MIN_BYTES"),
    SeedFlag("chunk-avg", "CHUNK_AVG_BYTES"),
    SeedFlag("chunk-max", "CHUNK_MAX_BYTES"),
    SeedFlag("chunk-hash-window", "CHUNK_HASH_WINDOW"),
    SeedFlag("chunk-threshold", "CHUNK_THRESHOLD_MB"),
    SeedFlag("dedup-scope", "DEDUP_SCOPE", "container"),
    SeedFlag("snapshot-interval", "SNAPSHOT_INTERVAL", "1"),
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
        if value is None:
            continue
        text = value.text
        if seed.is_bool:
            text = "true" if boolean(value) else "false"
        if text != seed.same:
            expected = "leave it out" if seed.same is None else f"only {seed.same} is accepted"
            raise UsageError(f"{value.where}={value.text} is not in this release: {expected}")
