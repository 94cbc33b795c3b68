"""Show what is stored, what keeps it small, and what made it grow.

    dkfs stats [VERSION[:PATH]] [--mode MODE] [--by path|writer|day] [--depth N] [--top N]

MODE restore-size: what restoring VERSION (the latest) would write; raw-data: what all versions take in the store, and
what dedup, deltas and compression save of it; unique: what only VERSION reaches, and would come back without it.
Without --mode the first two.  --by adds what made the store grow, largest first.

exit status:
  0 ok, 2 usage, 3 no such version or path, 4 store trouble, 5 damage found: the numbers leave it out
"""

import argparse
import time
from collections.abc import Iterable
from typing import Final, cast

from dkfs.cli.output import aligned, emit, json_path, note, printable, size_text
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.reading import Reading, reading
from dkfs.config.values import Given, choice, count
from dkfs.errors import UsageError
from dkfs.history.recovery import open_store
from dkfs.history.stats import By, Grown, Savings, restore_size, survey, unique_bytes

_MODES: Final = ("restore-size", "raw-data", "unique")
_DAY_S: Final = 86_400


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("stats", __doc__)
    parser.add_argument("version", nargs="?", metavar="VERSION[:PATH]", help="default latest")
    parser.add_argument("--mode", metavar="MODE", help=", ".join(_MODES))
    parser.add_argument("--by", metavar="WHAT", help="growth by path, writer or day")
    parser.add_argument("--depth", metavar="N", help="parts of a path to group by (1)")
    parser.add_argument("--top", metavar="N", help="lines of growth (10; 0 = all)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    mode = choice(Given(args.mode, "--mode"), _MODES) if "mode" in args else None
    by = choice(Given(args.by, "--by"), ("path", "writer", "day")) if "by" in args else None
    top, depth = _count(args, "top", "10"), _count(args, "depth", "1")
    if not depth:
        raise UsageError("--depth: 0, expected at least 1")
    with reading(args) as view:
        if view.reader.last and mode in (None, "restore-size"):
            _show_restore_size(view, args)
        if mode == "unique":
            at, _ = view.place(getattr(args, "version", "latest"))
            _show(args, "unique", [("only version reaches", unique_bytes(view.reader, at))], at=at)
        if by is None and mode not in (None, "raw-data"):
            return 0
        found = survey(view.reader, by=cast(By, by or "path"), depth=depth)
        if mode in (None, "raw-data"):
            _show_raw_data(view, args, found.savings)
        if by is not None:
            _show_growth(args, by, found.grown.items(), top)
    if found.savings.damaged:
        note(f"{found.savings.damaged} damaged parts are left out; see `dkfs check`")
        return 5
    return 0


def _count(args: argparse.Namespace, name: str, default: str) -> int:
    return count(Given(getattr(args, name, default), f"--{name}"))


def _show_restore_size(view: Reading, args: argparse.Namespace) -> None:
    at, path = view.place(getattr(args, "version", "latest"))
    size = restore_size(view.reader, at, path)
    rows = [
        *(("files", size.files), ("directories", size.directories), ("others", size.others)),
        ("restore size bytes", size.file_bytes),
    ]
    _show(args, "restore-size", rows, at=at, path=path)


def _show_raw_data(view: Reading, args: argparse.Namespace, savings: Savings) -> None:
    with open_store(view.location.store, writable=False) as store:
        size = store.size()
        journals = sum(row.journal_bytes for _, row in view.reader.segments())
    rest = size.segment_bytes - savings.stored_bytes - savings.metadata_bytes - journals
    rows = [
        *(("versions of contents", savings.contents), ("chunks", savings.chunks)),
        ("full copies bytes", savings.full_bytes),
        ("saved by dedup bytes", savings.dedup_bytes),
        ("saved by deltas bytes", savings.delta_bytes),
        ("saved by compression bytes", savings.compression_bytes),
        ("stored contents bytes", savings.stored_bytes),
        ("stored manifests and attributes bytes", savings.metadata_bytes),
        ("journals bytes", journals),
        ("record heads and garbage bytes", max(0, rest)),
        ("index bytes", size.index_bytes),
        ("store bytes", size.segment_bytes + size.index_bytes),
    ]
    _show(args, "raw-data", rows)


def _show(
    args: argparse.Namespace,
    mode: str,
    rows: Iterable[tuple[str, int]],
    *,
    at: int | None = None,
    path: bytes = b"",
) -> None:
    if "json" in args:
        members: dict[str, object] = {_json_name(name): value for name, value in rows}
        where = {} if at is None else {"version": at, **json_path(path)}
        emit("stats", where, members, mode=mode)
        return
    title = mode if at is None else f"{mode} of version {at}"
    print(title + (f", {printable(path)}" if path else ""))
    lines = []
    for name, value in rows:
        is_bytes = name.endswith(" bytes") or mode == "unique"
        lines.append(
            (f"  {name.removesuffix(' bytes')}", size_text(value) if is_bytes else str(value))
        )
    print("\n".join(aligned(lines, right=(1,))))


def _json_name(name: str) -> str:
    return "unique_bytes" if name.startswith("only") else name.replace(" ", "_")


def _show_growth(
    args: argparse.Namespace, by: str, grown: Iterable[tuple[bytes, Grown]], top: int
) -> None:
    ordered = sorted(grown, key=lambda item: (-item[1].stored_bytes, item[0]))
    shown = ordered[:top] if top else ordered
    if "json" not in args:
        print(f"growth by {by}")
    lines = []
    for key, item in shown:
        if "json" in args:
            emit(
                "growth",
                _key_json(by, key),
                versions=item.versions,
                written_bytes=item.written_bytes,
                stored_bytes=item.stored_bytes,
            )
        stored, written = size_text(item.stored_bytes), size_text(item.written_bytes)
        lines.append((f"  {_key_text(by, key)}", str(item.versions), written, stored))
    if "json" not in args:
        head = (f"  {by}", "versions", "written", "stored")
        print("\n".join(aligned([head, *lines], right=(1, 2, 3))))


def _key_text(by: str, key: bytes) -> str:
    if by == "day":
        return time.strftime("%Y-%m-%d", time.gmtime(int(key) * _DAY_S))
    return printable(key) or "/"


def _key_json(by: str, key: bytes) -> dict[str, str]:
    return json_path(key) if by == "path" else {by: _key_text(by, key)}
