"""Show what a mount is doing.

    dkfs status [MOUNTPOINT]

Of a read-only mount it tells what its store holds, and what the mount does that records into it, if there is one.

exit status:
  0 mounted and recording, or read-only, 1 not mounted or not recording, 2 usage, 4 store trouble
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dkfs.cli.asking import Answer, ask, number
from dkfs.cli.location import find, is_read_only, store_of
from dkfs.cli.output import aligned, emit, local_time, printable, size_text
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.scrubbing import last_text, scrub_lines
from dkfs.cli.umount import find_mount
from dkfs.config.mounts import Mount, containing
from dkfs.daemon.control import scrub_members
from dkfs.errors import MountError
from dkfs.history.recovery import open_store
from dkfs.model.ids import Seq
from dkfs.store import verified

_OVER: Final = {
    "policy": "the policy keeps more; let it keep less, or give more room (dkfs help space)",
    "writing": "more is being written than can be forgotten so soon",
}
_LABELS: Final = (
    ("state_dir", "state directory"),
    ("mountpoint", "mount point"),
    ("store", "store"),
    ("recorded_at", "recorded by the mount at"),
    ("since", "mounted since"),
    ("pid", "daemon pid"),
    ("version", "dkfs"),
    ("engine", "engine"),
    ("io", "io"),
    ("last", "last version"),
    ("queued_operations", "queued operations"),
    ("queued_bytes", "queued bytes"),
    ("lag_seconds", "lag"),
    ("files_open", "open files"),
    ("inodes", "inodes"),
)


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("status", __doc__)
    parser.add_argument("mountpoint", nargs="?", metavar="MOUNTPOINT", help="a dkfs mount")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    mount, store = _meant(args)
    with open_store(store, writable=False) as opened, opened.read() as reader:
        last, size = reader.last, opened.size()
    stored = {"index_bytes": size.index_bytes, "segment_bytes": size.segment_bytes}
    try:
        answer = ask(store, "status")
    except MountError:
        known = scrub_members(verified.load(store, verified.SCRUB))
        answer = {"store": os.fspath(store), "last": last, **known}
    if mount is not None and is_read_only(mount):
        _print(_viewed(mount, last, answer), stored, args, "read-only")
        return 0
    if "pid" not in answer:
        _print(answer, stored, args, "not mounted")
        return 1
    recording = answer.get("recording") is True
    _print(answer, stored, args, "recording" if recording else "NOT recording")
    return 0 if recording else 1


def _meant(args: argparse.Namespace) -> tuple[Mount | None, Path]:
    """Return the mount that is asked about, if it is one, and its store."""
    if "mountpoint" in args:
        mount = find_mount(args.mountpoint)
        return mount, store_of(mount)
    location = find(args)
    return containing(location.directory, location.mounts), location.store


def _viewed(mount: Mount, last: Seq, answer: Answer) -> Answer:
    """Return what is to be told of a read-only *mount*, where *answer* is of the mount that records, if there is one."""
    recorded = {"recorded_at": answer["mountpoint"]} if "mountpoint" in answer else {}
    kept = {
        key: answer[key] for key in ("store", "scrub_finished", "scrub_damage") if key in answer
    }
    point = os.fsdecode(mount.point)
    return {"mountpoint": point, "last": last, **kept, **recorded, "read_only": True}


def _print(
    answer: Mapping[str, object], stored: Mapping[str, int], args: argparse.Namespace, state: str
) -> None:
    if "json" in args:
        rest = {key: value for key, value in answer.items() if key != "message_type"}
        emit("status", rest, stored, mounted="pid" in answer or "read_only" in answer)
        return
    rows = [("state", printable(state))]
    rows += [(label, _text(key, answer)) for key, label in _LABELS if key in answer]
    rows.append(("store size", size_text(sum(stored.values()))))
    if "budget_bytes" in answer:
        rows.append(("budget", _budget_text(answer)))
    rows.append(("last scrub", last_text(answer)))
    if answer.get("scrub_running") is True:
        rows.append(("scrub", scrub_lines(answer)[0]))
    print("\n".join(aligned(rows)))


def _budget_text(answer: Mapping[str, object]) -> str:
    text = size_text(number(answer, "budget_bytes"))
    if answer.get("over_budget") is not True:
        return text
    return f"{text}, EXCEEDED: {_OVER.get(str(answer.get('over_budget_reason')), '')}"


def io_text(answer: Mapping[str, object]) -> str:
    """Return what *answer* says of how files are served."""
    text = printable(str(answer["io"]))
    if answer.get("io_rules"):
        text += f", {number(answer, 'io_rules')} rules for paths"
    if answer.get("io_why"):
        asked, why = answer.get("io_asked"), answer["io_why"]
        what = printable(str(asked)) if asked != answer["io"] else "another mode for some paths"
        text += f" ({what} was asked for: {printable(str(why))})"
    return text


def _text(key: str, answer: Mapping[str, object]) -> str:
    value = answer[key]
    if key == "io":
        return io_text(answer)
    if key == "queued_bytes":
        return size_text(number(answer, key))
    if key == "lag_seconds" and isinstance(value, int | float):
        return f"{value:.3f} s"
    if key == "since" and isinstance(value, int | float):
        return local_time(int(value * 10**9))
    return printable(str(value))
