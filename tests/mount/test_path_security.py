"""The daemon goes nowhere but into its backing directory, whatever changes there; and never into its own mount."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.behaviours import tried
from tests.mount.engines import each_engine
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow, each_engine]

RACE_S = 2.0
_NO_WAY_OUT = os.O_NOFOLLOW | os.O_NONBLOCK  # the caller's kernel neither follows a link nor waits
_AT = re.compile(r'(AT_FDCWD|\d+)(?:<[^>]*>)?, "((?:[^"\\]|\\.)*)"')
_FIRST = re.compile(r'^\w+\("((?:[^"\\]|\\.)*)"')
_OWN_FD = re.compile(r"/proc/self/fd/\d+(/[^/]+)?")  # what the fd N holds, or one name in it


# ---- which paths the daemon names


@contextmanager
def _watched(pid: int, log: Path) -> Iterator[None]:
    """Have strace write into *log* every system call of *pid* that has a path."""
    words = ["strace", "-f", "-s", "4096", "-e", "trace=%file", "-o", str(log), "-p", str(pid)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        while "attached" not in (line := strace.stderr.readline()):
            assert line, "strace cannot attach"
        try:
            yield
        finally:
            strace.terminate()
            strace.communicate()


def _paths(log: Path) -> Iterator[tuple[str, str, str]]:
    """Find (system call, what it is relative to, path) in what strace wrote."""
    for line in log.read_text(errors="surrogateescape").splitlines():
        call = line.split(maxsplit=1)[-1]
        name = call.partition("(")[0]
        if not name.isidentifier():
            continue  # a signal, or the end of a call that was cut in two
        if (first := _FIRST.match(call)) is not None and name != "symlinkat":
            yield name, "", first[1]
        for directory, path in _AT.findall(call):
            yield name, directory, path


def _work_everywhere(top: Path) -> None:
    """Do something of every kind, below directories in directories."""
    deep = top / "one" / "two" / "three"
    deep.mkdir(parents=True)
    file = deep / "file"
    file.write_bytes(b"x" * 10_000)
    os.truncate(file, 100)
    file.chmod(0o640)
    os.chown(file, 1, 1)
    os.utime(file, ns=(1, 2))
    os.setxattr(file, "user.a", b"1")
    assert os.listxattr(file) == ["user.a"]
    os.removexattr(file, "user.a")
    (deep / "link").symlink_to("../../elsewhere/far/away")
    os.readlink(deep / "link")
    os.link(file, top / "one" / "hard")
    os.mkfifo(deep / "fifo")
    os.rename(file, top / "one" / "moved")
    assert (top / "one" / "moved").read_bytes() == b"x" * 100
    for directory, _, names in os.walk(top):
        for name in names:
            os.lstat(os.path.join(directory, name))
    tried(lambda: os.close(os.open(deep, os.O_TMPFILE | os.O_RDWR)))
    fd = os.open(top / "one" / "moved", os.O_RDWR)
    os.pwrite(fd, b"y", 5)
    os.fsync(fd)
    os.close(fd)
    (deep / "link").unlink()
    (deep / "fifo").unlink()
    deep.rmdir()


def test_every_path_is_one_name_in_an_open_directory_and_none_is_in_the_mount(
    mounted: Mounted,
) -> None:
    top = mounted.mountpoint
    (top / "before").mkdir()
    (top / "before" / "file").write_text("before")
    mounted.dkfs("tag", "then")
    log = mounted.base / "calls"

    with _watched(mounted.daemon_pid, log):
        _work_everywhere(top)
        mounted.flush()
        assert (top / ".dkfs" / "tags" / "then" / "before" / "file").read_text() == "before"
        mounted.dkfs("rollback", "then")
        assert os.listdir(top) == ["before"]

    seen = list(_paths(log))
    assert Counter(name for name, _, _ in seen)["openat"] > 10  # something was seen
    for name, directory, path in seen:
        said = f"{name}({directory}, {path!r})"
        if path.startswith("/"):
            ours = Path(path).is_relative_to(mounted.base)
            assert not ours or Path(path).is_relative_to(mounted.store), said
            assert not path.startswith("/proc/self/fd/") or _OWN_FD.fullmatch(path), said
        else:
            assert directory not in ("", "AT_FDCWD"), said
            assert "/" not in path, said
            assert path != "..", said


def test_the_daemon_holds_nothing_of_its_mount(mounted: Mounted) -> None:
    top = mounted.mountpoint
    (top / "file").write_text("x")
    device = os.lstat(top).st_dev
    with open(top / "file", encoding="utf-8"):
        proc = Path(f"/proc/{mounted.daemon_pid}")

        held = [os.readlink(proc / "cwd"), os.readlink(proc / "root")]
        held += [tried_readlink(fd) for fd in (proc / "fd").iterdir()]
        maps = (proc / "maps").read_text()

    assert [path for path in held if Path(path).is_relative_to(top)] == []
    assert str(top) not in maps
    assert f" {os.major(device):02x}:{os.minor(device):02x} " not in maps


def tried_readlink(path: Path) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""  # closed meanwhile


# ---- names that are exchanged behind the mount

_SWAPPER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
os.chdir(sys.argv[1])
pairs = [word.encode().split(b":") for word in sys.argv[2:]]
print("ready", flush=True)
while True:
    for one, other in pairs:
        libc.renameat2(-100, one, -100, other, 2)  # RENAME_EXCHANGE
"""


@contextmanager
def _exchanged(directory: Path, pairs: list[tuple[str, str]]) -> Iterator[None]:
    """Exchange the names of each pair in *directory* all the time, in another process."""
    words = [sys.executable, "-c", _SWAPPER, str(directory), *(f"{a}:{b}" for a, b in pairs)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.kill()


def _picture(top: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        contents = path.read_bytes() if path.is_file() else None
        found[str(path)] = (contents, status.st_mode, status.st_uid, os.listxattr(path))
    return found


class Outside:
    """What is not to be reached, and attempts to reach it."""

    def __init__(self, place: Mounted) -> None:
        self.top = place.base / "outside"
        (self.top / "inner").mkdir(parents=True)
        for name in ("secret", "inner/secret", "victim"):
            (self.top / name).write_text("SECRET")
        self.before = _picture(self.top)
        self.seen: Counter[str] = Counter()

    def attempt(self, what: str, attempt: Callable[[], object]) -> None:
        """Do it; count how it went."""
        try:
            result = attempt()
        except OSError:
            self.seen[f"{what} failed"] += 1
        else:
            assert result != b"SECRET", what
            self.seen[what] += 1

    def check(self, *kinds: str) -> None:
        """Nothing outside has changed, and each of *kinds* was done at least once."""
        assert _picture(self.top) == self.before
        assert all(self.seen[kind] for kind in kinds), self.seen


def _read(fd: int, name: str) -> bytes:
    file = os.open(name, os.O_RDONLY | _NO_WAY_OUT, dir_fd=fd)
    try:
        return os.read(file, 100)
    finally:
        os.close(file)


def _write(fd: int, name: str, flags: int) -> None:
    file = os.open(name, os.O_WRONLY | _NO_WAY_OUT | flags, 0o600, dir_fd=fd)
    try:
        os.write(file, b"overwritten")
    finally:
        os.close(file)


def _attack_directory(outside: Outside, fd: int, number: int) -> None:
    """Use *fd*, a directory of the mount, that may be a symbolic link to outside by now."""
    new = f"new{number}"
    attempt = outside.attempt
    attempt("list", lambda: os.listdir(fd))
    attempt("read", lambda: _read(fd, "secret"))
    attempt("write", lambda: _write(fd, "victim", os.O_TRUNC))
    attempt("create", lambda: _write(fd, new, os.O_CREAT | os.O_EXCL))
    attempt("mkdir", lambda: os.mkdir(f"{new}.d", dir_fd=fd))
    attempt("rename", lambda: os.rename(new, f"{new}.r", src_dir_fd=fd, dst_dir_fd=fd))
    attempt("chmod", lambda: os.chmod("inner", 0o711, dir_fd=fd))
    attempt("unlink", lambda: os.unlink("victim", dir_fd=fd))


def _attack_file(outside: Outside, fd: int, name: str) -> None:
    outside.attempt("read", lambda: _read(fd, name))
    outside.attempt("write", lambda: _write(fd, name, 0))
    outside.attempt("truncate", lambda: _write(fd, name, os.O_TRUNC))


def test_directory_that_becomes_a_symbolic_link_leads_nowhere(unmounted: Mounted) -> None:
    outside = Outside(unmounted)
    for number in range(8):
        (unmounted.state_dir / f"d{number}" / "inner").mkdir(parents=True)
        for name in ("secret", "victim"):
            (unmounted.state_dir / f"d{number}" / name).write_text("inside")
        (unmounted.state_dir / f"l{number}").symlink_to(outside.top)
    unmounted.mount()
    deadline_s = time.monotonic() + RACE_S
    number = 0

    with _exchanged(unmounted.state_dir, [(f"d{n}", f"l{n}") for n in range(8)]):
        while time.monotonic() < deadline_s:
            number += 1
            for way in ("d", "l"):  # whichever is the directory
                path = unmounted.mountpoint / f"{way}{number % 8}"
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                except OSError:
                    continue
                try:
                    _attack_directory(outside, fd, number)
                finally:
                    os.close(fd)
            if number % 20 == 0:
                Path("/proc/sys/vm/drop_caches").write_text("2\n")  # the kernel is to ask again

    outside.check("list", "read", "create")
    unmounted.umount()


def test_file_that_becomes_a_symbolic_link_or_a_fifo_leads_nowhere(unmounted: Mounted) -> None:
    outside = Outside(unmounted)
    state = unmounted.state_dir
    for number in range(8):
        (state / f"f{number}").write_text("inside")
        if number % 2:
            (state / f"o{number}").symlink_to(outside.top / "secret")
        else:
            os.mkfifo(state / f"o{number}")
    unmounted.mount()
    deadline_s = time.monotonic() + RACE_S
    number = 0
    root = os.open(unmounted.mountpoint, os.O_RDONLY | os.O_DIRECTORY)

    with _exchanged(state, [(f"f{n}", f"o{n}") for n in range(8)]):
        while time.monotonic() < deadline_s:
            number += 1
            _attack_file(outside, root, f"f{number % 8}")
            if number % 20 == 0:
                Path("/proc/sys/vm/drop_caches").write_text("2\n")

    os.close(root)
    outside.check("read", "write")
    unmounted.umount()


# ---- mounts above and below


@contextmanager
def _tmpfs(directory: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "test", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def test_mount_over_another_mount_covers_it_and_gives_it_back(unmounted: Mounted) -> None:
    with _tmpfs(unmounted.mountpoint):
        (unmounted.mountpoint / "below").write_text("x")

        unmounted.mount()
        (unmounted.mountpoint / "file").write_text("recorded")
        during = os.listdir(unmounted.mountpoint)
        unmounted.umount()

        assert during == ["file"]
        assert os.listdir(unmounted.mountpoint) == ["below"]
    assert (unmounted.state_dir / "file").read_text() == "recorded"


def test_mount_on_the_state_directory_itself_reaches_what_is_below_it(unmounted: Mounted) -> None:
    place = Mounted(
        unmounted.base,
        unmounted.state_dir,
        unmounted.state_dir,
        unmounted.store,
        unmounted.options,
    )
    (unmounted.state_dir / "file").write_text("there")

    place.mount()
    assert (unmounted.state_dir / "file").read_text() == "there"
    (unmounted.state_dir / "new").write_text("through the mount")
    place.umount()

    assert (unmounted.state_dir / "new").read_text() == "through the mount"
    assert place.dkfs("cat", "latest:new").stdout == "through the mount"


def test_mount_within_the_state_directory_is_served_and_stays(unmounted: Mounted) -> None:
    inner = unmounted.state_dir / "inner"
    inner.mkdir()
    with _tmpfs(inner):
        (inner / "file").write_text("on the other one")

        unmounted.mount()
        assert (unmounted.mountpoint / "inner" / "file").read_text() == "on the other one"
        (unmounted.mountpoint / "inner" / "new").write_text("new")
        moved = tried(
            lambda: os.rename(
                unmounted.mountpoint / "inner" / "new", unmounted.mountpoint / "moved"
            )
        )
        unmounted.umount()

        assert moved == "EXDEV"
        assert (inner / "new").read_text() == "new"
