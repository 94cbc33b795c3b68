"""Where the sync of one file makes durable what was written to another: only where Linux is known to flush the disk."""

import os
from pathlib import Path

import pytest

from dkfs.store import flushing
from dkfs.store.flushing import Disk, disk_of

_EXT4, _XFS, _OVERLAY, _TMPFS = 0xEF53, 0x58465342, 0x794C7630, 0x01021994
_OPTIONS = "rw\nbarrier\nuser_xattr\n"  # of an ext4 without a journal


class Machine:
    """What /proc and /sys say of the file system of a file."""

    def __init__(self, top: Path) -> None:
        self.proc, self.sys = top / "proc", top / "sys"
        path = top / "file"
        path.touch()
        self.fd = os.open(path, os.O_RDWR)
        device = os.fstat(self.fd).st_dev
        self.number = f"{os.major(device)}:{os.minor(device)}"
        (self.sys / "dev/block").mkdir(parents=True)
        (self.sys / "dev/block" / self.number).symlink_to("../../devices/virtual/block/vdz")

    def disk(
        self, *, options: str = "", mounted: str = "", release: str = "6.18.44-x"
    ) -> Disk | None:
        for name, text in (
            ("fs/ext4/vdz/options", options),
            ("self/mountinfo", f"27 1 {self.number} / / rw - xfs /dev/vdz {mounted}\n"),
        ):
            (self.proc / name).parent.mkdir(parents=True, exist_ok=True)
            (self.proc / name).write_text(text)
        return disk_of(self.fd, proc=self.proc, sys=self.sys, release=release)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def is_a(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flushing, "_kind", lambda _: kind)


@pytest.mark.parametrize(
    ("options", "release", "is_sure"),
    [
        (_OPTIONS, "6.18.44", True),
        (_OPTIONS, "6.5-rc1", True),
        (_OPTIONS + "data=ordered\n", "7.0.0", True),
        (_OPTIONS + "data=writeback\n", "6.5.0", True),
        (_OPTIONS, "6.4.16", False),
        (_OPTIONS, "5.15.0", False),
        (_OPTIONS, "unknown", False),
        (_OPTIONS + "data=journal\n", "6.18.44", False),
        (_OPTIONS + "fc_debug_force\n", "6.18.44", False),
        (_OPTIONS + "fast_commit\n", "6.18.44", False),
        ("rw\nnobarrier\n", "6.18.44", False),
        ("", "6.18.44", False),
    ],
)
def test_ext4_flushes_unless_an_option_or_the_kernel_says_otherwise(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    release: str,
    *,
    is_sure: bool,
) -> None:
    is_a(_EXT4, monkeypatch)
    assert (machine.disk(options=options, release=release) is not None) is is_sure


@pytest.mark.parametrize(
    ("mounted", "is_sure"),
    [
        ("rw,attr2,inode64,noquota", True),
        ("rw,logdev=/dev/vdx,noquota", False),
        ("rw,rtdev=/dev/vdx", False),
        ("rw,nobarrier", False),
    ],
)
def test_xfs_flushes_unless_it_has_a_second_device(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, mounted: str, *, is_sure: bool
) -> None:
    is_a(_XFS, monkeypatch)
    assert (machine.disk(mounted=mounted) is not None) is is_sure


def test_of_other_file_systems_and_of_what_cannot_be_seen_nothing_is_assumed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for kind in (_OVERLAY, _TMPFS, 0):
        is_a(kind, monkeypatch)
        assert machine.disk(options=_OPTIONS, mounted="rw") is None
    for kind in (_EXT4, _XFS):
        is_a(kind, monkeypatch)
        assert disk_of(machine.fd, proc=tmp_path / "none", sys=machine.sys) is None
    is_a(_EXT4, monkeypatch)
    assert disk_of(machine.fd, proc=machine.proc, sys=tmp_path / "none") is None


def test_only_regular_files_of_that_file_system_flush_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    is_a(_EXT4, monkeypatch)
    disk = machine.disk(options=_OPTIONS)
    assert disk is not None
    directory = os.open(tmp_path, os.O_RDONLY)
    elsewhere = os.open("/proc/self/comm", os.O_RDONLY)

    assert disk.is_flushed_by(machine.fd)
    assert not disk.is_flushed_by(directory)
    assert not disk.is_flushed_by(elsewhere)
    is_a(_OVERLAY, monkeypatch)  # it may show the device of what is below it, and flush nothing
    assert not disk.is_flushed_by(machine.fd)
    for fd in (machine.fd, directory, elsewhere):
        os.close(fd)
