"""dkfs.config.checks."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dkfs.config.checks import check_mount
from dkfs.config.mounts import Mount
from dkfs.config.settings import MountSettings
from dkfs.errors import DkfsError, ExistsError, MountError, UsageError


@pytest.fixture
def good(tmp_path: Path) -> MountSettings:
    for name in ("state", "mnt"):
        (tmp_path / name).mkdir()
    return MountSettings(
        state_dir=tmp_path / "state", mountpoint=tmp_path / "mnt", store=tmp_path / "store"
    )


def check(settings: MountSettings, *mounts: Mount, uid: int = 0) -> None:
    check_mount(settings, mounts, uid=uid)


def test_separate_directories_pass_and_so_does_a_mount_over_the_state_dir(
    good: MountSettings,
) -> None:
    check(good)
    check(replace(good, mountpoint=good.state_dir))


def test_a_mount_point_need_not_be_empty(good: MountSettings) -> None:
    (good.mountpoint / "file").touch()

    check(good)


def test_the_state_dir_may_lie_below_the_mount_point(good: MountSettings) -> None:
    below = good.mountpoint / "state"
    below.mkdir()

    check(replace(good, state_dir=below))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"state_dir": "none"}, UsageError, "state directory BASE/none: No such file or directory"),
        ({"state_dir": "file"}, UsageError, "state directory BASE/file is not a directory"),
        ({"mountpoint": "none"}, MountError, "mount point BASE/none: No such file or directory"),
        ({"mountpoint": "file"}, MountError, "mount point BASE/file is not a directory"),
        ({"mountpoint": "link"}, MountError, "mount point BASE/link is a symbolic link"),
        ({"store": "state"}, UsageError, "store BASE/state lies in the state directory"),
        ({"store": "state/deep/store"}, UsageError, "lies in the state directory"),
        ({"store": "tostate/store"}, UsageError, "lies in the state directory"),
        ({"store": "mnt/store"}, UsageError, "store BASE/mnt/store lies below the mount point"),
        ({"store": "."}, UsageError, "state directory BASE/state lies in the store"),
        ({"store": "big", "mountpoint": "big/mnt"}, UsageError, "BASE/big/mnt lies in the store"),
        ({"mountpoint": "state/mnt"}, UsageError, "expected the same directory or one outside"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    good: MountSettings,
    tmp_path: Path,
    change: dict[str, str],
    kind: type[DkfsError],
    message: str,
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("mnt")
    (tmp_path / "tostate").symlink_to("state")
    (tmp_path / "big" / "mnt").mkdir(parents=True)
    (tmp_path / "state" / "mnt").mkdir()
    paths = {name: tmp_path / place for name, place in change.items()}

    with pytest.raises(kind) as caught:
        check(replace(good, **paths))  # type: ignore[arg-type]  # all are paths

    assert message.replace("BASE", str(tmp_path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_neighbour_whose_name_begins_alike_is_not_inside(good: MountSettings) -> None:
    check(replace(good, store=good.state_dir.with_name("state2")))


def test_a_live_dkfs_mount_is_not_covered_again(good: MountSettings) -> None:
    point = os.fsencode(good.mountpoint)
    there = Mount(point=point, root=b"/", fstype=b"fuse.dkfs", source=b"/state")
    other = Mount(point=point, root=b"/", fstype=b"ext4", source=b"/dev/sda")

    with pytest.raises(ExistsError, match="is already a dkfs mount"):
        check(good, there)
    check(good, other)
    check(good, there, other)


@pytest.mark.parametrize("word", ["suid", "dev"])
def test_only_root_mounts_with_set_user_ids_or_devices(good: MountSettings, word: str) -> None:
    settings = replace(good, suid=word == "suid", dev=word == "dev")

    check(settings, uid=0)
    with pytest.raises(UsageError, match=f"^-o {word}: only root"):
        check(settings, uid=1000)


def test_an_unreadable_state_dir_is_refused(
    good: MountSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = {os.R_OK | os.X_OK}
    monkeypatch.setattr(os, "access", lambda _, mode: mode in allowed)

    check(replace(good, read_only=True))
    with pytest.raises(UsageError, match="is not readable and writable"):
        check(good)
