"""Memory that is given back to the system: what a scan or a long listing left behind counts as the daemon's otherwise."""

import ctypes
import logging
import os
from pathlib import Path
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_MADV_DONTNEED: Final = (
    4  # sys/mman.h: of a shared map of a file it drops the map's entries, not the file's pages
)

log = logging.getLogger(__name__)


def give_back(index: Path) -> None:
    """Let go of free memory, and of pages of *index*, which LMDB has mapped, that somebody has looked at.

    The kernel goes on caching them.  In any thread: it takes some 10 ms, and keeps nobody.
    """
    if hasattr(_libc, "malloc_trim"):  # glibc
        _libc.malloc_trim(ctypes.c_size_t(0))
    for start, end in mapped(index):
        if _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED):
            log.debug("pages of %s stay mapped: errno %d", index, ctypes.get_errno())


def resident() -> int:
    """Return how many bytes of memory this process has, with what it has mapped; 0 if that cannot be seen."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def mapped(path: Path) -> list[tuple[int, int]]:
    """Return where this process has mapped the file *path*, as addresses of begin and end."""
    try:
        lines = Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    ranges = []
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(path.resolve()):
            start, _, end = fields[0].partition("-")
            ranges.append((int(start, 16), int(end, 16)))
    return ranges
