"""Tells whether what a crash left can be explained.

The log of dkfs is one sequence, and what is in the store after a crash is a beginning of it.  For one worker, whose calls
follow each other, that means: there is a *cut*, a count of its calls, so that every name and attribute is what the calls before
the cut made it; and the contents of each file are those after one of the calls before the cut, not before the last one that captured
them (close, fsync, rename, link, chmod: nothing is recorded without what it depends on).  What was acknowledged by a sync lies before
the cut.  For many workers: whatever one was told before another began something that is there, is there too.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.ops import CURRENT, LOG, RECORD, SHARED, Model, Node, Op

_DEAD = {errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV}
_CONTENTS_ONLY = {"pwrite", "append", "ftruncate", "truncate", "mstore_close", "open", "close"}
_NOTHING = {"fsync", "fdatasync", "fsyncdir", "syncfs"}


@dataclass(frozen=True, slots=True)
class Found:
    """What a name led to."""

    kind: str
    mode: int
    target: str
    xattrs: dict[str, bytes]
    inode: int
    data: bytes


Tree = dict[str, Found]


def look(top: Path) -> Tree:
    """Return everything below *top*."""
    found: Tree = {}
    for above, dirs, files in os.walk(top):
        for name in dirs + files:
            full = f"{above}/{name}"
            status = os.lstat(full)
            if stat.S_ISREG(status.st_mode):
                kind, data = "file", Path(full).read_bytes()
            else:
                kind, data = ("dir", b"") if stat.S_ISDIR(status.st_mode) else ("link", b"")
            target = os.readlink(full) if kind == "link" else ""
            names = os.listxattr(full, follow_symlinks=False)
            xattrs = {each: os.getxattr(full, each, follow_symlinks=False) for each in names}
            path = os.path.relpath(full, top)
            mode = stat.S_IMODE(status.st_mode)
            found[path] = Found(kind, mode, target, xattrs, status.st_ino, data)
    return found


def owned(tree: Tree, worker: int) -> Tree:
    """Return the part of *tree* that only *worker* changes."""
    home, prefix = f"p{worker}", f"{SHARED}/{worker}-"
    return {
        path: each
        for path, each in tree.items()
        if path == home or path.startswith((f"{home}/", prefix))
    }


def model_of(tree: Tree, worker: int, key: int, *, passes: bool) -> Model:
    """Return the model of a worker that finds *tree*, all of it recorded."""
    model = Model(key, passes=passes)
    nodes: dict[int, Node] = {}
    for path, each in sorted(owned(tree, worker).items()):
        node = nodes.get(each.inode)
        if node is None or each.kind == "dir":
            node = nodes[each.inode] = model.node(each.kind, each.mode, each.target)
            node.xattrs = dict(each.xattrs)
            node.versions = [each.data]
        model.names[path] = node
    log = tree.get(LOG)
    model.appended = len(records(log.data).get(worker, ())) if log is not None else 0
    return model


def records(data: bytes) -> dict[int, list[int]]:
    """Return the records of each worker in LOG; raises ValueError if one is not whole."""
    found: dict[int, list[int]] = {}
    for at in range(0, len(data), RECORD):
        piece = data[at : at + RECORD]
        if len(piece) < RECORD or piece[-1:] != b"\n":
            raise ValueError(f"a record at {at} is not whole: {piece[:20]!r}")
        worker, count, _ = piece.split(b" ", 2)
        found.setdefault(int(worker), []).append(int(count))
    return found


@dataclass(slots=True)
class Call:
    """A call and when it was made and answered, in ns of one clock."""

    op: Op
    began: int
    ended: int | None = None


@dataclass(slots=True)
class Story:
    """What one worker did in one round."""

    worker: int
    base: Tree
    key: int
    passes: bool  # see Model
    calls: list[Call] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    was_killed: bool = (
        False  # the worker, before the daemon: then its last write may have ended halfway
    )

    def read(self, log: Path) -> None:
        """Take in what the worker wrote down."""
        text = log.read_text() if log.exists() else ""
        for line in text.splitlines():
            what, _, at, *rest = json.loads(line)
            if what == "do":
                self.calls.append(Call(Op(rest[0], tuple(rest[1])), at))
            elif what == "done":
                self.calls[-1].ended = at
            elif rest[0] not in _DEAD:
                self.trouble.append(f"worker {self.worker}: {self.calls[-1].op}: {rest[1]}")

    def model(self) -> Model:
        return model_of(self.base, self.worker, self.key, passes=self.passes)

    @property
    def answered(self) -> int:
        """How many calls were answered."""
        return sum(call.ended is not None for call in self.calls)


@dataclass(slots=True)
class Promised:
    """What a story was promised."""

    least: int = 0  # calls that are durable
    synced: dict[int, int] = field(default_factory=dict)  # by node: the version of its contents
    records: int = 0  # of LOG
    syncs: int = 0  # calls that promised something


def promised(story: Story) -> Promised:
    """Return what the syncs of *story* promised."""
    model, found = story.model(), Promised()
    for index, call in enumerate(story.calls[: story.answered]):
        op = call.op
        gone = model.names.get(op.path()) if op.name == "unlink" else None
        closing = model.slots.get(op.number(0)) if op.name == "mstore" else None
        model.apply(index, op)
        node = closing
        if op.name in {"fsync", "fdatasync"}:
            node = model.slots[op.number(0)]
        if node is not None and not any(node is each for each in model.names.values()):
            continue  # nobody will ever find it
        if node is not None:
            found.synced[node.id] = len(node.versions) - 1
            found.least = max(found.least, node.touched + 1)
        elif op.name == "fsyncdir":
            found.least = max(found.least, model.names[op.path()].touched + 1)
        elif op.name == "record" and op.number(0):
            found.least, found.records = index + 1, model.appended
        elif gone is not None and gone.synced == op.path():
            # Removing what is durable is how some applications commit. By another name than it was synced by the kernel
            # may have forgotten the file meanwhile, and dkfs with it that it was synced.
            found.least = index + 1
        else:
            continue
        found.syncs += 1
    return found


class Judge:
    """Judges one story by what is there now."""

    def __init__(self, story: Story, tree: Tree) -> None:
        self.story = story
        self._tree = owned(tree, story.worker)
        log = tree.get(LOG)
        self._records = records(log.data).get(story.worker, []) if log is not None else []
        self._order = list(range(len(self._records)))
        self.promised = promised(story)
        self.why = ""  # of the cut that was nearest: what does not fit

    def cuts(self) -> list[int]:
        """Return every cut that explains what is there in the store."""
        return self._matching(self.promised.least, is_exact=False)

    def is_all_there(self) -> bool:
        """Return whether every call that was answered is there to the byte, in a directory that survived."""
        return bool(self._matching(self.story.answered, is_exact=True))

    def _matching(self, least: int, *, is_exact: bool) -> list[int]:
        model = self.story.model()
        calls = self.story.calls
        found = []
        nearest = 1 << 30
        for cut in range(len(calls) + 1):
            if cut:
                model.apply(cut - 1, calls[cut - 1].op)
            if cut < least:
                continue
            is_open = cut == len(calls) and self.story.answered < cut
            wrong = self._differences(model, cut, is_exact=is_exact, is_open=is_open)
            if not wrong:
                found.append(cut)
            elif len(wrong) <= nearest:
                nearest = len(wrong)
                self.why = f"after {cut} of {len(calls)} calls: {'; '.join(wrong[:4])}"
        return found

    def _differences(self, model: Model, cut: int, *, is_exact: bool, is_open: bool) -> list[str]:
        tree = self._tree
        wrong = [f"{path} is missing" for path in model.names.keys() - tree.keys()]
        wrong += [f"{path} is there" for path in tree.keys() - model.names.keys()]
        nodes: dict[int, Node] = {}
        for path, node in model.names.items():
            each = tree.get(path)
            if each is None:
                continue
            if (each.kind, each.mode, each.target) != (node.kind, node.mode, node.target):
                wrong.append(f"{path} is {each.kind} {each.mode:o}, expected {node.mode:o}")
            if each.xattrs != node.xattrs:
                wrong.append(f"{path} has xattrs {sorted(each.xattrs)}")
            if nodes.setdefault(each.inode, node) is not node:
                wrong.append(f"{path} is a link that it was not")
            if node.kind == "file" and not self._fits(
                node, each.data, is_exact=is_exact, is_open=is_open
            ):
                wrong.append(f"{path}: {_first_differences(each.data, node)}")
        if len(nodes) != len(
            {id(node) for node in model.names.values()} & set(map(id, nodes.values()))
        ):
            wrong.append("a link was lost")
        return wrong + self._wrong_records(model, cut, is_exact=is_exact, is_open=is_open)

    def _fits(self, node: Node, data: bytes, *, is_exact: bool, is_open: bool) -> bool:
        if not is_exact:
            floor = max(node.floor, self.promised.synced.get(node.id, 0))
            if data in node.versions[floor:]:
                return True
            is_open = is_open and self.story.was_killed
        if data == node.data:
            return True
        if not is_open or len(node.versions) < 2:
            return False
        old, new = node.versions[-2], node.data  # the call under way may be half done
        size = max(len(old), len(new))
        mixed = zip(data, old.ljust(size, b"\0"), new.ljust(size, b"\0"), strict=False)
        return len(data) <= size and all(byte in pair for byte, *pair in mixed)

    def _wrong_records(self, model: Model, cut: int, *, is_exact: bool, is_open: bool) -> list[str]:
        count = len(self._records)
        if self._records != self._order:
            return [f"records {self._records[:9]}... of the shared log are not in order"]
        calls = self.story.calls
        more = int(cut < len(calls) and calls[cut].op.name == "record")
        least = model.appended if is_exact or not self.story.passes else self.promised.records
        if is_open and calls[-1].op.name == "record":
            least -= 1
        if least <= count <= model.appended + more:
            return []
        return [f"{count} records in the shared log, expected {least} to {model.appended + more}"]


def _first_differences(data: bytes, node: Node) -> str:
    """Return where *data* leaves the last versions of *node*."""
    found = []
    for version in node.versions[-3:]:
        pairs = enumerate(zip(data, version, strict=False))
        at = next((n for n, (a, b) in pairs if a != b), min(len(data), len(version)))
        found.append(f"{len(version)} bytes, other from {at} on")
    return f"{len(data)} bytes, the last versions were {found}"


def explain(judges: list[Judge], tree: Tree) -> list[str]:
    """Return why what is there cannot come from a beginning of the log; empty if it can."""
    cuts = {judge.story.worker: judge.cuts() for judge in judges}
    wrong = [
        f"worker {judge.story.worker}: nothing explains it; {judge.why}"
        for judge in judges
        if not cuts[judge.story.worker]
    ]
    if wrong:
        return wrong
    least = {worker: min(each) for worker, each in cuts.items()}
    current = tree.get(CURRENT)
    trouble = f"{CURRENT} holds what nobody gave it"
    for published in _published(judges, current.data if current else None):
        cut = dict(least)
        if published is not None:
            worker, index = published
            cut[worker] = max(cut[worker], index + 1)
        trouble = _close(judges, cuts, cut) or _overtaken(judges, cut, published)
        if not trouble:
            return []
    return [trouble]


def _close(judges: list[Judge], cuts: dict[int, list[int]], least: dict[int, int]) -> str:
    """Move the cuts in *least* up until each has what the others depend on; return what cannot be."""
    is_moving = True
    while is_moving:
        is_moving = False
        for judge in judges:
            worker, calls = judge.story.worker, judge.story.calls
            known = [
                other.story.calls[least[other.story.worker] - 1].began
                for other in judges
                if other is not judge and least[other.story.worker]
            ]
            need = least[worker]
            for index, call in enumerate(calls):
                is_recorded = call.op.name not in _CONTENTS_ONLY | _NOTHING
                if is_recorded and call.ended is not None and call.ended < max(known, default=0):
                    need = max(need, index + 1)
            fitting = [cut for cut in cuts[worker] if cut >= need]
            if not fitting:
                return (
                    f"worker {worker}: {need} calls ended before something that is there began,"
                    f" but only {max(cuts[worker])} are there"
                )
            if fitting[0] != least[worker]:
                least[worker] = fitting[0]
                is_moving = True
    return ""


def _published(judges: list[Judge], data: bytes | None) -> Iterator[tuple[int, int] | None]:
    """Yield every call, as worker and index, that may have made what CURRENT holds; None: it was there before."""
    base = judges[0].story.base.get(CURRENT)
    if data == (base.data if base else None):
        yield None
    for judge in judges:
        model = judge.story.model()
        for index, call in enumerate(judge.story.calls):
            model.apply(index, call.op)
        for index, contents in model.published:
            if contents == data:
                yield judge.story.worker, index


def _overtaken(
    judges: list[Judge], least: dict[int, int], published: tuple[int, int] | None
) -> str:
    """Return what is wrong if a later call than the one that made CURRENT is there."""
    stories = {judge.story.worker: judge.story for judge in judges}
    after = -1
    if published is not None:
        ended = stories[published[0]].calls[published[1]].ended
        if ended is None:
            return ""
        after = ended
    for worker, story in stories.items():
        for index, call in enumerate(story.calls[: least[worker]]):
            if call.op.name == "publish" and call.began > after and (worker, index) != published:
                return f"{CURRENT} is older than call {index} of worker {worker}, which is there"
    return ""
