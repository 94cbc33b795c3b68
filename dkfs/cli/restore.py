"""Copy a version, or a part of it, out into a directory.

    dkfs restore VERSION[:PATH] --target DIR [-n]
    dkfs restore VERSION[:PATH] --target DIR --overwrite MODE [--delete] [-n]

DIR must be empty or absent, unless --overwrite says what becomes of what is there:

  always      it becomes what the version has; files are read to see whether they differ
  if-changed  the same, but a file of the same size and time is taken to have the same contents
  if-newer    it becomes what the version has if that was modified later
  never       it stays

A restore that was interrupted is continued with --overwrite if-changed: no file has its name before it is complete.
--delete removes from DIR what the version does not have; -n names all of it.

PATTERN is a glob: * and ? within a name, ** over any number of names, [a-z] one character.  It matches at any depth,
or from the restored directory on if it begins with a slash; what is below a match is meant too.  With --include only
what matches is restored, with --exclude all but what matches, and --delete removes no more than that.

Contents are checked against their hashes; modes, owners, times, extended attributes, links and holes come back too.
Device nodes, set-id bits and capabilities of files come back with --privileged only, and are named otherwise.  What is
damaged or not permitted is named on stderr, and everything else is restored.  Nothing outside of DIR is touched,
whatever links are in it.

exit status:
  0 ok, 1 something could not be restored, or DIR is not empty, 2 usage, 3 no such version or path, 4 store trouble,
  5 damage found
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from dkfs.cli.output import emit, json_path, note, printable, size_text, status_of_problems
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.progress import Progress
from dkfs.cli.reading import Reading, reading
from dkfs.core.patterns import Pattern, Selection
from dkfs.errors import UsageError
from dkfs.history.outcome import Result
from dkfs.history.restore import restore
from dkfs.history.wish import Action, Overwrite, Wish
from dkfs.model.ids import Seq


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("restore", __doc__)
    parser.add_argument("place", metavar="VERSION[:PATH]", help="what to restore")
    parser.add_argument("-t", "--target", metavar="DIR", required=True, help="where to")
    parser.add_argument(
        "--overwrite",
        choices=[each.value for each in Overwrite],
        metavar="MODE",
        help="what becomes of files that are there",
    )
    parser.add_argument(
        "--delete", action="store_true", help="remove what the version does not have"
    )
    for name, what in (
        ("-i --include", "restore only what matches"),
        ("--iinclude", "the same, whatever the case"),
        ("-e --exclude", "leave out what matches"),
        ("--iexclude", "the same, whatever the case"),
    ):
        parser.add_argument(*name.split(), metavar="PATTERN", action="append", help=what)
    parser.add_argument(
        "--privileged", action="store_true", help="devices, set-id bits and capabilities too"
    )
    parser.add_argument("--verify", action="store_true", help="read everything again at the end")
    parser.add_argument(
        "--sparse", action="store_true", help="accepted: holes always come back as holes"
    )
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    target = Path(args.target)
    selection = _selection(args)
    overwrite = Overwrite(args.overwrite) if "overwrite" in args else None
    if "delete" in args and overwrite is None:
        raise UsageError("--delete: expected --overwrite MODE with it")
    with reading(args) as view:
        seq, path = view.place(args.place)
        _check_target(target, view)
        with Progress("restoring") as progress:
            wish = Wish(
                overwrite=overwrite,
                selection=selection,
                delete="delete" in args,
                privileged="privileged" in args,
                verify="verify" in args,
                dry_run="dry_run" in args,
                on_action=_say_json if "json" in args else _say,
                on_progress=None if "dry_run" in args else progress.replay,
            )
            if not wish.dry_run:
                wish = replace(wish, on_action=None)
            result = _restored(view, seq, path, target, wish)
    for line in (*result.left_out, *result.problems):
        note(f"dkfs: {line}")
    if result.left_out:
        note("dkfs: what is left out comes with --privileged")
    if result.owners_kept:
        count = result.owners_kept
        what = (
            "1 entry has another owner or group than it had:"
            if count == 1
            else f"{count} entries have other owners or groups than they had:"
        )
        note(f"dkfs: {what} only root may give them")
    _sum_up(args, seq, result)
    return status_of_problems(len(result.problems), result.damaged)


def _restored(view: Reading, seq: Seq, path: bytes, target: Path, wish: Wish) -> Result:
    try:
        return restore(view.reader, seq, path, target, wish)
    except KeyboardInterrupt:
        if not wish.dry_run and os.path.lexists(target):
            note(
                f"dkfs: interrupted: {printable(str(target))} has a part of it;"
                " the same command with --overwrite if-changed goes on"
            )
        raise


def _selection(args: argparse.Namespace) -> Selection:
    """Return what the patterns mean together; raises UsageError."""
    lists = []
    for name in ("include", "exclude"):
        patterns = [Pattern(os.fsencode(text)) for text in getattr(args, name, [])]
        folded = getattr(args, f"i{name}", [])
        lists.append(patterns + [Pattern(os.fsencode(text), ignore_case=True) for text in folded])
    return Selection(*lists)


def _check_target(target: Path, view: Reading) -> None:
    real = Path(os.path.realpath(target))
    if real.is_relative_to(view.location.store):
        raise UsageError(
            f"target {printable(str(target))} lies in the store, expected it elsewhere"
        )


def _say(action: Action, path: bytes) -> None:
    print(f"would {action.value} {printable(path) or '.'}")


def _say_json(action: Action, path: bytes) -> None:
    emit("restore", json_path(path), action=action.value)


def _sum_up(args: argparse.Namespace, seq: Seq, result: Result) -> None:
    dry_run = "dry_run" in args
    if "json" in args:
        emit(
            "summary",
            version=seq,
            target=args.target,
            nodes=result.created,
            changed=result.rewritten,
            settled=result.attributes,
            removed=result.removed,
            kept=result.kept,
            left_out=len(result.left_out),
            verified=result.verified,
            bytes=result.bytes_written,
            problems=len(result.problems),
            owners_kept=result.owners_kept,
            dry_run=dry_run,
        )
        return
    verb = "would restore" if dry_run else "restored"
    entries = "1 entry" if result.created == 1 else f"{result.created} entries"
    print(
        f"{verb} {entries}, {size_text(result.bytes_written)}, of version {seq} to"
        f" {printable(args.target)}{_further(result)}"
    )


def _further(result: Result) -> str:
    """Return the counts that are not always there."""
    counts = (
        (result.rewritten, "changed"),
        (result.attributes, "given other metadata"),
        (result.removed, "removed"),
        (result.kept, "kept"),
        (len(result.left_out), "left out"),
        (result.verified, "verified"),
    )
    told = [f"{number} {what}" for number, what in counts if number]
    return f" ({', '.join(told)})" if told else ""
