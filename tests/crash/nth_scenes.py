"""What is done while the n-th call fails, and what must hold afterwards, whatever failed."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dkfs.errors import DkfsError
from dkfs.history import content, recovery
from dkfs.history.recorder import Recorder
from dkfs.history.replay import reconcile
from dkfs.history.rollback import rollback
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.model.node import Kind
from dkfs.model.operation import NOBODY
from dkfs.overlay.mounted import FileSystem
from dkfs.store import Reader, Store
from dkfs.store.check import check
from dkfs.store.closing import close
from tests.history.forgetting import keep_only
from tests.overlay.world import ME
from tests.store.collecting import collect

SEGMENT_LIMIT = 8000
_TEXT = 200  # bytes of a small file
_ERRNOS = {
    *(errno.EIO, errno.ENOSPC, errno.EINTR, errno.EDQUOT, errno.EROFS, errno.ENOMEM),
}

Said = dict[str, object]


@dataclass(slots=True)
class Place:
    """An open store with a directory, as a mount has them."""

    store: Store
    root_fd: int
    fs: FileSystem | None = None
    promised: dict[str, str] = field(default_factory=dict)  # by name: the contents that were synced
    ticks: int = 1 << 60

    def now(self) -> int:
        self.ticks += 1
        return self.ticks

    def start(self) -> FileSystem:
        recorder = Recorder(
            self.store, clock_ns=self.now, on_commit=lambda _: None, on_drop=lambda _: None
        )
        self.fs = FileSystem(self.root_fd, self.store, recorder, reserved=None, clock_ns=self.now)
        return self.fs


def opened(directory: Path) -> Place:
    root_fd = os.open(directory / "state", os.O_RDONLY | os.O_DIRECTORY)
    try:
        store = recovery.open_store(directory / "store", writable=True, segment_limit=SEGMENT_LIMIT)
    except BaseException:
        close(root_fd)
        raise
    return Place(store, root_fd)


def reconciled(place: Place) -> None:
    reconcile(place.store, place.root_fd, prefer="newer", clock_ns=place.now, identity=b"directory")


def text(seed: object) -> bytes:
    return (b"%s " % str(seed).encode()) * _TEXT


def made(directory: Path) -> None:
    """Make a store with some history, and the directory that it is of."""
    (directory / "state").mkdir(parents=True)
    Store.create(directory / "store")
    place = opened(directory)
    reconciled(place)
    fs = place.start()
    for n in range(6):
        number = fs.names.create(fs.table.root, b"f%d" % n, 0o644, os.O_RDWR, ME)[0]
        fs.files.write(number, 0, text(n))
        fs.files.flush(number)
        fs.files.release(number)
        fs.recorder.flush()
    for n in range(3):
        fs.names.unlink(fs.table.root, b"f%d" % n, ME)
    fs.close()
    place.store.close()


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing that is tried."""

    name: str
    do: Callable[[Place], None]
    prepare: Callable[[Path], None] = lambda _: None
    opens: bool = False  # the opening is a part of it

    def make(self, directory: Path) -> None:
        """Make what it begins with."""
        made(directory)
        self.prepare(directory)

    def begin(self, directory: Path) -> Place | Path:
        """Return the place, open unless the opening is a part of it."""
        if self.opens:
            return directory
        place = opened(directory)
        if self.name in ("record", "rollback", "umount"):
            place.start()
        return place

    def run(self, where: Place | Path) -> Said:
        """Do it; return what the application heard, and what it was promised."""
        place: Place | None = None
        number, error = 0, ""
        try:
            place = opened(where) if isinstance(where, Path) else where
            self.do(place)
        except (DkfsError, OSError) as exc:
            number, error = exc.errno or 0, f"{type(exc).__name__}: {exc}"
        finally:
            if isinstance(where, Path) and place is not None:
                place.store.close()
                close(place.root_fd)
        return {
            "errno": number,
            "error": error,
            "promised": place.promised if place is not None else {},
        }

    def check(self, where: Place | Path, directory: Path, said: Said) -> list[str]:
        """Return what does not hold: after the failure, and after another opening."""
        wrong = []
        if said["errno"] and said["errno"] not in _ERRNOS:
            wrong.append(f"errno {errno.errorcode.get(int(str(said['errno'])))}: {said['error']}")
        if isinstance(where, Place):
            if where.fs is not None:
                with suppress(DkfsError, OSError):
                    if where.fs.resuming.is_due and where.fs.resuming.works():
                        where.fs.resuming.resume()
                with suppress(DkfsError, OSError):
                    where.fs.close()
            where.store.close()
            close(where.root_fd)
        else:
            wrong += closed_all(directory)
        place = opened(directory)
        promised = said["promised"]
        assert isinstance(promised, dict)
        with place.store.read() as reader:
            wrong += [
                f"{name} was synced and is not in any version"
                for name, data in promised.items()
                if not has(reader, os.fsencode(name), data.encode())
            ]
        reconciled(place)
        wrong += [damage.message for damage in check(place.store, read_data=True)]
        with place.store.read() as reader:
            wrong += differences(reader, directory / "state")
        wrong += [
            f"{name} was synced and is not in the directory"
            for name, data in promised.items()
            if (directory / "state" / name).read_bytes() != data.encode()
        ]
        place.store.close()
        return wrong


def closed_all(directory: Path) -> list[str]:
    """Return fds that are still open on the store, where the opening failed."""
    left = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path.startswith(f"{directory}/store"):
                left.append(f"{path} is still open")
    return left


def has(reader: Reader, name: bytes, data: bytes) -> bool:
    """Return whether some version has a file *name* with *data*."""
    for seq in range(reader.last, 0, -1):
        with suppress(DkfsError):
            state = Tree(reader, Seq(seq)).state(Tree(reader, Seq(seq)).resolve(name))
            if content.read(reader, state, 0, state.attr.size) == data:
                return True
    return False


def differences(reader: Reader, state: Path) -> list[str]:
    """Return how the last version differs from the directory."""
    found = {}
    for path, _, node in Tree(reader, reader.last).walk():
        if node.attr.kind is Kind.FILE:
            found[path] = content.read(reader, node, 0, node.attr.size)
    there = {
        os.fsencode(path.name): path.read_bytes() for path in state.iterdir() if path.is_file()
    }
    return [
        f"{os.fsdecode(name)} differs from the last version"
        for name in found.keys() | there.keys()
        if found.get(name) != there.get(name)
    ]


# ---- what is tried


def write(fs: FileSystem, number: int, data: bytes) -> None:
    """Write as an application does that looks at what write(2) returns."""
    done = 0
    while done < len(data):
        done += fs.files.write(number, done, data[done:])


def record(place: Place) -> None:
    """Do what applications do; what is synced is promised."""
    fs = place.fs
    assert fs is not None
    root = fs.table.root
    for n in range(3):
        number = fs.names.create(root, b"new%d" % n, 0o644, os.O_RDWR, ME)[0]
        try:
            write(fs, number, text(f"new {n}"))
            fd, seq = fs.files.fsync(number)
            inode = fs.files.handles[number].inode
            fs.recorder.sync(fd, os.fsync, seq, inode.node)
            fs.recorder.refuse_lost(inode.node)
            is_durable = seq <= max(fs.recorder.committed, fs.recorder._intent.promised)
            if is_durable:
                place.promised[f"new{n}"] = text(f"new {n}").decode()
            fs.files.flush(number)
        finally:
            fs.files.release(number)
    renamed = place.promised.pop("new0", None)
    fs.names.rename(root, b"new0", root, b"moved", 0, ME)
    fs.names.unlink(root, b"f5", ME)
    if fs.recorder.flush() and renamed is not None:
        place.promised["moved"] = renamed


def commit(place: Place) -> None:
    with place.store.write() as writer:
        for _ in range(4):
            writer.put_blob(os.urandom(3000))
        writer.put_checkpoint()


def gc(place: Place) -> None:
    collect(place.store, max_unused=0)


def prune(place: Place) -> None:
    with place.store.read() as reader:
        last = reader.last
    keep_only(place.store, {last})


def roll_back(place: Place) -> None:
    assert place.fs is not None
    place.fs.rollback.roll_back(rollback(Seq(8)), NOBODY, dry_run=False)


def umount(place: Place) -> None:
    assert place.fs is not None
    fs = place.fs
    number = fs.names.create(fs.table.root, b"late", 0o644, os.O_RDWR, ME)[0]
    write(fs, number, text("late"))
    if fs.close():
        place.promised["late"] = text("late").decode()
    place.fs = None


def empty(directory: Path) -> None:
    for path in (directory / "state").iterdir():
        path.unlink()


def forgotten(directory: Path) -> None:
    place = opened(directory)
    prune(place)
    place.store.close()


SCENES = {
    scene.name: scene
    for scene in (
        Scene("record", record),
        Scene("commit", commit),
        Scene("gc", gc, forgotten),
        Scene("prune", prune),
        Scene("rollback", roll_back),
        Scene("replay", reconciled, empty, opens=True),
        Scene("mount", reconciled, opens=True),
        Scene("umount", umount),
    )
}
