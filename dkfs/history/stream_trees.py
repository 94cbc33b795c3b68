"""Which blobs the contents of a new state have that those of an old one lack: manifests are compared node by node.

Subtrees that are equal are passed over on both sides, so the cost is that of what changed.
"""

from collections.abc import Callable, Iterator, Sequence

from dkfs.core.manifest import LEVELS, ManifestNode, decode_manifest_node
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId
from dkfs.model.node import NodeState

Load = Callable[[BlobId], bytes | None]  # None: it was given up, and names nothing
Seen = Callable[[BlobId], None]


def missing(load: Load, state: NodeState, base: NodeState | None, seen: Seen) -> Iterator[BlobId]:
    """Yield the blobs of the contents of *state* that those of *base* lack, what names others before these.

    *seen* hears which blobs of *base* were met on the way; few that *base* has may be yielded too.
    Raises CorruptError.
    """
    old = None if base is None else base.content
    if old is not None:
        seen(old)
    if state.content is None or state.content == old:
        return
    yield state.content
    if state.is_manifest:
        is_tree = base is not None and base.is_manifest
        yield from _compared(load, state.content, old if is_tree else None, seen)


def _compared(load: Load, root: BlobId, old_root: BlobId | None, seen: Seen) -> Iterator[BlobId]:
    front = [root]
    old = [] if old_root is None else [old_root]
    top = _node(load, root)
    if top is None:
        return
    level = top.level
    while front:
        old, known = _old_children(load, old, level)
        for blob in known:
            seen(blob)
        fresh: dict[BlobId, None] = {}
        shared: set[BlobId] = set()
        for blob in front:
            node = _node(load, blob)
            if node is None:
                continue
            if node.level != level:
                raise CorruptError(
                    f"manifest node {blob.hex()} of level {node.level}, need {level}"
                )
            for child in _children(node):
                if child in known:
                    shared.add(child)
                else:
                    fresh[child] = None
        yield from fresh
        if level == 0:
            return
        if known:
            old = [blob for blob in known if blob not in shared]
        front = list(fresh)
        level -= 1


def _old_children(
    load: Load, old: Sequence[BlobId], level: int
) -> tuple[list[BlobId], dict[BlobId, None]]:
    """Return the nodes of the old tree at *level*, or below it if it is not as tall, and what is below them."""
    nodes = list(old)
    for _ in range(LEVELS):
        if not nodes:
            break
        decoded = [node for node in (_node(load, blob) for blob in nodes) if node is not None]
        if not decoded or decoded[0].level < level:
            break  # the new tree is taller: its top has nothing in common with these
        children = {child: None for node in decoded for child in _children(node)}
        if decoded[0].level == level:
            return nodes, children
        nodes = list(children)
    return nodes, {}


def _node(load: Load, blob: BlobId) -> ManifestNode | None:
    data = load(blob)
    return None if data is None else decode_manifest_node(data)


def _children(node: ManifestNode) -> Iterator[BlobId]:
    return (entry.blob for entry in node.entries if entry.blob is not None)
