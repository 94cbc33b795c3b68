"""`dkfs browse`: the history alone, without the directory that it is the history of."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.test_read_only import snapshot
from tests.mounting import Mounted, dkfs, wait_for_no_mount

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@contextmanager
def browsed(place: Mounted, *words: str, store: Path | None = None) -> Iterator[Path]:
    point = place.base / "history"
    point.mkdir(exist_ok=True)
    place.dkfs("browse", store or place.store, point, *words)
    try:
        yield point
    finally:
        place.dkfs("umount", point)
        assert wait_for_no_mount(point, seconds=5)


def test_the_top_of_the_history_is_the_root_of_the_mount(mounted: Mounted) -> None:
    (mounted.mountpoint / "file").write_text("one")
    (mounted.mountpoint / "link").symlink_to("file")
    mounted.dkfs("tag", "first")
    (mounted.mountpoint / "file").write_text("two")
    mounted.flush()

    with browsed(mounted) as top:
        assert sorted(os.listdir(top)) == ["at", "files", "latest", "tags", "versions"]
        assert os.listdir(top / "tags") == ["first"]
        assert (top / "tags/first/file").read_text() == "one"
        assert (top / "latest/link").read_text() == "two"
        assert (top / "at/now/file").read_text() == "two"
        version = os.readlink(top / "latest")
        assert (top / version / "file").read_text() == "two"
        assert (top / "files/file" / version.removeprefix("versions/")).read_text() == "two"
        assert (top.stat().st_mode & 0o777, os.path.ismount(top)) == (0o555, True)
        (mounted.mountpoint / "file").write_text("three")
        mounted.flush()
        assert (top / "latest/file").read_text() == "three"


def test_commands_know_which_store_it_shows(mounted: Mounted) -> None:
    (mounted.mountpoint / "file").write_text("one")
    mounted.flush()

    with browsed(mounted) as top:
        said = json.loads(dkfs("--json", "-C", top, "status").stdout)
        log = dkfs("-C", top / "latest", "log").stdout

    assert (said["mountpoint"], said["store"]) == (str(top), str(mounted.store))
    assert "file" in log


def test_a_store_whose_directory_is_lost_is_shown_and_not_changed(mounted: Mounted) -> None:
    (mounted.mountpoint / "file").write_text("one")
    mounted.umount()
    (mounted.state_dir / "file").unlink()
    before = snapshot(mounted.store)

    with browsed(mounted) as top:
        assert (top / "latest/file").read_text() == "one"
        for attempt in (
            lambda: (top / "new").write_text("x"),
            lambda: (top / "latest/file").write_text("x"),
            (top / "latest/file").unlink,
            lambda: os.mkdir(top / "tags/new"),
            lambda: os.rename(top / "tags", top / "other"),
            lambda: os.chmod(top, 0o700),
            lambda: os.setxattr(top, "user.x", b"y"),
        ):
            with pytest.raises(OSError) as failed:
                attempt()
            assert failed.value.errno == errno.EROFS

    assert snapshot(mounted.store) == before


def test_many_browse_one_store(mounted: Mounted) -> None:
    (mounted.mountpoint / "file").write_text("one")
    mounted.flush()
    other = mounted.base / "other"
    other.mkdir()

    with browsed(mounted) as top:
        mounted.dkfs("browse", mounted.store, other)
        assert (other / "latest/file").read_text() == "one"
        mounted.dkfs("umount", other)
        assert (top / "latest/file").read_text() == "one"


_REFUSED = (
    ("none", "point", (), 4, "does not exist"),
    ("state", "point", (), 4, "is not a dkfs store"),
    ("store", "none", (), 1, "No such file or directory"),
    ("store", "store/segments", (), 2, "lies in the store"),
    ("store", ".", (), 2, "lies below the mount point"),
    ("store", "point", ("-o", "rw"), 2, "expected allow_other"),
    ("store", "point", ("-o", "io=hybrid"), 2, "expected allow_other"),
)


def test_what_cannot_be_browsed_is_refused(mounted: Mounted) -> None:
    (mounted.base / "point").mkdir()
    for store, point, options, status, said in _REFUSED:
        origin = {"store": mounted.store, "state": mounted.state_dir}.get(store, Path("none"))
        where = mounted.store.parent / point.replace("store", mounted.store.name)

        refused = mounted.dkfs("browse", origin, where, *options, check=False)

        assert (refused.returncode, said in refused.stderr) == (status, True), refused.stderr
        assert not os.path.ismount(where)
