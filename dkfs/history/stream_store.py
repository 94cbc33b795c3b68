"""Receives a stream into a store, which is made if it is not there."""

from collections.abc import Iterator
from pathlib import Path

from dkfs.core.stream import Header, Item
from dkfs.errors import CorruptError, UsageError
from dkfs.history.recovery import open_store
from dkfs.history.stream_in import OnProgress, Received, Receiver
from dkfs.store import Store, is_absent


def receive(
    path: Path,
    items: Iterator[Item],
    *,
    on_progress: OnProgress | None = None,
) -> Received:
    """Take the stream *items* into the store at *path*, which is made if there is none; see Receiver.run()."""
    header = next(items, None)
    if not isinstance(header, Header):
        raise CorruptError("stream without a header")
    make_for(path, header)
    with open_store(path, writable=True) as store:
        return Receiver(store, on_progress=on_progress).run(_again(header, items))


def make_for(path: Path, header: Header) -> None:
    """Make an empty store at *path* for the stream that *header* begins, unless there is something."""
    if not is_absent(path):
        return
    if header.start:
        raise UsageError(
            f"the stream begins after version {header.start}, and there is no store at {path}"
        )
    match header.hash_algo:
        case "blake3" | "sha256" as algo:
            Store.create(path, hash_algo=algo)
        case other:
            raise CorruptError(f"stream that names contents by {other!r}")


def _again(header: Header, items: Iterator[Item]) -> Iterator[Item]:
    yield header
    yield from items
