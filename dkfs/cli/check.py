"""Look for damage in a store, and repair it.

    dkfs check                                look at the index, at every reference, and at the order of the segments
    dkfs check --read-data                    read every byte too, and compare it with the hash that names it
    dkfs check --read-data-subset 5%          ... a random part: 5%, or about so many bytes: 50M, 2G
    dkfs check --read-data-subset 2/7         ... a share that is always the same: 1/7 to 7/7 are everything
    dkfs check --max-duration 10m             stop in time; a reading of data goes on there the next time
    dkfs check --repair [--read-data] [--state-dir DIR] [--from STORE]... [-n]

Damage is told as what is damaged, and then as the paths and versions that it reaches.  Nothing is changed, nor is
a mount kept from working; to read the store is enough.

--repair makes the index anew from the segments if it is damaged, and stores damaged contents again from other records
in the segments, from the files of the state directory (--state-dir), or from another store (--from).  What is found
nowhere is marked as lost, so that reading says so at once.  The directory must not be mounted.  See `dkfs help repair`.

exit status:
  0 nothing is damaged, or everything was repaired, 2 usage, 4 store trouble, 5 damage found
"""

import argparse
import random
import re
import time
from pathlib import Path
from typing import Final

from dkfs.cli.checking import Found, GoesOn, Printer, Request, look, summary_members, summary_text
from dkfs.cli.location import find
from dkfs.cli.output import emit, note, size_text
from dkfs.cli.parser import Parser, add_dry_run, new_parser
from dkfs.cli.repairing import repair
from dkfs.config.values import Given, seconds, size
from dkfs.errors import CorruptError, UsageError
from dkfs.store import verified
from dkfs.store.check import DamageKind
from dkfs.store.selection import Everything, Sample, Selection, Share

_SHARE: Final = re.compile(r"(?P<number>[0-9]{1,9})/(?P<of>[0-9]{1,9})")
_PERCENT: Final = re.compile(r"(?P<percent>[0-9]{1,3}(?:\.[0-9]{1,6})?)%")


def add_parser() -> Parser:
    """Return the command's parser."""
    parser = new_parser("check", __doc__)
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--read-data", action="store_true", help="read all data")
    data.add_argument("--read-data-subset", metavar="PART", help="read 5%%, 2/7 or 50M of the data")
    parser.add_argument("--max-duration", metavar="TIME", help="stop after so long, as 30s or 10m")
    parser.add_argument("--repair", action="store_true", help="repair what can be repaired")
    parser.add_argument("--state-dir", metavar="DIR", help="repair from the files in DIR")
    parser.add_argument(
        "--from", dest="sources", action="append", metavar="DIR", help="repair from another store"
    )
    add_dry_run(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit status."""
    selection = _selection(args)
    if "repair" in args:
        if "max_duration" in args:
            raise UsageError("--max-duration: a repair is not stopped in the middle")
        return repair(args, selection)
    for option in ("state_dir", "sources", "dry_run"):
        if option in args:
            raise UsageError("--state-dir, --from and -n go with --repair")
    store = find(args).store
    who = _resumable(args, selection)
    before = verified.load(store, who) if who else verified.Verified()
    request = Request(
        read=selection, start=before.at, goes_on=_deadline(args), from_disk=selection is not None
    )
    if before.at != verified.Place() and "json" not in args:
        print(f"going on at segment {before.at.segment}, where the last check stopped")
    found = look(store, request, Printer(args))
    remembered = _remember(store, who, before, found) if who else None
    if "json" in args:
        emit("summary", summary_members(found), resumes=remembered is True)
    else:
        print(summary_text(found))
        _tell_rest(found, "the next check goes on there" if remembered else "")
    return CorruptError.exit_status if found.damages else 0


def _selection(args: argparse.Namespace) -> Selection | None:
    if "read_data" in args:
        return Everything()
    if "read_data_subset" not in args:
        return None
    text = args.read_data_subset
    if match := _SHARE.fullmatch(text):
        number, of = int(match["number"]), int(match["of"])
        if 1 <= number <= of:
            return Share(number, of)
        raise UsageError(f"--read-data-subset {text}: expected n/t with n from 1 to t")
    rng = random.Random()
    if match := _PERCENT.fullmatch(text):
        percent = float(match["percent"])
        if 0 < percent <= 100:
            return Sample(part=percent / 100, rng=rng)
        raise UsageError(f"--read-data-subset {text}: expected more than 0% and at most 100%")
    try:
        wanted = size(Given(text, "--read-data-subset"))
    except UsageError:
        wanted = 0
    if not wanted:
        raise UsageError(f"--read-data-subset {text}: expected a part such as 5%, 2/7 or 50M")
    return Sample(size=wanted, rng=rng)


def _deadline(args: argparse.Namespace) -> GoesOn | None:
    if "max_duration" not in args:
        return None
    until_s = time.monotonic() + seconds(Given(args.max_duration, "--max-duration"))
    return lambda _: time.monotonic() < until_s


def _resumable(args: argparse.Namespace, selection: Selection | None) -> str | None:
    """Return under which name it is remembered how far the check came; None: it is not."""
    if "max_duration" not in args or selection is None or isinstance(selection, Sample):
        return None
    return f"check {args.read_data_subset}" if isinstance(selection, Share) else "check"


def _remember(store: Path, who: str, before: verified.Verified, found: Found) -> bool | None:
    """Remember where the next check goes on; None: it begins anew, because this one came to the end."""
    now_ns = time.time_ns()
    if not found.is_structure_checked:
        return False
    if found.at is None:
        verified.save(store, who, before.begin(now_ns).finish(now_ns))
        return None
    return verified.save(store, who, before.begin(now_ns).reach(found.at, len(found.damages)))


def _tell_rest(found: Found, then: str) -> None:
    """Say what was not looked at, and what happens *then*."""
    if not found.is_usable or (found.is_structure_checked and found.at is None):
        return
    if any(damage.kind is DamageKind.INDEX for damage in found.damages):
        note("dkfs: only the pages of the index were looked at: they lead nowhere")
    elif not found.is_structure_checked or found.at is None:
        note("dkfs: stopped before everything but the data was looked at")
    else:
        where = f"stopped in segment {found.at.segment} at {size_text(found.at.offset)}"
        note(f"dkfs: {where}; {then or 'where, cannot be remembered'}")
