"""Explain a topic or a command.

    dkfs help [TOPIC]

Without TOPIC lists the topics.

exit status:
  0 ok, 3 no such topic
"""

import argparse
from pathlib import Path
from typing import Final

import dkfs
from dkfs.cli.main import COMMANDS, load
from dkfs.cli.output import printable
from dkfs.cli.parser import Parser, new_parser
from dkfs.errors import NotFoundError

DOCS: Final = Path(dkfs.__file__).parent / "docs"


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("help", __doc__)
    parser.add_argument("topic", nargs="?", metavar="TOPIC", help="a topic or a command")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    topics = sorted(file.stem for file in DOCS.glob("*.md"))
    if "topic" not in args:
        print("topics:", *topics, sep="\n  ")
        print("commands:", *COMMANDS, sep="\n  ")
    elif args.topic in topics:
        print((DOCS / f"{args.topic}.md").read_text(encoding="utf-8"), end="")
    elif args.topic in COMMANDS:
        load(args.topic).add_parser().print_help()
    else:
        expected = ", ".join([*topics, *COMMANDS])
        raise NotFoundError(f"no help on {printable(args.topic)}, expected one of {expected}")
    return 0
