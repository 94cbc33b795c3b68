"""Forget the versions that a policy does not keep.

    dkfs forget --keep-... [-n] [--explain] [--prune]
    dkfs forget --policy [--keep-...] [-n] [--explain] [--prune]

The rules are restic's, and a version is kept if any of them wants it; --explain says which. Every operation is a
version here, a write no less than a rename: --keep-last 10 keeps the last ten operations, which may be a second's work.
Say --keep-within 2d to keep everything of two days, and --keep-daily, --keep-weekly, ... for what is older.

What is kept stays exactly what it was. The newest version, and what is held (`dkfs hold`), is never forgotten; tags of
forgotten versions go with them. Before anything is forgotten it is said how much comes back. The disk has it back
after `dkfs gc`, or at once with --prune. It works with and without a mount. See `dkfs help retention`.

exit status:
  0 ok, 1 the daemon could not, 2 usage, or a policy that keeps nothing, 4 store trouble, 5 damage found
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Final

from dkfs.cli.asking import ask, number
from dkfs.cli.changing import is_served
from dkfs.cli.location import find
from dkfs.cli.main import load
from dkfs.cli.output import emit, json_path, local_time, printable, size_text, utc_time
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.policy import add_policy, local_zone, rules_from
from dkfs.cli.progress import Progress
from dkfs.core.retention import Decision, Rules
from dkfs.history.forget import Pace, Range, forget, forget_contents
from dkfs.history.recovery import open_store
from dkfs.history.retain import Outlook, Prospect, Row, contents_to_forget, decide, outlook
from dkfs.model.ids import Seq
from dkfs.store import Store
from dkfs.store.collect_plan import MAX_UNUSED
from dkfs.store.collect_survey import Survey
from dkfs.store.compact import worth
from dkfs.store.reserve import Reserve
from dkfs.store.segments import SEGMENT_LIMIT

_PAIRS_AT_ONCE: Final = 100_000  # in one request to the daemon
_TAGS_SHOWN: Final = 10
_WORTH_TELLING: Final = 16 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is going to be done."""

    found: Outlook
    contents: int  # states that lose their contents
    freed: int  # bytes that come back


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("forget", __doc__)
    add_policy(parser)
    parser.add_argument(
        "--explain", action="store_true", help="say why each version is kept, or that it is not"
    )
    parser.add_argument("--prune", action="store_true", help="run `dkfs gc` afterwards")
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    rules = rules_from(args)
    store = find(args).store
    is_live = is_served(store)
    now_ns = time.time_ns()
    plan = _look(args, store, rules, now_ns, is_live=is_live)
    _announce(args, plan)
    if "dry_run" in args:
        return 0
    started = time.monotonic()
    versions = contents = 0
    if plan.found.forgotten:
        versions = _forget_versions(store, plan.found, now_ns, is_live=is_live)
    if plan.contents:
        contents = _forget_contents(store, rules, now_ns, is_live=is_live)
    _sum_up(args, plan, versions, contents, time.monotonic() - started)
    return load("gc").run(args) if "prune" in args else 0


def _look(
    args: argparse.Namespace, store: Path, rules: Rules, now_ns: int, *, is_live: bool
) -> _Plan:
    """Find out what would be forgotten and what would come back; changes nothing."""
    with Progress("looking") as progress, open_store(store, writable=False) as opened:
        with opened.read() as reader:
            decisions = decide(reader, rules.policy, now_ns=now_ns, zone=local_zone)
            if "explain" in args:
                width = len(str(reader.last))
                decisions = _explained(decisions, width, as_json="json" in args)
            found = outlook(reader, decisions)
            prospect = Prospect(reader, found.kept)
            prospect.add_rules(rules.paths, now_ns=now_ns, zone=local_zone)
            contents = 0
            for node, seq in prospect.contents():
                contents += 1
                if "explain" in args:
                    _explain_contents(prospect.shown(node, seq), as_json="json" in args)
            survey = Survey(
                opened,
                limit=SEGMENT_LIMIT,
                say=lambda _, done, total: progress.update(done, total),
            )
            findings = survey.look(max_unused=MAX_UNUSED, is_dropped=prospect.is_dropped)
        freed = findings.plan.freed
        if not is_live:  # then the index becomes smaller too, as nobody has it open
            index = opened.size().index_bytes
            freed += worth(index, findings.packed_index_bytes, max_unused=MAX_UNUSED)
    return _Plan(found, contents, max(0, freed))


def _explained(decisions: Iterable[Decision], width: int, *, as_json: bool) -> Iterator[Decision]:
    """Yield *decisions*, and print them; for people, those to forget that follow each other in one line."""
    for is_kept, run_of in groupby(decisions, attrgetter("is_kept")):
        newest, oldest, count = None, 0, 0
        for decision in run_of:
            if as_json:
                emit("version", _json(decision))
            elif is_kept:
                reasons = ", ".join(map(printable, decision.reasons))
                print(f"{decision.seq:>{width}}  {local_time(decision.time_ns)}  keep    {reasons}")
            newest, oldest, count = newest or decision, decision.seq, count + 1
            yield decision
        if newest is not None and not is_kept and not as_json:
            more = f"  and all down to {oldest}: {count} versions" if count > 1 else ""
            print(f"{newest.seq:>{width}}  {local_time(newest.time_ns)}  forget{more}")


def _explain_contents(shown: tuple[Seq, Seq, bytes], *, as_json: bool) -> None:
    """Print of which file, at which of the versions that are kept, a rule for paths forgets the contents."""
    first, last, path = shown
    if as_json:
        emit("contents", json_path(path), first=first, last=last, kept=False)
        return
    versions = f"version {first}" if first == last else f"versions {first} to {last}"
    print(f"forget the contents of {printable(path)} at {versions}")


def _json(decision: Decision) -> dict[str, object]:
    return {
        "version": decision.seq,
        "time": utc_time(decision.time_ns),
        "time_ns": decision.time_ns,
        "kept": decision.is_kept,
        "reasons": list(decision.reasons),
    }


def _announce(args: argparse.Namespace, plan: _Plan) -> None:
    """Say what is going to be forgotten, before it is."""
    found, dry_run = plan.found, "dry_run" in args
    if "json" in args:
        emit("plan", _numbers(plan), tags=list(found.tags), bytes=plan.freed, dry_run=dry_run)
        return
    if not found.forgotten and not plan.contents:
        print(f"nothing to forget: all {found.total} versions are kept")
        if dry_run and "prune" in args and plan.freed:
            print(f"{size_text(plan.freed)} of no use already would come back to the disk")
        return
    parts = []
    if found.forgotten:
        parts.append(f"{found.forgotten} of {found.total} versions")
    if plan.contents:
        parts.append(f"the contents of {plan.contents} {_states(plan.contents)}")
    verb = "would forget" if dry_run else "forgetting"
    how = "" if "prune" in args else " with `dkfs gc`"
    print(f"{verb} {' and '.join(parts)}; {_back(plan.freed)} to the disk{how}")
    if found.tags:
        shown = ", ".join(map(printable, found.tags[:_TAGS_SHOWN]))
        more = f" and {len(found.tags) - _TAGS_SHOWN} more" if len(found.tags) > _TAGS_SHOWN else ""
        print(f"tags that go with their versions: {shown}{more}")


def _back(size: int) -> str:
    # Forgetting and collecting write something, too: journals, and what is left of a segment.
    return (
        f"{size_text(size)} come back" if size >= _WORTH_TELLING else "next to nothing comes back"
    )


def _numbers(plan: _Plan) -> dict[str, object]:
    found = plan.found
    return {
        "versions": found.total,
        "kept": len(found.kept),
        "forgotten": found.forgotten,
        "contents": plan.contents,
    }


def _forget_versions(store: Path, found: Outlook, now_ns: int, *, is_live: bool) -> int:
    """Forget the versions; return how many."""
    if is_live:
        return sum(
            number(ask(store, "forget", ranges=ranges, tags=list(found.tags)), "forgotten")
            for ranges in _chunks(found.ranges)
        )

    def work(opened: Store, pace: Pace) -> int:
        return forget(opened, found.ranges, tags=found.tags, now_ns=now_ns, pace=pace).forgotten

    return _directly(store, work)


def _forget_contents(store: Path, rules: Rules, now_ns: int, *, is_live: bool) -> int:
    """Forget the contents that the rules for paths do not keep; return of how many states."""
    with open_store(store, writable=False) as opened, opened.read() as reader:
        rows = list(contents_to_forget(reader, rules, now_ns=now_ns, zone=local_zone))
    if is_live:
        return sum(
            number(ask(store, "forget-contents", states=states), "forgotten")
            for states in _chunks(rows)
        )
    return _directly(store, lambda opened, pace: forget_contents(opened, rows, pace=pace))


def _directly(place: Path, work: Callable[[Store, Pace], int]) -> int:
    """Do *work* on a store that nobody serves, if need be with what is in reserve on a full disk; return its result."""
    with Progress("forgetting") as progress, open_store(place, writable=True) as store:
        pace = Pace(pause=lambda done: progress.update(done.forgotten, done.total))
        reserve = Reserve(place, Reserve(place, 0).held)
        with reserve.spending():
            return reserve.attempt(lambda: work(store, pace))


def _chunks(pairs: Sequence[Range] | Sequence[Row]) -> Iterator[Sequence[tuple[int, int]]]:
    coming = iter(pairs)
    while chunk := list(islice(coming, _PAIRS_AT_ONCE)):
        yield chunk


def _sum_up(
    args: argparse.Namespace, plan: _Plan, versions: int, contents: int, seconds: float
) -> None:
    stayed = plan.found.forgotten - versions
    if "json" in args:
        emit("summary", versions=versions, contents=contents, stayed=stayed, seconds=seconds)
        return
    parts = []
    if versions or stayed:
        parts.append(f"{versions} {'version' if versions == 1 else 'versions'}")
    if contents:
        parts.append(f"the contents of {contents} {_states(contents)}")
    if parts:
        print(f"forgot {' and '.join(parts)} in {seconds:.1f} s")
    if stayed:
        print(f"{stayed} stayed: they were named or held, or forgotten by others, meanwhile")


def _states(count: int) -> str:
    return "state" if count == 1 else "states"
