"""Works out how a directory that equals one version becomes another, in O(changes between the two).

A rollback of the whole tree wants every name and node as of *target*.  A rollback of some paths wants what these paths
and everything below them were, and leaves the rest as of *base*.  Node ids stay what they were, with one exception:
a node that *target* has below the paths, and that *base* has, but only elsewhere (it was moved out), stays there; below
the paths a new node with its old state is made.  Directories above a path that are gone are made again, empty.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from dkfs.core.diff import Difference, differing_fields
from dkfs.core.plan import Binding, Plan, Step, is_directory
from dkfs.errors import CorruptError, ExistsError, NotFoundError
from dkfs.history.changes import Changes
from dkfs.history.differ import diff
from dkfs.history.links import Place, links, place
from dkfs.history.tree import Tree, clean_path, components, is_under, shown
from dkfs.history.versions import check_there
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import NodeState
from dkfs.store import Reader


def plan(reader: Reader, *, base: Seq, target: Seq, paths: Sequence[bytes] = ()) -> Plan:
    """Return what turns a directory that equals *base* into *target*, or only what is below *paths*.

    Raises NotFoundError for a version or path that never existed, UsageError for a path with '..', and ExistsError if
    something that is not a directory is now above a path.
    """
    for seq in (base, target):
        check_there(reader, seq)
    wanted = _tops(paths)
    for path in wanted:
        _check_existed(reader, path)
    planner = _Planner(reader, base, target, wanted)
    return planner.plan()


def subtree(reader: Reader, at: Seq, missing: Sequence[Binding]) -> tuple[Binding, ...]:
    """Return *missing* names, all without an old node, and the names below them, as of version *at*."""
    found = list(missing)
    seen: set[NodeId] = set()
    for binding in found:  # grows
        if is_directory(reader.node(binding.new, at)):
            if binding.new in seen:
                raise CorruptError(f"directory node {binding.new} has two names at version {at}")
            seen.add(binding.new)
            found.extend(
                Binding(binding.new, name, NO_NODE, child)
                for name, child in reader.children(binding.new, at)
            )
    return tuple(found)


class _Top(NamedTuple):
    """One of the paths, or the root."""

    parent: NodeId  # where its name will be
    name: bytes
    old: NodeId  # what it names at base
    new: NodeId  # what it named at target


class _Planner:
    def __init__(self, reader: Reader, base: Seq, target: Seq, paths: Sequence[bytes]) -> None:
        self._reader = reader
        self._base = base
        self._target = target
        self._paths = tuple(paths)
        self._changes = Changes(reader, base, target)
        self._whole = not paths
        self._inside: dict[Seq, dict[NodeId, bool]] = {base: {}, target: {}}
        self._bound: dict[Seq, set[Place]] = {base: set(), target: set()}
        self._copies: dict[NodeId, NodeId] = {}
        self._next = reader.next_node()
        self._names: dict[Place, tuple[NodeId, NodeId]] = {}
        self._states: dict[NodeId, NodeState] = {}  # of nodes that are to be as they were at target
        self._visited: set[NodeId] = set()
        self._visits: list[tuple[NodeId, NodeId]] = []  # directory at target, what it will be
        self._vanishing: list[NodeId] = []  # directories that lose their name, unless visited

    def plan(self) -> Plan:
        """Return the plan."""
        for top in [self._root()] if self._whole else self._find_tops():
            self._settle(top.parent, top.name, top.old, top.new)
            self._descend()
        self._clear()
        for node in self._changes.nodes:
            if node not in self._states and self._is_wanted(node):
                state = self._reader.node(node, self._target)
                if state is not None:
                    self._states[node] = state
        names = tuple(Binding(*key, *nodes) for key, nodes in self._names.items())
        sources, steps = self._steps(names)
        stated = {step.node: (step.new.parent, step.new.name) for step in steps if step.new}
        copies = frozenset(self._copies.values())
        return Plan(
            base=self._base,
            target=self._target,
            paths=self._paths,
            names=names,
            steps=steps,
            sources=sources,
            secondary_names=tuple(
                (parent, name, new)
                for parent, name, _, new in names
                if new in copies and stated[new] != (parent, name)
            ),
            differences=tuple(self._differences()),
        )

    def _differences(self) -> Iterator[Difference]:
        ends = (Tree(self._reader, self._base), Tree(self._reader, self._target))
        paths = [path for path in self._paths if any(tree.find(path) for tree in ends)]
        if self._whole or paths:
            yield from diff(self._reader, self._base, self._target, paths)

    # Where it starts.

    def _root(self) -> _Top:
        return _Top(ROOT, b"", ROOT, ROOT)

    def _find_tops(self) -> list[_Top]:
        """Find each path at both versions; first all, because what is inside decides what is copied."""
        found = []
        for path in self._paths:
            *above, name = components(path)
            ends = {}
            for at in (self._base, self._target):
                directory = Tree(self._reader, at).find(b"/".join(above))
                ends[at] = self._reader.child(directory, name, at) if directory else NO_NODE
                if directory:
                    self._bound[at].add((directory, name))
            found.append((above, name, ends[self._base], ends[self._target]))
        return [
            _Top(self._parent(above) if new or old else NO_NODE, name, old, new)
            for above, name, old, new in found
        ]

    def _parent(self, above: Sequence[bytes]) -> NodeId:
        """Return the directory that will hold a path; the ones missing on the way are made."""
        now = then = will = ROOT
        for index, name in enumerate(above):
            now = self._reader.child(now, name, self._base) if now else NO_NODE
            then = self._reader.child(then, name, self._target) if then else NO_NODE
            if now:
                if not is_directory(self._reader.node(now, self._base)):
                    path = shown(b"/".join(above[: index + 1]))
                    raise ExistsError(f"{path} is not a directory: expected one, or nothing")
                will = now
                continue
            made = self._copy(then) if self._is_here(then) else then
            self._bind(will, name, NO_NODE, made)
            self._states.setdefault(made, self._state(then))
            will = made
        return will

    # Going down where something differs.

    def _settle(self, parent: NodeId, name: bytes, old: NodeId, then: NodeId) -> None:
        """Make *name* in *parent*, now *old*, what was *then*."""
        new = self._identity(then)
        if old != new:
            self._bind(parent, name, old, new)
            if old and is_directory(self._reader.node(old, self._base)):
                self._vanishing.append(old)
        if not new:
            return
        state = self._state(then)
        if new != then or not self._is_here(new):
            self._states.setdefault(new, state)
        if is_directory(state) and new not in self._visited:
            self._visited.add(new)
            self._visits.append((then, new))

    def _descend(self) -> None:
        while self._visits:
            then, new = self._visits.pop()
            if new == then and self._is_here(new):
                for name in self._changes.names_in(new):
                    old = self._reader.child(new, name, self._base)
                    wanted = self._reader.child(new, name, self._target)
                    self._settle(new, name, old, wanted)
                for child in self._changes.changed_below(new):
                    if child not in self._visited and child not in self._copies:
                        self._visited.add(child)
                        self._visits.append((child, child))
            else:
                for name, child in self._reader.children(then, self._target):
                    self._settle(new, name, NO_NODE, child)

    def _clear(self) -> None:
        """Remove the names in directories that lose theirs and get no other."""
        cleared: set[NodeId] = set()
        while self._vanishing:
            directory = self._vanishing.pop()
            if directory in self._visited or directory in cleared:
                continue
            cleared.add(directory)
            for name, child in self._reader.children(directory, self._base):
                self._bind(directory, name, child, NO_NODE)
                if is_directory(self._reader.node(child, self._base)):
                    self._vanishing.append(child)

    def _bind(self, parent: NodeId, name: bytes, old: NodeId, new: NodeId) -> None:
        if old != new:
            self._names[parent, name] = (old, new)

    # What is where.

    def _identity(self, then: NodeId) -> NodeId:
        """Return the node that is to stand for what was *then*: itself or, if it is elsewhere, a copy."""
        if self._whole or then in (NO_NODE, ROOT):
            return then
        if then not in self._copies:
            here = links(self._reader, then, self._base)
            if not here or any(self._is_inside(link, self._base) for link in here):
                return then
        return self._copy(then)

    def _copy(self, node: NodeId) -> NodeId:
        if node not in self._copies:
            self._copies[node] = self._next
            self._next = NodeId(self._next + 1)
        return self._copies[node]

    def _is_here(self, node: NodeId) -> bool:
        """Return whether the directory has *node* now."""
        return node == ROOT or place(self._reader, node, self._base) is not None

    def _is_wanted(self, node: NodeId) -> bool:
        """Return whether a node that changed is to be as it was at target."""
        if self._whole or node == ROOT:
            return self._whole
        if node in self._copies or not self._is_here(node):
            return False
        then = links(self._reader, node, self._target)
        return any(self._is_inside(link, self._target) for link in then)

    def _is_inside(self, link: Place, at: Seq) -> bool:
        """Return whether *link* is one of the paths or below one, at version *at*."""
        known, bound = self._inside[at], self._bound[at]
        climbed: list[NodeId] = []
        inside = True
        while link not in bound:
            directory = link[0]
            if directory == ROOT or directory in climbed:
                inside = False
                break
            if directory in known:
                inside = known[directory]
                break
            climbed.append(directory)
            state = self._reader.node(directory, at)
            if state is None:
                raise CorruptError(f"directory node {directory} has no state at version {at}")
            link = (state.parent, state.name)
        for directory in climbed:
            known[directory] = inside
        return inside

    def _state(self, node: NodeId) -> NodeState:
        state = self._reader.node(node, self._target)
        if state is None:
            raise CorruptError(f"node {node} has a name but no state at version {self._target}")
        return state

    # From names to nodes.

    def _steps(
        self, names: Sequence[Binding]
    ) -> tuple[dict[NodeId, tuple[NodeId, bytes]], tuple[Step, ...]]:
        """Return where nodes that get a name are found now, and a step for each node that differs."""
        gained: dict[NodeId, Place] = {}
        lost: set[NodeId] = set()
        for parent, name, old, new in names:
            lost.add(old)
            gained.setdefault(new, (parent, name))
        lost.discard(NO_NODE)
        gained.pop(NO_NODE, None)
        sources: dict[NodeId, tuple[NodeId, bytes]] = {}
        steps: list[Step] = []
        # In the order of the names, so that directories are made before what they hold.
        order = dict.fromkeys([*gained, *lost, *self._states])
        for node in order:
            here = None if node == ROOT else place(self._reader, node, self._base)
            if here is not None and node in gained:
                sources[node] = here
            step = self._step(node, here, gained.get(node), is_losing=node in lost)
            if step is not None:
                steps.append(step)
        return sources, tuple(steps)

    def _step(
        self, node: NodeId, here: Place | None, gained: Place | None, *, is_losing: bool
    ) -> Step | None:
        old = self._reader.node(node, self._base) if here or node == ROOT else None
        link = gained or (self._remaining(node) if is_losing else here)
        if node == ROOT:
            link = (ROOT, b"")
        if link is None:
            return Step(node, old, None) if old is not None else None
        new = self._states.get(node, old)
        if new is None:
            raise CorruptError(f"node {node} has a name but no state at version {self._base}")
        if (new.parent, new.name) != link and not self._will_be((new.parent, new.name), node):
            new = replace(new, parent=link[0], name=link[1])
        if old is not None and (old.parent, old.name) == (new.parent, new.name):
            return Step(node, old, new) if differing_fields(old, new) else None
        return Step(node, old, new)

    def _remaining(self, node: NodeId) -> Place | None:
        for link in links(self._reader, node, self._base):
            if link not in self._names:
                return link
        return None

    def _will_be(self, link: Place, node: NodeId) -> bool:
        """Return whether *link* will name *node*."""
        change = self._names.get(link)
        if change is not None:
            return change[1] == node
        return self._reader.child(*link, self._base) == node


def _tops(paths: Sequence[bytes]) -> list[bytes]:
    """Return *paths* clean, without those below others; () if the root is among them."""
    tops: list[bytes] = []
    for path in sorted(clean_path(path) for path in paths):
        if not path:
            return []
        if not any(is_under(path, top) for top in tops):
            tops.append(path)
    return tops


def _check_existed(reader: Reader, path: bytes) -> None:
    """Raise NotFoundError if no version ever had *path*."""
    nodes = {ROOT}
    for name in components(path):
        nodes = {node for parent in nodes for node in _ever(reader, parent, name)}
    if not nodes:
        raise NotFoundError(f"{shown(path)} does not exist in any version")


def _ever(reader: Reader, parent: NodeId, name: bytes) -> Iterator[NodeId]:
    for _, node in reader.child_versions(parent, name):
        if node != NO_NODE:
            yield node
