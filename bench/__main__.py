"""Measure dkfs beside the raw directory and other file systems, all in one run; then how small histories are.

The second part is `python -m bench.saving`, which compares with borg, restic, bup, rdiff-backup and git. Every number names its engine and io mode.  Close other programs first, and do not believe a --quick run.

exit status:
  0 everything ran, whether targets were reached or not; 1 something failed; 2 usage
"""

import argparse
import fnmatch
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TypeVar

from bench import machine, results
from bench.peer import BenchError, Peer, workshop
from bench.peers import PEERS
from bench.plot import draw
from bench.profiling import profile
from bench.run import measure
from bench.saving import __main__ as saving
from bench.workload import Level, Workload
from bench.workloads import WORKLOADS

_RESULTS = Path(__file__).parent / "results"
_MEMORY = Path("/dev/shm")  # what the workloads start from is made there


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = _parser()
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if args.list:
        for kind in WORKLOADS:
            print(f"{kind.name:16} {kind.title} [{kind.unit}]")
        return saving.main(["--list"])
    level = Level.TINY if args.tiny else Level.QUICK if args.quick else Level.FULL
    args.repetitions = args.repetitions or (3 if level is Level.FULL else 1)
    kinds = present(_chosen(WORKLOADS, args.profile or args.only))
    usual = tuple(peer for peer in PEERS if peer.usual)
    peers = present(_chosen(PEERS, args.peers) if args.peers else list(usual))
    if not kinds and not args.profile and saving.is_named(args.only):
        return saving.main(_words(args))
    if not kinds or not peers:
        parser.error("nothing is called that; --list lists the workloads")
    try:
        with workshop(args.dir) as base, workshop(_MEMORY if _MEMORY.is_dir() else None) as made:
            if args.profile:
                print(profile(kinds[0], peers[-1], base=base, materials=made, level=level))
                return 0
            status = _measure(args, base, made, level, kinds, peers)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    return saving.main(_words(args)) or status if saving.is_named(args.only) else status


def _words(args: argparse.Namespace) -> list[str]:
    """Return what the second part is to be told."""
    words = ["--results", str(args.results)]
    for name, value in (("--only", args.only), ("--dir", args.dir)):
        words += [name, str(value)] if value else []
    words += ["--name", f"saving-{args.name}"] if args.name else []
    words += ["--plot"] if args.plot else []
    return [*words, "--quick"] if args.quick or args.tiny else words


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", metavar="PATTERNS", help="workloads, shell patterns separated by commas")
    add("--peers", metavar="PATTERNS", help="peers: " + ", ".join(peer.name for peer in PEERS))
    add("--repetitions", type=int, metavar="N", help="of each, interleaved (3; --quick: 1)")
    add("--quick", action="store_true", help="do less: to see that it runs")
    add("--tiny", action="store_true", help=argparse.SUPPRESS)
    add(
        "--let-halt",
        action="store_true",
        help="let idle processors halt, which costs a virtual machine 20 us for each answer of a daemon",
    )
    add("--name", help="keep the results in bench/results/NAME.json (time and commit)")
    add("--results", type=Path, default=_RESULTS, metavar="DIR", help="keep the results there")
    add("--dir", type=Path, help="work in a new directory in DIR (the one for temporary files)")
    add("--plot", action="store_true", help="write NAME.svg beside the results")
    add("--profile", metavar="WORKLOAD", help="run it once under py-spy, on the last peer")
    add("--list", action="store_true", help="list the workloads")
    return parser


_Named = TypeVar("_Named", type[Workload], type[Peer])


def _chosen(kinds: tuple[_Named, ...], patterns: str | None) -> list[_Named]:
    wanted = (patterns or "*").split(",")
    return [kind for kind in kinds if any(fnmatch.fnmatch(kind.name, p) for p in wanted)]


def present(kinds: list[_Named]) -> list[_Named]:
    """Return those whose program is installed."""
    for kind in kinds:
        if kind.needs is not None and shutil.which(kind.needs) is None:
            _say(f"{kind.name} is left out: {kind.needs} is not installed")
    return [kind for kind in kinds if kind.needs is None or shutil.which(kind.needs)]


def _measure(
    args: argparse.Namespace,
    base: Path,
    materials: Path,
    level: Level,
    kinds: list[type[Workload]],
    peers: list[type[Peer]],
) -> int:
    started = time.time()
    found = machine.machine(base)
    about: dict[str, object] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "level": level.name.lower(),
        "repetitions": args.repetitions,
        "commit": machine.commit(),
        "machine": found,
        "doubts": machine.doubts(found),
        "versions": machine.versions(),
    }
    for doubt in machine.doubts(found):
        _say(f"the numbers are doubtful: {doubt}")
    with machine.awake(wanted=not args.let_halt) as about["awake"]:
        measured = list(
            measure(
                kinds,
                peers,
                base=base,
                materials=materials,
                level=level,
                repetitions=args.repetitions,
                say=_say,
            )
        )
    about["seconds"] = round(time.time() - started, 1)
    name = args.name or time.strftime("%Y%m%d-%H%M%S-", time.gmtime(started)) + str(about["commit"])
    kept = args.results / f"{name}.json"
    results.write(kept, {"name": name, **about}, measured)
    print(f"{results.table(measured, peers)}\n\n{results.verdict_table(measured)}\n")
    print(
        f"median (best) of {args.repetitions}; shares are of raw's median; processors"
        f" {'awake' if about['awake'] else 'halt'}; {_caution(level)}{kept}"
    )
    if args.plot:
        draw(kept.with_suffix(".svg"), measured, peers)
    return 1 if any(item.errors for item in measured) else 0


def _caution(level: Level) -> str:
    return "" if level is Level.FULL else f"level {level.name.lower()}, not for quoting; "


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
