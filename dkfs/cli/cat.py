"""Print files as they were.

    dkfs cat VERSION:PATH ...

PATH is relative to the root of the tree.  Every byte is checked against the hash that names it; what fails is not
printed.

exit status:
  0 ok, 2 usage, 3 no such version or path, or contents forgotten, 4 store trouble, 5 damage found
"""

import argparse
from typing import Final

from dkfs.cli.appearing import standard_output
from dkfs.cli.output import printable
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.reading import Reading, reading
from dkfs.errors import UsageError
from dkfs.history.content import check_kept, contents
from dkfs.history.tree import Tree
from dkfs.model.node import Kind

_PIECE: Final = 1024 * 1024  # bytes


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("cat", __doc__)
    parser.add_argument("places", nargs="+", metavar="VERSION:PATH", help="a file at a version")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    if "json" in args:
        raise UsageError("cat prints contents, not JSON")
    with reading(args) as view:
        for place in args.places:
            _print(view, place)
    return 0


def _print(view: Reading, place: str) -> None:
    seq, path = view.place(place)
    tree = Tree(view.reader, seq)
    state = tree.state(tree.resolve(path))
    if state.attr.kind is not Kind.FILE:
        kind = state.attr.kind.name.lower()
        raise UsageError(f"{printable(path) or '/'} is a {kind} at version {seq}, expected a file")
    check_kept(state, path, seq)
    content = contents(view.reader, state)
    with standard_output() as out:
        for offset in range(0, content.size, _PIECE):
            out.write(content.read(view.reader, offset, _PIECE))
