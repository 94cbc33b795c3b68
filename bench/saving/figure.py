"""What the store's own work takes: one number each, with the bound that it is to keep."""

import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from bench.history import IncompleteError
from bench.peer import BenchError
from dkfs.errors import DkfsError

_FAILURES = (BenchError, IncompleteError, DkfsError, OSError, subprocess.SubprocessError)


class Figure(ABC):
    """One number."""

    name: ClassVar[str]
    title: ClassVar[str]
    says: ClassVar[str]  # the recipe
    unit: ClassVar[str]
    bound: ClassVar[float | None] = None
    more_is_better: ClassVar[bool] = False
    seed_says: ClassVar[str] = ""
    also: ClassVar[dict[str, float]] = {}  # bounds of what is shown beside: at most that

    def __init__(self, base: Path, *, quick: bool) -> None:
        """Work in *base*, a new directory."""
        self.base = base
        self.quick = quick
        self.beside: dict[str, float | str] = {}  # what is shown with it

    @abstractmethod
    def find(self) -> float:
        """Return the number, in self.unit."""


@dataclass(slots=True)
class Found:
    """A figure that was found."""

    figure: type[Figure]
    value: float = 0.0
    beside: dict[str, float | str] = field(default_factory=dict)
    error: str = ""

    def is_reached(self) -> bool | None:
        """Return whether the bound is kept; None without one."""
        bound = self.figure.bound
        if bound is None:
            return None
        if self.error or any(not kept for kept in self.also_reached().values()):
            return False
        return self.value >= bound if self.figure.more_is_better else self.value <= bound

    def also_reached(self) -> dict[str, bool]:
        """Return whether each bound of what is shown beside is kept."""
        found = {name: self.beside.get(name) for name in self.figure.also}
        return {
            name: isinstance(value, float) and value <= self.figure.also[name]
            for name, value in found.items()
        }

    def share_of_bound(self) -> float | None:
        """Return the value as a share of its bound; None without one."""
        return None if self.error or not self.figure.bound else self.value / self.figure.bound

    def as_json(self) -> dict[str, object]:
        """Return it for the file."""
        kind = self.figure
        return {
            "name": kind.name,
            "title": kind.title,
            "recipe": kind.says,
            "unit": kind.unit,
            "seed_says": kind.seed_says,
            "bound": kind.bound,
            "more_is_better": kind.more_is_better,
            "also_bound": kind.also,
            "also_reached": self.also_reached(),
            "value": self.value,
            "beside": self.beside,
            "reached": self.is_reached(),
            "error": self.error,
        }


def find_all(
    figures: Sequence[type[Figure]], *, base: Path, quick: bool, say: Callable[[str], None]
) -> Iterator[Found]:
    """Yield every figure; one that fails does not stop the others."""
    for kind in figures:
        say(kind.name)
        place = base / kind.name
        place.mkdir(parents=True)
        found = Found(kind)
        try:
            figure = kind(place, quick=quick)
            found.value = figure.find()
            found.beside = figure.beside
        except _FAILURES as exc:
            found.error = f"{type(exc).__name__}: {exc}"
            print(f"{kind.name}: {found.error}", file=sys.stderr)
        yield found
        shutil.rmtree(place, ignore_errors=True)


def figures_table(found: Sequence[Found]) -> str:
    """Return what is shown."""
    lines = [""]
    for item in found:
        kind = item.figure
        sign = ">=" if kind.more_is_better else "<="
        bound = "" if kind.bound is None else f"{sign} {kind.bound:g} {kind.unit}"
        verdict = {True: "reached", False: "NOT REACHED", None: ""}[item.is_reached()]
        value = f"FAILED: {item.error}" if item.error else f"{item.value:.4g} {kind.unit}"
        seed = f" (the seed says {kind.seed_says})" if kind.seed_says else ""
        lines.append(f"{kind.name:18} {value:>18}  {bound:16} {verdict:12} {kind.title}{seed}")
        lines.append(f"{'':18} recipe: {kind.says}")
        if item.beside:
            lines.append(f"{'':18} beside: {'; '.join(_beside(item))}")
    return "\n".join(lines)


def _beside(item: Found) -> Iterator[str]:
    reached = item.also_reached()
    for name, value in item.beside.items():
        text = f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        if name in reached:
            verdict = "reached" if reached[name] else "NOT REACHED"
            text += f" (<= {item.figure.also[name]:g}: {verdict})"
        yield text
