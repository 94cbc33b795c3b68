"""Which states reach a damaged blob: by their contents, through manifests, by their extended attributes, and by the
blobs that a delta is a difference to."""

from collections.abc import Collection, Iterator
from typing import Final

from dkfs.core import codec
from dkfs.core.location import LOST, decode_blob_location
from dkfs.core.manifest import decode_manifest_node
from dkfs.errors import CorruptError, DkfsError
from dkfs.model.ids import BlobId, NodeId, Seq
from dkfs.model.node import NodeState
from dkfs.store.damage import Damage, DamageKind
from dkfs.store.reader import Reader
from dkfs.store.rows import NODE_KEY, unseal

LOST_NOTE: Final = (
    b"lost"  # of the table meta: not empty if a repair gave something up since the last mount
)


def states(reader: Reader) -> Iterator[tuple[NodeId, Seq, NodeState | None]]:
    """Yield every state with its node and version, in this order; None where its row is damaged."""
    for key, value in reader.rows("nodes"):
        if len(key) != NODE_KEY.size:
            continue
        node, seq = NODE_KEY.unpack(key)
        try:
            state = codec.decode_node(unseal("nodes", key, value))
        except CorruptError:
            state = None
        yield NodeId(node), Seq(seq), state


def reach_of_lost(reader: Reader) -> "Reach | None":
    """Return what tells the states that reach something that a repair gave up; None if none did since the last mount."""
    if not reader.meta(LOST_NOTE):
        return None
    damages = []
    for key, value in reader.rows("blobs"):
        try:
            is_lost = decode_blob_location(unseal("blobs", key, value)).encoding == LOST
        except CorruptError:
            is_lost = True
        if is_lost:
            message = f"blob {key.hex()} is lost"
            damages.append(Damage(message, blob=BlobId(key), kind=DamageKind.LOST))
    return Reach(reader, damages)


class Reach:
    """Tells what is damaged below a state; remembers what it has found out of every manifest."""

    def __init__(self, reader: Reader, damages: Collection[Damage]) -> None:
        """Take the damages that name a blob; whatever is a delta to one of them is damaged too."""
        self._reader = reader
        self._bad: dict[BlobId, Damage] = {}
        for damage in damages:
            if damage.blob is not None:
                self._bad.setdefault(damage.blob, damage)
        self._below: dict[BlobId, Damage | None] = {}  # of the nodes of manifests
        if self._bad:
            self._add_deltas()

    def __bool__(self) -> bool:
        return bool(self._bad)

    def of(self, state: NodeState) -> Damage | None:
        """Return the first damage that *state* reaches, None if there is none."""
        found = None
        if state.content is not None:
            found = self._tree(state.content) if state.is_manifest else self._bad.get(state.content)
        if found is None and state.xattrs is not None:
            found = self._bad.get(state.xattrs)
        return found

    def _tree(self, root: BlobId) -> Damage | None:
        if root in self._below:
            return self._below[root]
        # Without recursion: what is damaged may be as deep as it likes.  A node is asked twice, first to be opened
        # and then, when all below it is known, to be closed.
        stack: list[tuple[BlobId, tuple[BlobId, ...] | None]] = [(root, None)]
        open_nodes: set[BlobId] = set()
        while stack:
            node, children = stack.pop()
            if children is not None:
                open_nodes.discard(node)
                found = (self._below.get(child) or self._bad.get(child) for child in children)
                self._below[node] = next((damage for damage in found if damage), None)
                continue
            if node in self._below or node in open_nodes:
                continue
            if node in self._bad:
                self._below[node] = self._bad[node]
                continue
            try:
                leads_to, is_leaf = self._children(node)
            except CorruptError as exc:
                self._below[node] = Damage(str(exc), blob=node, kind=DamageKind.BLOB)
                continue
            open_nodes.add(node)
            stack.append((node, leads_to))
            if not is_leaf:
                stack += [(child, None) for child in leads_to]
        return self._below[root]

    def _children(self, node: BlobId) -> tuple[tuple[BlobId, ...], bool]:
        """Return what a manifest's *node* leads to, and whether that are chunks; raises CorruptError."""
        found = decode_manifest_node(self._reader.blob(node))
        blobs = tuple(entry.blob for entry in found.entries if entry.blob is not None)
        return blobs, found.level == 0

    def _add_deltas(self) -> None:
        """Add what cannot be restored because a base is damaged, with the damage of the base."""
        users: dict[BlobId, list[BlobId]] = {}
        for key, value in self._reader.rows("blobs"):
            blob = BlobId(key)
            if blob in self._bad:
                continue
            try:
                location = decode_blob_location(unseal("blobs", key, value))
                bases = self._reader.bases(blob, location) if location.depth else ()
            except DkfsError as exc:
                self._bad[blob] = Damage(str(exc), blob=blob, kind=DamageKind.BLOB)
                continue
            for base in bases:
                users.setdefault(base, []).append(blob)
        found = list(self._bad)
        while found:
            base = found.pop()
            for blob in users.get(base, ()):
                if blob not in self._bad:
                    self._bad[blob] = self._bad[base]
                    found.append(blob)
