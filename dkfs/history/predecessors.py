"""Which contents in the store are most like those that a file gets: the base of what is saved anew.

Programs save a file in one of three ways: they change it in place, they truncate and write it anew, or they write
another file and rename it over the first.  Only a hint is wanted: whatever is found, what is stored can be restored.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice

from dkfs.core import saving
from dkfs.history.change import Pending
from dkfs.model.ids import NodeId
from dkfs.model.node import Kind, NodeState
from dkfs.model.operation import OpKind
from dkfs.store import Reader

# Below this a wrong guess costs as much as it could save.
GUESS_LEAST = 4096  # bytes
_TRUNCATED_MOST = 256  # contents remembered that files were truncated from
_RENAMES_MOST = 1024  # kinds of temporary names remembered, with
_TARGETS_MOST = 4  # ... so many names each that such files became
_HOLDERS_MOST = 4  # earlier files of the same name
_NEARLY = 16  # a file is whole again when less than this part of it is missing
_ALIKE = 4  # times as large, or small, as what is saved: still taken without looking further

_Place = tuple[NodeId, bytes]


class Predecessors:
    """Remembers, between transactions too, how files are saved; bounded."""

    def __init__(self) -> None:
        self._renamed: dict[
            NodeId, _Place
        ] = {}  # in the batch at hand: the name that a node will get
        self._truncated: OrderedDict[NodeId, NodeState] = OrderedDict()
        self._became: OrderedDict[_Place, tuple[bytes, ...]] = OrderedDict()

    def begin(self, batch: Iterable[Pending]) -> None:
        """Look ahead: what is saved early in *batch* may be renamed later in it."""
        self._renamed.clear()
        for pending in batch:
            operation = pending.operation
            if operation.kind is OpKind.RENAME:
                self._renamed[operation.node] = (operation.new_parent, operation.new_name)
                if operation.parent == operation.new_parent:
                    self._remember(operation.parent, operation.name, operation.new_name)

    def forget(self) -> None:
        """Forget what refers to states that may not be in the store."""
        self._truncated.clear()

    def of(
        self,
        reader: Reader,
        node: NodeId,
        before: NodeState | None,
        size: int,
        *,
        is_anew: bool,
    ) -> NodeState | None:
        """Return the state whose contents those of *node*, about to be *size* bytes, resemble; None if unknown.

        *before* is the last state of the node itself; *is_anew*: all of it was written since.
        """
        if before is None:
            return None
        base = self._truncated.get(node)
        if base is None or (is_anew and _are_alike(before.attr.size, size)):
            base = before
        if size >= base.attr.size - base.attr.size // _NEARLY:
            self._truncated.pop(node, None)  # what was cut off, if it was, has been written anew
        elif is_anew and base.attr.size >= GUESS_LEAST:
            self._put(node, base)  # perhaps it is being written, and only half there
        if base.attr.size >= max(GUESS_LEAST, size // _ALIKE) and base.content is not None:
            return base
        return self._elsewhere(reader, node, before, size) or before

    def _put(self, node: NodeId, state: NodeState) -> None:
        self._truncated[node] = state
        self._truncated.move_to_end(node)
        if len(self._truncated) > _TRUNCATED_MOST:
            self._truncated.popitem(last=False)

    def _remember(self, directory: NodeId, name: bytes, new_name: bytes) -> None:
        key = directory, saving.kind_of(name)
        known = self._became.pop(key, ())
        rest = tuple(each for each in known if each != new_name)
        self._became[key] = (new_name, *rest)[:_TARGETS_MOST]
        if len(self._became) > _RENAMES_MOST:
            self._became.popitem(last=False)

    def _elsewhere(
        self, reader: Reader, node: NodeId, before: NodeState, size: int
    ) -> NodeState | None:
        """Return what a file that is new, or as good as, resembles."""
        at = reader.last
        place = self._renamed.get(node)
        if place is not None:
            found = _file(reader, node, reader.child(*place, at))
            if found is not None:
                return found
        best: NodeState | None = None
        if size >= GUESS_LEAST:
            for other in self._guesses(reader, node, before):
                found = _file(reader, node, other)
                if found is None:
                    continue
                if _are_alike(found.attr.size, size):
                    return found
                if best is None or best.attr.size < found.attr.size:
                    best = found
        return best

    def _guesses(self, reader: Reader, node: NodeId, before: NodeState) -> Iterator[NodeId]:
        directory, name, at = before.parent, before.name, reader.last
        # What had the name before: it was removed, or moved away as a backup; or the name is a temporary
        # file's, and what had it has been renamed over what is replaced again now.
        holders = reader.child_versions(directory, name, reverse=True)
        for _, other in islice(holders, _HOLDERS_MOST):
            if other and other != node:
                yield other
        for guess in saving.replaced(name):
            yield reader.child(directory, guess, at)
        for became in self._became.get((directory, saving.kind_of(name)), ()):
            yield reader.child(directory, became, at)


def _are_alike(one: int, other: int) -> bool:
    return max(one, other) <= _ALIKE * min(one, other)


def _file(reader: Reader, node: NodeId, other: NodeId) -> NodeState | None:
    """Return the state of *other* if it is a file with contents, and not *node*."""
    if not other or other == node:
        return None
    state = reader.node(other, reader.last)
    if state is None or state.attr.kind is not Kind.FILE or state.content is None:
        return None
    return state
