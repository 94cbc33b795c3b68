"""All workloads, in the order in which they run and are shown."""

from bench.workload import Workload
from bench.workload_data import (
    Capture,
    CaptureOfPart,
    FsyncLatency,
    RandomReads4K,
    RandomWrites4K,
    SequentialReads1M,
    SequentialWrites1M,
    SequentialWrites4K,
)
from bench.workload_names import (
    Create,
    Lookup,
    LookupNegative,
    Memory,
    Rename,
    StatHot,
    Unlink,
)
from bench.workload_programs import GitClone, Make, SqliteDelete, SqliteWal, Untar, UntarXz

WORKLOADS: tuple[type[Workload], ...] = (
    SequentialWrites4K,
    SequentialWrites1M,
    RandomWrites4K,
    RandomReads4K,
    SequentialReads1M,
    Create,
    StatHot,
    Lookup,
    LookupNegative,
    Rename,
    Untar,
    UntarXz,
    GitClone,
    SqliteWal,
    SqliteDelete,
    Make,
    FsyncLatency,
    Capture,
    CaptureOfPart,
    Memory,
    Unlink,  # the last, because ext4 makes files slowly after it: see run._make_room
)
