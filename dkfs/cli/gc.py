"""Give back to the disk what nothing in the history needs any more.

    dkfs gc [-n] [--max-unused PERCENT] [--repack [--throttle SIZE]]

What forgotten versions held leaves the store.  Segments, files of the store, are rewritten where PERCENT of them or
more (default 10) is of no use; with 0, everything comes back that can.  A directory that is mounted goes on being
served and recorded meanwhile.  The index becomes smaller, too, if nobody else has the store open; otherwise what is
free in it is used again.

With --repack, what is stored is also encoded once more, as small as it can be, which takes about a second for two
megabytes; it reads SIZE a second at most with --throttle.  What was repacked before is left alone.

exit status:
  0 done, 1 the daemon could not, 2 usage, 4 store trouble, 5 damage hides what is needed: `dkfs check --repair` first
"""

import argparse
from pathlib import Path
from typing import Final

from dkfs.cli.asking import Answer, ask, number
from dkfs.cli.changing import is_served
from dkfs.cli.location import find
from dkfs.cli.output import emit, note, size_text
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.progress import Progress
from dkfs.config.values import Given, size
from dkfs.daemon.maintenance import described
from dkfs.errors import UsageError
from dkfs.history.recovery import open_store
from dkfs.store.collect import Collection, Pace
from dkfs.store.collect_plan import MAX_UNUSED
from dkfs.store.collect_repack import Repacking
from dkfs.store.collect_survey import Findings, Survey
from dkfs.store.compact import compact, worth
from dkfs.store.reserve import RESERVE_NAME, Reserve
from dkfs.store.segments import SEGMENT_LIMIT

_SLICE_S: Final = 0.25  # of a transaction that nobody waits for


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("gc", __doc__)
    parser.add_argument(
        "--max-unused",
        metavar="PERCENT",
        help="what a segment may hold for nothing before it is rewritten (default 10)",
    )
    parser.add_argument(
        "--repack",
        action="store_true",
        help="encode what is stored once more, as small as it can be",
    )
    parser.add_argument(
        "--throttle", metavar="SIZE", help="repack no more than SIZE a second, such as 1M"
    )
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    max_unused = _share(args)
    rate = size(Given(args.throttle, "--throttle")) if "throttle" in args else None
    if rate == 0 or (rate and "repack" not in args):
        raise UsageError("--throttle: expected --repack, and a size above 0 for each second")
    repacking = Repacking(rate=rate) if "repack" in args else None
    store = find(args).store
    is_live = is_served(store)
    if "dry_run" in args:
        _foretell(args, store, max_unused, is_live=is_live)
    elif is_live:
        _tell(
            args,
            ask(store, "gc", max_unused=max_unused, repack=repacking is not None, throttle=rate),
            0,
        )
    else:
        answer = _collect(store, max_unused, repacking)
        _tell(args, answer, compact(store, max_unused=max_unused))
    return 0


def _share(args: argparse.Namespace) -> float:
    text = getattr(args, "max_unused", None)
    if text is None:
        return MAX_UNUSED
    try:
        percent = float(str(text).removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise UsageError(f"--max-unused: {text!r}, expected a percentage from 0 to 100")
    return percent / 100


def _collect(place: Path, max_unused: float, repacking: Repacking | None) -> Answer:
    with Progress("gc") as progress, open_store(place, writable=True) as store:

        def say(_: str, done: int, total: int) -> None:
            progress.update(done, total)

        report = Collection(
            store,
            Survey(store, limit=store.segment_limit, say=say),
            reserve=Reserve(place, _reserved(place)),
            pace=Pace(slice_s=_SLICE_S, pause=lambda _: None),
            say=say,
        ).run(max_unused=max_unused, repacking=repacking)
    return described(report)


def _reserved(place: Path) -> int:
    """Return the size of the reserve that the last mount left, which is taken again if it is given up."""
    try:
        return (place / RESERVE_NAME).stat().st_size
    except OSError:
        return 0


def _foretell(args: argparse.Namespace, place: Path, max_unused: float, *, is_live: bool) -> None:
    """Print what a collection would do."""
    with Progress("looking") as progress, open_store(place, writable=False) as store:
        survey = Survey(
            store,
            limit=SEGMENT_LIMIT,
            say=lambda _, done, total: progress.update(done, total),
        )
        findings = survey.look(max_unused=max_unused)
        index = store.size().index_bytes
    unused = worth(index, findings.packed_index_bytes, max_unused=max_unused)
    back = findings.plan.freed + (0 if is_live else unused)
    if "json" in args:
        emit(
            "plan",
            _numbers(findings),
            index_unused=unused,
            bytes=back,
            mounted=is_live,
            dry_run=True,
        )
        return
    print(f"{findings.dead_blobs} of {findings.blobs} blobs are of no use")
    print(
        f"would rewrite {len(findings.plan.victims)} segments, writing"
        f" {size_text(findings.plan.copied)}; {size_text(back)} would come back to the disk"
    )
    if "repack" in args:
        print("what repacking brings beside is known when it is done")
    if is_live and unused:
        print(
            f"{size_text(unused)} of the index are free too: they are used again, and come back"
            " with a `dkfs gc` when nobody has the store open"
        )


def _numbers(findings: Findings) -> dict[str, object]:
    return {
        "blobs": findings.blobs,
        "dead_blobs": findings.dead_blobs,
        "segment_bytes": findings.segment_bytes,
        "live_bytes": findings.live_bytes,
        "dead_bytes": findings.dead_bytes,
        "segments_rewritten": len(findings.plan.victims),
        "bytes_written": findings.plan.copied,
    }


def _tell(args: argparse.Namespace, answer: Answer, index: int) -> None:
    """Print what was done; *index* bytes of the index came back."""
    freed, pending = number(answer, "freed") + index, number(answer, "pending")
    skipped = answer.get("skipped")
    if "json" in args:
        known = ("message_type",)
        rest = {key: value for key, value in answer.items() if key not in known}
        emit("summary", rest, freed=freed, index_freed=index)
    else:
        blobs = number(answer, "dead_blobs")
        print(
            f"removed {blobs} {'blob' if blobs == 1 else 'blobs'},"
            f" {size_text(max(freed, 0))} came back to the disk"
        )
        if pending:
            print(f"{size_text(pending)} more when those who read now have ended")
    if isinstance(skipped, list) and skipped:
        note(
            f"dkfs: {len(skipped)} segments could not be rewritten: full disk or damage; see the log"
        )
