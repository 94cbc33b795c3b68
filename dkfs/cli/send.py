"""Write history as a stream, for another store.

    dkfs send [--from VERSION] [--to VERSION] > FILE
    dkfs send --resume "$(dkfs receive --token --store T)" | dkfs receive --store T

Without --from everything is sent; with it, what came after that version, which the receiver must have last.  --resume
is the same for the version that a token names, and refuses a receiver of another history.  Versions keep their numbers,
times, origins, tags and holds; contents go as they are stored.  The store may be that of a live mount.

A version that was forgotten here can no longer be continued from: put a hold on the one that was sent last.

exit status:
  0 ok, 1 failed, 2 usage, or the token is of another history, 3 no such version, 4 store trouble, 5 damage found
"""

import argparse
import json
import sys

from dkfs.cli.output import note, size_text
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.progress import Progress
from dkfs.cli.reading import Reading, reading
from dkfs.core.stream import parse_token
from dkfs.errors import UsageError
from dkfs.history.recovery import open_store
from dkfs.history.stream_io import write_stream
from dkfs.history.stream_out import Sender, start_of
from dkfs.model.ids import Seq
from dkfs.store import Store


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("send", __doc__)
    parser.add_argument("--from", dest="start", metavar="VERSION", help="send what came after it")
    parser.add_argument("--to", metavar="VERSION", help="send up to it; latest if not given")
    parser.add_argument("--resume", metavar="TOKEN", help="send what the receiver lacks")
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    if "resume" in args and "start" in args:
        raise UsageError("send: expected one of --from and --resume")
    if "dry_run" not in args and sys.stdout.isatty():
        raise UsageError("send does not write to a terminal: expected > FILE, or a pipe")
    with reading(args) as view, open_store(view.location.store, writable=False) as store:
        start = start_version(view, store, args)
        end = view.version(args.to) if "to" in args else view.reader.last
        sender = Sender(store, view.reader, start, end)
        with Progress("sending") as progress:
            out = sys.stdout.buffer

            def write(data: bytes) -> None:
                if "dry_run" not in args:
                    out.write(data)
                progress.update(sender.sent.versions, end - start)

            size = write_stream(sender.items(), write)
        sent = sender.sent
    if "dry_run" not in args:
        out.flush()
    if "json" in args:
        summary = {
            "message_type": "summary",
            "from": start,
            "to": end,
            "versions": sent.versions,
            "blobs": sent.blobs,
            "bytes": size,
            "dry_run": "dry_run" in args,
        }
        note(json.dumps(summary))
    else:
        verb = "would send" if "dry_run" in args else "sent"
        versions = "1 version" if sent.versions == 1 else f"{sent.versions} versions"
        note(f"{verb} {versions}, up to version {end}, in {size_text(size)}")
    return 0


def start_version(view: Reading, store: Store, args: argparse.Namespace) -> Seq:
    """Return the version that the receiver has, as *args* say; raises UsageError, NotFoundError."""
    if "resume" in args:
        return start_of(store, view.reader, parse_token(args.resume))
    return view.version(args.start) if "start" in args else Seq(0)
