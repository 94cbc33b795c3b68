"""All workloads, in the order in which they run and are shown."""

from bench.workload import Workload
from bench.workload_daemon import Idle, Memory, MemoryOfAMillion
from bench.workload_data import (
    Capture,
    CaptureOfPart,
    MappedReads,
    RandomReads4K,
    RandomWrites4K,
    SequentialReads1M,
    SequentialWrites1M,
    SequentialWrites4K,
)
from bench.workload_names import (
    Create,
    FindSize,
    Lookup,
    LookupNegative,
    OpenClose,
    Rename,
    StatHot,
    Unlink,
)
from bench.workload_programs import (
    GitClone,
    Make,
    NpmInstall,
    SqliteDelete,
    SqliteWal,
    Untar,
    UntarXz,
)
from bench.workload_syncs import FsyncLatency, FsyncTogether

WORKLOADS: tuple[type[Workload], ...] = (
    SequentialWrites4K,
    SequentialWrites1M,
    RandomWrites4K,
    RandomReads4K,
    SequentialReads1M,
    MappedReads,
    StatHot,
    Lookup,
    LookupNegative,
    Create,
    OpenClose,
    Rename,
    Unlink,
    Untar,
    UntarXz,
    GitClone,
    Make,
    NpmInstall,
    SqliteWal,
    SqliteDelete,
    FindSize,
    FsyncLatency,
    FsyncTogether,
    Capture,
    CaptureOfPart,
    Idle,
    Memory,
    MemoryOfAMillion,
)
