"""Name a version, or show or remove names.

    dkfs tag NAME [VERSION] [-n]     name VERSION, by default the present state
    dkfs tag [--list]                show all tags
    dkfs tag --delete NAME [-n]      remove a name; the version stays

Making and removing tags needs the directory to be mounted; showing them does not.

exit status:
  0 ok, 1 the name is taken or the daemon could not, 2 usage, 3 no such version or tag, 4 store trouble
"""

import argparse

from dkfs.cli.asking import ask, number, settled_version
from dkfs.cli.location import find
from dkfs.cli.output import aligned, emit, local_time, printable, utc_time
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.reading import reading
from dkfs.errors import ExistsError, NotFoundError, UsageError
from dkfs.history.versions import check_tag_name


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("tag", __doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the tag")
    parser.add_argument("version", nargs="?", metavar="VERSION", help="what to name")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("-l", "--list", action="store_true", help="show all tags")
    kind.add_argument("-d", "--delete", action="store_true", help="remove the tag NAME")
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    if "name" not in args or "list" in args:
        if "name" in args or "delete" in args:
            raise UsageError("tag: expected NAME with --delete, and none with --list")
        return _list(args)
    if "delete" in args:
        if "version" in args:
            raise UsageError("tag --delete: expected NAME and nothing else")
        return _delete(args)
    return _make(args)


def _list(args: argparse.Namespace) -> int:
    with reading(args) as view:
        tags = list(view.reader.tags())
    if "json" in args:
        for tag in tags:
            emit("tag", name=tag.name, version=tag.seq, time=utc_time(tag.time_ns))
    elif tags:
        rows = [(printable(tag.name), str(tag.seq), local_time(tag.time_ns)) for tag in tags]
        print("\n".join(aligned(rows, right=(1,))))
    return 0


def _make(args: argparse.Namespace) -> int:
    check_tag_name(args.name)
    location = find(args)
    if "dry_run" in args:
        version = settled_version(location, getattr(args, "version", "latest"))
        with reading(args) as view:
            if view.reader.tag(args.name) is not None:
                raise ExistsError(f"tag {args.name} exists already")
    elif "version" in args:
        version = settled_version(location, args.version)
        ask(location.store, "tag", name=args.name, version=str(version))
    else:
        version = number(ask(location.store, "tag", name=args.name), "seq")
    if "json" in args:
        emit("tag", name=args.name, version=version, dry_run="dry_run" in args)
    else:
        verb = "would name" if "dry_run" in args else "named"
        print(f"{verb} version {version} {printable(args.name)}")
    return 0


def _delete(args: argparse.Namespace) -> int:
    location = find(args)
    if "dry_run" in args:
        with reading(args) as view:
            if view.reader.tag(args.name) is None:
                raise NotFoundError(f"there is no tag {printable(args.name)}")
    else:
        ask(location.store, "untag", name=args.name)
    if "json" in args:
        emit("untag", name=args.name, dry_run="dry_run" in args)
    else:
        print(f"{'would remove' if 'dry_run' in args else 'removed'} tag {printable(args.name)}")
    return 0
