"""What one process does to names another one sees at once: listings, names that were missing, symlinks, sizes."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dkfs.daemon import control
from tests.mount import witnesses
from tests.mount.engines import each_engine
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.slow]


class Other:
    """Another process that looks when it is asked to."""

    def __init__(self, place: Mounted, shared: Path) -> None:
        self.process = witnesses.start("look", shared, place.mountpoint)

    def __call__(self, what: str, path: str = "") -> str:
        """Return what it sees."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what} {path}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "shared"


def other(place: Mounted, shared: Path) -> Iterator[Other]:
    made = Other(place, shared)
    try:
        yield made
    finally:
        made.process.communicate(timeout=60)


def version(place: Mounted) -> int:
    last = control.request(place.store, {"command": "flush"})["last"]
    assert isinstance(last, int)
    return last


@each_engine
def test_listings_that_are_cached_follow_every_change_of_names(
    unmounted: Mounted, shared: Path, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)
    top = unmounted.mountpoint
    (top / "d").mkdir()
    steps: list[tuple[Callable[[], object], str]] = [
        ((top / "d/a").touch, "a"),
        (lambda: os.link(top / "d/a", top / "d/b"), "a b"),
        (lambda: (top / "d/c").symlink_to("a"), "a b c"),
        ((top / "d/e").mkdir, "a b c e"),
        (lambda: os.rename(top / "d/a", top / "d/z"), "b c e z"),
        (lambda: os.rename(top / "d/b", top / "b"), "c e z"),
        ((top / "d/c").unlink, "e z"),
        ((top / "d/e").rmdir, "z"),
        (lambda: os.rename(top / "b", top / "d/z"), "z"),
        (lambda: os.mkfifo(top / "d/p"), "p z"),
    ]
    for looker in other(unmounted, shared):
        for _ in range(3):  # so that it is cached
            assert looker("ls", "d") == ""
        for step, listed in steps:
            step()

            assert [looker("ls", "d") for _ in range(3)] == [listed] * 3


@each_engine
def test_names_that_were_missing_are_there_once_they_are_made(
    unmounted: Mounted, shared: Path, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)
    top = unmounted.mountpoint
    (top / "file").write_text("data")
    makers: dict[str, Callable[[], object]] = {
        "created": (top / "created").touch,
        "made": (top / "made").mkdir,
        "pointing": lambda: (top / "pointing").symlink_to("file"),
        "linked": lambda: os.link(top / "file", top / "linked"),
        "moved": lambda: os.rename(top / "created", top / "moved"),
        "swapped": lambda: os.rename(top / "made", top / "swapped"),
    }
    for looker in other(unmounted, shared):
        for name, make in makers.items():
            before = [looker("has", name) for _ in range(2)]
            make()

            assert (name, before, looker("has", name)) == (name, ["False"] * 2, "True")
        assert looker("has", "created") == looker("has", "made") == "False"


@each_engine
def test_a_rollback_gives_back_names_that_were_known_to_be_missing(
    unmounted: Mounted, shared: Path, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)
    top = unmounted.mountpoint
    (top / "d").mkdir()
    (top / "d/old").write_text("old")
    (top / "link").symlink_to("d/old")
    then = version(unmounted)
    (top / "d/old").unlink()
    (top / "d/new").write_text("new")
    (top / "link").unlink()
    (top / "link").symlink_to("d/new")
    now = version(unmounted)
    for looker in other(unmounted, shared):
        for seq, listed, missing, target in (
            (now, "new", "d/old", "d/new"),
            (then, "old", "d/new", "d/old"),
            (now, "new", "d/old", "d/new"),
        ):
            control.request(unmounted.store, {"command": "rollback", "version": str(seq)})
            for _ in range(2):
                assert looker("ls", "d") == listed
                assert looker("has", missing) == "False"
                assert looker("link", "link") == target
                assert looker("read", "link") == listed


@each_engine
def test_a_restore_into_the_mount_is_seen(
    unmounted: Mounted, shared: Path, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)
    top = unmounted.mountpoint
    (top / "file").write_text("old")
    then = version(unmounted)
    (top / "file").unlink()
    for looker in other(unmounted, shared):
        assert looker("has", "back/file") == looker("has", "file") == "False"
        unmounted.dkfs("restore", f"{then}:file", "--target", top / "back")

        assert looker("ls", "back") == "file"
        assert looker("read", "back/file") == "old"


@each_engine
def test_a_tag_appears_and_goes_and_latest_is_the_latest(
    unmounted: Mounted, shared: Path, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)
    top = unmounted.mountpoint
    (top / "file").write_text("1")
    for looker in other(unmounted, shared):
        assert looker("has", ".dkfs/tags/first") == "False"
        (top / ".dkfs/tags/first").mkdir()
        assert looker("has", ".dkfs/tags/first") == "True"
        assert looker("ls", ".dkfs/tags") == "first"
        unmounted.dkfs("tag", "second")
        assert looker("ls", ".dkfs/tags") == "first second"
        (top / ".dkfs/tags/first").rmdir()
        assert looker("has", ".dkfs/tags/first") == "False"
        for number in range(3):
            (top / "file").write_text(f"{number}")
            last = version(unmounted)
            assert looker("link", ".dkfs/latest") == f"versions/{last}"
            assert looker("read", ".dkfs/latest/file") == f"{number}"


@each_engine
def test_sizes_and_times_are_those_of_the_last_write(
    unmounted: Mounted, shared: Path, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)
    path = unmounted.mountpoint / "file"
    path.write_bytes(b"x" * 10)
    below = unmounted.state_dir / "file"
    for looker in other(unmounted, shared):
        for size in (5000, 100, 70_000, 0, 3):
            os.truncate(path, size)
            assert looker("size", "file") == str(size)
        with path.open("ab") as file:
            for count in range(1, 4):
                file.write(b"abc")
                file.flush()
                assert looker("size", "file") == str(3 + 3 * count)
                seen, true = path.stat(), below.stat()
                assert (seen.st_mtime_ns, seen.st_ctime_ns) == (true.st_mtime_ns, true.st_ctime_ns)


@each_engine
def test_names_that_come_and_go_while_a_directory_is_read_are_the_only_ones_in_doubt(
    unmounted: Mounted, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)
    top = unmounted.mountpoint
    stay = {f"stays-{number:04}" for number in range(1500)}
    for name in stay:
        (top / name).touch()
    churn = subprocess.Popen(
        ["sh", "-c", "while :; do for n in 1 2 3 4 5 6; do : >c$n; done; rm c?; done"], cwd=top
    )
    try:
        for _ in range(25):
            seen = os.listdir(top)
            assert len(seen) == len(set(seen))
            assert stay <= set(seen)
    finally:
        churn.kill()
        churn.wait()
