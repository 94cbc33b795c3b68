"""Name a version, or show or remove names.

    dkfs tag NAME [VERSION] [-n]     name VERSION, by default the present state
    dkfs tag --freeze NAME           name the present state, with what maps (mmap) have stored in it
    dkfs tag [--list]                show all tags and holds
    dkfs tag --delete NAME [-n]      remove a name; the version stays

A tag does not keep its version from being forgotten: `dkfs hold` does, and `dkfs forget --keep-tag NAME` if it is said.

The present state is that of one instant: requests of applications are held while all open files are captured
(milliseconds), so files that belong together are named together.  What programs have stored through maps (mmap) is in
it as far as the kernel has told dkfs; --freeze has the kernel tell first, and fails if that takes more than 5
seconds.  Where the kernel passes files through (-o io=hybrid, checkpoint), what is written or stored past dkfs in
that instant is not held.

exit status:
  0 ok, 1 the name is taken, or is a hold, or the daemon could not, 2 usage, 3 no such version or tag, 4 store trouble
"""

import argparse
import time

from dkfs.cli.changing import make_tag, remove_tag, say
from dkfs.cli.location import find
from dkfs.cli.output import aligned, emit, local_time, printable, utc_time
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.reading import reading
from dkfs.errors import UsageError
from dkfs.history.forget import is_live_hold
from dkfs.model.operation import Tag


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("tag", __doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the tag")
    parser.add_argument("version", nargs="?", metavar="VERSION", help="what to name")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("-l", "--list", action="store_true", help="show all tags")
    kind.add_argument("-d", "--delete", action="store_true", help="remove the tag NAME")
    parser.add_argument(
        "--freeze", action="store_true", help="have the kernel write what maps have stored first"
    )
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    if "name" not in args or "list" in args:
        if "name" in args or "delete" in args:
            raise UsageError("tag: expected NAME with --delete, and none with --list")
        show(args, only_holds=False)
        return 0
    if "delete" in args:
        if "version" in args:
            raise UsageError("tag --delete: expected NAME and nothing else")
        version = remove_tag(args, find(args).store)
        say(args, "untag", "removed tag {name}", "would remove tag {name}", version)
    else:
        if "freeze" in args and "version" in args:
            raise UsageError(
                "tag --freeze: expected NAME and no VERSION, it names the present state"
            )
        version = make_tag(args, find(args).store)
        say(
            args,
            "tag",
            "named version {version} {name}",
            "would name version {version} {name}",
            version,
        )
    return 0


def show(args: argparse.Namespace, *, only_holds: bool) -> None:
    """Print the tags and holds."""
    with reading(args) as view:
        tags = [tag for tag in view.reader.tags() if tag.is_hold or not only_holds]
    if "json" in args:
        for tag in tags:
            emit("tag", _json(tag))
    elif tags:
        rows = [
            (printable(tag.name), str(tag.seq), local_time(tag.time_ns), _hold(tag)) for tag in tags
        ]
        print("\n".join(aligned(rows, right=(1,))))


def _hold(tag: Tag) -> str:
    if not tag.is_hold:
        return ""
    if tag.expires_ns is None:
        return "hold"
    expired = "" if is_live_hold(tag, time.time_ns()) else ", expired"
    return f"hold until {local_time(tag.expires_ns)}{expired}"


def _json(tag: Tag) -> dict[str, object]:
    members: dict[str, object] = {
        "name": tag.name,
        "version": tag.seq,
        "time": utc_time(tag.time_ns),
        "hold": tag.is_hold,
    }
    if tag.expires_ns is not None:
        members["expires"] = utc_time(tag.expires_ns)
    return members
