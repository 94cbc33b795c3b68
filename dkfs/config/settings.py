"""The settings of one mount, complete and checked: what every layer above is constructed from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dkfs.core.chunking import Chunking
from dkfs.core.io_mode import IoMode, IoRule, IoRules
from dkfs.core.retention import Rules
from dkfs.store.encoders import DEFAULT as DEFAULT_ENCODING
from dkfs.store.encoders import EncodingPolicy
from dkfs.store.reserve import RESERVE_SIZE

Snapdir = Literal["hidden", "visible", "disabled"]
Engine = Literal["auto", "kernel", "pyfuse3"]
Io = Literal["strict", "hybrid", "checkpoint"]
HashAlgo = Literal["blake3", "sha256"]
Prefer = Literal["newer", "store", "dir"]
OnStoreError = Literal["continue", "fail"]

DEFAULT_STATE_DIR: Final = Path("/data")  # the seed's
DEFAULT_STORE: Final = Path(
    "/deltas/db"
)  # the seed's /deltas/db.bolt; the store is a directory here
_CHUNKING: Final = Chunking()
# As the timers of ZFS and btrfs have it: often enough to find what rots while another copy is still to be had, and
# seldom enough that reading everything, at 20 MiB a second, is a small part of what a disk does.
DEFAULT_SCRUB_INTERVAL: Final = "30d"
SCRUB_RATE: Final = (
    20 << 20
)  # bytes a second: 1 GiB in less than a minute, a tenth of what a slow disk can do
DEFAULT_METRICS_ADDR: Final = ":9911"  # the seed's


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSettings:
    """Everything that a mount is made with."""

    state_dir: Path  # backing directory, absolute
    mountpoint: Path  # absolute; may be the state_dir itself
    store: Path  # absolute; need not exist
    allow_other: bool = False
    read_only: bool = False
    history_only: bool = (
        False  # a mount of the history alone, read-only; state_dir is the store then
    )
    suid: bool = False
    dev: bool = False
    exec: bool = True
    noatime: bool = False
    sync: bool = False
    dirsync: bool = False
    snapdir: Snapdir = "hidden"
    engine: Engine = "auto"
    io: Io = "strict"  # how files are served that no rule is about
    io_rules: tuple[IoRule, ...] = ()  # the first that matches decides
    fsname: str = "dkfs"  # the source shown in mountinfo; mount -a compares it with fstab
    capture_interval_s: float = 1.0  # seconds, > 0: how often files that stay open get a version
    hash_algo: HashAlgo = "blake3"  # of a new store; an existing one keeps its own
    chunking: Chunking = _CHUNKING  # how files are cut
    encoding: EncodingPolicy = DEFAULT_ENCODING  # how blobs are stored
    metrics_addr: str | None = DEFAULT_METRICS_ADDR  # None: no metrics
    log_file: Path | None = None  # None: stderr
    debug: bool = False
    budget: int | None = None  # bytes of the store above which versions are forgotten; None: never
    reserve: int = RESERVE_SIZE  # bytes of the disk kept for when it is full
    on_store_error: OnStoreError = (
        "continue"  # whether applications go on while nothing is recorded
    )
    retention: Rules | None = None  # what is kept when versions are forgotten; None: not said
    scrub_interval_s: float | None = 30 * 86_400.0  # between scrubs; None: none unasked
    prefer: Prefer = "newer"  # who wins at a mount when the state_dir and the store differ

    @property
    def io_modes(self) -> IoRules:
        """How each file is to be served."""
        return IoRules(IoMode(self.io), self.io_rules)
