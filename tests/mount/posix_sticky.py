"""Who may remove and move what in a directory whose sticky bit is set: every owner of it, of the file, and every user."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from tests.mount.posix_scene import GROUP, OTHER, USER, User, in_process

THIRD = 4567
OWNERS = {"root": 0, "user": USER, "other": OTHER}
ACTORS = (
    User("other", OTHER, OTHER, ()),
    User("third", THIRD, THIRD, (GROUP,)),
    User("user", USER, USER, (GROUP,)),
    User("root", 0, 0, ()),
)
KINDS = ("file", "dir", "link", "fifo")
_ACTIONS: dict[str, Callable[[Path, str], object]] = {
    "remove": lambda d, name: os.rmdir(d / name) if name == "dir" else os.unlink(d / name),
    "rename": lambda d, name: os.rename(d / name, d / "moved"),
    "rename out": lambda d, name: os.rename(d / name, d.parent / "free" / f"{d.name}-{name}"),
    "rename over": lambda d, name: os.rename(d.parent / "free" / name, d / name),
    "link": lambda d, name: os.link(d / name, d / "linked", follow_symlinks=False),
    "open": lambda d, name: os.close(os.open(d / name, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)),
    "truncate": lambda d, name: os.truncate(d / name, 1),
    "chmod": lambda d, name: os.chmod(d / name, 0o600),
}


def _fill(directory: Path, owner: int) -> None:
    (directory / "file").write_bytes(b"x")
    (directory / "dir").mkdir()
    (directory / "link").symlink_to("file")
    os.mkfifo(directory / "fifo")
    for name in KINDS:
        os.chown(directory / name, owner, GROUP, follow_symlinks=False)
        if name != "link":
            os.chmod(directory / name, 0o666)


def _rows(actor: User) -> list[tuple[str, str, int, str]]:
    return [
        (f"{owner}-{holder}-{action}".replace(" ", "-"), holder, uid, action)
        for owner, uid in OWNERS.items()
        for holder in OWNERS
        for action in _ACTIONS
    ]


def answers(top: Path) -> dict[str, object]:
    """Try every action on every kind; return what each said, and which names were left."""
    seen: dict[str, object] = {}
    for actor in ACTORS:
        place = top / actor.name
        (place / "free").mkdir(parents=True)
        os.chmod(place / "free", 0o777)
        rows = _rows(actor)
        for name, holder, owner, _ in rows:
            directory = place / name
            directory.mkdir()
            _fill(directory, owner)
            os.chown(directory, OWNERS[holder], GROUP)
            os.chmod(directory, 0o1777)

        def work(place: Path = place, rows: list[tuple[str, str, int, str]] = rows) -> list[object]:
            return [_try_each(place / name, action) for name, _, _, action in rows]

        found = in_process(actor, work)
        seen |= {f"{actor.name}: {row[0]}": what for row, what in zip(rows, found, strict=True)}
        seen |= {f"{actor.name}: {row[0]} left": sorted(os.listdir(place / row[0])) for row in rows}
    return seen


def _try_each(directory: Path, action: str) -> list[str]:
    if action == "rename over":
        _fill_free(directory.parent / "free")
    said = []
    for kind in KINDS:
        try:
            _ACTIONS[action](directory, kind)
            said.append("")
        except OSError as exc:
            said.append(errno.errorcode[exc.errno or 0])
    return said


def _fill_free(free: Path) -> None:
    for name in ("file", "link", "fifo"):
        (free / name).write_bytes(b"")
    os.makedirs(free / "dir", exist_ok=True)
