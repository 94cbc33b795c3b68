"""How many names of files there are: counted once, then kept up with what is done."""

from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.model.node import Kind
from dkfs.store import Store


class FileCount:
    """The number of names that are not directories'; known once count() has run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._base: int | None = None
        self._generation = 0
        self._since = 0  # names made less names removed since the version that count() looks at

    @property
    def value(self) -> int | None:
        """Return the number; None while it is not known."""
        return None if self._base is None else self._base + self._since

    def change(self, names: int) -> None:
        """Note that so many names were made, or removed if negative."""
        self._since += names

    def again(self) -> None:
        """Forget the number: everything may have changed."""
        self._base = None
        self._since = 0
        self._generation += 1

    def count(self, at: Seq) -> None:
        """Count as of version *at*, from which on change() was told everything; for a thread.

        Without effect if again() is called meanwhile.
        """
        generation = self._generation
        found = 0
        with self._store.read() as reader:
            directories: list[NodeId] = [ROOT]
            while directories:
                for _, node in reader.children(directories.pop(), at):
                    state = reader.node(node, at)
                    if state is not None and state.attr.kind is Kind.DIR:
                        directories.append(node)
                    else:
                        found += 1
        if generation == self._generation:
            self._base = found
