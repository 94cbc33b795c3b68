"""dkfs.cli.location."""

import argparse
import os
from pathlib import Path

import pytest

from dkfs.cli import location
from dkfs.cli.location import Location, find
from dkfs.config.mounts import Mount
from dkfs.errors import MountError, UsageError


def mounted(point: Path) -> Mount:
    return Mount(point=os.fsencode(point), root=b"/", fstype=b"fuse.dkfs", source=b"/state")


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a directory that looks like a mount of STORE; the kernel would need a daemon for one."""
    point = tmp_path / "mnt"
    (point / "sub").mkdir(parents=True)
    monkeypatch.setattr(location, "read_mounts", lambda: (mounted(point),))
    monkeypatch.setattr(location, "store_of", lambda _: tmp_path / "store")
    monkeypatch.delenv("DKFS_STORE", raising=False)
    return point


def found(directory: Path, store: str | Path | None = None) -> Location:
    os.chdir(directory)
    return find(argparse.Namespace() if store is None else argparse.Namespace(store=str(store)))


@pytest.fixture(autouse=True)
def _stay_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_store_is_that_of_the_mount_one_stands_in(mount: Path, tmp_path: Path) -> None:
    assert found(mount / "sub").store == tmp_path / "store"


def test_the_flag_beats_the_environment_beats_the_mount(
    mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DKFS_STORE", str(tmp_path / "environment"))

    assert found(mount, "/flag").store == Path("/flag")
    assert found(mount).store == tmp_path / "environment"


def test_a_configuration_file_may_name_it(
    mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dkfs.toml").write_text('store = "/configured"\n')
    monkeypatch.setenv("DKFS_CONFIG", str(tmp_path / "dkfs.toml"))

    assert found(tmp_path).store == Path("/configured")


def test_elsewhere_there_is_none(mount: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no store: give --store, set DKFS_STORE, or stand in"):
        found(tmp_path)


def test_in_the_mount_a_relative_path_is_from_here(mount: Path) -> None:
    here = found(mount / "sub")

    assert here.tree_path("file") == b"sub/file"
    assert here.tree_path("gone/file") == b"sub/gone/file"
    assert here.tree_path("..") == b""
    assert here.tree_path("../x/./y/") == b"x/y"
    assert here.tree_path(".") == b"sub"


def test_an_absolute_path_in_the_mount_is_below_it(mount: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mount)

    for place in (found(mount / "sub"), found(tmp_path, tmp_path / "store")):
        assert place.tree_path(f"{mount}/a/b") == b"a/b"
        assert place.tree_path(str(mount)) == b""
        assert place.tree_path(f"{tmp_path}/link/sub") == b"sub"


def test_outside_the_mount_a_path_is_from_the_root_of_the_tree(mount: Path, tmp_path: Path) -> None:
    outside = found(tmp_path, tmp_path / "store")

    assert outside.tree_path("a/b") == b"a/b"
    assert outside.tree_path("/a/b") == b"a/b"
    assert outside.tree_path("/") == b""


def test_a_mount_of_another_store_is_not_where_one_stands(mount: Path) -> None:
    assert found(mount / "sub", "/other").tree_path("file") == b"file"


def test_a_path_that_leads_out_of_the_tree_is_refused(mount: Path, tmp_path: Path) -> None:
    for text in ("..", "a/../../b"):
        with pytest.raises(UsageError, match="leads out of the tree"):
            found(tmp_path, "/other").tree_path(text)


def test_a_name_that_is_not_utf_8_stays_what_it_is(mount: Path) -> None:
    assert found(mount).tree_path(os.fsdecode(b"\xff/x")) == b"\xff/x"


def test_a_mount_whose_daemon_does_not_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="does not tell its store"):
        location.store_of(mounted(tmp_path))
