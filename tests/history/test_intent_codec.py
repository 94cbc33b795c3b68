"""How operations are written down in the intent log, and what becomes of other bytes."""

import contextlib
import random
from pathlib import Path

from dkfs.errors import CorruptError
from dkfs.history.change import Link, NameChange, NodeChange, Pending
from dkfs.history.frozen import FrozenParts
from dkfs.history.intent_codec import decode, encode
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.operation import Operation, OpKind, Origin


def random_pending(chance: random.Random, top: Path) -> Pending:
    def data(most: int) -> bytes:
        return chance.randbytes(chance.randrange(most))

    nodes = []
    for _ in range(chance.randrange(3)):
        parts = sorted({chance.randrange(5): b"" for _ in range(3)})
        kept = [(at * 1000, chance.randbytes(chance.randint(1, 1000))) for at in parts]
        ranges = [(at * 1000, at * 1000 + 1000) for at in parts]
        contents = chance.choice((None, FrozenParts(kept, ranges, 6000)))
        link = chance.choice((None, Link(NodeId(7), b"l" + data(9))))
        xattrs = chance.choice((None, {}, {b"user.%d" % chance.randrange(9): data(50)}))
        target = chance.choice((None, b"", data(30)))
        change = NodeChange(
            NodeId(chance.randrange(1 << 60)), top.stat(), link, contents, xattrs, target
        )
        nodes.append(change)
    names = [
        NameChange(
            NodeId(chance.randrange(1 << 60)), b"n" + data(99), chance.choice((NO_NODE, ROOT))
        )
        for _ in range(chance.randrange(3))
    ]
    operation = Operation(
        chance.choice(list(OpKind)),
        chance.randrange(1 << 60),
        Origin(1, 2, data(16)),
        ROOT,
        ROOT,
        data(9),
    )
    return Pending(Seq(chance.randrange(1 << 60)), operation, tuple(nodes), tuple(names))


def plain(pending: Pending) -> object:
    """Return all that matters of *pending*, to be compared."""
    nodes = [
        (
            *(change.node, change.link, change.xattrs, change.target),
            [
                getattr(change.status, f"st_{name}")
                for name in ("mode", "uid", "gid", "rdev", "size")
            ],
            (change.status.st_mtime_ns, change.status.st_ctime_ns),
            change.contents and (change.contents.size, change.contents.ranges),
            change.contents and [change.contents.read(*each) for each in change.contents.ranges],
        )
        for change in pending.nodes
    ]
    return pending.seq, pending.operation, nodes, pending.names


def test_what_was_written_down_is_read_back_as_it_was(tmp_path: Path) -> None:
    chance = random.Random(3)
    pendings = [random_pending(chance, tmp_path) for _ in range(200)]

    encoded = [encode(pending) for pending in pendings]

    found = decode(b"".join(each for each in encoded if each is not None))
    assert [plain(each) for each in found] == [plain(each) for each in pendings]


def test_any_other_bytes_are_refused_or_make_some_operation(tmp_path: Path) -> None:
    chance = random.Random(4)
    for _ in range(3000):
        data = bytearray(encode(random_pending(chance, tmp_path)) or b"")
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with contextlib.suppress(CorruptError):
            list(decode(bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])))
