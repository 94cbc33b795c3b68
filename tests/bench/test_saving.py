"""The bench of how small histories are: recipes are the same every time, verdicts follow from numbers, and it runs."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.saving.__main__ import FIGURES
from bench.saving.comparing import Kept, judge, table
from bench.saving.figure import Figure, Found, figures_table
from bench.saving.keepers import KEEPERS, Borg, DkfsKeeper, Git, ZstdCopies
from bench.saving.recipes import RECIPES, InPlace, Ramp, Renamed

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def test_names_are_unique() -> None:
    names = [kind.name for kind in RECIPES] + [kind.name for kind in FIGURES]

    assert len(set(names)) == len(names)
    assert len({kind.name for kind in KEEPERS}) == len(KEEPERS)


def test_a_recipe_makes_the_same_bytes_every_time(tmp_path: Path) -> None:
    def last(number: int) -> bytes:
        place = tmp_path / str(number)
        place.mkdir()
        recipe = InPlace()
        recipe.first(place)
        for step in range(3):
            recipe.next(place, step)
        assert (place / "file").read_bytes() == recipe.data
        return recipe.data

    assert last(1) == last(2)
    assert hashlib.sha256(last(3)).hexdigest()[:16] == "1958bc9c4fc7b904"


def test_a_recipe_changes_what_it_says() -> None:
    recipe, moved = InPlace(), Renamed()
    before = recipe.data
    recipe.change(0)
    moved.change(0)

    assert sum(a != b for a, b in zip(before, recipe.data, strict=True)) > 100_000
    assert before[102_400:] == recipe.data[102_400:]
    assert moved.data[100:] == recipe.data
    assert Ramp().data[:256] == bytes(range(256))


def kept(keeper: type, stored: int, seconds: float, error: str = "") -> Kept:
    return Kept(InPlace, keeper, 20 << 20, stored, [seconds] * 3, 0.0, error)


def test_verdicts_follow_from_the_numbers() -> None:
    good = [kept(DkfsKeeper, 3_000_000, 0.004), kept(Git, 2_900_000, 0.05), kept(Borg, 9**7, 0.2)]
    bad = [kept(DkfsKeeper, 3_300_000, 0.004), kept(Git, 2_900_000, 0.03)]

    assert [verdict.is_reached for verdict in judge(good)] == [True, True, True]
    assert [verdict.is_reached for verdict in judge(bad)] == [False, False, False]
    assert [v.is_reached for v in judge([kept(DkfsKeeper, 0, 0, "StoreError: full")])] == [False]


def test_the_table_shows_recipe_and_failures() -> None:
    shown = table([kept(DkfsKeeper, 3_000_000, 0.004), kept(ZstdCopies, 1, 1, "OSError: no")])

    assert InPlace.says in shown
    assert "FAILED: OSError: no" in shown
    assert "85.69%" in shown


class Bounded(Figure):
    name = "bounded"
    title = "a number"
    says = "nothing"
    unit = "ms"
    bound = 5
    also = {"memory": 200}  # noqa: RUF012 - as the figures have it

    def find(self) -> float:
        return 4.0


def test_a_figure_is_reached_when_all_its_bounds_are_kept() -> None:
    assert Found(Bounded, 4.0, {"memory": 100.0}).is_reached() is True
    assert Found(Bounded, 6.0, {"memory": 100.0}).is_reached() is False
    assert Found(Bounded, 4.0, {"memory": 300.0}).is_reached() is False
    assert Found(Bounded, 4.0, {}).is_reached() is False
    assert Found(Bounded, 0.0, error="OSError: no").is_reached() is False
    assert "NOT REACHED" in figures_table([Found(Bounded, 4.0, {"memory": 300.0})])


@pytest.mark.slow
@pytest.mark.mount
@pytest.mark.root
def test_it_runs_and_what_it_finds_is_kept(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.saving", "--quick", "--name", "saving-test"),
            *("--keepers", "dkfs,zstd copies,git"),
            *("--only", "ramp,in-place,delta-*,chunking,replay-61,blob-lookup,chain-25"),
            *("--results", tmp_path, "--dir", tmp_path),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "saving-test.json").read_text())
    dkfs = [item for item in found["kept"] if item["keeper"] == "dkfs"]
    assert [item["recipe"] for item in dkfs] == ["in-place", "ramp"]
    assert all(item["saved"] > 0.8 for item in dkfs)
    assert len(found["figures"]) == 6
