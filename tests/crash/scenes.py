"""What is done while dkfs is killed at one of its failpoints: a scene for each group of them.

A scene is prepared in one process and played in another, which dies in it; what it leaves is looked at in a third.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from dkfs import failpoints
from dkfs.config.settings import MountSettings
from dkfs.daemon import session
from dkfs.history.recorder import Recorder
from dkfs.history.rollback import rollback
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.model.operation import NOBODY
from dkfs.overlay.attributes import NewAttributes
from dkfs.overlay.inodes import Inode
from dkfs.overlay.mounted import FileSystem
from dkfs.store import Store
from dkfs.store.collect_repack import note_repacked
from dkfs.store.compact import compact
from dkfs.store.migrate import migrate
from dkfs.store.rebuild import REBUILT_NAME, rebuild, replace_index
from dkfs.store.reserve import Reserve
from dkfs.store.verified import Verified, save
from tests.history.streams import send, take
from tests.mounting import CHECKOUT
from tests.store.collecting import collect, fill, lose

SEGMENT = 20_000  # bytes: several are filled

Say = Callable[[str], None]  # hears of a path whose contents are durable


class Caller(NamedTuple):
    """Who asks for something."""

    pid: int = 0
    uid: int = 0
    gid: int = 0


ME, OTHER = Caller(), Caller(uid=1000, gid=1000)


def settings(top: Path, *, prefer: str = "newer") -> MountSettings:
    """Return the settings of the mount that is prepared below *top*."""
    return MountSettings(
        state_dir=top / "state",
        mountpoint=top / "mnt",
        store=top / "store",
        metrics_addr=None,
        prefer="store" if prefer == "store" else "newer",
    )


@contextmanager
def opened(top: Path, *, prefer: str = "newer") -> Iterator[Store]:
    """Open the store as a daemon does, and make store and directory agree."""
    wanted = settings(top, prefer=prefer)
    wanted.state_dir.mkdir(exist_ok=True)
    with ExitStack() as stack:
        root_fd = session.open_backing(wanted, stack)
        store = session.open_store(wanted, stack)
        session.replay(wanted, store, root_fd, on_progress=lambda *_: None)
        yield store


class World:
    """A file system without a kernel, as a daemon has one."""

    def __init__(self, top: Path, store: Store, stack: ExitStack) -> None:
        self.store = store
        root_fd = stack.enter_context(_directory(top / "state"))
        numbers = iter(range(1 << 62, 1 << 63))
        self.recorder = Recorder(
            store,
            clock_ns=lambda: next(numbers),
            on_commit=lambda _: None,
            on_drop=lambda _: None,
        )
        self.fs = FileSystem(root_fd, store, self.recorder, reserved=None, clock_ns=lambda: 0)
        stack.callback(self.fs.close)

    @property
    def root(self) -> Inode:
        return self.fs.table.root

    def find(self, name: bytes) -> Inode:
        return self.fs.names.lookup(self.root, name)[0]

    def write(self, name: bytes, data: bytes, caller: Caller = ME) -> None:
        number, _, _ = self.fs.names.create(self.root, name, 0o644, os.O_RDWR, caller)
        self.fs.files.write(number, 0, data)
        self.fs.files.release(number)

    def rewrite(self, name: bytes, data: bytes) -> None:
        number = self.fs.files.open(self.find(name), os.O_RDWR | os.O_TRUNC, ME)
        self.fs.files.write(number, 0, data)
        self.fs.files.release(number)


@contextmanager
def world(top: Path, *, prefer: str = "newer") -> Iterator[World]:
    """Be a daemon without a mount."""
    with opened(top, prefer=prefer) as store, ExitStack() as stack:
        yield World(top, store, stack)


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


# ---- scenes


def nothing(top: Path, say: Say) -> None:
    """Make nothing."""


def some_files(top: Path, say: Say) -> None:
    """Make a few of everything, and then other contents of it."""
    with world(top) as here:
        for n in range(6):
            here.write(b"f%d" % n, b"first %d " % n * 500)
        directory, _ = here.fs.names.mkdir(here.root, b"d", 0o755, ME)
        here.fs.names.mkdir(here.root, b"e", 0o755, ME)
        here.fs.names.symlink(here.root, b"l", b"target", ME)
        here.fs.names.rename(here.root, b"f5", directory, b"g", 0, ME)
        here.fs.names.link(here.find(b"f4"), directory, b"h", ME)


def much_changed(top: Path, say: Say) -> None:
    """Make what a rollback has every kind of step for."""
    some_files(top, say)
    with world(top) as here:
        for n in range(3):
            here.rewrite(b"f%d" % n, b"second %d " % n * 300)
        directory = here.find(b"d")
        here.fs.names.unlink(here.root, b"f3", ME)
        here.fs.names.unlink(here.root, b"l", ME)
        here.fs.names.rename(here.root, b"f4", directory, b"moved", 0, ME)
        here.fs.names.rename(here.root, b"d", here.root, b"renamed", 0, ME)
        here.fs.names.rmdir(here.root, b"e", ME)
        inner, _ = here.fs.names.mkdir(here.root, b"new", 0o755, ME)
        here.fs.names.mkdir(inner, b"deep", 0o755, ME)
        here.write(b"later", b"later " * 100)


def work(top: Path, say: Say) -> None:
    """Do everything once that an application can do, each step durable when it was said."""
    with world(top) as here:
        for step in (_contents, _names, _attributes, _tags):
            for path in step(here):
                assert here.recorder.flush()
                say(path)


def _contents(here: World) -> Iterator[str]:
    files, names = here.fs.files, here.fs.names
    here.write(b"a", b"a" * 9000)
    yield "a"
    number = files.open(here.find(b"a"), os.O_RDWR, ME)
    files.write(number, 5000, random.Random(1).randbytes(30_000))
    files.fsync(number)
    yield "a"
    here.fs.attributes.set(here.find(b"a"), NewAttributes(size=100), number, ME)
    files.fallocate(number, 0, 0, 9000)
    target, _, _ = names.create(here.root, b"b", 0o644, os.O_RDWR, ME)
    files.copy_range(number, 0, target, 0, 100)
    files.copy_range(number, 0, target, 0, 4096)
    here.fs.attributes.set(here.find(b"a"), NewAttributes(size=9 << 20), number, ME)
    files.copy_range(number, 0, target, 0, 9 << 20)  # so much is shared, where that can be done
    files.release(number)
    files.release(target)
    yield "b"
    here.fs.attributes.set(here.find(b"b"), NewAttributes(size=50), None, ME)
    yield "b"
    here.rewrite(b"b", b"again")
    yield "b"
    number, inode, _ = names.tmpfile(here.root, 0o600, os.O_RDWR, ME)
    files.write(number, 0, b"nameless")
    names.link(inode, here.root, b"named", ME)
    files.release(number)
    yield "named"


def _names(here: World) -> Iterator[str]:
    names = here.fs.names
    here.write(b"own", b"another's", OTHER)
    yield "own"
    names.mkdir(here.root, b"dir", 0o755, OTHER)
    names.link(here.find(b"a"), here.find(b"dir"), b"link", ME)
    yield "dir/link"
    names.rename(here.root, b"b", here.find(b"dir"), b"moved", 0, ME)
    yield "dir/moved"
    names.unlink(here.root, b"named", ME)
    yield "a"


def _attributes(here: World) -> Iterator[str]:
    attributes = here.fs.attributes
    attributes.set(here.find(b"a"), NewAttributes(mode=0o4755), None, ME)
    number = here.fs.files.open(here.find(b"a"), os.O_RDWR, OTHER)
    here.fs.files.write(number, 0, b"x", kill=True)
    here.fs.files.release(number)
    attributes.setxattr(here.find(b"a"), b"user.x", b"1", ME)
    attributes.removexattr(here.find(b"a"), b"user.x", ME)
    yield "a"


def _tags(here: World) -> Iterator[str]:
    here.fs.tags.tag("name")
    here.fs.tags.untag("name")
    yield "a"


def tag(top: Path, say: Say) -> None:
    """Make a tag, and remove it."""
    with world(top) as here:
        here.fs.tags.tag("name")
        here.fs.tags.untag("name")


def sync(top: Path, say: Say) -> None:
    """Sync what the index does not have as yet."""
    with world(top) as here:
        here.rewrite(b"f0", b"committed")
        assert here.recorder.flush()
        for n in range(3):
            _promise(here, b"f%d" % n, b"promised %d" % n)
            say(f"f{n}")


def promise(top: Path, say: Say) -> None:
    """Sync, and die before the index has it."""
    some_files(top, say)
    with world(top) as here:
        here.rewrite(b"f0", b"committed")
        assert here.recorder.flush()
        failpoints.arm("record.begin=sleep(9)")
        _promise(here, b"f1", b"promised")
        os._exit(0)


def _promise(here: World, name: bytes, data: bytes) -> None:
    number = here.fs.files.open(here.find(name), os.O_RDWR, ME)
    here.fs.files.write(number, 0, data)
    assert here.recorder.secure(here.fs.files.fsync(number)[1])
    here.fs.files.release(number)


def go_back(top: Path, say: Say) -> None:
    """Roll back."""
    with world(top) as here:
        with here.store.read() as reader:
            target = Seq(next(s for s in range(1, reader.last) if _has(here.store, s)))
        here.fs.rollback.roll_back(rollback(target), NOBODY, dry_run=False)


def _has(store: Store, seq: int) -> bool:
    """Whether version *seq* is what some_files() made."""
    with store.read() as reader:
        names = {name for name, _ in reader.children(Tree(reader, Seq(seq)).find(b""), Seq(seq))}
        directory = {path for path, _, _ in Tree(reader, Seq(seq)).walk()}
    return {b"d", b"e", b"l", b"f4"} <= names and b"d/h" in directory


def come_back(top: Path, say: Say) -> None:
    """Bring back a directory that was lost."""
    shutil.rmtree(top / "state")
    with opened(top):
        pass


def come_together(top: Path, say: Say) -> None:
    """Take in a directory of which a part was lost, and a part is new."""
    other = top / "other"
    shutil.copytree(top / "state", other, symlinks=True)
    shutil.rmtree(top / "state")
    other.rename(top / "state")
    (top / "state" / "found").write_bytes(b"found " * 1000)
    (top / "state" / "f1").unlink()
    with opened(top):
        pass


def prefer_store(top: Path, say: Say) -> None:
    """Give up what was done to the directory behind dkfs."""
    (top / "state" / "f1").write_bytes(b"behind")
    (top / "state" / "found").write_bytes(b"found " * 1000)
    with opened(top, prefer="store"):
        pass


def tidy(top: Path, say: Say) -> None:
    """Find what a rollback of an older dkfs left."""
    staging = top / "state" / ".dkfs-rollback"
    staging.mkdir(exist_ok=True)
    (staging / "n7").write_bytes(b"staged")
    with opened(top):
        pass


def old_versions(top: Path, say: Say) -> None:
    """Make a store with much to forget."""
    Store.create(top / "store")
    with Store.open(top / "store", writable=True, segment_limit=SEGMENT) as store:
        fill(store, range(1, 81), size=1500)


def forget(top: Path, say: Say) -> None:
    """Forget and collect."""
    with Store.open(top / "store", writable=True, segment_limit=SEGMENT) as store:
        Reserve(top / "store", 100_000).take()
        lose(store, 1, 30)
        lose(store, 41, 60)
        collect(store, max_unused=0)
        note_repacked(top / "store", 3, {1})
        save(top / "store", "check", Verified())


def pack(top: Path, say: Say) -> None:
    """Pack the index."""
    with Store.open(top / "store", writable=True, segment_limit=SEGMENT) as store:
        lose(store, 1, 70)
    compact(top / "store", max_unused=0, least=0)


def make_store(top: Path, say: Say) -> None:
    """Make a store."""
    with opened(top):
        pass


def old_format(top: Path, say: Say) -> None:
    """Have a store of format 1."""
    shutil.copytree(CHECKOUT / "tests/golden/store-v1", top / "store")


def update(top: Path, say: Say) -> None:
    """Make it one of today's."""
    migrate(top / "store", on_progress=lambda *_: None)


def mend(top: Path, say: Say) -> None:
    """Make the index again."""
    rebuild(top / "store", top / "store" / REBUILT_NAME, on_progress=lambda *_: None)
    replace_index(top / "store")


def stream(top: Path, say: Say) -> None:
    """Take in what another store sends."""
    with Store.open(top / "store", writable=False) as store:
        data = send(store)
    take(top / "replica", data)


def leave_a_tail(top: Path, say: Say) -> None:
    """Leave what a crash leaves: bytes behind the end of the newest segment, and a segment that nobody knows."""
    some_files(top, say)
    segments = sorted((top / "store" / "segments").iterdir())
    with segments[-1].open("ab") as file:
        file.write(b"rest")
    shutil.copyfile(segments[-1], segments[-1].with_name("00000099.seg"))
