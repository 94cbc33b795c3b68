"""Take a stream of `dkfs send` into a store.

    dkfs receive --store T < FILE
    dkfs receive --store T --token
    dkfs receive --store T -n < FILE

T is made if there is nothing.  It becomes a replica: it takes only what continues the history that it has, and once it
has versions of its own (from a mount) nothing more.  Everything is checked before it counts, and committed version by
version: whatever interrupts it, T holds the history up to some version.  --token prints how far that is, for
`dkfs send --resume`.  To receive the same again is harmless.  -n checks the stream alone, and says what is in it.

exit status:
  0 ok, 1 failed, 2 usage, or the stream does not belong to T, 4 store trouble, 5 the stream is damaged or cut short
"""

import argparse
import sys
from pathlib import Path

from dkfs.cli.location import find
from dkfs.cli.output import emit, printable, size_text
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.progress import Progress
from dkfs.core.stream import Blob, Header, Version, token_text
from dkfs.errors import UsageError
from dkfs.history.recovery import open_store
from dkfs.history.replica import EMPTY, token_of
from dkfs.history.stream_in import Received
from dkfs.history.stream_io import read_stream
from dkfs.history.stream_store import receive
from dkfs.store import is_absent


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("receive", __doc__)
    parser.add_argument("--token", action="store_true", help="print how far the store has come")
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    path = find(args).store
    if "token" in args:
        return _token(path, args)
    if sys.stdin.isatty():
        raise UsageError("receive does not read from a terminal: expected < FILE, or a pipe")
    if "dry_run" in args:
        return _dry_run(args)
    with Progress("receiving") as progress:
        items = read_stream(sys.stdin.buffer.read)
        result = receive(path, items, on_progress=progress.replay)
    sum_up(args, result, path, "received")
    return 0


def _token(path: Path, args: argparse.Namespace) -> int:
    token = EMPTY
    if not is_absent(path):
        with open_store(path, writable=False) as store, store.read() as reader:
            token = token_of(store, reader)
    if "json" in args:
        emit("token", token=token_text(token), version=token.seq)
    else:
        print(token_text(token))
    return 0


def _dry_run(args: argparse.Namespace) -> int:
    start = end = versions = blobs = size = 0
    for item in read_stream(sys.stdin.buffer.read):
        if isinstance(item, Header):
            start, end = item.start, item.end
        elif isinstance(item, Version):
            versions += 1
        elif isinstance(item, Blob):
            blobs += 1
            size += len(item.stored)
    if "json" in args:
        emit(
            "summary",
            versions=versions,
            blobs=blobs,
            bytes=size,
            start=start,
            version=end,
            dry_run=True,
        )
    else:
        print(
            f"the stream is whole: {versions} versions after version {start}, up to version {end},"
            f" with {size_text(size)} of contents"
        )
    return 0


def sum_up(args: argparse.Namespace, result: Received, path: Path, verb: str) -> None:
    """Say what came of it."""
    if "json" in args:
        emit(
            "summary",
            versions=result.versions,
            known=result.known,
            blobs=result.blobs,
            bytes=result.blob_bytes,
            version=result.last,
            dry_run=False,
        )
        return
    versions = "1 version" if result.versions == 1 else f"{result.versions} versions"
    print(
        f"{verb} {versions} with {size_text(result.blob_bytes)} of contents:"
        f" {printable(str(path))} is at version {result.last}"
    )
