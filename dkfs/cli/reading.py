"""The store opened for reading, and what VERSION, VERSION:PATH and A..B mean in it."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dkfs.cli.location import Location, find
from dkfs.history.recovery import open_store
from dkfs.history.versions import (
    parse_place,
    parse_range,
    parse_since,
    parse_until,
    parse_version,
)
from dkfs.model.ids import Seq
from dkfs.store import Reader


@dataclass(frozen=True, slots=True)
class Reading:
    """A consistent view of a store, at one instant of the caller's clock."""

    location: Location
    reader: Reader
    now_ns: int
    utc_offset_s: int  # of the local time zone

    def version(self, text: str) -> Seq:
        """See parse_version."""
        return parse_version(self.reader, text, now_ns=self.now_ns, utc_offset_s=self.utc_offset_s)

    def place(self, text: str) -> tuple[Seq, bytes]:
        """See parse_place."""
        return parse_place(self.reader, text, now_ns=self.now_ns, utc_offset_s=self.utc_offset_s)

    def range(self, text: str) -> tuple[Seq, Seq]:
        """See parse_range."""
        return parse_range(self.reader, text, now_ns=self.now_ns, utc_offset_s=self.utc_offset_s)

    def since(self, text: str) -> Seq:
        """See parse_since."""
        return parse_since(self.reader, text, now_ns=self.now_ns, utc_offset_s=self.utc_offset_s)

    def until(self, text: str) -> Seq:
        """See parse_until."""
        return parse_until(self.reader, text, now_ns=self.now_ns, utc_offset_s=self.utc_offset_s)


@contextmanager
def reading(args: argparse.Namespace) -> Iterator[Reading]:
    """Open the store that *args* mean; raises UsageError, StoreError."""
    with reading_at(find(args)) as view:
        yield view


@contextmanager
def reading_at(location: Location) -> Iterator[Reading]:
    """Open the store of *location* as it is committed now; raises StoreError."""
    with open_store(location.store, writable=False) as store, store.read() as reader:
        yield Reading(location, reader, time.time_ns(), time.localtime().tm_gmtoff)
