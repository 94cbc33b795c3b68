"""Show every version of one file, oldest first: version, time, what changed, size, who did it.

    dkfs history FILE [--reverse]

FILE may be gone by now.  `dkfs cat VERSION:FILE` prints what it was.  Where the version that changed it was forgotten,
the operation is shown as "forgotten": the time is that of the next version that is kept, who did it is not known.

Before the size: + made, - removed, M contents changed, T another kind of file, R renamed, U only owner, mode, time or
attributes changed.  "contents forgotten" at the end: a rule for paths (`dkfs help retention`) has kept all but those.

exit status:
  0 ok, 2 usage, 3 nothing was ever at FILE, 4 store trouble, 5 damage found
"""

import argparse

from dkfs.cli.output import emit, json_path, local_time, size_text, utc_time
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.reading import reading
from dkfs.cli.records import kind_text, origin_json, origin_text, state_json
from dkfs.history.log import FileVersion, file_history


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("history", __doc__)
    parser.add_argument("path", metavar="FILE", help="a file or directory, now or then")
    parser.add_argument("--reverse", action="store_true", help="newest first")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    with reading(args) as view:
        path = view.location.tree_path(args.path)
        versions = file_history(view.reader, path)
        if "reverse" in args:
            versions = reversed(list(versions))
        width = len(str(view.reader.last))
        for version in versions:
            if "json" in args:
                emit("version", _json(version), json_path(path))
            else:
                print(_line(version, width))
    return 0


def _line(version: FileVersion, width: int) -> str:
    size = "-" if version.state is None else size_text(version.state.attr.size)
    fields = ", ".join(version.fields)
    if version.state is not None and version.state.is_forgotten:
        fields = f"{fields}; contents forgotten" if fields else "contents forgotten"
    return (
        f"{version.seq:>{width}}  {local_time(version.time_ns)}  {version.change}  {size:>10}"
        f"  {_operation(version):11}  {origin_text(version.origin):24}  {fields}"
    ).rstrip()


def _operation(version: FileVersion) -> str:
    # The versions just before this one were forgotten, and it was one of them.
    return "forgotten" if version.kind is None else kind_text(version.kind)


def _json(version: FileVersion) -> dict[str, object]:
    return {
        "version": version.seq,
        "time": utc_time(version.time_ns),
        "time_ns": version.time_ns,
        "operation": _operation(version),
        "origin": origin_json(version.origin),
        "change": version.change,
        "fields": list(version.fields),
        "contents_forgotten": version.state is not None and version.state.is_forgotten,
        "node": version.node,
        "state": None if version.state is None else state_json(version.state),
    }
