"""What a directory lost, or has in an older state, and is to get back from the last version."""

from dataclasses import replace

from dkfs.core.plan import Binding, Plan, Step
from dkfs.errors import CorruptError
from dkfs.history.links import Place, links
from dkfs.history.plan import subtree
from dkfs.history.scan import Finding, What
from dkfs.model.ids import NO_NODE, ROOT, NodeId
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader


class PutBack:
    """Collects findings, MISSING and CHANGED, and turns them into a Plan."""

    def __init__(self) -> None:
        self._missing: list[Binding] = []
        self._changed: list[Finding] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to come back."""
        return not self._missing and not self._changed

    def add(self, finding: Finding) -> None:
        """Take *finding*: the directory is to get what the version has."""
        if finding.what is What.MISSING:
            self._missing.append(Binding(finding.parent, finding.name, NO_NODE, finding.node))
        else:
            self._changed.append(finding)

    def plan(self, reader: Reader) -> Plan:
        """Return the way to the last version, which has all else that is in the directory."""
        at = reader.last
        names = subtree(reader, at, self._missing)
        missing: dict[Place, NodeId] = {(name.parent, name.name): name.new for name in names}
        gained: dict[NodeId, Place] = {}
        for name in names:
            gained.setdefault(name.new, (name.parent, name.name))
        sources: dict[NodeId, Place] = {}
        steps: list[Step] = []
        for node, link in gained.items():
            state = _state(reader, node)
            there = None
            if state.attr.kind is not Kind.DIR:
                there = next(
                    (each for each in links(reader, node, at) if each not in missing), None
                )
            if there is not None:
                sources[node] = there
                continue
            if missing.get((state.parent, state.name)) != node:  # a name that it lost, perhaps
                state = replace(state, parent=link[0], name=link[1])
            steps.append(Step(node, None, state))
        for finding in self._changed:
            state = _state(reader, finding.node)
            if finding.node != ROOT:
                state = replace(state, parent=finding.parent, name=finding.name)
            steps.append(Step(finding.node, state, state, known=False))
        return Plan(base=at, target=at, names=names, steps=tuple(steps), sources=sources)


def _state(reader: Reader, node: NodeId) -> NodeState:
    state = reader.node(node, reader.last)
    if state is None:
        raise CorruptError(f"node {node} has a name but no state at version {reader.last}")
    return state
