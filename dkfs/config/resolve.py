"""Layers of given values turned into the settings of a mount."""

from pathlib import Path

from dkfs.config.contents import chunking_of, encoding_of
from dkfs.config.seed import check_seed
from dkfs.config.settings import (
    DEFAULT_METRICS_ADDR,
    DEFAULT_SCRUB_INTERVAL,
    DEFAULT_STATE_DIR,
    DEFAULT_STORE,
    MountSettings,
)
from dkfs.config.sources import Layer
from dkfs.config.values import Given, boolean, choice, interval, path, seconds, size
from dkfs.store.reserve import RESERVE_SIZE


def resolve(given: Layer, *, base: Path) -> MountSettings:
    """Return the settings that *given* says, defaults for the rest; raises UsageError.

    Relative paths are relative to *base*, an absolute path.
    """
    check_seed(given)

    def default(name: str, text: str) -> Given:
        return given.get(name, Given(text, f"default {name}"))

    is_read_only = boolean(default("read_only", "false"))  # then nothing is there to be measured
    state_given = default("state_dir", str(DEFAULT_STATE_DIR))
    state_dir = path(state_given, base=base)
    log_file = given.get("log_file")
    return MountSettings(
        state_dir=state_dir,
        mountpoint=path(default("mountpoint", str(state_dir)), base=base),
        store=path(default("store", str(DEFAULT_STORE)), base=base),
        allow_other=boolean(default("allow_other", "false")),
        read_only=is_read_only,
        suid=boolean(default("suid", "false")),
        dev=boolean(default("dev", "false")),
        exec=boolean(default("exec", "true")),
        noatime=boolean(default("noatime", "false")),
        sync=boolean(default("sync", "false")),
        dirsync=boolean(default("dirsync", "false")),
        snapdir=choice(default("snapdir", "hidden"), ("hidden", "visible", "disabled")),
        engine=choice(default("engine", "auto"), ("auto", "kernel", "pyfuse3")),
        io=choice(default("io", "strict"), ("strict", "hybrid", "checkpoint")),
        fsname=default("fsname", _source(state_given, state_dir)).text,
        capture_interval_s=seconds(default("capture_interval", "1s")),
        hash_algo=choice(default("hash_algo", "blake3"), ("blake3", "sha256")),
        chunking=chunking_of(given),
        encoding=encoding_of(given),
        metrics_addr=None
        if is_read_only
        else default("metrics_addr", DEFAULT_METRICS_ADDR).text or None,
        log_file=path(log_file, base=base) if log_file else None,
        debug=boolean(default("debug", "false")),
        budget=size(default("budget", "0")) or None,
        reserve=size(default("reserve", str(RESERVE_SIZE))),
        on_store_error=choice(default("on_store_error", "continue"), ("continue", "fail")),
        scrub_interval_s=interval(default("scrub_interval", DEFAULT_SCRUB_INTERVAL)),
        prefer=choice(default("prefer", "newer"), ("newer", "store", "dir")),
    )


def _source(given: Given, state_dir: Path) -> str:
    # mount -a takes what is in fstab for mounted only if mountinfo has the same text.
    return given.text if given.text.startswith("/") else str(state_dir)
