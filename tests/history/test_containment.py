"""A store that is damaged anywhere shows what was there, or says that it cannot: never anything else.

Each mutation is read in a process of its own, see tests/containment.py.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from tests.containment import Truth, Verdict, judge
from tests.mutations import (
    Mutation,
    cuts,
    data_files,
    flips,
    flips_in_use,
    lost_rows,
    pages,
    swapped_blobs,
    swapped_rows,
)

SEED = 20_261_122

# LMDB may not be open in a process that forks, so the store is made, and read while it is sound, in another.
_MAKE = """
import json, sys
from pathlib import Path
from tests.containment import make, truth
make(Path(sys.argv[1]), int(sys.argv[2]))
json.dump(truth(Path(sys.argv[1])), sys.stdout)
"""


class Lab:
    """A sound store, what is in it, and a copy to damage."""

    def __init__(self, base: Path, seed: int) -> None:
        self.sound = base / "sound"
        self.place = base / "store"
        made = subprocess.run(
            [sys.executable, "-c", _MAKE, str(self.sound), str(seed)],
            stdout=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
            check=True,
        )
        answer: dict[str, dict[str, str]] = json.loads(made.stdout)
        self.right: Truth = {int(seq): paths for seq, paths in answer.items()}
        self.renew()

    def renew(self) -> None:
        """Make the copy sound again."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.sound, self.place)

    def judge(self, mutations: Iterable[Mutation]) -> list[Verdict]:
        """Return what became of each of *mutations*."""
        verdicts = []
        for name, mutate in list(mutations):
            self.renew()
            mutate()
            verdicts.append(judge(self.place, self.right, name))
        return verdicts


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Make a store of 60 versions with directories, links, a large file, deltas, tags and gaps."""
    return Lab(tmp_path_factory.mktemp("containment"), SEED)


def expect_contained(verdicts: list[Verdict], seed: int = SEED) -> None:
    """Nothing went wrong; and in the report, how the mutations ended."""
    wrong = [f"{verdict.name}: {what}" for verdict in verdicts for what in verdict.wrong]
    counts = {
        "refused as a whole": sum(bool(v.refused) for v in verdicts),
        "some unreadable": sum(v.unreadable > 0 for v in verdicts),
        "found by check only": sum(v.damages > 0 and not v.unreadable for v in verdicts),
        "no difference": sum(not (v.damages or v.unreadable or v.refused) for v in verdicts),
    }
    print(f"seed {seed}: {len(verdicts)} mutations: {counts}")
    assert wrong == []


def test_a_sound_store_is_read_whole(lab: Lab) -> None:
    (verdict,) = lab.judge([("nothing", lambda: None)])

    assert verdict == Verdict("nothing")
    assert sum(map(len, lab.right.values())) > 500


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutations", "count"),
    [(flips, 160), (pages, 60), (swapped_blobs, 30), (swapped_rows, 40)],
    ids=["bits", "pages", "blobs", "rows"],
)
def test_damage_is_contained(
    lab: Lab,
    mutations: Callable[[Path, random.Random, int], Iterable[Mutation]],
    count: int,
) -> None:
    lab.renew()

    verdicts = lab.judge(mutations(lab.place, random.Random(SEED), count))

    expect_contained(verdicts)
    assert any(verdict.unreadable for verdict in verdicts)


@pytest.mark.slow
def test_files_that_are_cut_or_gone_are_contained(lab: Lab) -> None:
    lab.renew()

    verdicts = lab.judge(cuts(lab.place))

    expect_contained(verdicts)
    gone = [verdict for verdict in verdicts if verdict.name.endswith("is removed")]
    assert len(gone) == 4
    assert all(verdict.damages or verdict.refused for verdict in gone)


@pytest.mark.slow
def test_stores_that_are_mixed_up_are_contained(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path, SEED + 1)
    lab.renew()
    files = [path.relative_to(lab.place) for path in data_files(lab.place)]

    verdicts = lab.judge(
        (f"{name} of another store", partial(shutil.copy, other.sound / name, lab.place / name))
        for name in files
    )

    expect_contained(verdicts)
    assert [bool(verdict.refused) for verdict in verdicts] == [True, False, False, False]
    assert all(verdict.unreadable for verdict in verdicts[1:])


@pytest.mark.slow
def test_a_check_finds_every_row_that_is_missing(lab: Lab) -> None:
    lab.renew()

    verdicts = lab.judge(lost_rows(lab.place, random.Random(SEED), 40))

    assert [verdict.name for verdict in verdicts if not (verdict.damages or verdict.refused)] == []


@pytest.mark.slow
def test_a_check_finds_every_damage_of_what_is_in_use(lab: Lab) -> None:
    lab.renew()

    verdicts = lab.judge(flips_in_use(lab.place, random.Random(SEED), 80))

    assert [verdict.name for verdict in verdicts if not (verdict.damages or verdict.refused)] == []
    expect_contained(verdicts)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_damages_are_contained(tmp_path: Path, seed: int) -> None:
    lab = Lab(tmp_path, seed)
    rng = random.Random(seed)
    verdicts = []
    for mutations, count in (
        (flips, 1600),
        (pages, 500),
        (swapped_blobs, 200),
        (swapped_rows, 200),
    ):
        lab.renew()
        verdicts += lab.judge(mutations(lab.place, rng, count))
    lab.renew()
    verdicts += lab.judge(cuts(lab.place))

    assert len(verdicts) >= 2500
    expect_contained(verdicts, seed)
