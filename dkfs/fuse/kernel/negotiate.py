"""INIT: what the kernel offers, and what dkfs takes of it.  Pure.

The flags that are taken, and why the others are not, are in docs/decisions/0009.
"""

from dataclasses import dataclass
from typing import Final

from dkfs.fuse.engine import NotSupportedError
from dkfs.fuse.kernel.messages import (
    INIT_FLAGS2_IN,
    INIT_IN,
    INIT_OUT,
    MAJOR,
    MINOR_LEAST,
    MINOR_MOST,
    Init,
)

MAX_WRITE: Final = 1 << 20  # bytes; the kernel takes at most fs.fuse.max_pages_limit pages
_PAGE: Final = 4096
_FLAGS2_AT: Final = INIT_IN.size
_MAX_BACKGROUND: Final = (
    64  # requests nobody waits for that the kernel sends at once: read-ahead, ...
)
_CONGESTION: Final = 48

_WANTED: Final = (
    Init.ASYNC_READ
    | Init.ATOMIC_O_TRUNC  # the overlay's open saves what O_TRUNC is about to cut off
    | Init.EXPORT_SUPPORT
    | Init.BIG_WRITES
    | Init.DONT_MASK  # a default ACL takes the place of the umask
    | Init.HAS_IOCTL_DIR
    | Init.DO_READDIRPLUS  # always, not as the kernel guesses: 0009
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.POSIX_ACL
    | Init.ABORT_ERROR
    | Init.MAX_PAGES
    | Init.CACHE_SYMLINKS
    | Init.EXPLICIT_INVAL_DATA  # dkfs owns the backing directory and invalidates by itself
    | Init.SETXATTR_EXT
    | Init.INIT_EXT
    | Init.HAS_EXPIRE_ONLY
    | Init.DIRECT_IO_ALLOW_MMAP
)
# The kernel is to look whether its pages are still true.
_WANTED_OF_SHARED: Final = (
    _WANTED & ~(Init.EXPLICIT_INVAL_DATA | Init.CACHE_SYMLINKS) | Init.AUTO_INVAL_DATA
)
_NOTHING: Final = Init(0)


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed upon."""

    minor: int = MINOR_LEAST
    flags: Init = _NOTHING  # taken
    max_readahead: int = 128 * 1024  # bytes
    max_write: int = MAX_WRITE  # bytes
    max_stack_depth: int = 0  # of file systems, this one included; 0: no passthrough


def negotiate(
    body: bytes, *, is_root: bool, stack_depth: int = 0, is_shared: bool = False
) -> tuple[Terms | None, bytes]:
    """Return the terms and the payload of the reply to an INIT request with *body*.

    None if the kernel speaks a later major version: it asks again.  *stack_depth*: 0 for no passthrough, 1 for
    passthrough, 2 if the backing file system is itself stacked (overlayfs): then no other can be stacked on the
    mount.  *is_shared*: others change the backing directory too.
    Raises NotSupportedError.
    """
    major, minor, readahead, low = INIT_IN.unpack_from(body)
    if major > MAJOR:
        return None, INIT_OUT.pack(MAJOR, MINOR_MOST, *(0,) * 11)
    if major < MAJOR or minor < MINOR_LEAST:
        raise NotSupportedError(
            f"FUSE protocol {major}.{minor}, need at least {MAJOR}.{MINOR_LEAST}"
        )
    offered = low
    if low & Init.INIT_EXT and len(body) >= _FLAGS2_AT + INIT_FLAGS2_IN.size:
        offered |= INIT_FLAGS2_IN.unpack_from(body, _FLAGS2_AT)[0] << 32
    wanted = _WANTED_OF_SHARED if is_shared else _WANTED
    if is_root:
        wanted |= Init.HANDLE_KILLPRIV_V2  # users cannot take set-id bits and capabilities away
        wanted |= Init.PASSTHROUGH if stack_depth else 0
    taken = Init(offered) & wanted
    terms = Terms(
        minor=min(minor, MINOR_MOST),
        flags=taken,
        max_readahead=readahead,
        max_write=MAX_WRITE if taken & Init.MAX_PAGES else 32 * _PAGE,
        max_stack_depth=stack_depth if taken & Init.PASSTHROUGH else 0,
    )
    return terms, INIT_OUT.pack(
        MAJOR,
        terms.minor,
        terms.max_readahead,
        taken & 0xFFFFFFFF,
        _MAX_BACKGROUND,
        _CONGESTION,
        terms.max_write,
        1,  # ns: the granularity of times
        MAX_WRITE // _PAGE if taken & Init.MAX_PAGES else 0,
        0,
        taken >> 32,
        terms.max_stack_depth,
        0,  # no timeout of requests: fsync waits for a disk
    )
