"""The entry point: finds the command, runs it, and turns errors into one line and an exit status."""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

from dkfs import __version__
from dkfs.cli.output import note, printable, silence
from dkfs.cli.parser import Parser, add_general
from dkfs.config.values import Given, boolean
from dkfs.errors import DkfsError, NotFoundError, UsageError
from dkfs.failpoints import VARIABLE, arm

# Here and not in the modules, so that `dkfs --help` imports none of them.
COMMANDS: Final = {
    "mount": "mount a directory and record its history",
    "umount": "unmount, after everything is recorded",
    "run": "run a program on a directory that never forgets",
    "replay": "bring a directory back from its store",
    "status": "show what a mount is doing",
    "stats": "show what is stored, and what made it grow",
    "log": "show what was done, newest first",
    "history": "show every version of one file",
    "ls": "list a directory as it was",
    "cat": "print a file as it was",
    "diff": "show what differs between two versions",
    "tag": "name a version",
    "hold": "keep a version from being forgotten",
    "release": "end a hold",
    "forget": "forget the versions that a policy does not keep",
    "gc": "give back to the disk what nothing needs any more",
    "prune": "forget by a policy, and gc",
    "restore": "copy a version out into a directory",
    "dump": "write a version as a tar or zip archive",
    "send": "write history as a stream, for another store",
    "receive": "take a stream into a store",
    "copy": "copy history to another store",
    "browse": "mount the history of a store, without its directory",
    "rollback": "make an earlier version current again",
    "undo": "take back the last rollback",
    "redo": "take back the last undo",
    "migrate": "make an older store one of today's format",
    "check": "look for damage in a store, and repair it",
    "scrub": "read and verify everything in a store, slowly",
    "completion": "print a completion script for bash, zsh or fish",
    "help": "explain a topic or a command",
}
HIDDEN: Final = {
    "mount.fuse.dkfs": "mount_helper",
    "mount-helper": "mount_helper",
    "umount.fuse.dkfs": "umount_helper",
    "umount-helper": "umount_helper",
    "__complete": "complete",
    "__survey": "survey",
}
EXIT_STATUS: Final = """exit status:
  0 ok, 1 failed, 2 usage, 3 not found, 4 store trouble, 5 damage found, 130 interrupted"""


class Command(Protocol):
    """What a command's module has."""

    def add_parser(self) -> Parser:
        """Return the command's parser."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it; return the exit status."""
        ...


# What mount(8) and umount(8) understand; anything else is their 32, not mounted.
_HELPERS: Final = tuple(name for name, module in HIDDEN.items() if module.endswith("_helper"))
_HELPER_STATUS: Final = {0: 0, 2: 1, 4: 2, 5: 2, 130: 8}


def load(name: str) -> Command:
    """Return the module of the command *name*; raises UsageError."""
    if name not in COMMANDS and name not in HIDDEN:
        raise UsageError(f"unknown command {printable(name)} (see dkfs --help)")
    module = HIDDEN.get(name, name)
    return cast("Command", importlib.import_module(f"dkfs.cli.{module}"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run dkfs with *argv*, by default that of the process; return the exit status."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")
    args = argparse.Namespace(command=None)
    status = _guarded(_words(argv), args)
    return _HELPER_STATUS.get(status, 32) if args.command in _HELPERS else status


def _open_closed_streams() -> None:
    # A file opened later must not get the number of a stream that the caller has closed (>&-).
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: fd
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _guarded(words: list[str], args: argparse.Namespace) -> int:
    try:
        status = _run(words, args)
        sys.stdout.flush()
    except BrokenPipeError:
        silence()
        return 141  # 128 + SIGPIPE, as of any program that writes to a closed pipe
    except KeyboardInterrupt:
        return 130
    except SystemExit as exc:  # --help and --version
        return exc.code if isinstance(exc.code, int) else 0
    except Exception as exc:  # noqa: BLE001 - the edge: whatever it is becomes one line
        return _report(exc, args)
    return status


def _words(argv: Sequence[str] | None) -> list[str]:
    if argv is not None:
        return list(argv)
    name = os.path.basename(sys.argv[0])
    return [name, *sys.argv[1:]] if name in HIDDEN else sys.argv[1:]


def _run(words: list[str], args: argparse.Namespace) -> int:
    arm(os.environ.get(VARIABLE, ""))
    parser = _general_parser()
    parser.parse(words, args)
    given = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not given:
        parser.print_help(sys.stderr)
        return UsageError.exit_status
    name, *rest = given
    args.command = name
    if "/" in name:
        # mount.fuse3 calls `dkfs SPEC DIR -o OPTIONS` where mount.fuse.dkfs is not installed.
        name, rest = "mount-helper", [name, *rest]
        args.command = name
    command = load(name)
    command.add_parser().parse(rest, args)
    if "directory" in args:
        try:
            os.chdir(args.directory)
        except OSError as exc:
            raise NotFoundError(f"-C {printable(args.directory)}: {exc.strerror}") from exc
    return command.run(args)


def _general_parser() -> Parser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    parser = Parser(
        prog="dkfs",
        usage="dkfs [OPTIONS] COMMAND ...",
        description="dkfs keeps the whole history of a directory while applications use it.",
        epilog=f"commands:\n{commands}\n\n`dkfs COMMAND --help` explains a command.\n\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    add_general(parser)
    parser.add_argument("--version", action="version", version=f"dkfs {__version__}")
    # The command and its words as one: argparse would take a "--" that follows the command away.
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _report(exc: Exception, args: argparse.Namespace) -> int:
    if "debug" in args and _is_true(args.debug):
        traceback.print_exception(exc)
    if isinstance(exc, DkfsError):
        note(f"dkfs: {_one_line(str(exc))}")
        return exc.exit_status
    if isinstance(exc, OSError) and exc.strerror:
        what = f"{printable(os.fspath(exc.filename))}: " if exc.filename else ""
        note(f"dkfs: {what}{exc.strerror}")
    else:
        note(f"dkfs: internal error: {type(exc).__name__}: {_one_line(str(exc))}")
    return 1


def _is_true(text: str) -> bool:
    try:
        return boolean(Given(text, "--debug"))
    except UsageError:
        return False


def _one_line(text: str) -> str:
    # A name in a message may hold anything; the terminal gets none of it raw.
    return "".join(char if char.isprintable() else printable(char)[2:-1] for char in text)
