"""What a disk may hold after a power cut: a model of files, names, and what of them is durable.

A journalling file system is assumed: of the changes of names in a directory that were not synced a prefix is there; of
the writes to a file since its last sync any subset, each whole or in sectors; what is missing before something that is
there reads as zeros.
"""

import itertools
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.crash.shim import Entry, Op

ACKS: Final = b"acks"  # the file beside the store to which the workload writes what was promised
EXHAUSTIVE: Final = 6  # so many unsynced changes in every combination
_SAMPLES: Final = 14  # random combinations otherwise
_SECTORS: Final = (512, 4096)

Image = dict[bytes, bytes | None]  # by path: the contents; None for a directory


@dataclass(frozen=True, slots=True)
class Change:
    """A write or truncation of a file."""

    offset: int  # of a truncation: the size
    data: bytes | None  # None: a truncation
    is_direct: bool = False  # past the page cache, into room that is durable


@dataclass(eq=False, slots=True)
class File:
    """The bytes of one inode."""

    durable: bytes = b""
    pending: list[Change] = field(default_factory=list)
    is_dir: bool = False

    def sync(self) -> None:
        """Make all that was changed durable."""
        self.durable, self.pending = content(self.durable, self.pending), []

    def flush(self) -> None:
        """Make durable what only the cache of the disk has kept from being that."""
        direct = [change for change in self.pending if change.is_direct]
        self.durable = content(self.durable, direct)
        self.pending = [change for change in self.pending if not change.is_direct]


@dataclass(frozen=True, slots=True)
class Rename:
    """A change of names: *file* comes to *new*, or the name *old* goes, or both."""

    old: bytes | None
    new: bytes | None
    file: File | None


@dataclass(frozen=True, slots=True)
class State:
    """What may be found after a cut."""

    image: Image
    at: int  # entries of the log before the cut
    acks: int  # promises before the cut
    how: str  # for people
    is_sampled: bool  # there were too many unsynced changes for every combination


class Disk:
    """A disk that entries of a log are played to."""

    def __init__(self) -> None:
        self.acks: list[bytes] = []
        self._durable: dict[bytes, File] = {}
        self._names: dict[bytes, File] = {}
        self._pending: list[Rename] = []
        self._inodes: dict[int, File] = {}

    @classmethod
    def holding(cls, image: Image, directory: Path) -> "Disk":
        """Return a disk on which *image*, written to *directory*, is durable."""
        disk = cls()
        for name, data in image.items():
            file = File(data or b"", is_dir=data is None)
            disk._durable[name] = disk._names[name] = file
            disk._inodes[(directory / os.fsdecode(name)).stat().st_ino] = file
        return disk

    def play(self, entry: Entry) -> None:
        """Do what *entry* says."""
        if entry.path == ACKS:
            if entry.op is Op.WRITE:
                self.acks.append(entry.data)
        elif entry.op in (Op.WRITE, Op.TRUNCATE, Op.SPACE, Op.DURABLE, Op.DIRECT):
            self._change(self._inodes[entry.inode], entry)
        elif entry.op is Op.FLUSH:
            for file in self._inodes.values():
                file.flush()
        elif entry.op is Op.SYNC:
            self._sync(entry)
        else:
            self._name(entry)

    def _change(self, file: File, entry: Entry) -> None:
        if entry.op is Op.SPACE:
            return  # room, and a size that a truncation has given before
        data = None if entry.op is Op.TRUNCATE else entry.data
        has_room = entry.offset + len(entry.data) <= len(file.durable) and not any(
            change.data is None for change in file.pending
        )
        is_direct = entry.op is Op.DIRECT and has_room
        file.pending.append(Change(entry.offset, data, is_direct))
        if entry.op is Op.DURABLE:
            *others, last = file.pending
            file.durable, file.pending = content(file.durable, [last]), others

    def _sync(self, entry: Entry) -> None:
        found = self._names.get(entry.path)
        file = found if found is not None and found.is_dir else self._inodes.get(entry.inode)
        if entry.path and file is not None and not file.is_dir:
            file.sync()
            return
        kept = []
        for change in self._pending:
            if entry.path in {_parent(name) for name in (change.old, change.new) if name}:
                _do(self._durable, change)
            else:
                kept.append(change)
        self._pending = kept

    def _name(self, entry: Entry) -> None:
        if entry.op in (Op.CREATE, Op.MKDIR):
            file = File(is_dir=entry.op is Op.MKDIR)
            if entry.op is Op.CREATE:
                self._inodes[entry.inode] = file
            change = Rename(None, entry.path, file)
        elif entry.op is Op.RENAME:
            change = Rename(entry.path, entry.data, self._names[entry.path])
        elif entry.op in (Op.UNLINK, Op.RMDIR):
            change = Rename(entry.path, None, None)
        else:
            raise NotImplementedError(entry.op.name)
        _do(self._names, change)
        self._pending.append(change)

    def states(
        self, at: int, rng: random.Random, *, exhaustive: int = EXHAUSTIVE
    ) -> Iterator[State]:
        """Yield what may be found after a cut now; everything if at most *exhaustive* changes are not synced."""
        acks = len(self.acks)
        known: dict[tuple[File, tuple[Change, ...]], bytes] = {}
        for count in range(len(self._pending) + 1):
            names = dict(self._durable)
            for change in self._pending[:count]:
                _do(names, change)
            files = [file for file in dict.fromkeys(names.values()) if file.pending]
            total = sum(len(file.pending) for file in files)
            for chosen, how in _choices(files, total, rng, exhaustive):
                image: Image = {}
                for name, file in names.items():
                    which = file, tuple(chosen.get(file, ()))
                    if which not in known:
                        known[which] = content(file.durable, which[1])
                    image[name] = None if file.is_dir else known[which]
                which_names = f"{count}/{len(self._pending)} names"
                yield State(image, at, acks, f"{which_names}, {how}", total > exhaustive)


def _do(names: dict[bytes, File], change: Rename) -> None:
    if change.old is not None:
        names.pop(change.old, None)
    if change.new is not None and change.file is not None:
        names[change.new] = change.file


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def content(durable: bytes, changes: Sequence[Change]) -> bytes:
    """Return what *durable* becomes by *changes*."""
    if not changes:
        return durable
    data = bytearray(durable)
    for change in changes:
        if change.data is None:
            if len(data) > change.offset:
                del data[change.offset :]
            data.extend(bytes(change.offset - len(data)))
        else:
            data.extend(bytes(max(0, change.offset - len(data))))
            data[change.offset : change.offset + len(change.data)] = change.data
    return bytes(data)


Choice = tuple[dict[File, list[Change]], str]


def _choices(
    files: list[File], total: int, rng: random.Random, exhaustive: int
) -> Iterator[Choice]:
    """Yield which of the unsynced changes of *files*, *total* in all, are on the disk."""
    if total <= exhaustive:
        masks: Iterable[tuple[int, ...]] = itertools.product((0, 1), repeat=total)
    else:
        masks = itertools.chain(
            (tuple(int(i < n) for i in range(total)) for n in _some(total + 1, rng)),
            (tuple(int(i != n) for i in range(total)) for n in _some(total, rng)),
            (tuple(int(i == n) for i in range(total)) for n in _some(total, rng)),
            (tuple(rng.randrange(2) for _ in range(total)) for _ in range(_SAMPLES)),
        )
    for mask in masks:
        yield _masked(files, mask), f"changes {''.join(map(str, mask))}"
    for _ in range(min(_SAMPLES, 2 * total)):
        size, zeros = rng.choice(_SECTORS), rng.random() < 0.25
        torn = {file: [*_torn(file, size, rng, zeros=zeros)] for file in files}
        yield torn, f"torn by {size}{', zeros' if zeros else ''}"


def _some(count: int, rng: random.Random) -> list[int]:
    return sorted(rng.sample(range(count), min(count, 2 * _SAMPLES)))


def _masked(files: list[File], mask: tuple[int, ...]) -> dict[File, list[Change]]:
    bits = iter(mask)
    return {file: [change for change in file.pending if next(bits)] for file in files}


def _torn(file: File, sector: int, rng: random.Random, *, zeros: bool) -> Iterator[Change]:
    """Yield the changes of *file*, of some only sectors; with *zeros* new room may be there without its contents."""
    for change in file.pending:
        fate = rng.random()
        if change.data is None or fate < 0.4:
            yield change
            continue
        end = change.offset + len(change.data)
        start = change.offset
        while start < end:
            stop = min(end, (start // sector + 1) * sector)
            if rng.random() < 0.5:
                piece = change.data[start - change.offset : stop - change.offset]
                yield Change(start, piece)
            elif zeros and start >= len(file.durable):
                yield Change(start, bytes(stop - start))
            start = stop
