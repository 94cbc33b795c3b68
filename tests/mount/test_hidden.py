"""Programs that walk the mount never enter the history, and users cannot read in it what they may not."""

import os
import subprocess
from pathlib import Path

import pytest

from dkfs.daemon import control
from tests.mount.behaviours import as_user, tried
from tests.mount.engines import each_engine
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

NOBODY = 65534
WALKERS = (
    "find . | sort",
    "find . -xdev -type f -exec cat {} + | sort",
    "du --all --apparent-size . | sort",
    "ls -laR . | grep -c dkfs || true",
    "tar --create --file=- --sort=name . | tar --list | sort",
    "rsync --archive --hard-links --acls --xattrs ./ $OUT/copy && (cd $OUT/copy && find . | sort)",
    "cp --archive . $OUT/copy && (cd $OUT/copy && find . | sort)",
    "grep -r data . | sort",
    "echo * .[a-z]* .*/",
    "printf '%s\n' **/*",
    "rm -rf ./* ./.[a-z]*; ls -A",
)


def listing(script: str, top: Path, out: Path) -> str:
    out.mkdir()
    done = subprocess.run(
        ["bash", "-O", "globstar", "-O", "dotglob", "-c", script],
        cwd=top,
        env=dict(os.environ, OUT=str(out), LC_ALL="C"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", WALKERS, ids=lambda script: script.split()[0])
def test_who_walks_the_mount_does_not_enter_the_history(mounted: Mounted, script: str) -> None:
    plain = mounted.base / "plain"
    plain.mkdir()
    for top in (plain, mounted.mountpoint):
        (top / "d" / "e").mkdir(parents=True)
        (top / "d" / "file").write_text("data\n")
        (top / ".hidden").write_text("more data\n")
        os.link(top / "d" / "file", top / "d" / "e" / "link")
    os.stat(mounted.mountpoint / ".dkfs" / "latest")  # known to the kernel, all the same
    expected = listing(script, plain, mounted.base / "out1")
    seen = listing(script, mounted.mountpoint, mounted.base / "out2")

    assert "dkfs" not in seen
    assert seen == expected


def test_visible_it_is_listed_and_can_be_walked(unmounted: Mounted) -> None:
    unmounted.mount("snapdir=visible")
    assert os.listdir(unmounted.mountpoint) == [".dkfs"]
    (unmounted.mountpoint / "file").write_text("x")
    unmounted.flush()

    assert sorted(os.listdir(unmounted.mountpoint)) == [".dkfs", "file"]
    assert (unmounted.mountpoint / ".dkfs" / "latest" / "file").read_text() == "x"


def at(place: Mounted, seq: int, path: str) -> Path:
    return place.mountpoint / ".dkfs" / "versions" / str(seq) / path


def version(place: Mounted) -> int:
    last = control.request(place.store, {"command": "flush"})["last"]
    assert isinstance(last, int)
    return last


@pytest.fixture
def shared(unmounted: Mounted) -> Mounted:
    unmounted.mount("allow_other")
    return unmounted


@each_engine
def test_a_user_reads_in_the_history_what_he_could_and_can(shared: Mounted) -> None:
    top = shared.mountpoint
    for name, mode in (("open", 0o644), ("closed", 0o600), ("shut", 0o644), ("opened", 0o600)):
        (top / name).write_text(name)
        (top / name).chmod(mode)
    then = version(shared)
    (top / "shut").chmod(0o600)  # what was open is not now
    (top / "opened").chmod(0o644)  # what is open now was not
    version(shared)

    def reads() -> object:
        return [
            tried(at(shared, then, name).read_text) for name in ("open", "closed", "shut", "opened")
        ]

    assert as_user(NOBODY, NOBODY, reads) == ["", "EACCES", "EACCES", "EACCES"]
    assert as_user(0, 0, reads) == ["", "", "", ""]


@each_engine
def test_a_closed_directory_above_closes_the_history_below(shared: Mounted) -> None:
    top = shared.mountpoint
    (top / "d").mkdir(mode=0o755)
    (top / "d" / "file").write_text("x")
    open_then = version(shared)
    (top / "d").chmod(0o700)
    closed_then = version(shared)

    def looks(seq: int) -> object:
        return [
            tried(at(shared, seq, "d/file").read_text),
            tried(at(shared, seq, "d/file").stat),
            tried(lambda: os.listdir(at(shared, seq, "d"))),
        ]

    closed = ["EACCES"] * 3
    assert as_user(NOBODY, NOBODY, lambda: looks(closed_then)) == closed
    assert as_user(NOBODY, NOBODY, lambda: looks(open_then)) == closed
    (top / "d").chmod(0o755)
    assert as_user(NOBODY, NOBODY, lambda: looks(closed_then)) == closed
    assert as_user(NOBODY, NOBODY, lambda: looks(open_then)) == [""] * 3


@each_engine
def test_what_root_has_just_looked_at_is_not_open_to_others(shared: Mounted) -> None:
    """Whatever the kernel keeps of one user's answer, another does not get it."""
    path = shared.mountpoint / "secret"
    path.write_text("secret")
    path.chmod(0o600)
    then = version(shared)
    for _ in range(3):
        assert at(shared, then, "secret").read_text() == "secret"
        assert (shared.mountpoint / ".dkfs" / "latest" / "secret").read_text() == "secret"
        for seen in (at(shared, then, "secret"), shared.mountpoint / ".dkfs/latest/secret"):
            assert as_user(NOBODY, NOBODY, seen.read_bytes) == "EACCES"


@each_engine
def test_an_acl_and_a_group_count_in_the_history(shared: Mounted) -> None:
    path = shared.mountpoint / "file"
    path.write_text("x")
    path.chmod(0o640)
    os.chown(path, 0, 3456)
    subprocess.run(["setfacl", "-m", "u:1234:r", path], check=True)
    then = version(shared)
    read = at(shared, then, "file").read_text

    assert as_user(1234, 1234, read) == "x"
    assert as_user(NOBODY, NOBODY, read) == "EACCES"
    assert as_user(NOBODY, NOBODY, read, groups=(3456,)) == "x"
    assert as_user(NOBODY, 3456, read) == "x"


@each_engine
def test_a_deleted_file_is_open_to_who_could_read_it(shared: Mounted) -> None:
    for name, mode in (("open", 0o644), ("closed", 0o600)):
        (shared.mountpoint / name).write_text("x")
        (shared.mountpoint / name).chmod(mode)
    then = version(shared)
    for name in ("open", "closed"):
        (shared.mountpoint / name).unlink()
    version(shared)

    assert as_user(NOBODY, NOBODY, at(shared, then, "closed").read_text) == "EACCES"
    # With a mode that was open, and nothing left that could say otherwise.
    assert as_user(NOBODY, NOBODY, at(shared, then, "open").read_text) == "x"


def test_nobody_but_root_reaches_the_store(mounted: Mounted) -> None:
    def attempts() -> object:
        return [
            tried(lambda: os.listdir(mounted.store)),
            tried((mounted.store / "index.lmdb").read_bytes),
        ]

    assert as_user(NOBODY, NOBODY, attempts) == ["EACCES", "EACCES"]


@each_engine
def test_another_user_makes_no_tags_and_changes_nothing(shared: Mounted) -> None:
    shared.mountpoint.chmod(0o777)
    history = shared.mountpoint / ".dkfs"

    def attempts() -> object:
        return [
            tried(lambda: os.mkdir(history / "tags" / "mine")),
            tried(lambda: os.mkdir(history / "x")),
            tried(lambda: os.chmod(history / "latest", 0o777)),
        ]

    assert as_user(NOBODY, NOBODY, attempts) == ["EACCES", "EACCES", "EPERM"]
