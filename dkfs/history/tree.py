"""The tree as of one version: names to nodes and back."""

from collections.abc import Iterator

from dkfs.errors import CorruptError, NotFoundError, UsageError
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader

_PATHS_KEPT = 65_536  # about 8 MiB
_SHOWN = 200  # characters of a path in a message


class Tree:
    """What the directory held at version *at*; lives as long as *reader*."""

    def __init__(self, reader: Reader, at: Seq) -> None:
        self.reader = reader
        self.at = at

    def state(self, node: NodeId) -> NodeState:
        """Return the state of *node*, the last one if it has been removed; raises NotFoundError."""
        state = self.reader.node(node, self.at)
        if state is None:
            raise NotFoundError(f"node {node} does not exist at version {self.at}")
        return state

    def child(self, directory: NodeId, name: bytes) -> NodeId:
        """Return what *name* in *directory* is; NO_NODE if nothing."""
        return self.reader.child(directory, name, self.at)

    def children(self, directory: NodeId) -> Iterator[tuple[bytes, NodeId]]:
        """Yield the names in *directory* and what they are, in byte order."""
        return self.reader.children(directory, self.at)

    def resolve(self, path: bytes) -> NodeId:
        """Return the node that *path* names; symlinks are not followed; raises NotFoundError, UsageError."""
        node = self.find(path)
        if node == NO_NODE:
            raise NotFoundError(f"{shown(path)} does not exist at version {self.at}")
        return node

    def find(self, path: bytes) -> NodeId:
        """Return the node that *path* names; NO_NODE if nothing; raises UsageError."""
        parts = components(path)
        if not parts:
            return ROOT if self.reader.node(ROOT, self.at) is not None else NO_NODE
        node = ROOT
        for name in parts:
            node = self.child(node, name)
            if node == NO_NODE:
                break
        return node

    def path(self, node: NodeId) -> bytes:
        """Return the path through which *node* was last seen, which may be gone; raises NotFoundError."""
        self.state(node)
        return DirectoryPaths(self.reader).path(node, self.at)

    def walk(self, path: bytes = b"") -> Iterator[tuple[bytes, NodeId, NodeState]]:
        """Yield what *path* names and all below it as (path, node, state).

        A directory comes before what it holds, names are in byte order: the order of path_key.
        """
        top = self.resolve(path)
        path = clean_path(path)
        state = self._walked(top, path)
        yield path, top, state
        if state.attr.kind is not Kind.DIR:
            return
        above = {top}
        stack = [(top, path, self.children(top))]
        while stack:
            directory, prefix, children = stack[-1]
            for name, node in children:
                path = prefix + b"/" + name if prefix else name
                state = self._walked(node, path)
                yield path, node, state
                if state.attr.kind is Kind.DIR:
                    if node in above:
                        raise CorruptError(f"directory {shown(path)} lies inside itself")
                    above.add(node)
                    stack.append((node, path, self.children(node)))
                    break
            else:
                stack.pop()
                above.remove(directory)

    def _walked(self, node: NodeId, path: bytes) -> NodeState:
        state = self.reader.node(node, self.at)
        if state is None:
            raise CorruptError(f"{shown(path)} is node {node}, unknown at version {self.at}")
        return state


class DirectoryPaths:
    """Paths of nodes, with those of directories remembered until forget().

    The caller forgets when a version lies between two questions in which a directory was moved.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._known: dict[NodeId, bytes] = {ROOT: b""}

    def forget(self) -> None:
        """Forget all paths."""
        if len(self._known) > 1:
            self._known = {ROOT: b""}

    def join(self, directory: NodeId, name: bytes, at: Seq) -> bytes:
        """Return the path of *name* in *directory*; name b"" means the directory itself."""
        prefix = self._known.get(directory)
        if prefix is None:
            prefix = self._find(directory, at)
        if not prefix or not name:
            return prefix or name
        return prefix + b"/" + name

    def path(self, node: NodeId, at: Seq) -> bytes:
        """Return the path of *node*, by the link through which it was last seen; raises CorruptError."""
        if node == ROOT:
            return b""
        parent, name = self._link(node, at)
        return self.join(parent, name, at)

    def _find(self, directory: NodeId, at: Seq) -> bytes:
        """Climb from *directory* to one whose path is known, and remember all on the way."""
        climbed: dict[NodeId, bytes] = {}
        node = directory
        while node not in self._known:
            if node in climbed:
                raise CorruptError(f"directory {directory} lies inside itself at version {at}")
            parent, climbed[node] = self._link(node, at)
            node = parent
        prefix = self._known[node]
        if len(self._known) + len(climbed) > _PATHS_KEPT:
            self.forget()
        for node in reversed(climbed):
            prefix = prefix + b"/" + climbed[node] if prefix else climbed[node]
            self._known[node] = prefix
        return prefix

    def _link(self, node: NodeId, at: Seq) -> tuple[NodeId, bytes]:
        state = self._reader.node(node, at)
        if state is None:
            raise CorruptError(f"node {node} is named at version {at} but has no state")
        if not state.name or b"/" in state.name:
            raise CorruptError(f"node {node} has the name {state.name!r} at version {at}")
        return state.parent, state.name


def components(path: bytes) -> list[bytes]:
    """Return the names in *path*, without empty ones and '.'; raises UsageError for '..' and NUL."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise UsageError(
            f"path {shown(path)} has '..' in it: expected a path below the mount's root"
        )
    if b"\0" in path:
        raise UsageError(f"path {shown(path)} has a NUL byte in it")
    return names


def clean_path(path: bytes) -> bytes:
    """Return *path* as the history writes it: no empty names, no '.'; raises UsageError for '..'."""
    return b"/".join(components(path))


def is_under(path: bytes, top: bytes) -> bool:
    """Return whether *path* is *top* or below it; both clean."""
    return not top or path == top or (path.startswith(top) and path[len(top)] == 0x2F)


def path_key(path: bytes) -> tuple[bytes, ...]:
    """Return the sort key that puts a directory right before all that it holds, as walk() does."""
    return tuple(path.split(b"/")) if path else ()


def shown(path: bytes) -> str:
    """Return *path* for a message: what is not printable escaped, long ones cut, the root as '/'."""
    text = path.decode("utf-8", "backslashreplace") or "/"
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
