"""Show what was done, newest first: version, time, operation, who did it, path.

    dkfs log [PATH] [--since WHEN] [--until WHEN] [--by WHO] [--limit N] [--reverse]

With PATH only what was done to it or below it.  WHEN is a version or a time; WHO is a command name, a pid, pid=N
or uid=N.  What forgotten versions did is not shown, only how many names and files they changed before the next one
that is kept.

exit status:
  0 ok, 2 usage, 3 no such version, or nothing was ever at PATH, 4 store trouble, 5 damage found
"""

import argparse
from itertools import islice

from dkfs.cli.output import emit, json_path, local_time, printable, size_text, utc_time
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.reading import reading
from dkfs.cli.records import kind_text, origin_json, origin_text
from dkfs.config.values import Given, count
from dkfs.history.log import LogLine, log, parse_by
from dkfs.model.operation import OpKind


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("log", __doc__)
    parser.add_argument("path", nargs="?", metavar="PATH", help="a file or directory, now or then")
    parser.add_argument("--since", metavar="WHEN", help="from this version or time on")
    parser.add_argument("--until", metavar="WHEN", help="up to this version or time")
    parser.add_argument("--by", metavar="WHO", help="only what WHO did")
    parser.add_argument("--limit", metavar="N", help="at most N lines")
    parser.add_argument("--reverse", action="store_true", help="oldest first")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    limit = count(Given(args.limit, "--limit")) if "limit" in args else None
    by = parse_by(args.by) if "by" in args else None
    with reading(args) as view:
        lines = log(
            view.reader,
            view.location.tree_path(args.path) if "path" in args else None,
            since=view.since(args.since) if "since" in args else None,
            until=view.until(args.until) if "until" in args else None,
            by=by,
            oldest_first="reverse" in args,
        )
        width = len(str(view.reader.last))
        for line in islice(lines, limit):
            if "json" in args:
                emit("operation", _json(line))
            else:
                print(
                    f"{line.seq:>{width}}  {local_time(line.time_ns)}  {kind_text(line.kind):11}"
                    f"  {origin_text(line.origin):24}  {_what(line)}{_folded(line)}"
                )
    return 0


def _what(line: LogLine) -> str:
    """Return the last column: where it was done, and what cannot be seen from that."""
    if line.kind is OpKind.TAG:
        return f"{printable(line.tag or '')} = {line.target}"
    if line.kind is OpKind.UNTAG:
        return printable(line.tag or "")
    if line.kind in (OpKind.ROLLBACK, OpKind.UNDO, OpKind.REDO):
        only = "".join(f" {printable(path) or '/'}" for path in line.paths)
        taken_back = f", takes back {line.undoes}" if line.undoes else ""
        return f"to {line.target}{taken_back}{only}"
    if line.path is None:
        return f"{line.changed} {'change' if line.changed == 1 else 'changes'}"
    path = printable(line.path) or "/"
    if line.new_path is not None:
        arrow = "<->" if line.kind is OpKind.EXCHANGE else "->"
        return f"{path} {arrow} {printable(line.new_path)}"
    return path if line.size is None else f"{path} ({size_text(line.size)})"


def _folded(line: LogLine) -> str:
    return f"  (+{line.folded} from versions forgotten before)" if line.folded else ""


def _json(line: LogLine) -> dict[str, object]:
    members: dict[str, object] = {
        "version": line.seq,
        "time": utc_time(line.time_ns),
        "time_ns": line.time_ns,
        "operation": kind_text(line.kind),
        "origin": origin_json(line.origin),
        "changed": line.changed,
    }
    if line.path is not None:
        members |= json_path(line.path)
    if line.new_path is not None:
        members |= json_path(line.new_path, "new_path")
    if line.paths:
        members["paths"] = [json_path(path) for path in line.paths]
    optional = (("size", line.size), ("tag", line.tag), ("folded", line.folded or None))
    members |= {key: value for key, value in optional if value is not None}
    members |= {key: seq for key, seq in (("target", line.target), ("undoes", line.undoes)) if seq}
    return members
