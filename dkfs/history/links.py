"""The names of one node: the index leads from names to nodes, this is the way back.

The state of a node holds one name.  Every operation that gives a node another name records a state with it, so the
states together hold all names that the node ever had.  Only where one operation gives a node several names (an import
of hard links) do the others have to be remembered, with remember(); and where the state that held a name is forgotten.
"""

import struct
from collections.abc import Iterable, Iterator

from dkfs.errors import CorruptError
from dkfs.model.ids import NodeId, Seq
from dkfs.store import Reader, Writer
from dkfs.store.rows import NOTE_PREFIX

_KEY = b"links:%d"
_PARENT = struct.Struct(">QB")  # directory, length of the name that follows

Place = tuple[NodeId, bytes]  # a directory and a name in it


def is_linked(reader: Reader, node: NodeId, at: Seq) -> bool:
    """Return whether *node* has a name at version *at*."""
    return place(reader, node, at) is not None


def place(reader: Reader, node: NodeId, at: Seq) -> Place | None:
    """Return a name that *node*, which is not the root, has at version *at*; None if it has none."""
    state = reader.node(node, at)
    if state is None:
        return None
    if reader.child(state.parent, state.name, at) == node:
        return state.parent, state.name
    return next(_links(reader, node, at), None)


def links(reader: Reader, node: NodeId, at: Seq) -> tuple[Place, ...]:
    """Return every name that *node*, which is not the root, has at version *at*."""
    return tuple(_links(reader, node, at))


def remember(writer: Writer, names: Iterable[tuple[NodeId, bytes, NodeId]]) -> None:
    """Keep *names* (directory, name, node) for links(): those that no state of their node holds."""
    added: dict[NodeId, dict[Place, None]] = {}
    for parent, name, node in names:
        added.setdefault(node, {})[parent, name] = None
    for node, places in added.items():
        known = dict.fromkeys(remembered(writer, node))
        before = len(known)
        known.update(places)
        if before and before & (before - 1) == 0:
            # At each doubling those that name the node in no version any more go.
            known = {p: None for p in known if p in places or _was_name(writer, p, node)}
        rows = (_PARENT.pack(parent, len(name)) + name for parent, name in known)
        writer.put_meta(_KEY % node, b"".join(rows))


def forget_names(writer: Writer, node: NodeId) -> None:
    """Forget what remember() kept of *node*, of which nothing is left."""
    if writer.meta(_KEY % node) is not None:
        writer.delete_row("meta", NOTE_PREFIX + _KEY % node)


def _was_name(reader: Reader, place: Place, node: NodeId) -> bool:
    return any(child == node for _, child in reader.child_versions(*place))


def candidates(reader: Reader, node: NodeId, at: Seq, *, since: Seq = Seq(1)) -> Iterator[Place]:
    """Yield what may be names of *node* from version *since* to *at*: no name it had then is missing."""
    yield from remembered(reader, node)
    for _, state in reader.node_versions(node, since, at):
        yield state.parent, state.name


def remembered(reader: Reader, node: NodeId) -> Iterator[Place]:
    """Yield what remember() kept of *node*; raises CorruptError."""
    data = reader.meta(_KEY % node) or b""
    offset = 0
    while offset < len(data):
        if offset + _PARENT.size > len(data):
            raise CorruptError(f"names of node {node}: {len(data)} bytes end within a name")
        parent, length = _PARENT.unpack_from(data, offset)
        offset += _PARENT.size
        yield NodeId(parent), data[offset : offset + length]
        offset += length


def _links(reader: Reader, node: NodeId, at: Seq) -> Iterator[Place]:
    seen: set[Place] = set()
    for found in candidates(reader, node, at):
        if found not in seen:
            seen.add(found)
            if reader.child(*found, at) == node:
                yield found
