"""What differs between two versions, found from what was recorded between them: O(changes), not O(tree).

One line for one name, except where a directory was renamed: then one R line for it, and none for what did not change
below it.  A name that is there on both sides is compared with itself (M, T or U), whichever node it leads to; only what
remains is matched by node and called renamed.  So "write a new file and rename it over the old one" is M.
"""

from collections.abc import Iterable, Iterator

from dkfs.core.diff import (
    Change,
    Difference,
    Field,
    Range,
    classify,
    differing_fields,
    differing_ranges,
)
from dkfs.core.manifest import Manifest
from dkfs.errors import CorruptError, NotFoundError
from dkfs.history import content
from dkfs.history.links import Place, links
from dkfs.history.tree import DirectoryPaths, Tree, clean_path, is_under, path_key, shown
from dkfs.history.versions import check_there
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader


def diff(
    reader: Reader,
    a: Seq,
    b: Seq,
    paths: Iterable[bytes] = (),
    *,
    include_dir_times: bool = False,
) -> Iterator[Difference]:
    """Return what leads from version *a* to version *b*, which may be the older one; in the order of path_key.

    Only what is at or below *paths*, if there are any, and the renaming of a directory above them.
    A directory of which only the mtime differs is left out unless *include_dir_times*.
    Raises NotFoundError for a version that is not there and for a path that neither version has.
    """
    for seq in (a, b):
        if seq != 0:
            check_there(reader, seq)
    tops = [clean_path(path) for path in paths]
    for top in tops:
        if Tree(reader, a).find(top) == NO_NODE and Tree(reader, b).find(top) == NO_NODE:
            raise NotFoundError(f"{shown(top)} does not exist at version {a} nor at version {b}")
    found = _Comparison(reader, a, b, dir_times=include_dir_times).run()
    if tops:
        found = [each for each in found if any(_concerns(each, top) for top in tops)]
    found.sort(key=lambda each: (path_key(each.path), each.change != "-"))
    return iter(found)


def content_ranges(reader: Reader, old: NodeState | None, new: NodeState | None) -> list[Range]:
    """Return the byte ranges in which the contents of two states differ, as fine as chunks are.

    None, and what is not a file, count as empty.  Raises ForgottenError and CorruptError.
    """
    chunks = [
        Manifest(reader.blob, None, is_manifest=False, size=0)
        if state is None
        else content.manifest(reader, state)
        for state in (old, new)
    ]
    return list(differing_ranges(*chunks))


def _concerns(difference: Difference, top: bytes) -> bool:
    for path in (difference.path, difference.old_path):
        if path is not None and (
            is_under(path, top) or (difference.change == "R" and is_under(top, path))
        ):
            return True
    return False


class _Comparison:
    """One comparison: the names that changed hands are matched step by step, each at most once."""

    def __init__(self, reader: Reader, a: Seq, b: Seq, *, dir_times: bool) -> None:
        self._reader = reader
        self._a = a
        self._b = b
        self._dir_times = dir_times
        self._paths_a = DirectoryPaths(reader)
        self._paths_b = DirectoryPaths(reader)
        self._lost: dict[Place, NodeId] = {}  # names of a that lead elsewhere in b
        self._gained: dict[Place, NodeId] = {}  # names of b that led elsewhere in a
        self._found: list[Difference] = []

    def run(self) -> list[Difference]:
        """Return all differences, unsorted."""
        touched: set[NodeId] = set()
        names: set[Place] = set()
        for record in self._reader.log(Seq(min(self._a, self._b) + 1), Seq(max(self._a, self._b))):
            touched.update(record.all_nodes)
            names.update(record.all_names)
        for place in names:
            before = self._reader.child(*place, self._a)
            after = self._reader.child(*place, self._b)
            if before != after:
                if before != NO_NODE:
                    self._lost[place] = before
                if after != NO_NODE:
                    self._gained[place] = after
        for node in touched:
            self._compare_in_place(node)
        self._match_directories()
        self._match([(place, place) for place in self._lost if place in self._gained], rename=False)
        self._match_paths()
        self._match_nodes()
        self._found += [self._gone(*item) for item in self._lost.items()]
        self._found += [self._made(*item) for item in self._gained.items()]
        return self._found

    def _compare_in_place(self, node: NodeId) -> None:
        """Compare *node* with itself, once for each name that leads to it in both versions."""
        old, new = self._reader.node(node, self._a), self._reader.node(node, self._b)
        if old is None or new is None:
            if node == ROOT and old is not new:
                change: Change = "+" if old is None else "-"
                self._found.append(
                    Difference(change, b"", old, new, (), None, *_root_ids(old, new))
                )
            return
        fields = differing_fields(old, new, dir_times=self._dir_times)
        if not fields:
            return
        if node == ROOT:
            self._add(b"", b"", (node, old), (node, new), fields)
        elif new.attr.kind is Kind.DIR:
            self._add_named(node, old, new, fields, ((new.parent, new.name),))
        else:
            self._add_named(node, old, new, fields, links(self._reader, node, self._b))

    def _add_named(
        self,
        node: NodeId,
        old: NodeState,
        new: NodeState,
        fields: tuple[Field, ...],
        places: Iterable[Place],
    ) -> None:
        for place in places:
            if (
                self._reader.child(*place, self._a) == node
                and self._reader.child(*place, self._b) == node
            ):
                self._add(
                    self._path_a(place), self._path_b(place), (node, old), (node, new), fields
                )

    def _match_directories(self) -> None:
        """Match the directories that were moved: one name each, before and after."""
        before = {
            node: place
            for place, node in self._lost.items()
            if self._state(node, self._a).attr.kind is Kind.DIR
        }
        pairs = [(before[node], place) for place, node in self._gained.items() if node in before]
        self._match(pairs, rename=True)

    def _match_paths(self) -> None:
        """Match what has the same path in different directories: one was removed and made again."""
        if not self._lost or not self._gained:
            return
        before = {self._path_a(place): place for place in self._lost}
        pairs = [
            (before[path], place)
            for place, path in [(place, self._path_b(place)) for place in self._gained]
            if path in before
        ]
        self._match(pairs, rename=False)

    def _match_nodes(self) -> None:
        """Match the names that a node lost with those that it gained, in the order of their paths."""
        before: dict[NodeId, list[Place]] = {}
        for place, node in sorted(
            self._lost.items(), key=lambda item: self._path_a(item[0]), reverse=True
        ):
            before.setdefault(node, []).append(place)
        pairs = [
            (before[node].pop(), place)
            for place, node in sorted(self._gained.items(), key=lambda item: self._path_b(item[0]))
            if before.get(node)
        ]
        self._match(pairs, rename=True)

    def _match(self, pairs: Iterable[tuple[Place, Place]], *, rename: bool) -> None:
        for old_place, new_place in pairs:
            old_node, new_node = self._lost.pop(old_place), self._gained.pop(new_place)
            old, new = self._state(old_node, self._a), self._state(new_node, self._b)
            self._add(
                self._path_a(old_place),
                self._path_b(new_place),
                (old_node, old),
                (new_node, new),
                differing_fields(old, new, dir_times=self._dir_times),
                rename=rename,
            )

    def _add(
        self,
        old_path: bytes,
        path: bytes,
        old: tuple[NodeId, NodeState],
        new: tuple[NodeId, NodeState],
        fields: tuple[Field, ...],
        *,
        rename: bool = False,
    ) -> None:
        change = "R" if rename else classify(old[1], new[1], fields)
        if change is not None:
            elsewhere = None if old_path == path else old_path
            self._found.append(
                Difference(change, path, old[1], new[1], fields, elsewhere, old[0], new[0])
            )

    def _gone(self, place: Place, node: NodeId) -> Difference:
        state = self._state(node, self._a)
        return Difference("-", self._path_a(place), state, None, old_node=node)

    def _made(self, place: Place, node: NodeId) -> Difference:
        state = self._state(node, self._b)
        return Difference("+", self._path_b(place), None, state, new_node=node)

    def _path_a(self, place: Place) -> bytes:
        return self._paths_a.join(*place, self._a)

    def _path_b(self, place: Place) -> bytes:
        return self._paths_b.join(*place, self._b)

    def _state(self, node: NodeId, at: Seq) -> NodeState:
        state = self._reader.node(node, at)
        if state is None:
            raise CorruptError(f"node {node} is named at version {at} but has no state")
        return state


def _root_ids(old: NodeState | None, new: NodeState | None) -> tuple[NodeId, NodeId]:
    return NO_NODE if old is None else ROOT, NO_NODE if new is None else ROOT
