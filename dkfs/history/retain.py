"""What a policy means for one store: which versions and which contents go, and what would be left. Reads only.

A state is shown by the kept versions from the first one at or after its own, up to the node's next state, as long as
the node has a name; a state that none of them shows goes. Where a rule for paths applies, the contents of a state stay
only if a version that the rule keeps shows it.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from dkfs.core import codec
from dkfs.core.durations import Zone
from dkfs.core.retention import Decision, PathRule, Policy, Rules, Version, apply
from dkfs.errors import UsageError
from dkfs.history.forget import Range, is_live_hold
from dkfs.history.links import Place, remembered
from dkfs.history.tree import DirectoryPaths
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader
from dkfs.store.rows import NODE_KEY, unseal

Row = tuple[NodeId, Seq]


def versions(reader: Reader, *, now_ns: int) -> Iterator[Version]:
    """Yield the versions that are there with what names them, the newest first."""
    tags: dict[Seq, list[str]] = {}
    holds: dict[Seq, list[str]] = {}
    for tag in reader.tags():
        tags.setdefault(tag.seq, []).append(tag.name)
        if is_live_hold(tag, now_ns):
            holds.setdefault(tag.seq, []).append(tag.name)
    for seq, time_ns in reader.versions(reverse=True):
        if seq in tags:
            yield Version(seq, time_ns, tuple(tags[seq]), tuple(holds.get(seq, ())))
        else:
            yield Version(seq, time_ns)


def decide(reader: Reader, policy: Policy, *, now_ns: int, zone: Zone) -> Iterator[Decision]:
    """Return what becomes of every version, the newest first; raises UsageError if the policy is empty.

    Nor may it consist of tags that do not exist: one typing error would cost the whole history.
    """
    if policy.is_of_tags and not any(reader.tag(name) for name in policy.tags):
        raise UsageError(
            f"no version is tagged {' or '.join(policy.tags)}: the policy keeps nothing, nothing is forgotten"
        )
    return apply(policy, versions(reader, now_ns=now_ns), now_ns=now_ns, zone=zone)


@dataclass(slots=True)
class Outlook:
    """What is to be forgotten, and what stays."""

    kept: "array[int]" = field(default_factory=lambda: array("Q"))  # versions, the oldest first
    ranges: list[Range] = field(default_factory=list)  # to be forgotten, the oldest first
    forgotten: int = 0  # versions
    tags: tuple[str, ...] = ()  # that go with their versions

    @property
    def total(self) -> int:
        """How many versions there are now."""
        return len(self.kept) + self.forgotten


def outlook(reader: Reader, decisions: Iterable[Decision]) -> Outlook:
    """Return what all of *decisions*, of every version and the newest first, come to."""
    found = Outlook()
    is_open = False
    for decision in decisions:
        seq = decision.seq
        if decision.is_kept:
            found.kept.append(seq)
        else:
            found.forgotten += 1
            if is_open:
                found.ranges[-1] = (seq, found.ranges[-1][1])
            else:
                found.ranges.append((seq, seq))
        is_open = not decision.is_kept
    found.kept.reverse()
    found.ranges.reverse()
    found.tags = tuple(tag.name for tag in reader.tags() if not _holds(found.kept, tag.seq))
    return found


class Prospect:
    """Tells of every state whether it will be there when the versions but *kept* are forgotten.

    Made for being asked in the order of nodes and versions.
    """

    def __init__(self, reader: Reader, kept: Sequence[int]) -> None:
        """*kept*, ascending, are versions that are there, the newest among them."""
        self._reader = reader
        self._kept = kept
        self._rules: list[tuple[PathRule, Sequence[int]]] = []  # with the versions that each keeps
        self._paths = DirectoryPaths(reader)
        self._node = NO_NODE
        self._places: frozenset[Place] | None = None  # of that node

    def add_rules(self, rules: Iterable[PathRule], *, now_ns: int, zone: Zone) -> None:
        """Forget the contents of files as *rules* say too: their policies choose among the versions that are kept."""
        for rule in rules:
            left = (v for v in versions(self._reader, now_ns=now_ns) if _holds(self._kept, v.seq))
            decisions = apply(rule.policy, left, now_ns=now_ns, zone=zone)
            kept = array("Q", (decision.seq for decision in decisions if decision.is_kept))
            kept.reverse()
            self._rules.append((rule, kept))

    def is_dropped(self, node: NodeId, seq: Seq) -> bool:
        """Return whether the state of *node* from version *seq* on will have no contents any more.

        What the view does not see, because it was recorded since, stays.
        """
        if seq > self._kept[-1]:
            return False
        following = next(self._reader.node_versions(node, Seq(seq + 1)), None)
        end = self._reader.last + 1 if following is None else following[0]
        shown = _next(self._kept, seq)
        if shown >= end or not self._is_named(node, Seq(shown)):
            return True
        if not self._rules:
            return False
        state = self._reader.node(node, seq)
        return state is not None and self.is_forgotten(node, seq, state, end)

    def is_forgotten(self, node: NodeId, seq: Seq, state: NodeState, end: int) -> bool:
        """Return whether a rule for paths forgets the contents of *state*, which holds up to version *end*.

        A file is judged by its paths at the first and at the last version that show the state: all must be meant.
        """
        if state.attr.kind is not Kind.FILE or state.content is None:
            return False
        shown = Seq(_next(self._kept, seq))
        if shown >= end:
            return False
        # What has lost its name gets another only together with a state, so the first version tells of all.
        forgetting = [
            (at := _next(kept, shown)) >= end or not self._is_named(node, Seq(at))
            for _, kept in self._rules
        ]
        if not any(forgetting):
            return False
        last = Seq(self._kept[bisect_left(self._kept, end) - 1])
        paths = {*self._names(node, shown), *self._names(node, last)}
        return bool(paths) and all(self._is_forgetting(path, forgetting) for path in paths)

    def contents(self) -> Iterator[Row]:
        """Yield the states whose contents the rules forget, of those that stay."""
        if not self._rules:
            return
        before: tuple[NodeId, Seq, NodeState] | None = None
        for key, value in chain(self._reader.rows("nodes"), ((b"", b""),)):
            node, seq = NODE_KEY.unpack(key) if key else (NO_NODE, 0)
            if before is not None:
                end = seq if node == before[0] else self._reader.last + 1
                if self.is_forgotten(*before, end):
                    yield before[0], before[1]
            if key:
                before = node, seq, codec.decode_node(unseal("nodes", key, value))

    def shown(self, node: NodeId, seq: Seq) -> tuple[Seq, Seq, bytes]:
        """Return the first and the last kept version that show the state of *node* from *seq* on, and a path of it."""
        following = next(self._reader.node_versions(node, Seq(seq + 1)), None)
        end = self._reader.last + 1 if following is None else following[0]
        first = Seq(_next(self._kept, seq))
        last = Seq(self._kept[bisect_left(self._kept, end) - 1])
        return first, last, next(self._names(node, first), b"")

    def _is_forgetting(self, path: bytes, forgetting: Sequence[bool]) -> bool:
        """Return what the first rule that means *path* says, given what each of them would say."""
        for (rule, _), says in zip(self._rules, forgetting, strict=True):
            if rule.matches(path):
                return says
        return False

    def _is_named(self, node: NodeId, at: Seq) -> bool:
        return next(self._links(node, at), None) is not None

    def _names(self, node: NodeId, at: Seq) -> Iterator[bytes]:
        """Yield the paths of *node*, a file, at version *at*."""
        for parent, name in self._links(node, at):
            self._paths.forget()
            yield self._paths.join(parent, name, at)

    def _links(self, node: NodeId, at: Seq) -> Iterator[Place]:
        if node == ROOT:
            yield ROOT, b""
            return
        if node != self._node:
            self._node, self._places = node, None
        if self._places is None:
            states = self._reader.node_versions(node)
            known = {(state.parent, state.name) for _, state in states}
            self._places = frozenset(known.union(remembered(self._reader, node)))
        for place in self._places:
            if self._reader.child(*place, at) == node:
                yield place


def contents_to_forget(reader: Reader, rules: Rules, *, now_ns: int, zone: Zone) -> Iterator[Row]:
    """Yield the states (node, version) whose contents the rules for paths do not keep, of those that are there."""
    there = array("Q", (seq for seq, _ in reader.versions()))
    prospect = Prospect(reader, there)
    prospect.add_rules(rules.paths, now_ns=now_ns, zone=zone)
    return prospect.contents()


def _next(versions: Sequence[int], seq: int) -> int:
    """Return the first of *versions*, ascending, from *seq* on; it is known that there is one."""
    return versions[bisect_left(versions, seq)]


def _holds(versions: Sequence[int], seq: int) -> bool:
    index = bisect_left(versions, seq)
    return index < len(versions) and versions[index] == seq
