"""Show what differs between two versions.

    dkfs diff A[..B] [PATH ...]

B is the latest version if it is not given.  Each line is a letter and a path:
  +  made     -  removed     M  contents     U  metadata only     T  another type     R  renamed

exit status:
  0 ok, whether they differ or not, 2 usage, 3 no such version or path, 4 store trouble, 5 damage found
"""

import argparse

from dkfs.cli.output import emit, json_path, printable
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.reading import reading
from dkfs.cli.records import state_json
from dkfs.core.diff import Difference
from dkfs.history.differ import diff


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("diff", __doc__)
    parser.add_argument("range", metavar="A[..B]", help="two versions")
    parser.add_argument("paths", nargs="*", default=[], metavar="PATH", help="only these")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    with reading(args) as view:
        a, b = view.range(args.range)
        paths = [view.location.tree_path(path) for path in args.paths]
        for difference in diff(view.reader, a, b, paths):
            if "json" in args:
                emit("change", _json(difference))
            else:
                print(_line(difference))
    return 0


def _line(difference: Difference) -> str:
    path = printable(difference.path) or "/"
    if difference.old_path is not None and difference.change == "R":
        path = f"{printable(difference.old_path)} -> {path}"
    fields = f"  ({', '.join(difference.fields)})" if difference.fields else ""
    return f"{difference.change}  {path}{fields}"


def _json(difference: Difference) -> dict[str, object]:
    members: dict[str, object] = {
        "change": difference.change,
        **json_path(difference.path),
        "fields": list(difference.fields),
        "old": None if difference.old is None else state_json(difference.old),
        "new": None if difference.new is None else state_json(difference.new),
    }
    if difference.old_path is not None:
        members |= json_path(difference.old_path, "old_path")
    return members
