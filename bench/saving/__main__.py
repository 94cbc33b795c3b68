"""Measure how small histories are, how long a version takes, and what the store's own work takes.

The recipes and seeds are printed beside the numbers; dkfs is compared in the same run with what is installed
of borg, restic, bup, rdiff-backup and git, and with one zstd frame for every full version.

exit status:
  0 everything ran, whether aims were reached or not; 1 something failed; 2 usage
"""

import argparse
import fnmatch
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from bench import machine
from bench.peer import BenchError, workshop
from bench.saving import figures_contents, figures_history
from bench.saving.comparing import Kept, compare, judge, table
from bench.saving.figure import Figure, Found, figures_table, find_all
from bench.saving.keepers import KEEPERS, Keeper
from bench.saving.pictures import draw
from bench.saving.recipes import RECIPES, Recipe

FIGURES: tuple[type[Figure], ...] = (*figures_contents.FIGURES, *figures_history.FIGURES)
FORMAT = 1  # of the JSON
_RESULTS = Path(__file__).parent.parent / "results"


def is_named(patterns: str | None) -> bool:
    """Return whether *patterns* name anything here."""
    return bool(_chosen(RECIPES, patterns) or _chosen(FIGURES, patterns))


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line, or *words*, says; return the exit status."""
    parser = _parser()
    args = parser.parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    recipes, keepers = _chosen(RECIPES, args.only), _chosen(KEEPERS, args.keepers)
    figures = _chosen(FIGURES, args.only)
    if args.list:
        for recipe in RECIPES:
            print(f"{recipe.name:20} {recipe.title}")
        for figure in FIGURES:
            print(f"{figure.name:20} {figure.title}")
        return 0
    if not recipes and not figures:
        parser.error("nothing is called that; --list lists what there is")
    try:
        with workshop(args.dir) as base:
            return _measure(args, base, recipes, keepers, figures)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m bench.saving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", metavar="PATTERNS", help="recipes and figures, shell patterns, commas between")
    add("--keepers", metavar="PATTERNS", help=", ".join(keeper.name for keeper in KEEPERS))
    add("--quick", action="store_true", help="smaller figures: to see that it runs")
    add("--name", help="keep the results in bench/results/NAME.json (saving-time-commit)")
    add("--results", type=Path, default=_RESULTS, metavar="DIR", help="keep the results there")
    add("--dir", type=Path, help="work in a new directory in DIR (the one for temporary files)")
    add("--plot", action="store_true", help="write NAME.svg beside the results")
    add("--list", action="store_true", help="list the recipes and figures")
    return parser


_Named = TypeVar("_Named", type[Recipe], type[Keeper], type[Figure])


def _chosen(kinds: tuple[_Named, ...], patterns: str | None) -> list[_Named]:
    wanted = (patterns or "*").split(",")
    return [kind for kind in kinds if any(fnmatch.fnmatch(kind.name, p) for p in wanted)]


def _measure(
    args: argparse.Namespace,
    base: Path,
    recipes: list[type[Recipe]],
    keepers: list[type[Keeper]],
    figures: list[type[Figure]],
) -> int:
    started = time.time()
    about = machine.machine(base)
    for doubt in machine.doubts(about):
        _say(f"the numbers are doubtful: {doubt}")
    kept = list(compare(recipes, keepers, base=base / "recipes", say=_say))
    found = list(find_all(figures, base=base / "figures", quick=args.quick, say=_say))
    if kept:
        print(table(kept))
    if found:
        print(figures_table(found))
    commit = machine.commit()
    at = time.strftime("%Y%m%d-%H%M%S", time.gmtime(started))
    name = args.name or f"saving-{at}-{commit}"
    path = args.results / f"{name}.json"
    _write(path, name, commit, about, kept, found)
    print(f"\nkept in {path}")
    if args.plot:
        draw(path.with_suffix(".svg"), kept, found)
    return 1 if any(k.error for k in kept) or any(f.error for f in found) else 0


def _write(
    path: Path,
    name: str,
    commit: str,
    about: dict[str, object],
    kept: list[Kept],
    found: list[Found],
) -> None:
    whole = {
        "format": FORMAT,
        "name": name,
        "commit": commit,
        "machine": about,
        "doubts": machine.doubts(about),
        "versions": machine.versions(),
        "recipes": {recipe.name: recipe.says for recipe in RECIPES},
        "kept": [item.as_json() for item in kept],
        "verdicts": [
            {"recipe": v.recipe, "aim": v.aim, "found": v.found, "reached": v.is_reached}
            for v in judge(kept)
        ],
        "figures": [item.as_json() for item in found],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(unfinished, path)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
