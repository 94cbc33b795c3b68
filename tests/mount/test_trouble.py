"""Bad input and trouble: one line that says what, which and what was expected; a status; nothing changed."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import lmdb
import pytest

from tests.mount.model import pictures_of
from tests.mounting import CHECKOUT, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]


class Trouble(NamedTuple):
    """A command that cannot work."""

    name: str
    words: str  # B is the directory of it all, S, M and D: state directory, mount point, store
    status: int
    message: str  # with the same words; {pid} stands for any number
    prepare: Callable[[Mounted], object] = lambda _: None


def _words(place: Mounted, text: str) -> str:
    paths = {"S": place.state_dir, "M": place.mountpoint, "D": place.store, "B": place.base}
    return re.sub(r"\b([SMDB])\b(?!')", lambda match: str(paths[match[1]]), text)


def _store(place: Mounted) -> None:
    place.mount()
    place.umount()


def _store_of_a_newer_format(place: Mounted) -> None:
    _store(place)
    index = lmdb.open(str(place.store / "index.lmdb"), subdir=False, max_dbs=9)
    with index, index.begin(write=True) as txn:
        txn.put(b"format", (3).to_bytes(4, "big"), db=index.open_db(b"meta", txn=txn))


def _below(path: str, kind: str) -> Callable[[Mounted], object]:
    def prepare(place: Mounted) -> None:
        full = place.base / path
        if kind == "dir":
            full.mkdir(parents=True)
        elif kind == "link":
            full.symlink_to(place.mountpoint)
        else:
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_text("x")

    return prepare


MOUNTS = [
    Trouble("state directory missing", "mount B/no M --store D", 2,
            "state directory B/no: No such file or directory"),
    Trouble("state directory is a file", "mount B/file M --store D", 2,
            "state directory B/file is not a directory", _below("file", "file")),
    Trouble("store in the state directory", "mount S M --store S/x", 2,
            "store S/x lies in the state directory S"),
    Trouble("store is the state directory", "mount S M --store S", 2,
            "store S lies in the state directory S"),
    Trouble("state directory in the store", "mount S M --store B", 2,
            "state directory S lies in the store B"),
    Trouble("store on the mount", "mount S M --store M/x", 2,
            "store M/x lies below the mount point M"),
    Trouble("mount point in the state directory", "mount S S/in --store D", 2,
            "mount point S/in lies in the state directory S:"
            " expected the same directory or one outside", _below("state/in", "dir")),
    Trouble("not a store", "mount S M --store B/other", 4,
            "B/other is not a dkfs store: no index.lmdb in it", _below("other/x", "file")),
    Trouble("store is a file", "mount S M --store B/file", 4,
            "B/file is not a dkfs store: not a directory", _below("file", "file")),
    Trouble("mount point missing", "mount S B/no --store D", 1,
            "mount point B/no: No such file or directory"),
    Trouble("mount point is a file", "mount S B/file --store D", 1,
            "mount point B/file is not a directory", _below("file", "file")),
    Trouble("mount point is a link", "mount S B/link --store D", 1,
            "mount point B/link is a symbolic link, expected a directory", _below("link", "link")),
    Trouble("unknown option", "mount S M --store D -o bogus", 2,
            "-o bogus: unknown mount option"),
    Trouble("unknown engine", "mount S M --store D -o engine=fuse", 2,
            "-o engine: 'fuse', expected auto or kernel or pyfuse3"),
    Trouble("unknown io", "mount S M --store D --io fast", 2,
            "--io: 'fast', expected strict or hybrid or checkpoint"),
    Trouble("io that the engine has not", "mount S M --store D -o engine=pyfuse3,io=hybrid", 2,
            "io=hybrid: the engine pyfuse3 serves io=strict only, expected engine=kernel or auto"),
    Trouble("unknown flag", "mount S M --bogus", 2,
            "unrecognized arguments: --bogus (see dkfs mount --help)"),
    Trouble("file named .dkfs", "mount S M --store D", 2,
            "the state directory has a file named .dkfs in its root:"
            " expected none, dkfs shows the history there", _below("state/.dkfs", "file")),
    Trouble("directory named .dkfs", "mount S M --store D", 2,
            "the state directory has a file named .dkfs in its root:"
            " expected none, dkfs shows the history there", _below("state/.dkfs", "dir")),
    Trouble("umount of what is no mount", "umount M", 1, "M is not mounted"),
    Trouble("umount of another mount", "umount /proc", 1,
            "/proc is a mount of proc, expected fuse.dkfs"),
    Trouble("no store to read", "ls 1 --store D", 4, "store D does not exist"),
    Trouble("rollback without a mount", "rollback 1 --store D", 1,
            "no mount is using store D: expected one to answer on its control socket"
            " (No such file or directory)", _store),
    Trouble("program missing", "run --state-dir S --store D -- B/no", 127, "B/no: no such file"),
    Trouble("program not executable", "run --state-dir S --store D -- B/file", 126,
            "B/file: not executable", _below("file", "file")),
    Trouble("no program", "run --state-dir S --store D --", 2,
            "run: no command, expected dkfs run [FLAGS] -- COMMAND ..."),
]  # fmt: skip

ON_A_MOUNT = [
    Trouble("already mounted", "mount S M --store B/other", 1,
            "mount point M is already a dkfs mount"),
    Trouble("store in use", "mount B/s2 B/s3 --store D", 4, "store D is in use by process {pid}",
            lambda place: (_below("s2", "dir")(place), _below("s3", "dir")(place))),
    Trouble("store in use by replay", "replay --state-dir B/s2 --store D", 4,
            "store D is in use by process {pid}", _below("s2", "dir")),
    Trouble("unknown version", "ls 99", 3, "no version 99: the last is 2"),
    Trouble("unknown tag", "cat nosuch:file", 3,
            "no version 'nosuch': expected a number up to 2, latest, latest~N, a tag,"
            " or a time such as 2026-11-22T10:14:03Z, 10m or yesterday"),
    Trouble("time before everything", "ls 1970-01-01T00:00:00Z", 3,
            "no version at 1970-01-01T00:00:00.000000000Z or before: the first is {time}"),
    Trouble("unknown path", "cat latest:none", 3, "none does not exist at version 2"),
    Trouble("path that leads out", "cat latest:../x", 2,
            "path ../x has '..' in it: expected a path below the mount's root"),
    Trouble("restore to a full directory", "restore latest --target B/full", 1,
            "B/full is not empty: expected an empty directory, or nothing, or --overwrite",
            _below("full/x", "file")),
    Trouble("restore of an unknown path", "restore latest:none --target B/new", 3,
            "none does not exist at version 2"),
    Trouble("rollback of a path that never existed", "rollback 1 never/was", 3,
            "never/was does not exist in any version"),
    Trouble("rollback to an unknown version", "rollback 99", 3, "no version 99: the last is 2"),
    Trouble("nothing to undo", "undo", 3, "nothing to undo: no rollback is in effect"),
    Trouble("nothing to redo", "redo", 3, "nothing to redo: no undo since the last rollback"),
    Trouble("tag that is a path", "tag a/b", 2,
            "'a/b' cannot be a tag: it may not hold '/', ':', '~', '..' or anything that is"
            " not printable"),
]  # fmt: skip


def check(place: Mounted, trouble: Trouble) -> None:
    trouble.prepare(place)
    before = everything(place)
    done = place.dkfs(*_words(place, trouble.words).split(), check=False)

    pattern = re.escape(f"dkfs: {_words(place, trouble.message)}\n")
    pattern = pattern.replace(r"\{pid\}", "[0-9]+").replace(r"\{time\}", "[0-9T:.-]+Z")
    assert re.fullmatch(pattern, done.stderr), done.stderr
    assert (done.returncode, done.stdout) == (trouble.status, "")
    assert everything(place) == before


def everything(place: Mounted) -> dict[bytes, object]:
    """Return all that could be changed, but for the store's own files, whose versions count."""
    found = pictures_of(os.fsencode(place.base))
    own = os.fsencode(place.store.name)
    kept: dict[bytes, object] = {p: s for p, s in found.items() if not p.startswith(own + b"/")}
    if (place.store / "index.lmdb").exists():
        kept[own] = place.dkfs("log", "--json", check=False).stdout
    return kept


@pytest.mark.parametrize("trouble", MOUNTS, ids=lambda trouble: trouble.name)
def test_trouble_without_a_mount_is_one_line(unmounted: Mounted, trouble: Trouble) -> None:
    check(unmounted, trouble)


@pytest.mark.parametrize("trouble", ON_A_MOUNT, ids=lambda trouble: trouble.name)
def test_trouble_on_a_mount_is_one_line(mounted: Mounted, trouble: Trouble) -> None:
    os.close(os.open(mounted.mountpoint / "file", os.O_CREAT))
    mounted.flush()
    check(mounted, trouble)


def test_a_store_of_a_newer_format_is_refused(unmounted: Mounted) -> None:
    _store_of_a_newer_format(unmounted)
    done = unmounted.mount(check=False)

    assert done.returncode == 4
    assert done.stderr == f"dkfs: store {unmounted.store} has format 3, this dkfs reads 1 and 2\n"


def test_a_mount_point_that_is_not_empty_is_covered(unmounted: Mounted) -> None:
    (unmounted.mountpoint / "covered").write_text("x")
    unmounted.mount()
    assert os.listdir(unmounted.mountpoint) == []
    unmounted.umount()

    assert (unmounted.mountpoint / "covered").read_text() == "x"


def test_a_state_directory_that_cannot_be_read_is_named(unmounted: Mounted) -> None:
    for path in (unmounted.base, unmounted.mountpoint):
        os.chown(path, 65534, 65534)
    unmounted.state_dir.chmod(0o700)
    words = ["-m", "dkfs", "mount", str(unmounted.state_dir), str(unmounted.mountpoint)]
    done = subprocess.run(
        [sys.executable, *words, "--store", str(unmounted.store), "--metrics-addr", ""],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == (
        f"dkfs: state directory {unmounted.state_dir} is not readable and writable\n"
    )
    assert done.returncode == 2
    assert not unmounted.store.exists()


@pytest.mark.parametrize(
    ("make", "why"),
    [("true", "No such file or directory"), ("mknod /dev/fuse c 10 230", "No such device")],
    ids=["missing", "of no driver"],
)
def test_without_dev_fuse_one_line_says_so(unmounted: Mounted, make: str, why: str) -> None:
    script = (
        "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && mknod /dev/urandom c 1 9"
        f' && {make} && exec "$@"'
    )
    if make != "true":
        script = script.replace("c 10 230", "c 10 254")  # nobody's number
    place = (unmounted.state_dir, unmounted.mountpoint, "--store", unmounted.store)
    words = ["-m", "dkfs", "mount", *map(str, place)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, *words],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT), DKFS_METRICS_ADDR=""),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == f"dkfs: /dev/fuse cannot be opened: {why}; expected the FUSE device\n"
    assert done.returncode == 1
    assert not unmounted.store.exists()


def test_nothing_in_the_root_can_be_named_dkfs(mounted: Mounted) -> None:
    top = mounted.mountpoint
    (top / "file").write_text("x")
    (top / "dir").mkdir()
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("File exists", lambda: os.mkdir(top / ".dkfs")),
        ("Is a directory", lambda: os.open(top / ".dkfs", os.O_CREAT | os.O_WRONLY)),
        ("File exists", lambda: os.symlink("x", top / ".dkfs")),
        ("File exists", lambda: os.link(top / "file", top / ".dkfs")),
        ("Is a directory", lambda: os.rename(top / "file", top / ".dkfs")),
        ("not permitted", lambda: os.rename(top / "dir", top / ".dkfs")),
        ("not permitted", lambda: os.rename(top / ".dkfs", top / "other")),
        ("not permitted", lambda: os.rmdir(top / ".dkfs")),
        ("Read-only", lambda: os.open(top / ".dkfs" / "x", os.O_CREAT | os.O_WRONLY)),
        ("Read-only", lambda: os.mkdir(top / ".dkfs" / "x")),
        ("Read-only", lambda: os.rename(top / "file", top / ".dkfs" / "x")),
        ("Read-only", lambda: os.chmod(top / ".dkfs", 0o777)),
    ]
    for message, attempt in attempts:
        with pytest.raises(OSError, match=message):
            attempt()
    assert sorted(os.listdir(top)) == ["dir", "file"]
    assert Path(mounted.state_dir / "file").exists()


def test_a_file_named_dkfs_below_the_root_is_a_file(mounted: Mounted) -> None:
    (mounted.mountpoint / "dir").mkdir()
    (mounted.mountpoint / "dir" / ".dkfs").write_text("mine")
    mounted.flush()

    assert os.listdir(mounted.mountpoint / "dir") == [".dkfs"]
    assert mounted.dkfs("cat", "latest:dir/.dkfs").stdout == "mine"


def test_with_snapdir_disabled_dkfs_is_a_name_like_others(unmounted: Mounted) -> None:
    (unmounted.state_dir / ".dkfs").write_text("mine")
    unmounted.mount("snapdir=disabled")

    assert (unmounted.mountpoint / ".dkfs").read_text() == "mine"
