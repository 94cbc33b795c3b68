"""What the kernel knows of the history tree, by number; only what it holds references to is kept."""

import errno
import os
import threading
from collections import OrderedDict
from enum import IntEnum
from typing import NamedTuple

from dkfs.model.ids import NO_NODE, NodeId, Seq

VIRTUAL = 1 << 62  # inode and handle numbers from here on belong to the history tree

_NEW_KEPT = 1024  # numbers given out and not yet referenced


class Area(IntEnum):
    """The part of the history tree that a place lies in."""

    TOP = 0
    LATEST = 1  # Place.name is the number of the version
    VERSIONS = 2
    TAGS = 3
    AT = 4
    FILES = 5  # a path at any time; Place.name is the path
    IN_VERSION = 6  # from here on: a node as of a version
    IN_TAG = 7  # Place.name is the tag
    IN_TIME = 8  # Place.name is the time as it was written
    FILE_VERSION = 9  # Place.name is the path


class Place(NamedTuple):
    """What an inode of the history tree is.

    A directory must have one path only, else the kernel moves it from one to the other.  So the
    same version reached as a tag and by its number is two places.
    """

    area: Area
    name: bytes = b""
    at: Seq = Seq(0)
    node: NodeId = NO_NODE


class Numbers:
    """Gives places their numbers, the same for the same place while it is referenced.

    A number is never used again: what the kernel caches under it stays true.
    """

    def __init__(self, *, is_root: bool = False) -> None:
        """*is_root*: the history is the root of a mount, with the number VIRTUAL; it is never forgotten."""
        self._mutex = threading.Lock()  # mkdir runs in another thread
        self._next = VIRTUAL + 1
        self._places: dict[int, Place] = {}
        self._lookups: dict[int, int] = {}
        self._numbers: dict[Place, int] = {}
        self._new: OrderedDict[int, Place] = OrderedDict()  # unreferenced, oldest first
        if is_root:
            top = Place(Area.TOP)
            self._places[VIRTUAL], self._numbers[top] = top, VIRTUAL

    def __len__(self) -> int:
        return len(self._places)

    def number(self, place: Place) -> int:
        """Return the number of *place*; a new one is forgotten soon unless refer() follows."""
        with self._mutex:
            number = self._numbers.get(place)
            if number is None:
                number = self._numbers[place] = self._next
                self._next += 1
                self._new[number] = place
                if len(self._new) > _NEW_KEPT:
                    del self._numbers[self._new.popitem(last=False)[1]]
            return number

    def refer(self, number: int) -> None:
        """Take a reference to what number() called *number*; raises OSError(ESTALE) if too late."""
        with self._mutex:
            place = self._new.pop(number, None)
            if place is not None:
                self._places[number] = place
                self._lookups[number] = 1
            elif number in self._lookups:
                self._lookups[number] += 1
            else:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def forget(self, number: int, lookups: int) -> None:
        """Take back *lookups* references; an unknown number is nobody's."""
        with self._mutex:
            left = self._lookups.get(number, 0) - lookups
            if left > 0:
                self._lookups[number] = left
            elif number in self._lookups:
                del self._lookups[number]
                del self._numbers[self._places.pop(number)]

    def place(self, number: int) -> Place:
        """Return what *number* is; raises OSError(ESTALE)."""
        place = self._places.get(number)
        if place is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return place
