"""Looks that nobody asked for, where the system gives no more threads."""

import os
import threading
from pathlib import Path

import pytest

from dkfs.overlay.looking import Look
from dkfs.overlay.unseen import Unseen, Watch
from tests.overlay.world import World


def test_a_look_is_done_at_once_if_there_can_be_no_thread(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    inode = world.inode(world.create(b"file", b"data"))
    watch = Watch(inode)
    directory = os.open(tmp_path, os.O_RDONLY)
    fd = os.open(world.state / "file", os.O_RDWR)
    unseen = Unseen(directory)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2):
        unseen.ask(watch, Look(fd, directory, None, no_clones=set()))

    assert (watch.has_found, watch.looks) == (True, 0)
    unseen.close()
    watch.close()
    os.close(fd)
    os.close(directory)
