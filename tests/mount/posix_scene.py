"""A directory with one of everything, and the tables of calls that are made on it by each kind of user.

A call is made on every path of PATHS, one after the other in the same scene: what one of them changes, the next ones
find changed, on a mount as on a plain directory.  A few calls share a scene, see families(). What is compared is what each call said, and what is there in the end.
"""

import errno
import os
import pickle
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

USER, OTHER, GROUP = 1234, 2345, 3456
LONGEST = b"n" * 255
NULL = os.makedev(1, 3)
NO_DISK = os.makedev(250, 17)

Call = Callable[[bytes], object]


class User(NamedTuple):
    """Who makes a call."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


# Who may do least comes first, and leaves most to the next one.
USERS = (
    User("other", OTHER, OTHER, ()),
    User("user", USER, USER, (GROUP,)),
    User("root", 0, 0, ()),
)

# What is made, in this order: name, mode, owner, group. A name that ends with a slash is a directory.
_TREE = (
    *((b"open/", 0o777, 0, 0), (b"empty/", 0o777, 0, 0), (b"full/", 0o777, 0, 0)),
    *((b"full/in", 0o666, 0, 0), (b"owned/", 0o755, USER, USER), (b"owned/in", 0o644, 0, 0)),
    *((b"closed/", 0o700, USER, USER), (b"closed/in", 0o666, USER, USER)),
    *((b"group/", 0o770, 0, GROUP), (b"group/in", 0o660, 0, GROUP)),
    *((b"no-x/", 0o666, 0, 0), (b"no-x/in", 0o666, 0, 0), (b"no-r/", 0o333, 0, 0)),
    *((b"no-r/in", 0o666, 0, 0), (b"no-w/", 0o555, USER, USER), (b"no-w/in", 0o666, USER, USER)),
    *((b"sticky/", 0o1777, 0, 0), (b"sticky/users", 0o666, USER, USER)),
    *((b"sticky/others", 0o666, OTHER, OTHER), (b"sticky/dir/", 0o777, USER, USER)),
    *((b"setgid/", 0o2777, 0, GROUP), (b"setgid/in", 0o2775, USER, GROUP)),
    *((b"file", 0o644, 0, 0), (b"users", 0o644, USER, USER), (b"groups", 0o664, 0, GROUP)),
    *((b"secret", 0o600, 0, 0), (b"mute", 0o000, USER, USER), (b"suid", 0o6755, USER, USER)),
    *((b"sgid", 0o2745, USER, GROUP), (b"all", 0o666, OTHER, OTHER), (LONGEST, 0o666, 0, 0)),
)
_SYMLINKS = (
    *((b"link", b"file"), (b"dirlink", b"full"), (b"dangling", b"nowhere"), (b"loop", b"loop")),
    *((b"ping", b"pong"), (b"pong", b"ping"), (b"slash", b"file/"), (b"into", b"closed/in")),
    *((b"new", b"open/by-link"), (b"chain0", b"all")),
)
_CHAIN = 41  # symlinks in a row, each leading to the one before it; 40 may be followed

PATHS = (
    *(b"open", b"empty", b"full", b"owned", b"closed", b"group", b"no-x", b"no-r", b"no-w"),
    *(b"sticky", b"setgid", b"full/in", b"owned/in", b"closed/in", b"group/in", b"no-x/in"),
    *(b"no-r/in", b"no-w/in", b"sticky/users", b"sticky/others", b"sticky/dir", b"setgid/in"),
    *(b"file", b"users", b"groups", b"secret", b"mute", b"suid", b"sgid", b"all", LONGEST),
    *(b"hard", b"link", b"dirlink", b"dangling", b"loop", b"ping", b"slash", b"into", b"new"),
    *(b"fifo", b"null", b"disk", b"socket", b"dirlink/in", b"loop/x", b"link/x", b"link/"),
    *(b"none", b"none/x", b"none/", b"file/", b"file/x", b"file/..", b"empty/", b"empty/."),
    *(b"empty/..", b"", b".", b"..", b"../scene", b"full//in", b"./full/./in"),
    *(b"n" * 256, b"full/" + b"n" * 256, b"chain39", b"chain40", b"chain41"),
    *(b"d/" * 2000 + b"x", b"./" * 2040 + b"file", b"./" * 2048 + b"file"),
    *(b"open/made", b"owned/made", b"closed/made", b"group/made", b"no-x/made", b"no-r/made"),
    *(b"no-w/made", b"sticky/made", b"setgid/made"),
)


def build(top: Path) -> Path:
    """Make the scene in *top*, as root; return where it is."""
    here = top / "scene"
    here.mkdir(parents=True)
    here.chmod(0o755)
    root = os.fsencode(here)
    for name, mode, uid, gid in _TREE:
        path = os.path.join(root, name)
        if name.endswith(b"/"):
            os.mkdir(path)
        else:
            with open(path, "wb") as file:
                file.write(b"0123456789")
        os.chown(path, uid, gid)
        os.chmod(path, mode)
    _build_others(root)
    return here


def _build_others(root: bytes) -> None:
    os.link(root + b"/all", root + b"/hard")
    chain = ((b"chain%d" % n, b"chain%d" % (n - 1)) for n in range(1, _CHAIN + 1))
    for name, target in (*_SYMLINKS, *chain):
        os.symlink(target, os.path.join(root, name))
    os.mkfifo(root + b"/fifo", 0o666)
    os.mknod(root + b"/null", stat.S_IFCHR | 0o666, NULL)
    os.mknod(root + b"/disk", stat.S_IFBLK | 0o666, NO_DISK)
    os.mknod(root + b"/socket", stat.S_IFSOCK | 0o666)
    for name in (b"fifo", b"null", b"disk", b"socket"):
        os.chmod(os.path.join(root, name), 0o666)


# ---- calling


def said(call: Call, path: bytes) -> object:
    """Return what *call* returns; the name of the errno if it is an error."""
    try:
        return call(path)
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc.errno))
    except ValueError as exc:
        return str(exc)


def families(rows: dict[str, Call]) -> list[dict[str, Call]]:
    """Return *rows* in groups, each to be made in one scene: what only looks, or changes times, takes nothing from the next."""
    found: dict[str, dict[str, Call]] = {}
    for name, call in rows.items():
        together = [words[0] for words in _TOGETHER if name.startswith(words)]
        found.setdefault(together[0] if together else name, {})[name] = call
    return [*found.values()]


_TOGETHER = (
    ("utimensat", "futimens"),
    ("setxattr", "getxattr", "removexattr", "listxattr", "llistxattr", "fsetxattr"),
    *(("stat", "lstat", "access", "readlink", "readdir", "chdir", "execve", "bind", "connect"),),
    *(
        (
            "open O_RDONLY",
            "open O_RDWR",
            "open O_DIRECT",
            "open O_NO",
            "open O_PATH",
            "open O_SYNC",
        ),
    ),
)


def answers(
    user: User, scene: Path, calls: dict[str, Call], paths: tuple[bytes, ...]
) -> dict[str, list[object]]:
    """Make each of *calls* for each of *paths*, as *user*, with *scene* as current directory."""

    def work() -> list[object]:
        os.umask(0o022)
        os.chdir(scene)
        return [[said(call, path) for path in paths] for call in calls.values()]

    found = in_process(user, work)
    assert all(isinstance(answers, list) for answers in found)
    return dict(zip(calls, found, strict=True))  # type: ignore[arg-type]  # see the line above


def in_process(user: User, work: Callable[[], list[object]]) -> list[object]:
    """Return what *work* returns in a process of *user*."""
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        seen: object = "died"
        try:
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
            seen = work()
        finally:
            there.sendall(pickle.dumps(seen))
            os._exit(0)
    there.close()
    with here.makefile("rb") as file:
        data = file.read()
    here.close()
    os.waitpid(pid, 0)
    seen = pickle.loads(data)
    assert isinstance(seen, list), seen
    return seen


# ---- what is there in the end


def remains(scene: Path) -> dict[bytes, object]:
    """Return what is in *scene*, with all that stat(2) says of it but times and numbers."""
    top = os.fsencode(scene)
    found: dict[bytes, object] = {}
    for path in _walk(top):
        s = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(s.st_mode) else b""
        attributes = sorted(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in os.listxattr(path, follow_symlinks=False)
        )
        size = 0 if stat.S_ISDIR(s.st_mode) else s.st_size
        found[path[len(top) :]] = (
            *(f"{s.st_mode:o}", s.st_uid, s.st_gid, s.st_nlink, size, s.st_rdev),
            *(target, attributes),
        )
    return found


def _walk(top: bytes) -> Iterator[bytes]:
    yield top
    for above, below, files in os.walk(top):
        yield from (os.path.join(above, name) for name in sorted(below + files))
