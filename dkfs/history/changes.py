"""What the log says has changed between two versions, by directory."""

from collections.abc import Iterable

from dkfs.history.links import place
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.store import Reader


class Changes:
    """The names and nodes that operations between two versions touched; they may be equal again."""

    def __init__(self, reader: Reader, base: Seq, target: Seq) -> None:
        """Read the log between *base* and *target*, in whichever order they are."""
        self._names: dict[NodeId, set[bytes]] = {}
        self._below: dict[NodeId, set[NodeId]] = {}
        nodes: dict[NodeId, None] = {}
        for record in reader.log(Seq(min(base, target) + 1), Seq(max(base, target))):
            nodes.update(dict.fromkeys(record.all_nodes))
            for parent, name in record.all_names:
                self._names.setdefault(parent, set()).add(name)
        self.nodes: Iterable[NodeId] = nodes.keys()
        for directory in self._names:
            self._climb(reader, directory, target)

    def names_in(self, directory: NodeId) -> Iterable[bytes]:
        """Return the names in *directory* that were touched, in order."""
        return sorted(self._names.get(directory, ()))

    def changed_below(self, directory: NodeId) -> Iterable[NodeId]:
        """Return the directories in *directory*, as of target, that have a touched name at any depth below."""
        return self._below.get(directory, ())

    def _climb(self, reader: Reader, directory: NodeId, target: Seq) -> None:
        while directory != ROOT:
            above = place(reader, directory, target)
            if above is None:
                return
            below = self._below.setdefault(above[0], set())
            if directory in below:
                return
            below.add(directory)
            directory = above[0]
