"""The crash machine from a shell: `python -m tests.crash --seeds 0-99 --kills 20`.  Each seed is a life of a store.

Any part of a long run can be done by itself, beside others, and again: a seed says everything but the instants of the kills.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.crash.life import Life, Plan, Totals, WrongError


def main() -> int:
    """Lead the lives that the command line asks for; return 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seeds", default="0-9", help="from-to, both included")
    parser.add_argument("--kills", type=int, default=20, help="in each life")
    parser.add_argument("--engine", default="kernel", choices=("kernel", "pyfuse3"))
    parser.add_argument("--io", default="strict", choices=("strict", "hybrid", "checkpoint"))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0, help="begin no other life after these")
    parser.add_argument("--base", type=Path, help="work below this directory")
    args = parser.parse_args()
    first, _, last = args.seeds.partition("-")
    totals, wrong, began = Totals(), 0, time.monotonic()
    seed = int(first)
    while seed <= int(last or first):
        plan = Plan(
            seed=seed, kills=args.kills, workers=args.workers, engine=args.engine, io=args.io
        )
        with tempfile.TemporaryDirectory(dir=args.base) as base:
            try:
                with Life(Path(base), plan, totals) as life:
                    life.run()
            except WrongError as exc:
                wrong += 1
                print(f"WRONG: {exc}", flush=True)
        seed += 1
        if args.seconds and time.monotonic() - began > args.seconds:
            break
    print(f"seeds {first} to {seed - 1}: {wrong} wrong; {asdict(totals)}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
