"""Which nodes' last contents are not in the store although their version is: what they build on is damaged.

A node stays lost until contents of it are recorded that build on nothing damaged.
"""

import errno
import threading
from collections.abc import Container, Mapping
from typing import Final

from dkfs.model.ids import NodeId

_MOST_SOUND: Final = 10_000  # nodes
_MOST: Final = 1000  # nodes; of more the first are not remembered


class Lost:
    """See the module; all methods are for any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        # In the order in which they were lost; with whether they can be read.
        self._nodes: dict[NodeId, bool] = {}
        self._untold: set[NodeId] = (
            set()
        )  # of these, those that nobody who asked about all heard of
        self._sound: set[NodeId] = set()  # whose last contents are known to be recorded
        self._unmended: set[NodeId] = set()  # to be captured whole, until somebody takes them

    def note(self, is_lost: Mapping[NodeId, bool], unreadable: Container[NodeId]) -> None:
        """Hear whose contents were recorded, and of which of them nothing but the version.

        To read again what is *unreadable* helps nobody; the next change of the file tries.
        """
        with self._mutex:
            for node, lost in is_lost.items():
                if lost:
                    self._sound.discard(node)
                    self._nodes[node] = node not in unreadable
                    self._untold.add(node)
                    if node not in unreadable:
                        self._unmended.add(node)
                else:
                    self._sound.add(node)
                    self._nodes.pop(node, None)
                    self._untold.discard(node)
                    self._unmended.discard(node)
            if len(self._sound) > _MOST_SOUND:
                self._sound.clear()
            while len(self._nodes) > _MOST:
                node = next(iter(self._nodes))
                del self._nodes[node]
                self._untold.discard(node)

    def is_sound(self, node: NodeId) -> bool:
        """Return whether contents of *node* were recorded, and the last of them not lost; False if it is not remembered."""
        return node in self._sound

    def refuse(self, node: NodeId) -> None:
        """Raise OSError if *node* is lost; then it is to be captured once more, if it can be read."""
        with self._mutex:
            is_readable = self._nodes.get(node)
            if is_readable is None:
                return
            if is_readable:
                self._unmended.add(node)
            raise _damaged()

    def refuse_any(self) -> None:
        """Raise OSError, once for each, if nodes are lost."""
        with self._mutex:
            if self._untold:
                self._untold.clear()
                raise _damaged()

    def take(self) -> frozenset[NodeId]:
        """Return the nodes of which all contents must be captured anew, each once."""
        with self._mutex:
            taken = frozenset(self._unmended)
            self._unmended.clear()
            return taken


def _damaged() -> OSError:
    return OSError(errno.EIO, "what these contents build on is damaged in the store")
