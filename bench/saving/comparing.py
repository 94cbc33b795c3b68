"""Keeps the same versions with every keeper, and looks at what each one needs for it."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.history import IncompleteError
from bench.peer import BenchError
from bench.saving.keepers import Keeper
from bench.saving.recipes import Recipe
from bench.workload import Stopwatch, median
from dkfs.errors import DkfsError

JUDGED = "dkfs"
FASTER = 10.0  # times, per version, than any other that keeps a history
_FAILURES = (BenchError, IncompleteError, DkfsError, OSError, subprocess.SubprocessError)


@dataclass(slots=True)
class Kept:
    """One recipe kept by one keeper."""

    recipe: type[Recipe]
    keeper: type[Keeper]
    full_bytes: int = 0  # all versions as plain copies
    stored_bytes: int = 0  # all of the store, on the disk
    seconds: list[float] = field(default_factory=list)  # of every version after the first
    restore_s: float = 0.0  # of one version, compared afterwards
    error: str = ""

    @property
    def saved(self) -> float:
        """The share of the full copies that is not stored."""
        return 1 - self.stored_bytes / self.full_bytes if self.full_bytes else 0.0

    @property
    def median_s(self) -> float:
        """The time for one version."""
        return median(self.seconds) if self.seconds else 0.0

    def as_json(self) -> dict[str, object]:
        """Return it for the file."""
        return {
            "recipe": self.recipe.name,
            "keeper": self.keeper.name,
            "versions": self.recipe.versions,
            "full_bytes": self.full_bytes,
            "stored_bytes": self.stored_bytes,
            "saved": self.saved,
            "seconds": self.seconds,
            "median_s": self.median_s,
            "restore_s": self.restore_s,
            "error": self.error,
        }


def compare(
    recipes: Sequence[type[Recipe]],
    keepers: Sequence[type[Keeper]],
    *,
    base: Path,
    say: Callable[[str], None],
) -> Iterator[Kept]:
    """Yield what each keeper needed for each recipe; works in *base*."""
    for recipe in recipes:
        for keeper in keepers:
            if not keeper.is_there():
                say(f"{keeper.name} is not installed: left out")
                continue
            say(f"{recipe.name}: {keeper.name}")
            kept = Kept(recipe, keeper)
            try:
                _keep(recipe(), keeper, base / recipe.name / keeper.name.replace(" ", "-"), kept)
            except _FAILURES as exc:
                kept.error = f"{type(exc).__name__}: {exc}"
                print(f"{recipe.name}: {keeper.name}: {kept.error}", file=sys.stderr)
            yield kept


def _keep(recipe: Recipe, keeper_type: type[Keeper], base: Path, kept: Kept) -> None:
    with keeper_type(base) as keeper:
        hashes = []
        for number in range(1, recipe.versions + 1):
            if number == 1:
                recipe.first(keeper.directory)
            else:
                recipe.next(keeper.directory, number - 2)
            seconds = keeper.keep(number)
            if number > 1:
                kept.seconds.append(seconds)
            kept.full_bytes += len(recipe.data)
            hashes.append(hashlib.sha256(recipe.data).digest())
        keeper.finish()
        middle = recipe.versions // 2
        target = base / "restored"
        target.mkdir()
        with Stopwatch() as watch:
            keeper.restore(middle, target)
        kept.restore_s = watch.s
        _compare(target, hashes[middle - 1])
        shutil.rmtree(target)
        for number, wanted in enumerate(hashes, 1):
            target.mkdir()
            keeper.restore(number, target)
            _compare(target, wanted)
            shutil.rmtree(target)
    kept.stored_bytes = keeper.stored_bytes()


def _compare(target: Path, wanted: bytes) -> None:
    found = [
        os.path.join(directory, name)
        for directory, _, names in os.walk(target)
        for name in names
        if name == "file"
    ]
    if len(found) != 1 or hashlib.sha256(Path(found[0]).read_bytes()).digest() != wanted:
        raise BenchError("what was restored is not what was kept")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one aim is reached for one recipe."""

    recipe: str
    aim: str
    found: str
    is_reached: bool


def judge(results: Sequence[Kept]) -> Iterator[Verdict]:
    """Yield whether dkfs reaches its aims beside the others."""
    for recipe in dict.fromkeys(kept.recipe for kept in results):
        own = [kept for kept in results if kept.recipe is recipe]
        mine = next((kept for kept in own if kept.keeper.name == JUDGED), None)
        others = [kept for kept in own if kept.keeper.program is not None and not kept.error]
        if mine is None:
            continue
        if mine.error:
            yield Verdict(recipe.name, "runs", mine.error, is_reached=False)
            continue
        if recipe.least_saved is not None:
            aim = f"saves >= {recipe.least_saved:.1%}"
            yield Verdict(recipe.name, aim, f"{mine.saved:.2%}", mine.saved >= recipe.least_saved)
        if not others:
            continue
        least = min(others, key=lambda kept: kept.stored_bytes)
        share = mine.stored_bytes / least.stored_bytes
        found = f"{share:.2f} x {least.keeper.name}"
        yield Verdict(recipe.name, "smallest, or within 10 % of it", found, share <= 1.1)
        fastest = min(others, key=lambda kept: kept.median_s)
        times = fastest.median_s / mine.median_s
        found = f"{times:.0f} x {fastest.keeper.name}"
        yield Verdict(recipe.name, "fastest per version by 10 x", found, times >= FASTER)


def table(results: Sequence[Kept]) -> str:
    """Return what is shown."""
    lines = []
    for recipe in dict.fromkeys(kept.recipe for kept in results):
        lines += ["", f"{recipe.name}: {recipe.title}", f"  recipe: {recipe.says}"]
        row = "  {:14} {:>12} {:>8} {:>12} {:>12}"
        lines.append(row.format("keeper", "bytes", "saved", "ms/version", "restore ms"))
        for kept in results:
            if kept.recipe is not recipe:
                continue
            if kept.error:
                lines.append(f"  {kept.keeper.name:14} FAILED: {kept.error}")
                continue
            lines.append(
                row.format(
                    kept.keeper.name,
                    f"{kept.stored_bytes:,}",
                    f"{kept.saved:.2%}",
                    f"{kept.median_s * 1000:.1f}",
                    f"{kept.restore_s * 1000:.1f}",
                )
            )
    lines.append("")
    for verdict in judge(results):
        said = "reached" if verdict.is_reached else "NOT REACHED"
        lines.append(f"  {verdict.recipe}: {verdict.aim}: {verdict.found}: {said}")
    return "\n".join(lines)
