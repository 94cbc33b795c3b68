"""Restoring into a directory that holds something: what becomes of it."""

import io
import os
import random
from pathlib import Path

import pytest

from dkfs.core.patterns import Pattern, Selection
from dkfs.errors import ExistsError, NotFoundError
from dkfs.history.archive import dump
from dkfs.history.forget import forget_contents
from dkfs.history.restore import restore
from dkfs.history.tarball import TarFormat
from dkfs.history.wish import Action, Overwrite, Wish
from dkfs.model.ids import Seq
from tests.history.forgetting import keep_only
from tests.history.model_history import ModelHistory
from tests.history.restoring import (
    ALWAYS,
    MIRROR,
    NEW_NS,
    OLD_NS,
    planned,
    put,
    take,
)
from tests.history.test_materialise import World, world
from tests.history.trees import RandomTree, picture

__all__ = ["world"]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "target"
    made.mkdir()
    return made


@pytest.mark.parametrize(
    ("overwrite", "same_size_and_time", "older", "newer"),
    [
        (Overwrite.ALWAYS, b"version", b"version", b"version"),
        (Overwrite.IF_CHANGED, b"VERSION", b"version", b"version"),
        (Overwrite.IF_NEWER, b"VERSION", b"version", b"theirs"),
        (Overwrite.NEVER, b"VERSION", b"theirs", b"theirs"),
    ],
)
def test_a_file_that_is_there_is_treated_as_restic_treats_it(
    world: World,
    target: Path,
    *,
    overwrite: Overwrite,
    same_size_and_time: bytes,
    older: bytes,
    newer: bytes,
) -> None:
    for name in ("same", "older", "newer", "missing"):
        put(world.top / name, b"version")
    seq = world.record()
    put(target / "same", b"VERSION")
    put(target / "older", b"theirs", OLD_NS)
    put(target / "newer", b"theirs", NEW_NS + 1)
    put(target / "theirs", b"theirs")

    result = take(world, seq, target, Wish(overwrite=overwrite))

    assert result.problems == ()
    assert (target / "same").read_bytes() == same_size_and_time
    assert (target / "older").read_bytes() == older
    assert (target / "newer").read_bytes() == newer
    assert (target / "missing").read_bytes() == b"version"
    assert (target / "theirs").read_bytes() == b"theirs"


def test_a_file_that_is_right_already_is_not_written_again(world: World, target: Path) -> None:
    put(world.top / "f", b"1" * 100_000)
    put(world.top / "attr", b"2").chmod(0o640)
    seq = world.record()
    take(world, seq, target, Wish())
    (target / "attr").chmod(0o600)
    before = {name: (target / name).stat().st_ino for name in ("f", "attr")}

    result = take(world, seq, target, ALWAYS)

    assert {name: (target / name).stat().st_ino for name in before} == before
    assert (target / "attr").stat().st_mode & 0o7777 == 0o640
    assert (result.created, result.rewritten, result.attributes, result.bytes_written) == (
        0,
        0,
        1,
        0,
    )


def test_without_a_wish_for_it_nothing_may_be_there(world: World, target: Path) -> None:
    seq = world.record()
    put(target / "mine", b"1")

    for dry_run in (True, False):
        with pytest.raises(ExistsError, match="or --overwrite"):
            take(world, seq, target, Wish(dry_run=dry_run))
    assert (target / "mine").read_bytes() == b"1"


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize("seed", range(20))
def test_any_directory_becomes_any_version_as_the_dry_run_said(
    world: World, target: Path, seed: int
) -> None:
    rng = random.Random(seed)
    tree = RandomTree(world.top, rng)
    tree.change(40)
    first, before = world.record(), world.picture()
    tree.change(40)
    second, after = world.record(), world.picture()
    RandomTree(target, rng).change(rng.choice((5, 60)))

    for seq, wanted in ((first, before), (second, after), (first, before)):
        said = planned(world, seq, target, MIRROR)
        done: set[tuple[str, bytes]] = set()
        wish = Wish(
            overwrite=Overwrite.ALWAYS,
            delete=True,
            privileged=True,
            verify=True,
            on_action=lambda action, name: done.add((action.value, name)),  # noqa: B023 - called in this round
        )
        result = take(world, seq, target, wish)

        assert result.problems == ()
        assert picture(target) == wanted
        assert {s for s in said if s[0] != "settle"} == {d for d in done if d[0] != "settle"}


def test_delete_removes_what_the_version_lacks_and_the_dry_run_names_all_of_it(
    world: World, target: Path, tmp_path: Path
) -> None:
    put(world.top / "kept" / "f", b"1")
    seq = world.record()
    put(tmp_path / "outside" / "precious", b"1")
    put(target / "kept" / "more", b"1")
    put(target / "gone" / "deep" / "f", b"1")
    (target / "out").symlink_to(tmp_path / "outside")
    (target / "kept" / "out").symlink_to(tmp_path / "outside")
    mirror = Wish(overwrite=Overwrite.ALWAYS, delete=True)

    said = planned(world, seq, target, mirror)
    result = take(world, seq, target, mirror)

    removed = {b"kept/more", b"gone", b"gone/deep", b"gone/deep/f", b"out", b"kept/out"}
    assert {path for action, path in said if action == Action.REMOVE.value} == removed
    assert result.removed == len(removed)
    assert sorted(os.listdir(target)) == ["kept"]
    assert os.listdir(target / "kept") == ["f"]
    assert (tmp_path / "outside" / "precious").read_bytes() == b"1"


def test_without_delete_nothing_is_removed(world: World, target: Path) -> None:
    put(world.top / "f", b"1")
    seq = world.record()
    put(target / "d" / "theirs", b"1")

    assert take(world, seq, target, ALWAYS).removed == 0
    assert (target / "d" / "theirs").exists()


def test_a_kind_that_differs_gives_way_but_a_full_directory_only_to_delete(
    world: World, target: Path
) -> None:
    put(world.top / "was_dir", b"1")
    put(world.top / "was_full", b"1")
    put(world.top / "was_file" / "f", b"1")
    (world.top / "was_link").mkdir()
    seq = world.record()
    (target / "was_dir").mkdir()
    put(target / "was_full" / "theirs", b"1")
    put(target / "was_file", b"1")
    (target / "was_link").symlink_to("/")

    said = planned(world, seq, target, ALWAYS)
    result = take(world, seq, target, ALWAYS)

    assert [each.split(":")[0] for each in result.problems] == ["was_full"]
    assert "not empty" in result.problems[0]
    assert (target / "was_full" / "theirs").exists()
    assert (target / "was_dir").read_bytes() == b"1"
    assert (target / "was_file" / "f").read_bytes() == b"1"
    assert not (target / "was_link").is_symlink()
    assert {path for _, path in said if path == b"was_full"} == set()

    assert take(world, seq, target, MIRROR).problems == ()
    assert (target / "was_full").read_bytes() == b"1"


def test_patterns_choose_what_is_made_and_what_may_be_removed(world: World, target: Path) -> None:
    for name in ("src/a.c", "src/a.o", "src/sub/b.c", "doc/x.txt", "doc/b.c"):
        put(world.top / name, b"1")
    (world.top / "src").chmod(0o751)
    (world.top / "empty").mkdir()
    seq = world.record()
    put(target / "src" / "old.c", b"1")
    put(target / "src" / "old.o", b"1")
    put(target / "else" / "old.c", b"1")
    put(target / "else" / "keep.txt", b"1")
    selection = Selection([Pattern(b"*.c")], [Pattern(b"/doc")])

    result = take(
        world,
        seq,
        target,
        Wish(overwrite=Overwrite.ALWAYS, delete=True, selection=selection),
    )

    assert result.problems == ()
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    assert found == [
        "else",
        "else/keep.txt",
        "src",
        "src/a.c",
        "src/old.o",
        "src/sub",
        "src/sub/b.c",
    ]


def test_directories_on_the_way_to_what_is_chosen_get_their_metadata(
    world: World, target: Path
) -> None:
    put(world.top / "a" / "b" / "f", b"1")
    (world.top / "a").chmod(0o751)
    os.utime(world.top / "a", ns=(0, OLD_NS))
    seq = world.record()

    take(world, seq, target, Wish(selection=Selection([Pattern(b"/a/b/f")])))

    assert (target / "a").stat().st_mode & 0o7777 == 0o751
    assert (target / "a").stat().st_mtime_ns == OLD_NS


def test_hard_links_are_mended(world: World, target: Path) -> None:
    put(world.top / "a", b"1")
    os.link(world.top / "a", world.top / "b")
    os.link(world.top / "a", world.top / "c")
    seq = world.record()
    put(target / "a", b"1")
    put(target / "b", b"other")

    assert take(world, seq, target, ALWAYS).problems == ()

    assert len({(target / name).stat().st_ino for name in "abc"}) == 1
    before = picture(target)
    again = take(world, seq, target, ALWAYS)
    assert (again.created, again.rewritten, again.bytes_written) == (0, 0, 0)
    assert picture(target) == before


def test_verify_reads_everything_again(world: World, target: Path) -> None:
    for name in ("a", "b"):
        put(world.top / name, b"1" * 1000)
    seq = world.record()

    def meddle(*_: int) -> None:
        if (target / "a").exists():
            with open(target / "a", "r+b") as file:
                file.write(b"2")

    good = take(world, seq, target, Wish(overwrite=Overwrite.ALWAYS, verify=True))
    bad = take(
        world, seq, target, Wish(overwrite=Overwrite.ALWAYS, verify=True, on_progress=meddle)
    )

    assert (good.verified, good.problems) == (2, ())
    assert bad.problems == ("a: differs from the version now that it is read again",)
    assert bad.damaged == 1


def test_contents_that_were_forgotten_are_named_and_the_rest_is_restored(
    history: ModelHistory, tmp_path: Path
) -> None:
    history.create(b"f", b"one")  # 2
    history.create(b"g", b"two")  # 3
    history.write(b"f", b"three")  # 4
    forget_contents(history.store, [(history.tree.paths()[b"f"], Seq(2))])
    put(tmp_path / "target" / "f", b"mine")
    out = io.BytesIO()

    with history.store.read() as reader:
        result = restore(reader, Seq(3), b"", tmp_path / "target", ALWAYS)
        dumped = dump(reader, Seq(3), b"", TarFormat(out.write))

    made = [each for each in result.problems if "owner" not in each]
    assert made == ["f: not made: the contents of f were forgotten"]
    assert (tmp_path / "target" / "f").read_bytes() == b"mine"
    assert (tmp_path / "target" / "g").read_bytes() == b"two"
    assert dumped.problems == ("f at version 3: left out: the contents of f were forgotten",)
    assert (dumped.damaged, dumped.entries) == (0, 2)


def test_a_version_that_was_forgotten_is_not_restored(
    history: ModelHistory, tmp_path: Path
) -> None:
    history.create(b"f", b"one")
    history.create(b"g", b"two")
    keep_only(history.store, {3})

    with history.store.read() as reader, pytest.raises(NotFoundError, match="2 was forgotten"):
        restore(reader, Seq(2), b"", tmp_path / "target")
    assert not (tmp_path / "target").exists()
