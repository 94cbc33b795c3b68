"""How much of the data path dkfs sits in, file by file: which kind of open is which mode, and may stand beside others.

The kernel (fs/fuse/iomode.c; measured on Linux 6.18) lets an inode be in one of two states while it is open:

    first \\ second       CACHED  DIRECT  PASSTHROUGH  PASSTHROUGH_DIRECT  either, other backing id
    CACHED               ok      ok      EIO          EIO                 EIO
    DIRECT               ok      ok      ok (1)       ok (1)              ok (1)
    PASSTHROUGH          EIO     EIO     ok           ok                  EIO
    PASSTHROUGH_DIRECT   EIO     EIO     ok           ok                  EIO

    (1) EIO once the DIRECT one has been mapped, and then its own mmap fails with ENODEV: never made here.

The application gets the EIO.  So the kinds form two families, with pages in the cache of the mount and
without, and an inode stays in the family of its first open until the last one is released.  The kernel
leaves a family before it sends the RELEASE: what is counted here is never less than what the kernel counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from dkfs.core.patterns import Pattern


class IoMode(StrEnum):
    """What `-o io=` and the rules of the configuration file say of a file."""

    STRICT = "strict"  # dkfs sees every write and every store through a map
    HYBRID = "hybrid"  # reads bypass dkfs, every write(2) passes through it
    CHECKPOINT = "checkpoint"  # reads and writes bypass dkfs; it looks for what changed


class OpenKind(Enum):
    """How the kernel serves one open file."""

    CACHED = auto()  # the page cache of the mount
    DIRECT = auto()  # no page cache
    PASSTHROUGH = auto()  # the kernel reads and writes the backing file itself
    PASSTHROUGH_DIRECT = (
        auto()
    )  # read(2) and write(2) reach dkfs, maps are those of the backing file

    @property
    def is_passthrough(self) -> bool:
        """Whether the kernel needs the backing file for it."""
        return self in (OpenKind.PASSTHROUGH, OpenKind.PASSTHROUGH_DIRECT)


@dataclass(slots=True)
class Opens:
    """How many opens of an inode there are, of each family."""

    paged: int = 0  # CACHED and DIRECT
    passed: int = 0  # PASSTHROUGH and PASSTHROUGH_DIRECT

    def add(self, kind: OpenKind, count: int = 1) -> None:
        """Count *count* more of *kind*."""
        if kind.is_passthrough:
            self.passed += count
        else:
            self.paged += count

    @property
    def is_empty(self) -> bool:
        """Whether nothing is open."""
        return not self.paged and not self.passed


NO_OPENS = Opens()


def decide(mode: IoMode, opens: Opens, *, writes: bool, syncs: bool) -> OpenKind:
    """Return the kind of a further open beside *opens*: that of *mode*, or the nearest that the kernel permits.

    *writes*: it is open for writing.  *syncs*: each of its writes is durable when it returns (O_SYNC,
    O_DSYNC), which takes dkfs, whatever the mode.
    """
    if opens.paged:
        return OpenKind.CACHED
    if mode is IoMode.STRICT:
        if not opens.passed:
            return OpenKind.CACHED
        # Its writes are seen; stores through its maps are not until all others are closed.
        return OpenKind.PASSTHROUGH_DIRECT if writes else OpenKind.PASSTHROUGH
    if writes and (mode is IoMode.HYBRID or syncs):
        return OpenKind.PASSTHROUGH_DIRECT
    return OpenKind.PASSTHROUGH


@dataclass(frozen=True, slots=True)
class IoRule:
    """A mode for the files that a pattern means."""

    pattern: Pattern
    mode: IoMode

    def matches(self, path: bytes) -> bool:
        """Return whether *path*, or a directory above it, is meant."""
        names = path.split(b"/")
        return any(self.pattern.matches(b"/".join(names[:end])) for end in range(len(names), 0, -1))


@dataclass(frozen=True, slots=True)
class IoRules:
    """What is to be done with each file."""

    default: IoMode = IoMode.STRICT
    rules: Sequence[IoRule] = ()  # the first whose pattern matches decides

    @property
    def is_strict(self) -> bool:
        """Whether no file needs the kernel's passthrough."""
        modes = (self.default, *(rule.mode for rule in self.rules))
        return all(mode is IoMode.STRICT for mode in modes)

    def mode_of(self, path: bytes) -> IoMode:
        """Return the mode of the file *path*, relative to the root of the mount."""
        for rule in self.rules:
            if rule.matches(path):
                return rule.mode
        return self.default


STRICT = IoRules()
