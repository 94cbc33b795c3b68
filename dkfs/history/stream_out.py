"""Sends history: turns the versions of a store, from one on, into the items of a stream.

The receiver has everything up to version *start*: every state that the tree then had, and what these need.  So of each
later version there are sent its log record, its rows, and those blobs that neither that tree nor anything sent before
has.  Which these are is found in the states of the same node, and of the file that it replaced; what is sent although
the receiver has it is ignored there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dkfs.core import stream
from dkfs.core.location import LOST, PLAIN
from dkfs.core.stream import Blob, End, Header, Item, Links, Names, Nodes, TagItem, Token, Version
from dkfs.errors import CorruptError, DkfsError, NotFoundError, UsageError
from dkfs.history.forget import forgotten_move
from dkfs.history.links import is_linked, remembered
from dkfs.history.replica import digest_of, history_of
from dkfs.history.stream_trees import missing
from dkfs.history.tree import Tree, shown
from dkfs.model.ids import NO_NODE, ROOT, BlobId, NodeId, Seq
from dkfs.model.node import NodeState
from dkfs.model.operation import LogRecord
from dkfs.store import Reader, Store

_KNOWN_LIMIT = 200_000  # ids of blobs that the receiver has, about 25 MB
_STATES_AHEAD = 16  # states of a new file that are looked at for the name that it will have
_ROWS = 1024  # states or names put into one record, unless they are long

Lacks = Callable[[BlobId], bool]


@dataclass(slots=True)
class Sent:
    """What has been sent."""

    versions: int = 0
    blobs: int = 0
    blob_bytes: int = 0  # as stored


def start_of(store: Store, reader: Reader, token: Token) -> Seq:
    """Return the version from which on the receiver that gave *token* needs all.

    Raises UsageError if it has another history, NotFoundError if the version is not there any more.
    """
    if not token.seq:
        return Seq(0)
    if token.history != history_of(store, reader):
        raise UsageError(f"the token is of another history than that of store {store.path}")
    found = digest_of(reader, token.seq)
    if found is None:
        raise NotFoundError(_no_start(reader, token.seq))
    if found != token.digest:
        raise UsageError(
            f"version {token.seq} of the token is another than version {token.seq} of store {store.path}:"
            " the two have gone different ways"
        )
    return token.seq


def _no_start(reader: Reader, seq: Seq) -> str:
    if seq > reader.last:
        return f"the receiver has version {seq}, the last here is {reader.last}"
    return (
        f"version {seq}, the last that the receiver has, was forgotten here, and with it what it would take to go on"
        " from there: send everything to a new store, and put a hold on the version that was sent last"
    )


class Sender:
    """The items of one stream."""

    def __init__(
        self, store: Store, reader: Reader, start: Seq, end: Seq, *, lacks: Lacks | None = None
    ) -> None:
        """*lacks*, also set later, tells whether the receiver lacks a blob, where that can be asked.

        Raises NotFoundError if one of the versions is not there, UsageError if they are in the wrong order.
        """
        self._reader = reader
        self._start = start
        self._end = end
        self.lacks = lacks
        self._known: set[BlobId] = set()
        self.sent = Sent()
        marks = [digest_of(reader, each) for each in (start, end)]
        if marks[0] is None:
            raise NotFoundError(_no_start(reader, start))
        if marks[1] is None:
            raise NotFoundError(f"version {end} is not in store {store.path}")
        if end < start:
            raise UsageError(f"versions {start} to {end}: expected the older one first")
        self.header = Header(
            history_of(store, reader), store.hash_algo, start, marks[0], end, marks[1]
        )

    def items(self) -> Iterator[Item]:
        """Yield all of it; raises CorruptError, naming path and version, for what is damaged."""
        yield self.header
        for record in self._reader.log(Seq(self._start + 1), self._end):
            yield from self._version(record)
            self.sent.versions += 1
        for tag in self._reader.tags():
            if tag.seq <= self._end:
                yield TagItem(tag)
        move = forgotten_move(self._reader)
        yield End(
            self._end,
            self.sent.versions,
            self._reader.next_node(),
            move if move <= self._end else Seq(0),
        )

    def _version(self, record: LogRecord) -> Iterator[Item]:
        yield Version(record)
        for node in dict.fromkeys(record.all_nodes):
            yield from self._contents(node, record.seq)
        children = [self._child(place, record.seq) for place in record.all_names]
        for node in dict.fromkeys((*record.all_nodes, *children)):
            places = tuple(remembered(self._reader, node)) if node != NO_NODE else ()
            if places:
                yield Links(node, places)
        yield from self._rows(record, children)

    def _rows(self, record: LogRecord, children: list[NodeId]) -> Iterator[Item]:
        states: list[NodeState] = []
        size = 0
        for node in record.all_nodes:
            states.append(self._state(node, record.seq))
            size += 100 + len(states[-1].target)
            if len(states) >= _ROWS or size >= stream.ROWS_LIMIT:
                yield Nodes(tuple(states))
                states, size = [], 0
        if states:
            yield Nodes(tuple(states))
        for at in range(0, len(children), _ROWS):
            yield Names(tuple(children[at : at + _ROWS]))

    # Blobs.

    def _contents(self, node: NodeId, seq: Seq) -> Iterator[Item]:
        """Yield what the receiver lacks of the state that *node* was given at version *seq*."""
        state = self._state(node, seq)
        if state.content is None and state.xattrs is None:
            return
        try:
            base = self._base(node, seq)
            if base is not None and base.xattrs is not None:
                self._see(base.xattrs)
            wanted = list(missing(self._load, state, base, self._see))
            if state.xattrs is not None:
                wanted.append(state.xattrs)
            for blob in wanted:
                yield from self._blob(blob)
        except CorruptError as exc:
            raise CorruptError(f"{self._named(node, seq)} at version {seq}: {exc}") from exc

    def _base(self, node: NodeId, seq: Seq) -> NodeState | None:
        """Return a state that the receiver has by now and that may share contents with what *node* is given."""
        before = self._reader.node_seq(node, Seq(seq - 1))
        if before is not None:
            return before[1] if before[0] > self._start or self._was_there(node) else None
        if not self._start:
            return None
        # New: perhaps it is to replace another, as an editor saves.
        for count, (_, state) in enumerate(self._reader.node_versions(node, seq, self._end)):
            if count >= _STATES_AHEAD:
                break
            old = self._reader.child(state.parent, state.name, self._start)
            if old not in (NO_NODE, node):
                return self._reader.node(old, self._start)
        return None

    def _was_there(self, node: NodeId) -> bool:
        """Return whether *node* had a name at the start, so that the receiver has its state."""
        return self._start > 0 and (node == ROOT or is_linked(self._reader, node, self._start))

    def _load(self, blob: BlobId) -> bytes | None:
        location = self._reader.location(blob)
        if location is not None and location.encoding == LOST:
            return None
        return self._reader.blob(blob)

    def _blob(self, blob: BlobId) -> Iterator[Item]:
        """Yield *blob* behind the bases that it needs, unless the receiver has it."""
        stack = [blob]
        while stack:
            blob = stack[-1]
            if self._has(blob):
                stack.pop()
                continue
            location = self._reader.location(blob)
            if location is None:
                raise CorruptError(f"blob {blob.hex()} is not in the store")
            bases = [each for each in self._reader.bases(blob, location) if not self._has(each)]
            if bases:
                if len(stack) > 255 or any(base in stack for base in bases):
                    raise CorruptError(f"blob {blob.hex()} leads to itself, or is too deep")
                stack += bases
                continue
            stack.pop()
            yield self._packed(blob)
            self._see(blob)

    def _packed(self, blob: BlobId) -> Blob:
        location = self._reader.location(blob)
        assert location is not None, "it was there a moment ago, in the same view"
        if location.encoding == LOST:
            return Blob(blob, LOST, location.length, b"")
        try:
            found = Blob(
                blob, location.encoding, location.length, self._reader.stored(location, blob)
            )
        except CorruptError:
            data = self._reader.blob(blob)  # only its record may be damaged, not what it holds
            found = Blob(blob, PLAIN, len(data), data)
        self.sent.blobs += 1
        self.sent.blob_bytes += len(found.stored)
        return found

    def _has(self, blob: BlobId) -> bool:
        if blob in self._known:
            return True
        if self.lacks is None or self.lacks(blob):
            return False
        self._see(blob)
        return True

    def _see(self, blob: BlobId) -> None:
        if len(self._known) >= _KNOWN_LIMIT:
            self._known.clear()
        self._known.add(blob)

    # Rows.

    def _state(self, node: NodeId, seq: Seq) -> NodeState:
        found = self._reader.node_seq(node, seq)
        if found is None or found[0] != seq:
            raise CorruptError(f"version {seq} has no row of node {node}, which its record names")
        return found[1]

    def _child(self, place: tuple[NodeId, bytes], seq: Seq) -> NodeId:
        return self._reader.child(*place, seq)

    def _named(self, node: NodeId, seq: Seq) -> str:
        try:
            return shown(Tree(self._reader, seq).path(node))
        except DkfsError:
            return f"node {node}"  # the way to it is damaged too
