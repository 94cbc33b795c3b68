"""Copy history to another store, or bring a copy up to date.

    dkfs copy --to-store T [--to VERSION] [-n]

What T lacks is sent and received in one process, see `dkfs send` and `dkfs receive`: T is made if there is nothing,
and otherwise must be a copy of this store, whose versions it continues.  It can be interrupted and run again.

exit status:
  0 ok, 1 failed, 2 usage, or T is no copy of this store, 3 no such version, 4 store trouble, 5 damage found
"""

import argparse
import os
from contextlib import suppress
from pathlib import Path

from dkfs.cli.asking import ask
from dkfs.cli.location import Location
from dkfs.cli.output import emit, printable
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.progress import Progress
from dkfs.cli.reading import Reading, reading
from dkfs.cli.receive import sum_up
from dkfs.errors import NotMountedError, UsageError
from dkfs.history.recovery import open_store
from dkfs.history.replica import EMPTY, token_of
from dkfs.history.stream_in import Receiver
from dkfs.history.stream_out import Sender, start_of
from dkfs.history.stream_store import make_for
from dkfs.model.ids import Seq
from dkfs.store import Store, is_absent


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("copy", __doc__)
    parser.add_argument("--to-store", metavar="DIR", required=True, help="the other store")
    parser.add_argument("--to", metavar="VERSION", help="copy up to it; latest if not given")
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    target = Path(os.path.realpath(args.to_store))
    with reading(args) as view, open_store(view.location.store, writable=False) as store:
        if target.is_relative_to(view.location.store):
            raise UsageError(f"{printable(str(target))} lies in the store: expected another one")
        _expect_elsewhere(target, view.location)
        start = _start(view, store, target)
        end = max(start, view.version(args.to) if "to" in args else view.reader.last)
        if "dry_run" in args:
            return _dry_run(args, view, start, end)
        sender = Sender(store, view.reader, start, end)
        make_for(target, sender.header)
        with open_store(target, writable=True) as copy, Progress("copying") as progress:
            receiver = Receiver(copy, on_progress=progress.replay)
            sender.lacks = receiver.lacks
            result = receiver.run(sender.items())
    sum_up(args, result, target, "copied")
    return 0


def _expect_elsewhere(target: Path, location: Location) -> None:
    """Raise UsageError if the copy would be recorded into what it is a copy of."""
    with suppress(NotMountedError):
        answer = ask(location.store, "status")
        for key in ("mountpoint", "state_dir"):
            if target.is_relative_to(os.path.realpath(str(answer[key]))):
                raise UsageError(
                    f"{printable(str(target))} lies in {printable(str(answer[key]))}, which is recorded"
                    " into the store that is copied: expected it elsewhere"
                )


def _start(view: Reading, store: Store, target: Path) -> Seq:
    token = EMPTY
    if not is_absent(target):
        with open_store(target, writable=False) as copy, copy.read() as reader:
            token = token_of(copy, reader)
    return start_of(store, view.reader, token)


def _dry_run(args: argparse.Namespace, view: Reading, start: Seq, end: Seq) -> int:
    versions = sum(1 for _ in view.reader.versions(Seq(start + 1), end))
    if "json" in args:
        emit("summary", versions=versions, start=start, version=end, dry_run=True)
    else:
        print(f"would copy {versions} versions after version {start}, up to version {end}")
    return 0
