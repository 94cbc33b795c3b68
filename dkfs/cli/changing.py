"""Commands that change a store: through the daemon that serves it, or, where none does, directly."""

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from dkfs.cli.asking import ask
from dkfs.cli.output import emit, printable
from dkfs.errors import NotMountedError
from dkfs.history import tags
from dkfs.history.recovery import open_store
from dkfs.history.versions import check_tag_name, parse_version
from dkfs.model.ids import Seq
from dkfs.model.operation import Tag
from dkfs.store import Reader, Writer

T = TypeVar("T")


def is_served(store: Path) -> bool:
    """Return whether a daemon serves *store*, be it that it can commit nothing because the disk is full."""
    with suppress(NotMountedError):
        ask(store, "status")
        return True
    return False


def settle(store: Path) -> None:
    """Have everything committed that was done until now, if a daemon serves *store*."""
    with suppress(NotMountedError):
        ask(store, "flush")


def ask_or(store: Path, work: Callable[[Writer], Seq], command: str, **members: object) -> int:
    """Have the daemon do *command*, or do *work* if none serves *store*; return the version that is told."""
    try:
        seq = ask(store, command, **members).get("seq")
    except NotMountedError:
        return write(store, work)
    assert isinstance(seq, int), "both ends are of one release"
    return seq


def write(store: Path, work: Callable[[Writer], T]) -> T:
    """Do *work* in one transaction of a store that no daemon serves; raises StoreError."""
    with open_store(store, writable=True) as opened, opened.write() as writer:
        return work(writer)


def read(store: Path, work: Callable[[Reader], T]) -> T:
    """Do *work* in a view of *store*; raises StoreError."""
    with open_store(store, writable=False) as opened, opened.read() as reader:
        return work(reader)


def make_tag(
    args: argparse.Namespace, store: Path, *, is_hold: bool = False, expires_ns: int | None = None
) -> int:
    """Make the tag or hold that *args* name, or only look whether it could be made; return its version."""
    name: str = args.name
    check_tag_name(name)
    text: str = getattr(args, "version", "latest")
    now_ns = time.time_ns()

    def tag(reader: Reader) -> Tag:
        offset_s = time.localtime().tm_gmtoff
        seq = parse_version(reader, text, now_ns=now_ns, utc_offset_s=offset_s)
        found = Tag(name, seq, now_ns, is_hold, expires_ns)
        tags.check_new(reader, found)
        return found

    def put(writer: Writer) -> Seq:
        made = tag(writer)
        tags.put(writer, made)
        return made.seq

    members: dict[str, object] = {"name": name}
    if "dry_run" in args or "version" in args:
        settle(store)
        seq = read(store, tag).seq
        if "dry_run" in args:
            return seq
        members["version"] = str(seq)  # as it is meant here, in the local zone
    elif "freeze" in args:
        members["freeze"] = True
    if expires_ns is not None:
        members["expires_ns"] = expires_ns
    return ask_or(store, put, "hold" if is_hold else "tag", **members)


def remove_tag(args: argparse.Namespace, store: Path, *, is_hold: bool = False) -> int:
    """Remove the tag or hold that *args* name, or only look whether it could be; return its version."""
    name: str = args.name
    if "dry_run" in args:
        return read(store, lambda reader: tags.check_removal(reader, name, is_hold=is_hold)).seq

    def remove(writer: Writer) -> Seq:
        return tags.remove(writer, name, time.time_ns(), is_hold=is_hold).seq

    return ask_or(store, remove, "release" if is_hold else "untag", name=name)


def say(args: argparse.Namespace, message_type: str, done: str, would: str, version: int) -> None:
    """Print that the tag or hold was made or removed, or would be."""
    dry_run = "dry_run" in args
    if "json" in args:
        emit(message_type, name=args.name, version=version, dry_run=dry_run)
    else:
        name = printable(args.name)
        print((would if dry_run else done).format(name=name, version=version))
