"""What an engine does not serve is refused so that programs do something else, and is recorded as what they then do."""

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.refusals import SIZE, outcomes
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.slow]

PYFUSE3 = pytest.mark.parametrize("mount_options", [("engine=pyfuse3",)], ids=["pyfuse3"])
KERNEL = pytest.mark.parametrize("mount_options", [("engine=kernel",)], ids=["kernel"])

# No FUSE daemon is asked for these: see docs/transparency.md.
NEVER: dict[str, object] = {
    "fallocate, collapse a range": "ENOTSUP",
    "fallocate, insert a range": "ENOTSUP",
    "fallocate, unshare a range": "ENOTSUP",
    "fallocate, write zeros": "ENOTSUP",
    "FICLONE": "ENOTSUP",
    "FICLONERANGE": "ENOTSUP",
    "FIEMAP": "ENOTSUP",
    "FS_IOC_ENABLE_VERITY": "ENOTTY",
    "bmap": False,
}
NOT_BY_PYFUSE3: dict[str, object] = {
    "fallocate": "ENOTSUP",
    "fallocate, keep the size": "ENOTSUP",
    "fallocate, punch a hole": "ENOTSUP",
    "fallocate, zero a range": "ENOTSUP",
    "FS_IOC_GETFLAGS": "ENOTTY",
    "FS_IOC_FSGETXATTR": "ENOTTY",
    "O_TMPFILE": "ENOTSUP",
    "statx, time of birth": False,
}


def in_a_plain_directory(place: Mounted) -> dict[str, object]:
    twin = place.base / "twin"
    twin.mkdir()
    return outcomes(twin)


@KERNEL
def test_with_the_kernel_engine_all_is_as_in_a_plain_directory_but_what_the_kernel_refuses(
    place: Mounted,
) -> None:
    assert outcomes(place.mountpoint) == in_a_plain_directory(place) | NEVER


@PYFUSE3
def test_with_pyfuse3_all_else_is_refused_so_that_programs_fall_back(place: Mounted) -> None:
    assert outcomes(place.mountpoint) == in_a_plain_directory(place) | NEVER | NOT_BY_PYFUSE3


def run(*words: str | Path) -> int:
    return subprocess.run(words, check=False, capture_output=True).returncode


def copied(*options: str) -> Callable[[Path], object]:
    """Return what copies `source`, 4096 bytes after a hole, with *options*."""

    def copy(top: Path) -> object:
        with (top / "source").open("wb") as file:
            file.seek(1 << 20)
            file.write(b"d" * 4096)
        status = run("cp", *options, top / "source", top / "target")
        target = top / "target"
        is_equal = target.exists() and target.read_bytes() == (top / "source").read_bytes()
        return status, is_equal

    return copy


def reserved(*options: str) -> Callable[[Path], object]:
    """Return what reserves space by fallocate(1) with *options*."""

    def reserve(top: Path) -> object:
        (top / "file").write_bytes(b"d" * SIZE)
        return run("fallocate", *options, top / "file"), (top / "file").stat().st_size

    return reserve


def nameless(top: Path) -> object:
    """Use Python's temporary file, which has no name, or one for a moment."""
    with tempfile.TemporaryFile(dir=top) as file:
        file.write(b"data")
        file.flush()
        seen = os.fstat(file.fileno()).st_nlink
    return seen, os.listdir(top)


def first_data(top: Path) -> object:
    """Return where data begins, as it is told, in a file that begins with a hole; and whether it is one."""
    with (top / "file").open("w+b") as file:
        file.truncate(1 << 20)
        file.seek(1 << 20)
        file.write(b"end")
        file.flush()
        data = os.lseek(file.fileno(), 0, os.SEEK_DATA)
    return data, (top / "file").stat().st_blocks * 512 < 1 << 20


def unaligned(top: Path) -> object:
    """Write and read past the page cache where a disk could not."""
    fd = os.open(top / "file", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
    seen = []
    for offset, length in ((0, 4096), (3, 100), (4095, 5000), (100_001, 1)):
        data = os.urandom(length)
        seen.append(os.pwrite(fd, data, offset) == length)
        seen.append(os.pread(fd, length, offset) == data)
    os.close(fd)
    return all(seen), (top / "file").stat().st_size


# What is done, and what it gives with the kernel engine and with pyfuse3.
PROGRAMS: dict[str, tuple[Callable[[Path], object], object, object]] = {
    "cp": (copied(), (0, True), (0, True)),
    "cp that would share": (copied("--reflink=auto"), (0, True), (0, True)),
    "cp that must share": (copied("--reflink=always"), (1, False), (1, False)),
    "cp that makes holes": (copied("--sparse=always"), (0, True), (0, True)),
    "fallocate": (reserved("-l", "200000"), (0, 200_000), (1, SIZE)),
    "fallocate as POSIX has it": (reserved("-x", "-l", "200000"), (0, 200_000), (0, 200_000)),
    "fallocate that digs": (reserved("-d"), (0, SIZE), (0, SIZE)),
    "a temporary file": (nameless, (0, []), (0, [])),
    "the first data": (first_data, (1 << 20, True), (0, True)),
    "O_DIRECT": (unaligned, (True, 100_002), (True, 100_002)),
}


@pytest.mark.parametrize(
    ("mount_options", "column"),
    [(("engine=kernel",), 1), (("engine=pyfuse3",), 2)],
    ids=["kernel", "pyfuse3"],
)
def test_programs_find_another_way(place: Mounted, column: int) -> None:
    seen = {}
    for number, (name, entry) in enumerate(PROGRAMS.items()):
        directory = place.mountpoint / f"{number}"
        directory.mkdir()
        seen[name] = entry[0](directory)

    assert seen == {name: entry[column] for name, entry in PROGRAMS.items()}
