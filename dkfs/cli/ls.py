"""List a directory as it was.

    dkfs ls [VERSION[:PATH]] [-R] [-n]

PATH is relative to the root of the tree; VERSION is the latest one if nothing is given.

exit status:
  0 ok, 2 usage, 3 no such version or path, 4 store trouble, 5 damage found
"""

import argparse
from collections.abc import Iterator

from dkfs.cli.output import emit, json_path
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.reading import reading
from dkfs.cli.records import state_json, state_line
from dkfs.history.tree import Tree
from dkfs.model.ids import NodeId
from dkfs.model.node import Kind, NodeState


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("ls", __doc__)
    parser.add_argument(
        "place", nargs="?", default="latest", metavar="VERSION[:PATH]", help="what to list"
    )
    parser.add_argument(
        "-R", "--recursive", action="store_true", help="list all below, with paths from the root"
    )
    parser.add_argument("-n", "--numeric", action="store_true", help="uid and gid, not names")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    with reading(args) as view:
        seq, path = view.place(args.place)
        tree = Tree(view.reader, seq)
        nodes = tree.walk(path) if "recursive" in args else _listed(tree, path)
        for shown, node, state in nodes:
            if "json" in args:
                emit("node", json_path(shown), state_json(state), node=node, version=seq)
            else:
                print(state_line(state, shown or b"/", numeric="numeric" in args))
    return 0


def _listed(tree: Tree, path: bytes) -> Iterator[tuple[bytes, NodeId, NodeState]]:
    """Yield the names in a directory, or the one that *path* is."""
    top = tree.resolve(path)
    state = tree.state(top)
    if state.attr.kind is not Kind.DIR:
        yield path, top, state
        return
    for name, node in tree.children(top):
        yield name, node, tree.state(node)
