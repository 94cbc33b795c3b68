"""Pictures of a run: what each keeper stores and how long a version takes, recipe by recipe."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from bench.peer import BenchError
from bench.saving.comparing import JUDGED, Kept
from bench.saving.figure import Found

_OWN, _OTHER = "tab:green", "tab:gray"


def draw(path: Path, kept: Sequence[Kept], found: Sequence[Found]) -> None:
    """Write an SVG with a row for each recipe, and one for the figures; raises BenchError."""
    pyplot = _pyplot()
    recipes = list(dict.fromkeys(item.recipe for item in kept))
    judged = [item for item in found if item.share_of_bound() is not None]
    rows = len(recipes) + bool(judged)
    if not rows:
        return
    figure, axes = pyplot.subplots(rows, 2, figsize=(12, 3.2 * rows), squeeze=False)
    for row, recipe in zip(axes, recipes, strict=False):
        own = [item for item in kept if item.recipe is recipe and not item.error]
        names = [item.keeper.name for item in own]
        colours = [_OWN if name == JUDGED else _OTHER for name in names]
        row[0].barh(names, [item.stored_bytes / 1e6 for item in own], color=colours)
        row[0].set_xlabel(f"MB stored for {recipe.versions} versions")
        row[0].set_title(recipe.title, fontsize=9, loc="left")
        row[1].barh(names, [item.median_s * 1000 for item in own], color=colours)
        row[1].set_xscale("log")
        row[1].set_xlabel("ms for a version, median")
        for axis in row:
            axis.invert_yaxis()
    if judged:
        _draw_figures(axes[-1], judged)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_figures(row: Sequence[object], judged: Sequence[Found]) -> None:
    left, right = row
    shares = [100 * (item.share_of_bound() or 0) for item in judged]
    colours = [_OWN if item.is_reached() else "tab:red" for item in judged]
    left.barh([item.figure.title for item in judged], shares, color=colours)  # type: ignore[attr-defined]  # matplotlib is optional
    left.axvline(100, color="black", linewidth=0.8)  # type: ignore[attr-defined]
    left.set_xlabel("% of the bound; green: reached")  # type: ignore[attr-defined]
    left.invert_yaxis()  # type: ignore[attr-defined]
    right.axis("off")  # type: ignore[attr-defined]


def _pyplot() -> ModuleType:
    try:
        importlib.import_module("matplotlib").use("svg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise BenchError("--plot needs matplotlib, which is not installed") from None
