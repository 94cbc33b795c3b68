"""A survey of the store that knows policies: what would be forgotten, and what would come back then."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from dkfs.core.durations import Zone
from dkfs.core.retention import Rules
from dkfs.history.forget import Range
from dkfs.history.retain import Outlook, Prospect, Row, contents_to_forget, decide, outlook
from dkfs.store import Reader
from dkfs.store.collect_survey import Findings, Survey

_BATCH: Final = 256  # states sent at once: while they are unpickled nobody else has the interpreter


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be kept, and as of when."""

    rules: Rules
    now_ns: int
    zone: Zone


@dataclass(frozen=True, slots=True)
class Intent:
    """What a wish comes to."""

    versions: int  # that there are
    forgotten: int  # ... of which so many go
    ranges: tuple[Range, ...]
    tags: tuple[str, ...]  # that go with their versions


class PruningSurvey(Survey):
    """See Survey."""

    def intend(self, wish: Wish) -> Intent:
        """Return what would be forgotten; raises UsageError if the policy is empty."""
        with self._store.read() as reader:
            found = _outlook(reader, wish)
        return Intent(found.total, found.forgotten, tuple(found.ranges), found.tags)

    def contents(self, wish: Wish) -> Iterator[list[Row]]:
        """Yield the states, of those that are there, whose contents the rules for paths do not keep."""
        with self._store.read() as reader:
            rows = contents_to_forget(reader, wish.rules, now_ns=wish.now_ns, zone=wish.zone)
            found = list(rows)
        batches = iter(found)
        while batch := list(islice(batches, _BATCH)):
            yield batch

    def foresee(self, wish: Wish, *, max_unused: float) -> Findings:
        """Return what a collection would find if what is not wished for was forgotten."""
        with self._store.read() as reader:
            prospect = Prospect(reader, _outlook(reader, wish).kept)
            prospect.add_rules(wish.rules.paths, now_ns=wish.now_ns, zone=wish.zone)
            return self.look(max_unused=max_unused, is_dropped=prospect.is_dropped)


def local_zone(seconds: int) -> int:
    """Return by how many seconds local time is ahead of UTC at *seconds* since 1970."""
    return time.localtime(seconds).tm_gmtoff


def _outlook(reader: Reader, wish: Wish) -> Outlook:
    return outlook(reader, decide(reader, wish.rules.policy, now_ns=wish.now_ns, zone=wish.zone))
