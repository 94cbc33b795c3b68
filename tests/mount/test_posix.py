"""What a mount promises beyond what single calls show: what is recorded when, and where a mount may be."""

import mmap
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.history import content
from dkfs.history.tree import Tree
from dkfs.store import Store
from tests.mount.behaviours import tried
from tests.mount.engines import each_engine
from tests.mounting import CHECKOUT, Mounted, mounts_below

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow, each_engine]


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


# ---- what is recorded


def recorded(place: Mounted, path: bytes) -> bytes:
    """Return what another process finds in the store as the last contents of *path*."""
    program = (
        "import sys; from pathlib import Path; from dkfs.store import Store;"
        "from dkfs.history import content; from dkfs.history.tree import Tree\n"
        "with Store.open(Path(sys.argv[1]), writable=False) as s, s.read() as r:\n"
        "    t = Tree(r, r.last); n = t.resolve(sys.argv[2].encode())\n"
        "    st = t.state(n); sys.stdout.buffer.write(content.read(r, st, 0, st.attr.size))"
    )
    return subprocess.run(
        [sys.executable, "-c", program, place.store, path.decode()],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        check=True,
        capture_output=True,
    ).stdout


def recorded_now(place: Mounted, path: bytes) -> bytes:
    """Return the same, as this process finds it, at once."""
    with Store.open(place.store, writable=False) as store, store.read() as reader:
        tree = Tree(reader, reader.last)
        state = tree.state(tree.resolve(path))
        return content.read(reader, state, 0, state.attr.size)


@pytest.mark.parametrize("sync", [os.fsync, os.fdatasync], ids=["fsync", "fdatasync"])
def test_what_was_synced_is_recorded_when_the_call_returns(mounted: Mounted, sync: object) -> None:
    assert callable(sync)
    fd = os.open(mounted.mountpoint / "file", os.O_CREAT | os.O_RDWR)
    for number in range(20):
        os.pwrite(fd, b"%02d" % number * 10_000, 0)
        sync(fd)
        assert recorded_now(mounted, b"file") == b"%02d" % number * 10_000
    os.close(fd)
    assert recorded(mounted, b"file") == b"19" * 10_000


def test_what_was_synced_is_seen_in_the_history_of_the_mount_at_once(mounted: Mounted) -> None:
    latest = mounted.mountpoint / ".dkfs" / "latest" / "file"
    fd = os.open(mounted.mountpoint / "file", os.O_CREAT | os.O_RDWR)
    for number in range(60):  # a burst, for which the recorder would wait
        os.pwrite(fd, b"%02d" % number, 0)
        os.fsync(fd)
        if number % 5 == 0:
            assert latest.read_bytes() == b"%02d" % number
    os.close(fd)


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC], ids=["O_SYNC", "O_DSYNC"])
def test_a_synchronous_write_is_recorded_when_it_returns(mounted: Mounted, flag: int) -> None:
    fd = os.open(mounted.mountpoint / "file", os.O_CREAT | os.O_WRONLY | flag)
    for number in range(10):
        os.write(fd, b"%d" % number)
        assert recorded_now(mounted, b"file") == b"0123456789"[: number + 1]
    os.close(fd)


def test_a_synced_directory_has_its_names_recorded(mounted: Mounted) -> None:
    (mounted.mountpoint / "dir").mkdir()
    (mounted.mountpoint / "dir" / "file").write_bytes(b"x")
    fd = os.open(mounted.mountpoint / "dir", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)

    assert recorded_now(mounted, b"dir/file") == b"x"


def test_stores_through_a_map_are_recorded_on_msync_and_on_close(mounted: Mounted) -> None:
    path = mounted.mountpoint / "file"
    path.write_bytes(bytes(300_000))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 300_000) as mapped:
        mapped[200_000:200_005] = b"first"
        mapped.flush()
        assert recorded_now(mounted, b"file")[200_000:200_005] == b"first"
        mapped[100:106] = b"second"
    mounted.flush()
    data = recorded_now(mounted, b"file")

    assert (data[100:106], data[200_000:200_005]) == (b"second", b"first")


def test_contents_written_through_a_removed_name_are_the_other_names(mounted: Mounted) -> None:
    """The file is known by one name only, because the mount is new."""
    one, two = mounted.mountpoint / "one", mounted.mountpoint / "two"
    one.write_bytes(b"old")
    os.link(one, two)
    mounted.umount()
    mounted.mount()
    with one.open("r+b", buffering=0) as file:
        one.unlink()
        file.write(b"new")
    mounted.flush()

    assert recorded_now(mounted, b"two") == b"new"
    assert two.stat().st_nlink == 1


def test_a_capability_that_chown_takes_away_is_not_in_the_history(mounted: Mounted) -> None:
    path = mounted.mountpoint / "program"
    path.write_bytes(b"#!/bin/true")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(path, "security.capability", capability)
    os.chown(path, 1000, 1000)
    mounted.flush()
    with Store.open(mounted.store, writable=False) as store, store.read() as reader:
        tree = Tree(reader, reader.last)
        kept = content.xattrs(reader, tree.state(tree.resolve(b"program")))

    assert (os.listxattr(path), kept) == ([], {})


# ---- places of mounts


def test_mounted_over_its_own_directory(unmounted: Mounted) -> None:
    (unmounted.state_dir / "before").write_text("there")
    unmounted.dkfs("mount", unmounted.state_dir, "--store", unmounted.store, "--metrics-addr", "")
    try:
        assert (unmounted.state_dir / "before").read_text() == "there"
        (unmounted.state_dir / "after").write_text("new")
        assert mounts_below(unmounted.base) == [unmounted.state_dir]
    finally:
        unmounted.dkfs("umount", unmounted.state_dir)
    assert (unmounted.state_dir / "after").read_text() == "new"
    assert unmounted.dkfs("cat", "latest:after").stdout == "new"


def test_two_mounts_at_once_keep_apart(mounted: Mounted) -> None:
    other = Mounted(mounted.base, mounted.base / "s2", mounted.base / "m2", mounted.base / "store2")
    other.state_dir.mkdir()
    other.mountpoint.mkdir()
    other.mount()
    try:
        (mounted.mountpoint / "file").write_text("one")
        (other.mountpoint / "file").write_text("two")
        os.rename(mounted.mountpoint / "file", mounted.mountpoint / "moved")
        code = tried(lambda: os.rename(mounted.mountpoint / "moved", other.mountpoint / "moved"))
        assert code == "EXDEV"
        assert (other.mountpoint / "file").read_text() == "two"
    finally:
        other.umount()
    assert (mounted.mountpoint / "moved").read_text() == "one"


def test_read_only_mount_changes_nothing(unmounted: Mounted) -> None:
    (unmounted.state_dir / "file").write_text("x")
    unmounted.mount()
    unmounted.umount()
    unmounted.mount("ro")
    path = unmounted.mountpoint / "file"

    assert path.read_text() == "x"
    for attempt in (
        *(path.unlink, lambda: path.write_text("y"), lambda: path.chmod(0o600)),
        lambda: os.mkdir(unmounted.mountpoint / "dir"),
        lambda: os.setxattr(path, "user.x", b""),
        lambda: os.utime(path),
    ):
        assert tried(attempt) == "EROFS"


@pytest.mark.parametrize("option", ["noatime", "atime"])
def test_noatime_leaves_the_times_of_access_alone(unmounted: Mounted, option: str) -> None:
    (unmounted.state_dir / "dir").mkdir()
    (unmounted.state_dir / "dir" / "file").write_bytes(b"contents")
    for path in (unmounted.state_dir / "dir" / "file", unmounted.state_dir / "dir"):
        os.utime(path, ns=(1, 2))  # a time of access that any read would renew
    unmounted.mount(option)
    directory = unmounted.mountpoint / "dir"
    (directory / "file").read_bytes()
    os.listdir(directory)
    moved = [path.stat().st_atime_ns != 1 for path in (directory / "file", directory)]

    assert moved == [option == "atime"] * 2


def test_without_suid_and_dev_neither_works(unmounted: Mounted) -> None:
    unmounted.mount("allow_other")
    os.mknod(unmounted.mountpoint / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))

    assert tried((unmounted.mountpoint / "null").read_bytes) == "EACCES"
    assert os.statvfs(unmounted.mountpoint).f_flag & os.ST_NOSUID


def test_another_user_is_kept_out_without_allow_other(mounted: Mounted) -> None:
    done = subprocess.run(
        ["ls", mounted.mountpoint], user=65534, group=65534, capture_output=True, check=False
    )

    assert b"Permission denied" in done.stderr


def test_seekdir_goes_back_to_where_telldir_was(mounted: Mounted) -> None:
    for number in range(500):
        os.close(os.open(mounted.mountpoint / f"{number:03}", os.O_CREAT))
    program = Path(mounted.base / "seek")
    source = program.with_suffix(".c")
    source.write_text(SEEK)
    subprocess.run(["gcc", "-o", program, source], check=True)

    assert subprocess.run([program, mounted.mountpoint], check=False).returncode == 0


SEEK = r"""
#include <dirent.h>
#include <string.h>
int main(int argc, char **argv) {
    DIR *d = opendir(argv[1]);
    long at[502]; char names[502][256]; int n = 0; struct dirent *e;
    for (; n < 502 && (at[n] = telldir(d), e = readdir(d)); n++) strcpy(names[n], e->d_name);
    if (n != 502 || readdir(d)) return 1;
    for (int i = 501; i >= 0; i -= 7) {
        seekdir(d, at[i]);
        if (!(e = readdir(d)) || strcmp(e->d_name, names[i])) return 2;
    }
    rewinddir(d);
    if (!(e = readdir(d)) || strcmp(e->d_name, names[0])) return 3;
    return closedir(d);
}
"""
