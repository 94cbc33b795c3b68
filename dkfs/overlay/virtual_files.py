"""files/: what every path ever was.  A path that named directories holds all names that were ever in
them; a path that named files holds their distinct versions, by number.

Where a path was a directory at one time and a file at another it holds both.  If a name in it is
also the number of a version of the file, the version is meant; what the name led to is to be found
under versions/.  Versions that differ only in what the file's other names are do not count.

Every name is shown to those who could have seen it at the beginning or at the end of a time that
it was there, and may enter that directory now.  To others it does not exist.
"""

import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

from dkfs.core.diff import classify, differing_fields
from dkfs.errors import CorruptError
from dkfs.history.log import Span
from dkfs.history.tree import Tree
from dkfs.model.ids import NO_NODE, ROOT, NodeId, Seq
from dkfs.model.node import Kind, NodeState
from dkfs.overlay.access import EXECUTE, READ
from dkfs.overlay.virtual_rights import Rights
from dkfs.store import Reader

LISTED = 1000  # versions of one file that a listing names, the newest
LISTED_NAMES = 4000  # names that a listing looks at, the first of each directory in byte order
DEPTH = 128  # names in a path; the history of a deeper one is under versions/
_SPANS = 1000  # times that one name was given to something, the newest, that are considered
_STATES = 4000  # states looked at to find the versions of one file
_NUMBER = re.compile(rb"[1-9][0-9]{0,17}")

Names = tuple[bytes, ...]  # a path


class _Step(NamedTuple):
    """A time in which a path named one state of one node."""

    first: Seq
    end: Seq  # exclusive
    node: NodeId
    state: NodeState


def path_names(path: bytes) -> Names:
    """Return the names that *path* consists of; none for the root."""
    return tuple(path.split(b"/")) if path else ()


def number_of(reader: Reader, name: bytes) -> Seq | None:
    """Return the version that *name* is the number of, in the one way to write it; None if it is not there."""
    if not _NUMBER.fullmatch(name) or int(name) > reader.last:
        return None
    seq = Seq(int(name))
    return seq if reader.version(seq) == seq else None


def find_version(reader: Reader, names: Names, at: Seq, rights: Rights | None) -> NodeId:
    """Return the file of which *at* is a distinct version at path *names*.

    NO_NODE if there is none, or if the caller could not reach it then, or cannot now.
    """
    node = Tree(reader, at).find(b"/".join(names))
    if node == NO_NODE or not names:
        return NO_NODE
    state = _state(reader, node, at)
    if state.attr.kind is not Kind.FILE:
        return NO_NODE
    last_one = reader.version(at - 1)
    before = Tree(reader, last_one).find(b"/".join(names))
    if before != NO_NODE and not _differs(_state(reader, before, last_one), state):
        return NO_NODE
    if rights is None or (rights.could(names[:-1], at, EXECUTE) and rights.reaches(node)):
        return node
    return NO_NODE


def was_there(reader: Reader, names: Names, rights: Rights | None, want: int = EXECUTE) -> bool:
    """Return whether path *names* ever was, and the caller may know by right *want* to its directory."""
    if not names:
        return True
    for span in spans(reader, names):
        if rights is None or rights.is_root:
            return True
        for at in (Seq(span.end - 1), span.first):
            if rights.could(names[:-1], at, want):
                return True
        if rights.is_exhausted:
            return False
    return False


def list_path(reader: Reader, names: Names, rights: Rights) -> list[bytes]:
    """Return the names and the numbers of versions at path *names* that the caller may see."""
    directories: dict[NodeId, None] = {}
    is_file = False
    for span in spans(reader, names):
        if _state(reader, span.node, span.first).attr.kind is Kind.DIR:
            directories[span.node] = None
        else:
            is_file = True
    ever = chain.from_iterable(map(reader.names_ever, directories))
    found = {
        name
        for name in dict.fromkeys(islice(ever, LISTED_NAMES))
        if was_there(reader, (*names, name), rights, READ)
    }
    listed = sorted(found)
    if is_file:
        numbers = [b"%d" % at for at in _versions(reader, names, rights)]
        listed += [number for number in numbers if number not in found]
    return listed


def spans(reader: Reader, names: Names) -> Iterator[Span]:
    """Yield when path *names* named which node, the newest first; at most the newest 1,000."""
    return islice(_spans(reader, names), _SPANS)


def _spans(reader: Reader, names: Names) -> Iterator[Span]:
    if not names:
        oldest = reader.next_version(0)
        if oldest is not None:
            yield Span(oldest, Seq(reader.last + 1), ROOT)
        return
    for above in spans(reader, names[:-1]):
        end = above.end
        for seq, node in reader.child_versions(above.node, names[-1], reverse=True):
            if seq >= end:
                continue
            first = max(seq, above.first)
            if node != NO_NODE:
                yield Span(first, end, node)
            end = first
            if seq <= above.first:
                break


def _versions(reader: Reader, names: Names, rights: Rights) -> list[Seq]:
    """Return the newest distinct versions of the files at *names* that the caller may see."""
    found: list[Seq] = []
    newer: _Step | None = None
    for step in islice(_steps(reader, names), _STATES):
        if newer is not None and (step.end < newer.first or _differs(step.state, newer.state)):
            _add_version(found, names, newer, rights)
        newer = step
        if len(found) == LISTED:
            return found
    if newer is not None and find_version(reader, names, newer.first, None) != NO_NODE:
        _add_version(found, names, newer, rights)
    return found


def _add_version(found: list[Seq], names: Names, step: _Step, rights: Rights) -> None:
    if step.state.attr.kind is not Kind.FILE:
        return
    if rights.could(names[:-1], step.first, EXECUTE) and rights.reaches(step.node):
        found.append(step.first)


def _steps(reader: Reader, names: Names) -> Iterator[_Step]:
    """Yield the states that path *names* named, the newest first."""
    for span in spans(reader, names):
        end = span.end
        for seq, state in reader.node_versions(span.node, last=Seq(end - 1), reverse=True):
            first = max(seq, span.first)
            yield _Step(first, end, span.node, state)
            end = first
            if seq <= span.first:
                break


def _differs(old: NodeState, new: NodeState) -> bool:
    return classify(old, new, differing_fields(old, new, dir_times=False)) is not None


def _state(reader: Reader, node: NodeId, at: Seq) -> NodeState:
    state = reader.node(node, at)
    if state is None:
        raise CorruptError(f"node {node} is named at version {at} but has no state")
    return state
