"""Make a store of an older format one of this dkfs's.

    dkfs migrate [-n]

Reading a store of an older format needs no migration, recording into it does.  Only the index is written anew, beside
the old one, and then takes its place; that needs the room of another index, and nobody may be recording.  A migration
that is interrupted leaves the store as it was.  Older versions of dkfs cannot read the store afterwards.

exit status:
  0 ok, or nothing to do; 2 usage; 4 store trouble: in use, or of a newer dkfs; 5 damage was found, and taken over
"""

import argparse

from dkfs.cli.location import find
from dkfs.cli.output import emit, note, printable, status_of_problems
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.progress import Progress
from dkfs.store.migrate import Migration, migrate, survey


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("migrate", __doc__)
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    store = find(args).store
    if "dry_run" in args:
        done = survey(store)
    else:
        with Progress("migrating") as progress:
            done = migrate(store, on_progress=progress.update)
    if "json" in args:
        _emit(str(store), done, is_dry_run="dry_run" in args)
    elif done is None:
        print(f"store {printable(str(store))} has this dkfs's format, there is nothing to do")
    else:
        verb = "would migrate" if "dry_run" in args else "migrated"
        print(
            f"{verb} store {printable(str(store))} from format {done.old_format} to"
            f" {done.new_format}: versions {done.versions}, blobs {done.blobs},"
            f" segments {done.segments}"
        )
    if done is not None and done.damaged:
        note(f"rows that are damaged, and were taken over as they are: {done.damaged} (dkfs check)")
        return status_of_problems(0, done.damaged)
    return 0


def _emit(store: str, done: Migration | None, *, is_dry_run: bool) -> None:
    if done is None:
        emit("migrate", store=store, changed=False, dry_run=is_dry_run)
    else:
        emit(
            "migrate",
            store=store,
            changed=True,
            from_format=done.old_format,
            to_format=done.new_format,
            versions=done.versions,
            blobs=done.blobs,
            segments=done.segments,
            damaged_rows=done.damaged,
            dry_run=is_dry_run,
        )
