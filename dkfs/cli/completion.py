"""Print a completion script.

    dkfs completion bash > /usr/share/bash-completion/completions/dkfs
    dkfs completion zsh  > /usr/share/zsh/site-functions/_dkfs
    dkfs completion fish > /usr/share/fish/vendor_completions.d/dkfs.fish

Commands and options are in the script; versions, tags and paths are asked of the store when TAB is pressed.

exit status:
  0 ok, 2 usage
"""

import argparse

from dkfs.cli import shells
from dkfs.cli.main import COMMANDS, load
from dkfs.cli.parser import Parser, new_parser


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("completion", __doc__)
    parser.add_argument("shell", choices=sorted(shells.WRITERS), metavar="SHELL", help="which")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    commands = [
        shells.describe(name, summary, load(name).add_parser())
        for name, summary in COMMANDS.items()
    ]
    print(shells.WRITERS[args.shell](commands), end="")
    return 0
