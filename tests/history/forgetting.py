"""What a store holds, as far as it must stay the same when versions are forgotten; and what is forgotten."""

import random
from collections.abc import Collection, Iterable

from dkfs.core import codec
from dkfs.history.content import contents
from dkfs.history.forget import Pace, Progress, Range, forget
from dkfs.history.links import Place, links
from dkfs.history.tree import Tree
from dkfs.model.ids import NodeId, Seq
from dkfs.model.node import NodeState
from dkfs.store import Reader, Store
from dkfs.store.rows import unseal

SMALL_STEPS = Pace(0.0)  # about as small as they can be
Picture = dict[bytes, tuple[NodeId, NodeState, tuple[Place, ...], bytes]]


def picture(reader: Reader, at: int) -> Picture:
    """Return everything that version *at* has: nodes, states, all names of each node, contents."""
    found: Picture = {}
    for path, node, state in Tree(reader, Seq(at)).walk():
        data = b""
        if state.content is not None and not state.is_forgotten:
            content = contents(reader, state)
            data = content.read(reader, 0, content.size)
        names = tuple(sorted(links(reader, node, Seq(at)))) if path else ()
        found[path] = (node, state, names, data)
    return found


def rows(store: Store) -> dict[str, dict[bytes, object]]:
    """Return the rows that the history consists of; of log records not which operation changed what they list."""
    found: dict[str, dict[bytes, object]] = {}
    with store.read() as reader:
        for table in ("nodes", "names", "moves", "tags"):
            found[table] = dict(reader.rows(table))
        found["log"] = {}
        for key, value in reader.rows("log"):
            record = codec.decode_log(Seq(0), unseal("log", key, value))
            lists = (frozenset(record.all_nodes), frozenset(record.all_names))
            found["log"][key] = (record.operation, *lists)
    return found


def some_versions(rng: random.Random, last: int) -> set[int]:
    """Choose versions to keep, few or many; the last is among them."""
    share = rng.choice((0.02, 0.1, 0.3, 0.8))
    return {last} | {seq for seq in range(1, last) if rng.random() < share}


def between(kept: Iterable[int]) -> list[Range]:
    """Return the ranges of versions that lie before and between *kept*."""
    found = []
    before = 0
    for seq in sorted(kept):
        if seq > before + 1:
            found.append((Seq(before + 1), Seq(seq - 1)))
        before = seq
    return found


def keep_only(store: Store, kept: Collection[int], *, pace: Pace = SMALL_STEPS) -> Progress:
    """Forget all versions but *kept*, with their tags."""
    with store.read() as reader:
        tags = [tag.name for tag in reader.tags()]
    return forget(store, between(kept), tags=tags, now_ns=0, pace=pace)
