"""Print what can complete a word; called by the completion scripts.

    dkfs __complete versions|tags|holds|topics WORD

exit status:
  0 ok, also if there is nothing
"""

import argparse
from collections.abc import Iterator

from dkfs.cli.help import DOCS
from dkfs.cli.main import COMMANDS
from dkfs.cli.parser import Parser, new_parser
from dkfs.cli.reading import Reading, reading
from dkfs.errors import DkfsError
from dkfs.history.tree import Tree
from dkfs.model.ids import NO_NODE
from dkfs.model.node import Kind


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("__complete", __doc__)
    kinds = ("versions", "tags", "holds", "topics")
    parser.add_argument("kind", choices=kinds, metavar="KIND", help="what")
    parser.add_argument("word", metavar="WORD", help="its beginning")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    if args.kind == "topics":
        found: Iterator[str] = iter([*COMMANDS, *(file.stem for file in DOCS.glob("*.md"))])
        print(*(word for word in found if word.startswith(args.word)), sep="\n")
        return 0
    try:
        with reading(args) as view:
            for word in _found(view, args.kind, args.word):
                if word.startswith(args.word) and word.isprintable():
                    print(word)
    except DkfsError:
        return 0  # no store, no such version: nothing to offer, and nowhere to say so
    return 0


def _found(view: Reading, kind: str, word: str) -> Iterator[str]:
    if kind == "versions":
        return _versions(view, word)
    # A hold is no tag to those who remove names.
    return (tag.name for tag in view.reader.tags() if tag.is_hold is (kind == "holds"))


def _tags(view: Reading) -> Iterator[str]:
    return (tag.name for tag in view.reader.tags())


def _versions(view: Reading, word: str) -> Iterator[str]:
    before, dots, _ = word.rpartition("..")
    if dots and ":" not in before:
        return (f"{before}..{name}" for name in _names(view))
    if ":" in word:
        return _paths(view, word)
    return _names(view)


def _names(view: Reading) -> Iterator[str]:
    yield "latest"
    yield from _tags(view)


def _paths(view: Reading, word: str) -> Iterator[str]:
    """Yield the places in the directory that *word* has come to."""
    typed = word[: max(word.rfind("/"), word.rfind(":")) + 1]
    seq, directory = view.place(typed)
    tree = Tree(view.reader, seq)
    node = tree.find(directory)
    if node == NO_NODE or tree.state(node).attr.kind is not Kind.DIR:
        return
    for name, child in tree.children(node):
        slash = "/" if tree.state(child).attr.kind is Kind.DIR else ""
        yield f"{typed}{name.decode('utf-8', 'surrogateescape')}{slash}"
