"""Who may see what of the history: the strictest of what was allowed then and what is allowed now.

What was allowed then is checked by the kernel along the path, from the recorded metadata; only
where the path does not lead through the directories of then (files/) it is checked here.  What is
allowed now is the rights of the node's last state, and those of all directories above one of its
present names.  A node that was removed is judged by its last state, and by the directory that it
was removed from last.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from dkfs.history import links
from dkfs.history.content import xattrs
from dkfs.history.links import Place as Link
from dkfs.model.ids import NO_NODE, ROOT, BlobId, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.overlay.access import ACL_ACCESS, EXECUTE, permits
from dkfs.overlay.origin import Caller
from dkfs.store import Reader

_ACLS_KEPT = 1024
_LINKS_KEPT = 1024
_ASKED = 4000  # directories of then, in one request: about 0.1 s, in which nobody else is served
_GROUP_CLASS = 0o070


class Guard:
    """What helps to judge callers, kept from call to call: none of it depends on who asks."""

    def __init__(self, groups: Callable[[int], frozenset[int]]) -> None:
        """Judge by groups(pid), the supplementary groups of a process."""
        self._groups = groups
        self._acls: OrderedDict[BlobId, bytes | None] = OrderedDict()
        self._links: OrderedDict[NodeId, tuple[Seq, frozenset[Link]]] = OrderedDict()  # up to Seq

    def rights(self, reader: Reader, caller: Caller) -> "Rights":
        """Return the rights of *caller* as *reader* sees them, for one request."""
        return Rights(self, reader, caller.uid, caller.gid, lambda: self._groups(caller.pid))

    def acl(self, reader: Reader, state: NodeState) -> bytes | None:
        """Return the ACL of *state*, None if it has none; raises CorruptError."""
        if state.xattrs is None:
            return None
        if state.xattrs in self._acls:
            self._acls.move_to_end(state.xattrs)
            return self._acls[state.xattrs]
        acl = self._acls[state.xattrs] = xattrs(reader, state).get(ACL_ACCESS)
        if len(self._acls) > _ACLS_KEPT:
            self._acls.popitem(last=False)
        return acl

    def links_ever(self, reader: Reader, node: NodeId) -> frozenset[Link]:
        """Return every name that *node* ever had; the first time the cost is that of its states."""
        seen, known = self._links.pop(node, (Seq(0), frozenset()))
        new = links.candidates(reader, node, reader.last, since=Seq(seen + 1))
        found = known.union(new)
        self._links[node] = reader.last, found
        if len(self._links) > _LINKS_KEPT:
            self._links.popitem(last=False)
        return found


class Rights:
    """What one caller may do; lives for one request, and remembers what it found out."""

    def __init__(
        self,
        guard: Guard,
        reader: Reader,
        uid: int,
        gid: int,
        groups: Callable[[], frozenset[int]],
    ) -> None:
        self._guard = guard
        self._reader = reader
        self.uid = uid
        self._gid = gid
        self._find_groups = groups
        self._groups: frozenset[int] | None = None
        self._entered: dict[NodeId, bool] = {}
        self._reached: dict[NodeId, bool] = {}
        self._could: dict[tuple[tuple[bytes, ...], Seq, int], bool] = {}

    @property
    def is_root(self) -> bool:
        """Whether everything is allowed."""
        return self.uid == 0

    @property
    def is_exhausted(self) -> bool:
        """Whether the request has asked so much about then that could() only refuses from now on."""
        return len(self._could) >= _ASKED

    def now(self, node: NodeId, want: int) -> bool:
        """Return whether the caller has all rights of *want* to *node* now, parents included."""
        return self.is_root or (self._permits(node, self._reader.last, want) and self.reaches(node))

    def reaches(self, node: NodeId) -> bool:
        """Return whether the caller may go through all directories above *node* now."""
        if self.is_root or node == ROOT:
            return True
        known = self._reached.get(node)
        if known is None:
            known = self._reached[node] = self._find_way(node)
        return known

    def could(self, names: tuple[bytes, ...], at: Seq, want: int) -> bool:
        """Return whether the caller had all rights of *want* to the directory *names* at version *at*.

        That is then and now, and the same for the way to it.
        """
        key = (names, at, want)
        if self.is_root:
            return True
        known = self._could.get(key)
        if known is None and self.is_exhausted:
            return False
        if known is None:
            known = self._could[key] = self._could_then_and_now(names, at, want)
        return known

    def _find_way(self, node: NodeId) -> bool:
        reader = self._reader
        state = reader.node(node, reader.last)
        if state is None:
            return False
        if state.attr.kind is Kind.DIR:
            return self._enters(state.parent)
        if reader.child(state.parent, state.name, reader.last) == node and self._enters(
            state.parent
        ):
            return True
        names = self._guard.links_ever(reader, node)
        present = [p for p, name in names if reader.child(p, name, reader.last) == node]
        if present:
            return any(map(self._enters, present))
        return all(map(self._enters, self._last_directories(node, names)))

    def _could_then_and_now(self, names: tuple[bytes, ...], at: Seq, want: int) -> bool:
        node = ROOT
        for name in names:
            if not (self._permits(node, at, EXECUTE) and self._enters(node)):
                return False
            node = self._reader.child(node, name, at)
            if node == NO_NODE:
                return False
        return self._permits(node, at, want) and self.now(node, want)

    def _enters(self, directory: NodeId) -> bool:
        """Return whether the caller may look up names in *directory* and all above it now."""
        reader, last = self._reader, self._reader.last
        climbed: set[NodeId] = set()
        node = directory
        result = False
        while node not in climbed:  # a directory inside itself is damage, and nobody's
            known = self._entered.get(node)
            if known is not None:
                result = known
                break
            climbed.add(node)
            state = reader.node(node, last)
            if state is None or not self._state_permits(state, EXECUTE):
                break
            if node == ROOT:
                result = True
                break
            node = state.parent
        self._entered.update(dict.fromkeys(climbed, result))
        return result

    def _last_directories(self, node: NodeId, names: Iterable[Link]) -> set[NodeId]:
        """Return the directory from which *node*, which has no name now, lost its last name.

        More than one if one operation removed several.
        """
        ends: dict[Link, Seq] = {}
        for parent, name in names:
            end = self._reader.last
            for seq, child in self._reader.child_versions(parent, name, reverse=True):
                if child == node:
                    ends[parent, name] = end
                    break
                end = seq
        newest = max(ends.values(), default=Seq(0))
        found = {parent for (parent, _), end in ends.items() if end == newest}
        return found or {parent for parent, _ in names}

    def _permits(self, node: NodeId, at: Seq, want: int) -> bool:
        if self.is_root:
            return True
        state = self._reader.node(node, at)
        return state is not None and self._state_permits(state, want)

    def _state_permits(self, state: NodeState, want: int) -> bool:
        attr = state.attr
        acl = None
        if attr.uid != self.uid and attr.mode & _GROUP_CLASS:
            acl = self._guard.acl(self._reader, state)
        return permits(
            want, attr.mode, attr.uid, attr.gid, acl, uid=self.uid, in_group=self._in_group
        )

    def _in_group(self, gid: int) -> bool:
        if gid == self._gid:
            return True
        if self._groups is None:
            self._groups = self._find_groups()
        return gid in self._groups
