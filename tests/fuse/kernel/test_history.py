"""A mount of the history alone: the kernel's root is the top of the history."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.fuse.kernel.history import HistoryDispatcher
from dkfs.history.onlooker import Onlooker
from dkfs.overlay.attributes import READ_ONLY_XATTR, STORE_XATTR
from dkfs.overlay.mounted import FileSystem
from dkfs.overlay.virtual import VIRTUAL
from dkfs.store import Store
from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import CountingMeter, Reply, reply_of
from tests.fuse.kernel.wire import ROOT, Op


class History:
    """The history of an empty store, as the kernel asks for it."""

    def __init__(self, store: Store) -> None:
        self._fd = os.open(store.path, os.O_RDONLY | os.O_DIRECTORY)
        self._fs = FileSystem(
            self._fd,
            store,
            Onlooker(lambda: 0),
            reserved=b".dkfs",
            clock_ns=lambda: 0,
            is_read_only=True,
            is_history=True,
        )
        self.dispatcher = HistoryDispatcher(self._fs, CountingMeter())
        init = wire.INIT.pack(7, 45, 1 << 20, 0x7FFF_FFFF, 0x7FF, *[0] * 11)
        assert self.ask(Op.INIT, init, node=0).error == 0

    def ask(self, op: int, body: bytes = b"", *, node: int = ROOT) -> Reply:
        """Return the reply to a request about *node*."""
        message = wire.request(op, node, body, uid=os.getuid(), gid=os.getgid())
        answer = self.dispatcher.handle(bytearray(message), len(message))
        assert isinstance(answer, bytes | memoryview)
        return reply_of(bytes(answer))

    def close(self) -> None:
        """Let go."""
        self._fs.close()
        os.close(self._fd)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    Store.create(tmp_path / "store", hash_algo="blake3")
    with Store.open(tmp_path / "store", writable=False) as store:
        made = History(store)
        yield made
        made.close()


def _numbered(reply: Reply) -> int:
    assert reply.error == 0
    return int.from_bytes(reply.body[:8], "little")


def test_names_in_the_root_are_those_of_the_history(history: History) -> None:
    assert _numbered(history.ask(Op.LOOKUP, b"versions\0")) > VIRTUAL
    for name in (b"index.lmdb\0", b".dkfs\0"):  # of the store's directory, and of other mounts
        assert history.ask(Op.LOOKUP, name).error == errno.ENOENT


def test_the_root_is_never_forgotten(history: History) -> None:
    message = wire.request(Op.FORGET, ROOT, (1 << 40).to_bytes(8, "little"), uid=0, gid=0)
    assert history.dispatcher.handle(bytearray(message), len(message)) is None

    assert history.ask(Op.GETATTR, bytes(16)).error == 0


def test_the_root_says_which_store_it_is_of(history: History, tmp_path: Path) -> None:
    def xattr(name: bytes) -> Reply:
        return history.ask(Op.GETXATTR, (4096).to_bytes(8, "little") + name + b"\0")

    assert xattr(STORE_XATTR) == Reply(0, os.fsencode(tmp_path / "store"))
    assert xattr(READ_ONLY_XATTR) == Reply(0, b"1")
    assert xattr(b"user.other").error == errno.ENODATA


def test_a_request_in_bytes_that_cannot_be_changed_is_served(history: History) -> None:
    message = wire.request(Op.LOOKUP, ROOT, b"tags\0", uid=os.getuid(), gid=os.getgid())
    answer = history.dispatcher.handle(message)

    assert isinstance(answer, bytes)
    assert _numbered(reply_of(answer)) > VIRTUAL
