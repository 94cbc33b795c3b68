"""Folding: versions are taken out of the log, and what they changed is from then on the work of the next one kept.

After a fold the index is what it would be if the folded versions and the one that they went into had been one operation:

- a node row is kept if its node has a name then, or had one at an earlier version that is there.  In the second case
  only metadata stays, and only if it is stricter or otherwise other than what is known already: who may read the
  removed file's older versions depends on its last mode and owner (overlay.virtual_rights);
- a row of a name is kept if the name leads elsewhere than at the version before;
- the log record names exactly the rows that its version has: what it changed itself, and what came by folding.

So what no kept version can reach leaves nothing behind, and the order in which versions are folded makes no difference.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from dkfs.core import codec
from dkfs.history.links import Place, candidates, forget_names, is_linked, remember
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.model.node import Attr, Kind, NodeState
from dkfs.model.operation import LogRecord
from dkfs.store import Writer
from dkfs.store.rows import NODE_KEY, SEQ, name_key

_PLACES_KEPT = 4096  # nodes
_NO_NAME = b"?"  # in a state of a node that has none: a record has one


class Folder:
    """Folds versions; what it remembers from fold to fold stays true while nobody else folds."""

    def __init__(self, breathe: Callable[[], None]) -> None:
        """*breathe* is called after each row."""
        self._breathe = breathe
        self._places: dict[NodeId, frozenset[Place]] = {}
        self._target: LogRecord | None = (
            None  # decoded and encoded, a record of 100,000 keys takes 0.2 s
        )

    def fold(self, writer: Writer, records: Sequence[LogRecord], into: Seq) -> int:
        """Fold the versions of *records* into the version *into*; return by how many rows its log record grew.

        They come oldest first, and no version may be there between the first of them and *into* but they.
        Raises CorruptError if a row cannot be read.
        """
        target = self._record(writer, into)
        nodes: dict[NodeId, list[Seq]] = {}
        names: dict[Place, list[Seq]] = {}
        for record in records:
            for node in record.all_nodes:
                nodes.setdefault(node, []).append(record.seq)
            for place in record.all_names:
                names.setdefault(place, []).append(record.seq)
        lists = _Lists(target)
        for node, seqs in nodes.items():
            lists.set_node(node, is_there=self._fold_node(writer, node, seqs, into))
            self._breathe()
        for place, seqs in names.items():
            lists.set_name(place, is_there=_fold_name(writer, place, seqs, into))
            self._breathe()
        self._target = lists.record()
        _put_record(writer, self._target)
        for record in records:
            writer.delete_row("log", SEQ.pack(record.seq))
            self._breathe()
        return size(self._target) - size(target)

    def _record(self, writer: Writer, seq: Seq) -> LogRecord:
        if self._target is not None and self._target.seq == seq:
            return self._target
        record = writer.record(seq)
        assert record is not None, "versions are folded into one that is there"
        return record

    def _fold_node(self, writer: Writer, node: NodeId, seqs: Sequence[Seq], into: Seq) -> bool:
        """Fold the rows of *node* at *seqs*; return whether it has one at *into* then."""
        found = writer.node_seq(node, into)
        if found is None:
            return False  # a row that the log names is missing: check says so, and there is nothing to keep
        seq, state = found
        lost = {(then.parent, then.name) for at in seqs if (then := writer.node(node, at))}
        before = writer.node(node, Seq(seqs[0] - 1))
        is_named = self._is_named(writer, node, state, lost, into)
        is_there = is_named or (before is not None and _rights(state) != _rights(before))
        if not is_there:
            _delete_node(writer, node, into)
        elif not is_named:
            _put_node(writer, node, into, _rights(state))
        elif seq != into:
            _put_node(writer, node, into, state)
        for at in seqs:
            _delete_node(writer, node, at)
        if is_named:
            lost.discard((state.parent, state.name))
        elif before is None:
            _delete_unnamed(writer, node, into)
        _remember_names(writer, node, lost, into)
        return is_there

    def _is_named(
        self, writer: Writer, node: NodeId, state: NodeState, lost: Iterable[Place], at: Seq
    ) -> bool:
        if node == ROOT or writer.child(state.parent, state.name, at) == node:
            return True
        if any(writer.child(*place, at) == node for place in lost):
            return True
        places = self._places.get(node)
        if places is None:
            # All states, and once only: a file may have been written 100,000 times before it was removed.
            places = frozenset(candidates(writer, node, writer.last))
            if len(self._places) >= _PLACES_KEPT:
                self._places.clear()
            self._places[node] = places
        return any(writer.child(*place, at) == node for place in places)


class _Lists:
    """The lists of a log record while versions are folded into it."""

    def __init__(self, record: LogRecord) -> None:
        self._record = record
        self._nodes = dict.fromkeys(record.nodes)
        self._names = dict.fromkeys(record.names)
        self._folded_nodes = dict.fromkeys(record.folded_nodes)
        self._folded_names = dict.fromkeys(record.folded_names)

    def set_node(self, node: NodeId, *, is_there: bool) -> None:
        """Note whether the version has a row of *node*."""
        if not is_there:
            self._nodes.pop(node, None)
            self._folded_nodes.pop(node, None)
        elif node not in self._nodes:
            self._folded_nodes[node] = None

    def set_name(self, place: Place, *, is_there: bool) -> None:
        """Note whether the version has a row of *place*."""
        if not is_there:
            self._names.pop(place, None)
            self._folded_names.pop(place, None)
        elif place not in self._names:
            self._folded_names[place] = None

    def record(self) -> LogRecord:
        """Return the record with these lists."""
        return replace(
            self._record,
            nodes=tuple(self._nodes),
            names=tuple(self._names),
            folded_nodes=tuple(self._folded_nodes),
            folded_names=tuple(self._folded_names),
        )


def size(record: LogRecord) -> int:
    """Return how many rows *record* names."""
    return len(record.all_nodes) + len(record.all_names)


def without_content(state: NodeState) -> NodeState:
    """Return *state* with its contents forgotten, if it has any."""
    if state.content is None:
        return state
    return replace(state, content=None, is_manifest=False, is_forgotten=True)


def _rights(state: NodeState) -> NodeState:
    """Return what *state* says of who may read its node, and nothing else: a state for a node without a name."""
    attr = state.attr
    return NodeState(
        attr=Attr(attr.kind, attr.mode, attr.uid, attr.gid, mtime_ns=0, ctime_ns=0, size=0, rdev=0),
        parent=state.parent,
        name=_NO_NAME,
        content=None,
        is_manifest=False,
        target=b"",
        xattrs=state.xattrs,
        is_forgotten=attr.kind is Kind.FILE,
    )


def _fold_name(writer: Writer, place: Place, seqs: Sequence[Seq], into: Seq) -> bool:
    """Fold the rows of *place* at *seqs*; return whether it has one at *into* then."""
    child = writer.child(*place, into)
    is_there = child != writer.child(*place, Seq(seqs[0] - 1))
    key = name_key(*place, into)
    if not is_there:
        writer.delete_row("names", key)
    elif not writer.has_row("names", key):
        writer.put_row("names", key, SEQ.pack(child))
    for at in seqs:
        writer.delete_row("names", name_key(*place, at))
    return is_there


def _remember_names(writer: Writer, node: NodeId, places: Iterable[Place], since: Seq) -> None:
    """Remember which of *places*, of which no state tells any more, are names of *node* at *since* or later."""
    if node == ROOT or writer.node_seq(node, writer.last) is None:
        return
    found = [(*place, node) for place in places if _leads_since(writer, place, node, since)]
    if found:
        remember(writer, found)


def _leads_since(writer: Writer, place: Place, node: NodeId, since: Seq) -> bool:
    for seq, child in writer.child_versions(*place, reverse=True):
        if child == node:
            return True
        if seq <= since:
            return False
    return False


def _delete_unnamed(writer: Writer, node: NodeId, after: Seq) -> None:
    """Remove the rows of *node* after version *after* up to where it has a name, now that it has none before."""
    is_gone = True
    for seq, _ in list(writer.node_versions(node, Seq(after + 1))):
        if is_linked(writer, node, seq):
            is_gone = False
            break
        _delete_node(writer, node, seq)
        record = writer.record(seq)
        if record is not None:
            lists = _Lists(record)
            lists.set_node(node, is_there=False)
            _put_record(writer, lists.record())
    if is_gone:
        forget_names(writer, node)


def _put_node(writer: Writer, node: NodeId, seq: Seq, state: NodeState) -> None:
    writer.put_row("nodes", NODE_KEY.pack(node, seq), codec.encode_node(state))


def _delete_node(writer: Writer, node: NodeId, seq: Seq) -> None:
    writer.delete_row("nodes", NODE_KEY.pack(node, seq))


def _put_record(writer: Writer, record: LogRecord) -> None:
    data = codec.encode_log(
        record.operation, record.nodes, record.names, record.folded_nodes, record.folded_names
    )
    writer.put_row("log", SEQ.pack(record.seq), data)
