"""File systems of their own for a test: made in a sparse file, mounted, and gone afterwards whatever happened."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SIZE = 512 * 1024 * 1024  # bytes; mkfs.xfs takes no less than 300 MiB
_MAKE = {
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"),
    "ext4": ("mkfs.ext4", "-q", "-F"),
}
_PACKAGE = {"xfs": "xfsprogs", "btrfs": "btrfs-progs", "ext4": "e2fsprogs"}


@contextmanager
def disk(kind: str, top: Path) -> Iterator[Path]:
    """Mount a new file system of *kind*, tmpfs too, in a directory in *top*; skip the test where that cannot be."""
    if os.geteuid() != 0:
        pytest.skip("needs to be root")
    image, point = top / f"{kind}.image", top / kind
    point.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "dkfs-test", str(point)]
    else:
        make = _MAKE[kind]
        if shutil.which(make[0]) is None:
            pytest.skip(f"needs {make[0]} (Debian: {_PACKAGE[kind]})")
        with image.open("wb") as file:
            file.truncate(_SIZE)
        subprocess.run([*make, str(image)], check=True, capture_output=True)
        command = ["mount", "-o", "loop", str(image), str(point)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        image.unlink(missing_ok=True)
        pytest.skip(f"cannot mount {kind}: {done.stderr.strip()}")
    point.chmod(0o755)
    try:
        yield point
    finally:
        if subprocess.run(["umount", str(point)], check=False, capture_output=True).returncode:
            subprocess.run(["umount", "--lazy", str(point)], check=True)
        image.unlink(missing_ok=True)


@contextmanager
def overlay(top: Path) -> Iterator[Path]:
    """Mount an overlayfs, as a container's root is one; skip the test where that cannot be."""
    if os.geteuid() != 0:
        pytest.skip("needs to be root")
    lower, upper, work, point = (top / name for name in ("lower", "upper", "work", "merged"))
    for directory in (lower, upper, work, point):
        directory.mkdir()
    (lower / "from-image").write_bytes(b"from the image\n" * 1000)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    command = ["mount", "-t", "overlay", "dkfs-test", "-o", options, str(point)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount an overlayfs here: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


@contextmanager
def loop(top: Path, name: str, size_mib: int) -> Iterator[Path]:
    """Mount a new ext4 of so many MiB at *top* / *name*; skip the test where that cannot be."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4 (Debian: e2fsprogs)")
    image, point = top / f"{name}.image", top / name
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    # Small blocks of inodes and no reserved ones: nearly all of it is room.
    make = ["mkfs.ext4", "-q", "-F", "-m", "0", "-N", "256", "-J", "size=4", str(image)]
    subprocess.run(make, check=True, capture_output=True)
    command = ["mount", "-o", "loop,errors=remount-ro", str(image), str(point)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        image.unlink()
        pytest.skip(f"cannot mount a loop device: {done.stderr.strip()}")
    point.chmod(0o755)
    try:
        yield point
    finally:
        if subprocess.run(["umount", str(point)], check=False, capture_output=True).returncode:
            subprocess.run(["umount", "--lazy", str(point)], check=True)
        image.unlink(missing_ok=True)
