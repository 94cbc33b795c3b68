"""What has to change in a directory so that it becomes another version: the records, pure."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dkfs.core.diff import Difference
from dkfs.model.ids import NO_NODE, NodeId, Seq
from dkfs.model.node import Kind, NodeState


class Binding(NamedTuple):
    """A name whose meaning changes."""

    parent: NodeId
    name: bytes
    old: NodeId  # NO_NODE: the name is free
    new: NodeId  # NO_NODE: the name goes


class Step(NamedTuple):
    """A node that is made, goes, or changes.  Its parent and name in *new* are a link that it will have."""

    node: NodeId
    old: NodeState | None  # None: it is not in the directory
    new: NodeState | None  # None: no link of it is left
    known: bool = True  # the directory's contents are those of old; else each chunk is compared


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from a directory that equals version *base* to *target*, or to its state below *paths*."""

    base: Seq
    target: Seq
    paths: tuple[bytes, ...] = ()  # empty: the whole tree
    names: tuple[Binding, ...] = ()
    steps: tuple[Step, ...] = ()
    sources: Mapping[NodeId, tuple[NodeId, bytes]] = field(default_factory=dict)
    # ^ where a node that is there already and gets another name can be found before anything changes
    secondary_names: tuple[tuple[NodeId, bytes, NodeId], ...] = ()  # for history.links.remember()
    differences: tuple[Difference, ...] = ()  # for people, in the order of paths

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to change."""
        return not self.names and not self.steps

    @property
    def nodes(self) -> frozenset[NodeId]:
        """Every node that is made, goes, changes, or gets or loses a name, and directories of such names."""
        found = {step.node for step in self.steps}
        for parent, _, old, new in self.names:
            found.update((parent, old, new))
        found.discard(NO_NODE)
        return frozenset(found)

    @property
    def entry_nodes(self) -> tuple[tuple[NodeId, NodeState], ...]:
        """The states to record with the operation."""
        return tuple((step.node, step.new) for step in self.steps if step.new is not None)

    @property
    def entry_names(self) -> tuple[tuple[NodeId, bytes, NodeId], ...]:
        """The names to record with the operation."""
        return tuple((name.parent, name.name, name.new) for name in self.names)

    def without(self, failed: Container[NodeId]) -> "Plan":
        """Return what was done when the nodes *failed* stayed as they were: what is to be recorded."""
        return replace(
            self,
            names=tuple(name for name in self.names if name.new not in failed),
            steps=tuple(step for step in self.steps if step.node not in failed),
            secondary_names=tuple(name for name in self.secondary_names if name[2] not in failed),
        )


def has_same_content(old: NodeState, new: NodeState) -> bool:
    """Return whether both have the same bytes, as files, symlinks or device numbers."""
    return (
        old.content == new.content
        and not old.is_forgotten
        and not new.is_forgotten
        and old.is_manifest == new.is_manifest
        and old.attr.size == new.attr.size
        and old.target == new.target
        and old.attr.rdev == new.attr.rdev
    )


def is_directory(state: NodeState | None) -> bool:
    """Return whether *state* is that of a directory."""
    return state is not None and state.attr.kind is Kind.DIR
