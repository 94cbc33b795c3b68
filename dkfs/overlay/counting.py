"""How many names of files there are, and how many of large ones: counted once, then kept up with what is done."""

import threading

from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.model.node import Kind
from dkfs.store import Store


class FileCount:
    """The number of names that are not directories'; known once count() has run."""

    def __init__(self, store: Store, *, large_above: int) -> None:
        """A file of more than *large_above* bytes is large."""
        self._store = store
        self._large_above = large_above
        self._mutex = threading.Lock()  # two may change things at once, see decisions/0023
        self._base: int | None = None
        self._large_base = 0
        self._generation = 0
        self._since = 0  # names made less names removed since the version that count() looks at
        self._large_since = 0

    @property
    def value(self) -> int | None:
        """Return the number; None while it is not known."""
        return None if self._base is None else self._base + self._since

    @property
    def large(self) -> int | None:
        """Return how many of them are of large files; None while it is not known."""
        return None if self._base is None else self._large_base + self._large_since

    def change(self, names: int, size: int = 0) -> None:
        """Note that so many names of a file of *size* bytes were made, or removed if negative."""
        with self._mutex:
            self._since += names
            if size > self._large_above:
                self._large_since += names

    def resized(self, names: int, before: int, after: int) -> None:
        """Note that a file of so many names, which had *before* bytes, has *after*."""
        change = names * ((after > self._large_above) - (before > self._large_above))
        if change:
            with self._mutex:
                self._large_since += change

    def again(self) -> None:
        """Forget the number: everything may have changed."""
        with self._mutex:
            self._base = None
            self._since = self._large_since = 0
            self._generation += 1

    def count(self, at: Seq) -> None:
        """Count as of version *at*, from which on change() was told everything; for a thread.

        Without effect if again() is called meanwhile.
        """
        generation = self._generation
        found = large = 0
        with self._store.read() as reader:
            directories: list[NodeId] = [ROOT]
            while directories:
                for _, node in reader.children(directories.pop(), at):
                    state = reader.node(node, at)
                    if state is not None and state.attr.kind is Kind.DIR:
                        directories.append(node)
                    else:
                        found += 1
                        large += state is not None and state.attr.size > self._large_above
        if generation == self._generation:
            self._large_base = large
            self._base = found
