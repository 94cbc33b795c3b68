"""Restoring into a directory that holds something: what becomes of it, and that nothing else is ever touched."""

import fcntl
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dkfs.core.patterns import Pattern, Selection
from dkfs.errors import ExistsError
from dkfs.history.outcome import Result
from dkfs.history.restore import restore
from dkfs.history.wish import Action, Overwrite, Wish
from dkfs.model.ids import Seq
from tests.history.test_materialise import World, world
from tests.history.trees import ACL_ACCESS, RandomTree, picture
from tests.mounting import CHECKOUT

__all__ = ["world"]

Words = list[str | Path]
OLD_NS, NEW_NS = 1_000_000_000_000_000_000, 2_000_000_000_000_000_000
ALWAYS = Wish(overwrite=Overwrite.ALWAYS)
MIRROR = Wish(overwrite=Overwrite.ALWAYS, delete=True, privileged=True)


def put(path: Path, data: bytes, mtime_ns: int = NEW_NS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(0, mtime_ns))
    return path


def take(world: World, seq: Seq, target: Path, wish: Wish, path: bytes = b"") -> Result:
    with world.store.read() as reader:
        return restore(reader, seq, path, target, wish)


def planned(world: World, seq: Seq, target: Path, wish: Wish) -> set[tuple[str, bytes]]:
    """Return what a dry run names."""
    told: set[tuple[str, bytes]] = set()
    dry = Wish(
        overwrite=wish.overwrite,
        selection=wish.selection,
        delete=wish.delete,
        privileged=wish.privileged,
        dry_run=True,
        on_action=lambda action, name: told.add((action.value, name)),
    )
    before = picture(target) if target.exists() else None
    take(world, seq, target, dry)
    assert (picture(target) if target.exists() else None) == before
    return told


def names_in(target: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(target))


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


def test_a_file_known_elsewhere_by_another_name_is_replaced_not_changed(
    world: World, target: Path, tmp_path: Path
) -> None:
    put(world.top / "contents", b"version").chmod(0o666)
    put(world.top / "mode", b"same").chmod(0o666)
    seq = world.record()
    put(tmp_path / "outside1", b"theirs").chmod(0o600)
    put(tmp_path / "outside2", b"same").chmod(0o600)
    os.link(tmp_path / "outside1", target / "contents")
    os.link(tmp_path / "outside2", target / "mode")

    assert take(world, seq, target, ALWAYS).problems == ()

    for name, data in (("outside1", b"theirs"), ("outside2", b"same")):
        assert (tmp_path / name).read_bytes() == data
        assert (tmp_path / name).stat().st_mode & 0o7777 == 0o600
        assert (tmp_path / name).stat().st_nlink == 1
    assert (target / "contents").read_bytes() == b"version"
    assert (target / "mode").stat().st_mode & 0o7777 == 0o666


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


@pytest.mark.parametrize("overwrite", list(Overwrite))
def test_a_link_in_the_way_is_never_followed(
    world: World, target: Path, tmp_path: Path, overwrite: Overwrite
) -> None:
    put(world.top / "d" / "f", b"version")
    put(world.top / "g", b"version")
    seq = world.record()
    outside = put(tmp_path / "outside" / "f", b"theirs").parent
    (target / "d").symlink_to(outside)
    (target / "g").symlink_to(outside / "f")
    before = picture(outside)

    take(world, seq, target, Wish(overwrite=overwrite, delete=True))

    assert picture(outside) == before


@pytest.mark.root
def test_devices_set_id_bits_and_capabilities_come_only_when_asked_for(
    world: World, target: Path
) -> None:
    put(world.top / "suid", b"#!").chmod(0o6755)
    put(world.top / "cap", b"#!").chmod(0o755)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(world.top / "cap", "security.capability", capability)
    os.setxattr(world.top / "cap", "user.one", b"1")
    os.mknod(world.top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (world.top / "team").mkdir()
    (world.top / "team").chmod(0o2775)
    seq = world.record()

    result = take(world, seq, target, Wish())

    assert result.problems == ()
    assert result.left_out == (
        "cap: capabilities left out",
        "null: device left out",
        "suid: set-id bits left out",
    )
    assert (target / "suid").stat().st_mode & 0o7777 == 0o755
    assert os.listxattr(target / "cap") == ["user.one"]
    assert not (target / "null").exists()
    assert (target / "team").stat().st_mode & 0o7777 == 0o2775

    assert take(world, seq, target, MIRROR).left_out == ()
    assert picture(target) == world.picture()
    take(world, seq, target, ALWAYS)
    assert (target / "suid").stat().st_mode & 0o7777 == 0o755


@pytest.mark.root
def test_what_is_made_inherits_nothing_from_the_target(world: World, target: Path) -> None:
    put(world.top / "d" / "f", b"1")
    put(world.top / "g", b"1")
    seq = world.record()
    os.setxattr(target, "system.posix_acl_default", ACL_ACCESS)

    take(world, seq, target, Wish())

    assert picture(target) == world.picture()


@pytest.mark.root
def test_a_user_restores_into_read_only_directories_of_his_own(
    world: World, open_dir: Path
) -> None:
    put(world.top / "d" / "f", b"1")
    os.mknod(world.top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    for path in (world.top, world.top / "d", world.top / "d" / "f"):
        os.chown(path, 65534, 65534)
    (world.top / "d").chmod(0o555)
    seq = world.record()
    subprocess.run(["cp", "-r", world.store.path, open_dir / "store"], check=True)
    target = open_dir / "target"
    put(target / "d" / "old", b"1")
    (target / "d").chmod(0o555)
    subprocess.run(["chown", "-R", "65534:65534", open_dir / "store", target], check=True)
    words: Words = [
        sys.executable,
        "-m",
        "dkfs",
        "restore",
        str(seq),
        "--store",
        open_dir / "store",
    ]
    words += ["--target", target, "--overwrite", "always", "--delete"]

    for further, status in ((Words(), 0), (Words(["--privileged"]), 1)):
        done = subprocess.run(
            [*words, *further],
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            env={"PYTHONPATH": str(CHECKOUT), "HOME": "/"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert "null" in done.stderr
    assert os.listdir(target / "d") == ["f"]
    assert (target / "d").stat().st_mode & 0o7777 == 0o555


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


def test_what_an_interrupted_restore_left_is_removed(world: World, target: Path) -> None:
    put(world.top / "d" / "f", b"1")
    seq = world.record()
    put(target / "d" / ".dkfs-restore-0123456789abcdef", b"half")
    put(target / "d" / ".dkfs-restore-mine", b"theirs")

    take(world, seq, target, ALWAYS)

    assert sorted(os.listdir(target / "d")) == [".dkfs-restore-mine", "f"]


def test_two_restores_into_one_target_are_refused(world: World, target: Path) -> None:
    seq = world.record()
    fd = os.open(target, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with pytest.raises(ExistsError, match="another restore"):
            take(world, seq, target, ALWAYS)
        take(world, seq, target, Wish(overwrite=Overwrite.ALWAYS, dry_run=True))
    finally:
        os.close(fd)


@pytest.mark.slow
@pytest.mark.root
def test_a_restore_that_is_killed_leaves_whole_files_and_is_continued(
    world: World, target: Path
) -> None:
    rng = random.Random(7)
    for number in range(300):
        put(world.top / f"d{number % 7}" / f"f{number}", rng.randbytes(rng.randrange(60_000)))
    (world.top / "link").symlink_to("d1/f1")
    os.link(world.top / "d1" / "f1", world.top / "same")
    seq = world.record()
    wanted = world.picture()
    words: Words = [sys.executable, "-m", "dkfs", "restore", str(seq), "--store", world.store.path]
    words += ["--target", target, "--overwrite", "if-changed", "--privileged"]

    for _ in range(6):
        process = subprocess.Popen(
            words, env=dict(os.environ, PYTHONPATH=str(CHECKOUT)), stdout=subprocess.DEVNULL
        )
        until = time.monotonic() + 20
        enough = names_in(target) + rng.randrange(1, 60)
        while names_in(target) < enough and process.poll() is None:
            assert time.monotonic() < until
        process.send_signal(signal.SIGKILL)
        process.wait()
        there = picture(target)
        for path, found in there.items():
            if stat.S_ISREG(found.mode) and b".dkfs-restore-" not in path:
                assert found.data == wanted[path].data
    take(world, seq, target, Wish(overwrite=Overwrite.IF_CHANGED, privileged=True))

    assert picture(target) == wanted


# Puts links to a directory outside where directories and files are, and back, as fast as it goes.
SWAP = """
import os, random, shutil, sys
target, outside, swaps = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng, aside, done = random.Random(1), target + "-aside", 0
while done < swaps:
    path = os.path.join(target, rng.choice(("d", "d/e", "d/e/f", "g", "d/old")))
    try:
        if path.endswith("old"):
            os.mkdir(path)
            continue
        os.rename(path, aside)
        os.symlink(rng.choice((outside, outside, outside + "/f")), path)
        done += 1
        for _ in range(rng.randrange(100)):
            pass
        os.unlink(path)
        os.rename(aside, path)
    except OSError:
        if os.path.isdir(aside):
            shutil.rmtree(aside, ignore_errors=True)
"""


def _storm(world: World, target: Path, outside: Path, swaps: int) -> None:
    put(outside / "f", b"precious").chmod(0o600)
    put(outside / "e" / "f", b"precious")
    put(outside / "more", b"precious")
    for name in ("d/e/f", "d/e/h", "d/f", "g"):
        put(world.top / name, b"version" * 100).chmod(0o666)
    seq = world.record()
    before = picture(outside)
    swapper = subprocess.Popen([sys.executable, "-c", SWAP, target, outside, str(swaps)])
    problems = rounds = 0
    try:
        while swapper.poll() is None:
            rounds += 1
            problems += len(take(world, seq, target, MIRROR).problems)
    finally:
        swapper.kill()
        swapper.wait()

    assert picture(outside) == before
    print(f"{swaps} swaps, {rounds} restores, {problems} names that could not be made")
    assert problems > 0  # or nothing was ever swapped at the wrong moment


@pytest.mark.slow
def test_links_swapped_in_during_a_restore_lead_nowhere(
    world: World, target: Path, tmp_path: Path
) -> None:
    _storm(world, target, tmp_path / "outside", 2_000)


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_ten_thousand_links_swapped_in_during_restores_lead_nowhere(
    world: World, target: Path, tmp_path: Path
) -> None:
    _storm(world, target, tmp_path / "outside", 10_000)
