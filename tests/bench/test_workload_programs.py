"""What was unpacked is compared with what was packed, as far as the file system keeps it."""

import os
from pathlib import Path

import pytest

from bench import materials
from bench.peer import BenchError, Peer, Raw
from bench.peers import Bindfs
from bench.workload import Level, program
from bench.workload_programs import Untar


def _unpacked(where: Path, peer: type[Peer]) -> tuple[Untar, Path, Peer]:
    """Return an Untar whose tree is one small file, the directory that it was unpacked to, and a *peer*."""
    workload = Untar(Level.TINY, where)
    tree = where / f"tree{workload.count}"
    tree.mkdir()
    (tree / "file").write_bytes(b"packed")
    place = where / "place"
    place.mkdir()
    program("tar", "xf", materials.archive(where, workload.count), "-C", place)
    return workload, place, peer(where / "peer")


def test_time_that_was_not_kept_fails_a_peer_that_keeps_times(tmp_path: Path) -> None:
    workload, place, peer = _unpacked(tmp_path, Raw)
    os.utime(place / "tree" / "file", (0, 0))

    with pytest.raises(BenchError, match="tar df"):
        workload.verify(place, peer)


def test_time_that_was_not_kept_is_no_failure_of_bindfs(tmp_path: Path) -> None:
    workload, place, peer = _unpacked(tmp_path, Bindfs)
    os.utime(place / "tree" / "file", (0, 0))

    workload.verify(place, peer)


def test_content_that_was_not_kept_fails_bindfs_too(tmp_path: Path) -> None:
    workload, place, peer = _unpacked(tmp_path, Bindfs)
    (place / "tree" / "file").write_bytes(b"PACKED")

    with pytest.raises(BenchError, match="diff"):
        workload.verify(place, peer)
