"""The same as behaviours, for who may do what, and for attributes."""

import os
import stat
import subprocess
from functools import partial
from pathlib import Path

from tests.mount.behaviours import (
    BEHAVIOURS,
    GROUP,
    OTHER,
    USER,
    Seen,
    as_user,
    behaviour,
    make,
    mode,
    open_directory,
    owner,
    tried,
)

__all__ = ["BEHAVIOURS"]


# ---- rights


@behaviour
def directory_gives_its_group_with_setgid(top: Path) -> Seen:
    seen: list[Seen] = []
    for group in (GROUP, 0):
        directory = top / f"of-{group}"
        directory.mkdir()
        os.chown(directory, 0, group)
        directory.chmod(0o2777)

        def create(directory: Path = directory) -> None:
            os.umask(0o022)
            make(directory / "file")
            (directory / "dir").mkdir()
            os.symlink("x", directory / "link")
            os.mkfifo(directory / "fifo")
            os.close(os.open(directory / "program", os.O_CREAT, 0o2775))

        seen.append(as_user(USER, USER, create))
        names = ("file", "dir", "link", "fifo", "program")
        seen += [(name, owner(directory / name), mode(directory / name)) for name in names]
    return seen


@behaviour
def umask_counts_and_the_creator_owns(top: Path) -> Seen:
    open_directory(top)

    def create() -> None:
        os.umask(0o027)
        os.close(os.open(top / "file", os.O_CREAT, 0o666))
        os.mkdir(top / "dir", 0o777)
        os.mkfifo(top / "fifo", 0o666)

    result = as_user(USER, GROUP, create)
    return result, [(owner(top / name), mode(top / name)) for name in ("file", "dir", "fifo")]


@behaviour
def other_users_need_the_right(top: Path) -> Seen:
    open_directory(top)
    make(top / "mine", b"x", 0o600)
    make(top / "read", b"x", 0o644)
    (top / "closed").mkdir(0o700)
    make(top / "closed" / "in", b"x", 0o644)

    def try_all() -> Seen:
        return [
            tried(attempt)
            for attempt in (
                *((top / "mine").read_bytes, (top / "read").read_bytes),
                lambda: (top / "read").write_bytes(b"y"),
                (top / "closed" / "in").read_bytes,
                lambda: os.listdir(top / "closed"),
                lambda: (top / "read").chmod(0o777),
                lambda: os.chown(top / "read", USER, USER),
                lambda: os.utime(top / "read", ns=(1, 1)),
                lambda: os.setxattr(top / "read", "user.x", b"y"),
                lambda: os.getxattr(top / "mine", "user.x"),
                lambda: os.mknod(top / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
                lambda: os.truncate(top / "read", 0),
                lambda: os.link(top / "read", top / "linked"),
                lambda: os.rename(top / "read", top / "renamed"),
            )
        ]

    return as_user(USER, USER, try_all), sorted(os.listdir(top))


@behaviour
def sticky_directory_protects_what_is_in_it(top: Path) -> Seen:
    top.chmod(0o1777)
    as_user(USER, USER, lambda: make(top / "file", b"", 0o666))

    def attempts() -> Seen:
        return (
            tried((top / "file").unlink),
            tried(lambda: os.rename(top / "file", top / "x")),
            tried(lambda: (top / "file").write_bytes(b"ok")),
        )

    return as_user(OTHER, OTHER, attempts), as_user(USER, USER, (top / "file").unlink)


@behaviour
def set_user_id_goes_when_another_user_writes(top: Path) -> Seen:
    seen = []
    for how in ("write", "truncate", "chown", "by root"):
        path = make(top / how, b"0123456789")
        os.chown(path, USER, USER)
        path.chmod(0o6777)

        def change(path: Path = path, how: str = how) -> None:
            if how == "truncate":
                os.truncate(path, 3)
            elif how != "chown":
                with path.open("r+b") as file:
                    file.write(b"x")

        if how == "chown":
            os.chown(path, OTHER, OTHER)
        elif how == "by root":
            change()
        else:
            as_user(OTHER, OTHER, change)
        seen.append((how, mode(path)))
    return seen


@behaviour
def acls_give_and_take(top: Path) -> Seen:
    open_directory(top)
    make(top / "file", b"secret", 0o640)
    subprocess.run(["setfacl", "-m", f"u:{USER}:r,g:{GROUP}:rw", top / "file"], check=True)
    seen: list[Seen] = [mode(top / "file"), facl(top / "file")]
    reads = (top / "file").read_bytes
    seen += [as_user(uid, uid, reads) for uid in (USER, OTHER)]
    seen.append(as_user(OTHER, OTHER, reads, groups=(GROUP,)))
    seen.append(as_user(OTHER, OTHER, lambda: make(top / "file", b"by group"), groups=(GROUP,)))
    (top / "file").chmod(0o600)
    seen += [as_user(USER, USER, reads), facl(top / "file")]
    return seen


@behaviour
def default_acls_are_inherited(top: Path) -> Seen:
    rules = f"d:u:{USER}:rwx,d:g::r,d:o::-,u:{USER}:rwx"
    subprocess.run(["setfacl", "-m", rules, top], check=True)
    # pyfuse3 does not ask for FUSE_DONT_MASK: with a umask the mount masks the ACL too (facts, 6).
    os.umask(0)
    os.close(os.open(top / "file", os.O_CREAT, 0o666))
    (top / "dir").mkdir(0o777)
    (top / "dir" / "deep").mkdir()
    names = ("file", "dir", "dir/deep")
    return [(mode(top / name), facl(top / name)) for name in names]


def facl(path: Path) -> str:
    words = ["getfacl", "--omit-header", "--numeric", "--absolute-names", os.fspath(path)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


# ---- attributes


@behaviour
def xattrs_are_created_or_replaced(top: Path) -> Seen:
    path = make(top / "file")
    return (
        tried(lambda: os.setxattr(path, "user.a", b"1", os.XATTR_REPLACE)),
        tried(lambda: os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)),
        tried(lambda: os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)),
        tried(lambda: os.setxattr(path, "user.a", b"3", os.XATTR_REPLACE)),
        tried(lambda: os.setxattr(path, "user.empty", b"")),
        tried(lambda: os.setxattr(path, "none.such", b"")),
        tried(lambda: os.removexattr(path, "user.none")),
        sorted((name, os.getxattr(path, name)) for name in os.listxattr(path)),
        tried(lambda: os.getxattr(path, "user.none")),
        tried(lambda: os.setxattr(path, "user." + "n" * 251, b"")),
    )


@behaviour
def names_that_only_root_may_know_are_listed_to_nobody_else(top: Path) -> Seen:
    open_directory(top)
    path = make(top / "file")
    for name in ("user.a", "trusted.b", "security.c"):
        os.setxattr(path, name, b"1")
    os.symlink("file", top / "link")
    os.setxattr(top / "link", "trusted.d", b"1", follow_symlinks=False)

    def listed() -> Seen:
        link = os.listxattr(top / "link", follow_symlinks=False)
        read = tried(lambda: os.getxattr(path, "trusted.b"))
        return sorted(os.listxattr(path)), link, read

    return listed(), as_user(USER, USER, listed)


@behaviour
def acl_set_by_who_is_not_in_the_group_takes_set_group_id(top: Path) -> Seen:
    open_directory(top)
    seen = []
    for groups in ((), (GROUP,)):
        for kind in ("file", "dir"):
            path = top / f"{kind}{len(groups)}"
            path.mkdir() if kind == "dir" else path.touch()
            os.chown(path, USER, GROUP)
            path.chmod(0o2755)
            change = ("setfacl", "-m", f"u:{OTHER}:rwx", path)
            seen.append(as_user(USER, USER, partial(subprocess.call, change), groups))
            seen.append(mode(path))
    return seen


@behaviour
def devices_and_fifos_are_made(top: Path) -> Seen:
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(top / "disk", stat.S_IFBLK | 0o600, os.makedev(250, 17))
    os.mknod(top / "plain", stat.S_IFREG | 0o640)
    os.mkfifo(top / "fifo")
    (top / "null").write_bytes(b"gone")
    reading = os.open(top / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    (top / "fifo").write_bytes(b"through")
    through = os.read(reading, 10)
    os.close(reading)
    names = ("null", "disk", "plain", "fifo")
    return through, [(f"{(top / n).stat().st_mode:o}", (top / n).stat().st_rdev) for n in names]


@behaviour
def numbers_of_the_file_system_are_the_backing_ones(top: Path) -> Seen:
    status = os.statvfs(top)
    return status.f_namemax, status.f_blocks, status.f_files, status.f_bsize, status.f_frsize


@behaviour
def modes_of_every_kind(top: Path) -> Seen:
    path, directory = make(top / "file"), top / "dir"
    directory.mkdir()
    seen = []
    for bits in (0, 0o7777, 0o4711, 0o2070, 0o1000, 0o644):
        for one in (path, directory):
            one.chmod(bits)
            seen.append(mode(one))
    return seen
