"""Restoring touches nothing but its target, leaves no half file, and gives no privilege unasked."""

import fcntl
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.errors import ExistsError
from dkfs.history import creation
from dkfs.history.wish import Overwrite, Wish
from dkfs.model.ids import NodeId, Seq
from dkfs.store import Reader
from tests.history.model_history import ModelHistory
from tests.history.restoring import (
    ALWAYS,
    MIRROR,
    Words,
    names_in,
    planned,
    put,
    take,
)
from tests.history.test_materialise import World, world
from tests.history.trees import ACL_ACCESS, picture
from tests.mounting import CHECKOUT, PATIENCE_S

__all__ = ["world"]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "target"
    made.mkdir()
    return made


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
        until = time.monotonic() + PATIENCE_S
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


def test_a_name_that_was_exchanged_meanwhile_gets_no_further_link(
    world: World, target: Path
) -> None:
    put(world.top / "a", b"version")
    os.link(world.top / "a", world.top / "b")
    seq = world.record()

    def meddle(*_: int) -> None:
        if (target / "a").exists() and not (target / "b").exists():
            (target / "a").rename(target.parent / "aside")
            (target / "a").write_bytes(b"theirs")

    result = take(world, seq, target, Wish(on_progress=meddle))

    assert result.problems == ("b: not made: changed by another process",)
    assert sorted(os.listdir(target)) == ["a"]


@pytest.mark.root
def test_what_is_mounted_in_the_target_is_not_deleted(world: World, target: Path) -> None:
    put(world.top / "f", b"1")
    seq = world.record()
    (target / "d" / "mnt").mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", target / "d" / "mnt"], check=False)
    if mounted.returncode:
        pytest.skip("needs to be allowed to mount")
    try:
        put(target / "d" / "mnt" / "precious", b"1")
        said = planned(world, seq, target, MIRROR)
        result = take(world, seq, target, MIRROR)
        assert (target / "d" / "mnt" / "precious").exists()
    finally:
        subprocess.run(["umount", target / "d" / "mnt"], check=True)

    assert result.problems == ("d/mnt: not removed: another file system is mounted there",)
    assert {path for action, path in said if action == "remove"} == set()


def test_a_special_file_that_was_exchanged_while_it_was_made_is_not_touched(
    history: ModelHistory, tmp_path: Path
) -> None:
    history.mknod(b"fifo")
    history.symlink(b"link", b"somewhere")
    os.mkfifo(tmp_path / "theirs")
    os.link(tmp_path / "theirs", tmp_path / "fifo")
    (tmp_path / "file").touch()

    for path, name in (("fifo", b"fifo"), ("file", b"fifo"), ("file", b"link")):
        with pytest.raises(PermissionError, match="changed by another process"):
            creation._check_made(os.fsencode(tmp_path / path), name, history.state(name))


@pytest.mark.parametrize("name", [b"..", b"../out"])
def test_a_name_in_the_history_that_leads_out_is_a_problem(
    world: World, target: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    put(world.top / "dir" / "file", b"theirs")
    put(world.top / "good", b"good")
    seq = world.record()
    children = Reader.children

    def hostile(reader: Reader, parent: NodeId, at: Seq) -> Iterator[tuple[bytes, NodeId]]:
        for found, node in children(reader, parent, at):
            yield name if found == b"dir" else found, node

    monkeypatch.setattr(Reader, "children", hostile)
    result = take(world, seq, target / "in", ALWAYS)

    assert ["not a name of a file" in problem for problem in result.problems] == [True]
    assert os.listdir(target) == ["in"]
    assert os.listdir(target / "in") == ["good"]
