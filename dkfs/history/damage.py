"""Which paths at which versions a damage of the store reaches.

The store names blobs and rows; people know files.  One pass over all states finds those that reach a damaged blob,
by their contents, their manifest, the bases of their deltas or their extended attributes; the names of their nodes
say where they were seen, and when.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from dkfs.errors import CorruptError
from dkfs.history import links
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import NodeState
from dkfs.store import Reader
from dkfs.store.damage import Damage
from dkfs.store.reach import Reach, states

_DEEPEST = 4096  # directories above a path; more is a circle

_Rows = dict[tuple[NodeId | None, Seq | None], Damage]


@dataclass(frozen=True, slots=True)
class Affected:
    """A path that cannot be read, in whole or in part, from version *first* to *last*."""

    path: bytes
    first: Seq
    last: Seq  # included
    node: NodeId  # NO_NODE: it cannot be told, because the name itself is damaged
    damage: Damage


@dataclass(frozen=True, slots=True)
class _Span:
    """A time in which a node is damaged."""

    first: Seq
    end: Seq  # exclusive
    damage: Damage


@dataclass(slots=True)
class _Node:
    """What one pass over the states of a node gathers."""

    node: NodeId
    spans: list[_Span] = field(default_factory=list)
    places: dict[links.Place, None] = field(default_factory=dict)  # an ordered set
    bad: tuple[Seq, Damage] | None = None  # since when it is damaged, by what

    def end_span(self, end: Seq) -> None:
        """The damage that there is, if any, lasts until *end*."""
        if self.bad is not None:
            self.spans.append(_Span(self.bad[0], end, self.bad[1]))
            self.bad = None

    def add(self, seq: Seq, state: NodeState | None, damage: Damage | None) -> None:
        """Take the next state, damaged or not."""
        if state is not None:
            self.places[state.parent, state.name] = None
        if self.bad is not None and damage is not self.bad[1]:
            self.end_span(seq)
        if self.bad is None and damage is not None:
            self.bad = seq, damage


def affected(reader: Reader, damages: Collection[Damage]) -> Iterator[Affected]:
    """Yield the paths that *damages* reach, by node; each with the versions in which it had that path.

    What was damaged while it was under no name is not among them, and where the index itself is damaged, only what
    can still be found is.
    """
    yield from _damaged_names(reader, damages)
    rows: _Rows = {(d.node, d.seq): d for d in damages if d.node is not None and d.name is None}
    reach = Reach(reader, damages)
    if not rows and not reach:
        return
    for found in _damaged_nodes(reader, reach, rows):
        if found.node == ROOT:
            for span in found.spans:
                yield Affected(b"", span.first, Seq(span.end - 1), ROOT, span.damage)
            continue
        for place in _places(reader, found):
            for span in found.spans:
                yield from _seen(reader, found.node, place, span)


def _damaged_names(reader: Reader, damages: Collection[Damage]) -> Iterator[Affected]:
    for damage in damages:
        if damage.name is None or damage.node is None or damage.seq is None:
            continue
        if damage.seq > reader.last:
            continue  # its key is what is damaged
        place = (damage.node, damage.name)
        end = _next_change(reader, place, damage.seq)
        for path, first, last in _paths(reader, place, damage.seq, end):
            yield Affected(path, first, last, NO_NODE, damage)


def _damaged_nodes(reader: Reader, reach: Reach, rows: _Rows) -> Iterator[_Node]:
    """Yield every node that was ever in a damaged state, with when that was."""
    end = Seq(reader.last + 1)
    current = _Node(NO_NODE)
    for node, seq, state in states(reader):
        if node != current.node:
            current.end_span(end)
            if current.spans:
                yield current
            current = _Node(node)
        damage = rows.get((node, seq))
        if damage is None and state is not None:
            damage = reach.of(state)
        current.add(seq, state, damage)
    current.end_span(end)
    if current.spans:
        yield current


def _places(reader: Reader, found: _Node) -> list[links.Place]:
    """Return every name that the node may have had."""
    node = found.node
    try:
        for place in links.candidates(reader, node, Seq(0)):  # those that no state holds
            found.places[place] = None
    except CorruptError:
        pass  # the row that keeps them is damaged, which is a damage of its own
    for span in found.spans:
        try:
            record = reader.record(span.first)
        except CorruptError:
            continue  # same
        # The state of that version may be the only one that held the name.
        for place in record.names if record is not None else ():
            if _child(reader, place, span.first) == node:
                found.places[place] = None
    return list(found.places)


def _seen(reader: Reader, node: NodeId, place: links.Place, span: _Span) -> Iterator[Affected]:
    """Yield the paths by which *node* was reached through *place* during *span*."""
    at = span.first
    while at < span.end:
        end = min(span.end, _next_change(reader, place, at))
        if _child(reader, place, at) == node:
            for path, first, last in _paths(reader, place, at, end):
                yield Affected(path, first, last, node, span.damage)
        at = max(Seq(at + 1), end)


def _paths(
    reader: Reader, place: links.Place, first: Seq, end: Seq
) -> Iterator[tuple[bytes, Seq, Seq]]:
    """Yield the paths of *place* from *first* up to *end*, with the first and last version of each."""
    before: tuple[bytes, Seq] | None = None
    at = first
    while at < end:
        path, until = _path(reader, place, at)
        if before is not None and path != before[0]:
            yield before[0], before[1], Seq(at - 1)
            before = None
        if before is None and path is not None:
            before = path, at
        at = max(Seq(at + 1), min(end, until))
    if before is not None:
        yield before[0], before[1], Seq(end - 1)


def _path(reader: Reader, place: links.Place, at: Seq) -> tuple[bytes | None, Seq]:
    """Return the path of *place* at version *at*, None if its directory is nowhere, and until when that holds."""
    directory, name = place
    names = [name]
    until = Seq(reader.last + 1)
    while directory != ROOT:
        try:
            above = links.place(reader, directory, at)
        except CorruptError:
            above = None  # a damage of its own
        if above is None:
            return None, min(until, _next_name(reader, directory, at))
        until = min(until, _next_change(reader, above, at))
        directory, name = above
        names.append(name)
        if len(names) > _DEEPEST:
            return None, until
    return b"/".join(reversed(names)), until


def _child(reader: Reader, place: links.Place, at: Seq) -> NodeId:
    try:
        return reader.child(*place, at)
    except CorruptError:
        return NO_NODE  # a damage of its own


def _next_change(reader: Reader, place: links.Place, at: Seq) -> Seq:
    """Return the version after *at* at which *place* next leads somewhere else."""
    try:
        for seq, _ in reader.child_versions(*place):
            if seq > at:
                return seq
    except CorruptError:
        return Seq(at + 1)  # a damage of its own: go on version by version
    return Seq(reader.last + 1)


def _next_name(reader: Reader, directory: NodeId, at: Seq) -> Seq:
    """Return the version after *at* at which *directory*, which has no name there, may have one again."""
    try:
        places = set(links.candidates(reader, directory, reader.last))
    except CorruptError:
        return Seq(at + 1)  # a damage of its own: go on version by version
    after = (_next_change(reader, place, at) for place in places)
    return min(after, default=Seq(reader.last + 1))
