"""Rollback under applications that have files open: what each sees, and that undo gives everything back."""

import fcntl
import mmap
import os
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dkfs.daemon import control
from dkfs.model.ids import Seq
from tests.mount.model import Pictures, differences, pictures_of, statuses_of
from tests.mount.twin import Twin
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]


def version(place: Mounted) -> Seq:
    last = control.request(place.store, {"command": "flush"})["last"]
    assert isinstance(last, int)
    return Seq(last)


def roll_back(place: Mounted, seq: int) -> None:
    control.request(place.store, {"command": "rollback", "version": str(seq)})


def pictures(place: Mounted) -> Pictures:
    """Return what is on the mount, which is what is in the directory below it."""
    mounted = pictures_of(os.fsencode(place.mountpoint))
    assert differences(pictures_of(os.fsencode(place.state_dir)), mounted) == []
    tops = (place.mountpoint, place.state_dir)
    mount, backing = (statuses_of(os.fsencode(top)) for top in tops)
    assert mount == backing
    return mounted


def test_an_open_handle_sees_what_was_gone_back_to(mounted: Mounted) -> None:
    path = mounted.mountpoint / "file"
    path.write_bytes(b"old " * 50_000)
    then = version(mounted)
    with path.open("r+b", buffering=0) as file:
        file.write(b"new " * 60_000)
        inode = os.fstat(file.fileno()).st_ino
        roll_back(mounted, then)

        assert os.pread(file.fileno(), 300_000, 0) == b"old " * 50_000
        assert os.fstat(file.fileno()).st_size == 200_000
        assert path.stat().st_ino == inode
        os.pwrite(file.fileno(), b"more", 4)
    assert path.read_bytes()[:12] == b"old moreold "
    assert mounted.dkfs("cat", f"{then + 1}:file").stdout == "new " * 60_000


def test_an_appending_handle_appends_to_what_was_gone_back_to(mounted: Mounted) -> None:
    path = mounted.mountpoint / "log"
    path.write_bytes(b"one\n")
    then = version(mounted)
    with path.open("ab", buffering=0) as log:
        log.write(b"two\n" * 3000)
        roll_back(mounted, then)
        log.write(b"three\n")

        assert path.read_bytes() == b"one\nthree\n"


def test_a_shared_map_sees_what_was_gone_back_to(mounted: Mounted) -> None:
    path = mounted.mountpoint / "file"
    path.write_bytes(b"a" * 200_000)
    then = version(mounted)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 200_000) as mapped:
        mapped[100_000:100_001] = b"b"
        mapped.flush()
        roll_back(mounted, then)

        assert mapped[:] == b"a" * 200_000
        mapped[0:1] = b"c"
        mapped.flush()
    assert path.read_bytes() == b"c" + b"a" * 199_999


def test_what_a_map_has_stored_and_not_synced_is_not_lost_by_a_rollback(mounted: Mounted) -> None:
    """The version that was rolled back from has it, so that undo gives it back."""
    path = mounted.mountpoint / "file"
    path.write_bytes(b"a" * 8192)
    then = version(mounted)
    (mounted.mountpoint / "other").write_bytes(b"x")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as mapped:
        mapped[0:1] = b"b"
        roll_back(mounted, then)
        seen = bytes(mapped[0:1])
    # What was in no version yet, because the kernel had told nobody, either goes back or stays:
    # but mount, map and directory agree.
    assert path.read_bytes()[:1] == seen
    assert (mounted.state_dir / "file").read_bytes()[:1] == seen


def test_a_lock_stays_held(mounted: Mounted) -> None:
    path = mounted.mountpoint / "file"
    path.write_bytes(b"old")
    then = version(mounted)
    path.write_bytes(b"new")
    with path.open("rb") as file, path.open("rb") as other:
        fcntl.flock(file, fcntl.LOCK_EX)
        roll_back(mounted, then)

        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert file.read() == b"old"
        fcntl.flock(file, fcntl.LOCK_UN)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_deleted_file_that_is_still_open_stays_apart_from_the_one_that_is_back(
    mounted: Mounted,
) -> None:
    path = mounted.mountpoint / "file"
    path.write_bytes(b"old")
    then = version(mounted)
    with path.open("r+b", buffering=0) as file:
        path.unlink()
        assert not path.exists()
        roll_back(mounted, then)
        file.write(b"gone")
        os.fchmod(file.fileno(), 0o600)
        assert path.read_bytes() == b"old"
        assert stat.S_IMODE(path.stat().st_mode) != 0o600
    path.write_bytes(b"next")
    mounted.flush()

    assert mounted.dkfs("cat", "latest:file").stdout == "next"


def test_a_file_that_did_not_exist_lives_for_who_has_it_open(mounted: Mounted) -> None:
    then = version(mounted)
    (mounted.mountpoint / "dir").mkdir()
    path = mounted.mountpoint / "dir" / "file"
    with path.open("w+b", buffering=0) as file:
        here = os.open(path.parent, os.O_RDONLY)
        file.write(b"data")
        roll_back(mounted, then)

        assert os.listdir(mounted.mountpoint) == []
        assert os.pread(file.fileno(), 10, 0) == b"data"
        file.write(b" more")
        assert os.fstat(file.fileno()).st_nlink == 0
        assert os.listdir(here) == []
        with pytest.raises(FileNotFoundError):
            os.mkdir("x", dir_fd=here)
        os.close(here)
    control.request(mounted.store, {"command": "undo"})
    assert path.read_bytes() == b"data"


def test_names_that_were_missing_are_there_at_once(mounted: Mounted) -> None:
    top = mounted.mountpoint
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "e" / "file").write_bytes(b"1")
    os.symlink("file", top / "link")
    then = version(mounted)
    before = pictures(mounted)
    (top / "d" / "e" / "file").unlink()
    (top / "d" / "e").rmdir()
    os.rename(top / "d", top / "moved")
    (top / "link").unlink()
    os.symlink("elsewhere", top / "link")
    for gone in ("d", "d/e", "moved/e", "moved/e/file"):
        assert not (top / gone).exists()
    assert os.readlink(top / "link") == "elsewhere"
    roll_back(mounted, then)

    assert differences(before, pictures(mounted)) == []


def test_who_works_in_a_renamed_directory_goes_back_with_it(mounted: Mounted) -> None:
    (mounted.mountpoint / "old").mkdir()
    (mounted.mountpoint / "old" / "file").write_bytes(b"1")
    then = version(mounted)
    os.rename(mounted.mountpoint / "old", mounted.mountpoint / "new")
    here = os.open(mounted.mountpoint / "new", os.O_RDONLY)
    roll_back(mounted, then)
    os.close(os.open("made", os.O_CREAT, dir_fd=here))
    os.close(here)

    assert sorted(os.listdir(mounted.mountpoint / "old")) == ["file", "made"]
    mounted.flush()
    listed = mounted.dkfs("ls", "latest:old").stdout.splitlines()
    assert [line.split()[-1] for line in listed] == ["file", "made"]


# ---- no stale page


@contextmanager
def readers(path: Path, size: int) -> Iterator[None]:
    """Keep the pages of *path* in use, by reading and through a map."""
    program = (
        "import mmap, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY); size = int(sys.argv[2])\n"
        "m = mmap.mmap(fd, size, prot=mmap.PROT_READ); print(flush=True)\n"
        "while True:\n"
        "    for at in range(0, size, 4096): os.pread(fd, 10, at); m[at]\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, path, str(size)], stdout=subprocess.PIPE, bufsize=0
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_nobody_sees_a_stale_page_after_the_command_returned(mounted: Mounted) -> None:
    size = 40 * 4096
    path = mounted.mountpoint / "file"
    made: dict[int, bytes] = {}
    for number in range(8):
        data = b"%03d " % number * (size // 4)
        with path.open("r+b" if made else "wb") as file:
            file.write(data)
        made[version(mounted)] = data
    rng = random.Random(1)
    with (
        readers(path, size),
        path.open("rb", buffering=0) as file,
        mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped,
    ):
        for _ in range(50):
            seq = rng.choice(sorted(made))
            roll_back(mounted, seq)
            expected = made[seq]

            assert os.pread(file.fileno(), size, 0) == expected
            assert mapped[:] == expected
            assert path.read_bytes() == expected


def test_writers_beside_a_rollback_are_served(mounted: Mounted) -> None:
    """Rollback happens between two requests: each write comes before or after all of it."""
    top = mounted.mountpoint
    (top / "busy").mkdir()
    (top / "still").write_bytes(b"old" * 100_000)
    then = version(mounted)
    (top / "still").write_bytes(b"new" * 100_000)
    stop = threading.Event()
    errors: list[OSError] = []

    def write(name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                (top / "busy" / f"{name}{number % 10}").write_bytes(b"x" * 5000)
            except OSError as exc:
                errors.append(exc)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            roll_back(mounted, then)
            assert (top / "still").read_bytes() == b"old" * 100_000
            control.request(mounted.store, {"command": "undo"})
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [exc for exc in errors if not isinstance(exc, FileNotFoundError)] == []
    pictures(mounted)
    last = version(mounted)
    mounted.umount()
    mounted.mount()
    assert version(mounted) == last, "the directory was not what the history says"


# ---- there and back


def grown(mounted: Mounted, rng: random.Random) -> tuple[Seq, Pictures, Pictures]:
    """Make a random tree, and change it; return the version between and both pictures."""
    umask = os.umask(0)
    twin = Twin(os.fsencode(mounted.mountpoint), rng)
    try:
        for _ in range(120):
            twin.step()
        then, before = version(mounted), pictures(mounted)
        for _ in range(120):
            twin.step()
    finally:
        twin.close()
        os.umask(umask)
    version(mounted)
    return then, before, pictures(mounted)


@pytest.mark.parametrize("seed", range(4))
def test_undo_and_redo_give_back_every_byte_and_attribute(mounted: Mounted, seed: int) -> None:
    then, before, after = grown(mounted, random.Random(seed))
    mounted.dkfs("rollback", str(then))
    assert differences(before, pictures(mounted)) == []
    mounted.dkfs("undo")
    assert differences(after, pictures(mounted)) == []
    mounted.dkfs("redo")
    assert differences(before, pictures(mounted)) == []
    mounted.dkfs("undo")

    assert differences(after, pictures(mounted)) == []


def test_a_dry_run_changes_nothing_and_says_what_would_change(mounted: Mounted) -> None:
    then, before, after = grown(mounted, random.Random(9))
    last = version(mounted)
    said = mounted.dkfs("rollback", str(then), "--dry-run").stdout

    assert differences(after, pictures(mounted)) == []
    assert version(mounted) == last
    assert said
    assert mounted.dkfs("rollback", str(then)).stdout.splitlines()[:-1] == said.splitlines()[:-1]
    assert differences(before, pictures(mounted)) == []


def test_rollback_of_one_file_or_subtree_leaves_the_rest(mounted: Mounted) -> None:
    top = mounted.mountpoint
    for name in ("a", "b"):
        (top / name).mkdir()
        for file in ("one", "two"):
            (top / name / file).write_bytes(b"old")
    then = version(mounted)
    for name in ("a", "b"):
        for file in ("one", "two", "three"):
            (top / name / file).write_bytes(b"new!")
    (top / "a" / "one").chmod(0o600)
    mounted.dkfs("rollback", str(then), "a/one")

    assert (top / "a" / "one").read_bytes() == b"old"
    assert stat.S_IMODE((top / "a" / "one").stat().st_mode) == 0o644
    assert (top / "a" / "two").read_bytes() == b"new!"

    mounted.dkfs("rollback", str(then), "b")
    assert sorted(os.listdir(top / "b")) == ["one", "two"]
    assert (top / "b" / "two").read_bytes() == b"old"
    assert sorted(os.listdir(top / "a")) == ["one", "three", "two"]
    assert (top / "a" / "three").read_bytes() == b"new!"

    mounted.dkfs("undo")
    assert sorted(os.listdir(top / "b")) == ["one", "three", "two"]
    assert (top / "b" / "two").read_bytes() == b"new!"
    assert (top / "a" / "one").read_bytes() == b"old"
