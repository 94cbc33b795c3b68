"""What an inode that is only known takes: a million of them may be."""

import os
import sys
from pathlib import Path
from typing import cast

from dkfs.overlay.inode import Inode, devices_of


def made(directory: Path) -> Inode:
    """Return the inode of a file."""
    (directory / "file").write_bytes(b"")
    status = os.stat(directory / "file")
    return Inode(status.st_ino, status, status.st_dev)


def size(inode: Inode) -> int:
    """Return the bytes that *inode* takes, with what is its own alone."""
    own = inode._in_use
    return sys.getsizeof(inode) + (0 if own.is_nothing else sys.getsizeof(own))


def test_an_inode_that_is_only_known_is_small(tmp_path: Path) -> None:
    inode = made(tmp_path)

    assert size(inode) <= 128
    assert (inode.ino, inode.is_dir) == (inode.id, False)


def test_what_is_true_for_a_while_takes_room_for_that_while(tmp_path: Path) -> None:
    inode = made(tmp_path)
    before = size(inode)
    inode.handles = []
    inode.recorded_size = 17
    inode.pinned = True
    while_open = size(inode)
    inode.pinned = False
    inode.handles = None

    assert while_open > before
    assert size(inode) == before
    assert inode.recorded_size == 0


def test_each_attribute_is_its_own(tmp_path: Path) -> None:
    inode, other = made(tmp_path), made(tmp_path)
    names = ("pinned", "unlinked", "synced", "bypassed", "plain")
    seen = []
    for name in names:
        setattr(inode, name, True)
        seen.append([getattr(inode, each) for each in names])
        setattr(inode, name, False)

    assert seen == [[each == name for each in names] for name in names]
    assert not any(getattr(other, each) for each in names)


def test_a_number_that_is_not_that_of_the_file_system_is_kept_beside_it(tmp_path: Path) -> None:
    status = os.stat(tmp_path)
    inode = Inode(1, status, status.st_dev)
    inode.pinned = True
    inode.pinned = False

    assert (inode.id, inode.ino, inode.is_dir) == (1, status.st_ino, True)


class Vanishing:
    """An inode that another thread forgets as soon as its directory was asked for."""

    is_dir = False

    def __init__(self, dev: int, parent: Inode) -> None:
        self.dev = dev
        self._parents = [parent]

    @property
    def parent(self) -> Inode | None:
        """Return the directory, once."""
        return self._parents.pop() if self._parents else None


def test_devices_of_what_is_forgotten_meanwhile_are_still_told(tmp_path: Path) -> None:
    directory = made(tmp_path)
    inode = Vanishing(directory.dev + 1, directory)

    assert devices_of(cast(Inode, inode)) == {directory.dev, inode.dev}
    assert devices_of(cast(Inode, inode)) == {inode.dev}
