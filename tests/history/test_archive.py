"""Archives: what GNU tar and unzip make of them is what the version was."""

import io
import os
import random
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from dkfs.core import codec
from dkfs.errors import NotFoundError
from dkfs.history.archive import Dumped, dump
from dkfs.history.tarball import TarFormat
from dkfs.history.ziparchive import ZipFormat
from dkfs.model.ids import ROOT, NodeId, Seq
from dkfs.model.operation import NOBODY, Operation, OpKind
from tests.history.model_history import ModelHistory
from tests.history.restoring import Words, put
from tests.history.test_materialise import World, damage, incompressible, world
from tests.history.trees import ACL_ACCESS, RandomTree, bind_socket, picture

__all__ = ["world"]


def tar_of(world: World, seq: Seq, path: bytes = b"") -> tuple[bytes, Dumped]:
    out = io.BytesIO()
    with world.store.read() as reader:
        result = dump(reader, seq, path, TarFormat(out.write))
    return out.getvalue(), result


def zip_of(world: World, seq: Seq, path: bytes = b"") -> tuple[zipfile.ZipFile, Dumped]:
    out = io.BytesIO()
    with world.store.read() as reader:
        result = dump(reader, seq, path, ZipFormat(out.write))
    return zipfile.ZipFile(out), result


def extract(data: bytes, target: Path) -> None:
    """Let GNU tar take *data* apart."""
    target.mkdir(exist_ok=True)
    subprocess.run(
        ["tar", "xpf", "-", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", target],
        input=data,
        check=True,
    )


def by_name(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        return {each.name: each for each in file}


@pytest.mark.root
def test_gnu_tar_makes_of_it_exactly_what_was_there(world: World, tmp_path: Path) -> None:
    top = world.top
    (top / "empty").mkdir()
    (top / "empty").chmod(0o1777)
    put(top / "suid", b"#!")
    os.chown(top / "suid", 70_000, 3_000_000)
    (top / "suid").chmod(0o6755)
    os.setxattr(top / "suid", "user.one", b"1\n=\0\xff")
    os.setxattr(top / "suid", "user.a%b", b"")
    put(top / "acl", b"")
    os.setxattr(top / "acl", "system.posix_acl_access", ACL_ACCESS)
    os.setxattr(top / "empty", "system.posix_acl_default", ACL_ACCESS)
    (top / "link").symlink_to("/nowhere/" + "n" * 300)
    os.link(top / "suid", top / "same")
    os.mkfifo(top / "fifo")
    os.mknod(top / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    put(top / os.fsdecode(b"\xff" * 255), b"")
    put(top / ("d" * 200) / ("e" * 200), b"long")
    os.link(top / "suid", top / ("d" * 200) / "third")
    for name in os.listdir(top):
        os.utime(top / name, ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)
    os.utime(top / "fifo", ns=(0, -1_500_000_000))
    seq = world.record()

    data, result = tar_of(world, seq)
    extract(data, tmp_path / "target")

    assert (result.problems, result.left_out) == ((), ())
    assert picture(tmp_path / "target") == world.picture()


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize("seed", range(20))
def test_random_trees_go_through_a_tar_unchanged(world: World, tmp_path: Path, seed: int) -> None:
    RandomTree(world.top, random.Random(seed)).change(100)
    seq = world.record()
    wanted = {
        path: found for path, found in world.picture().items() if not stat.S_ISSOCK(found.mode)
    }

    extract(tar_of(world, seq)[0], tmp_path / "target")

    assert picture(tmp_path / "target") == wanted


def sparse(path: Path, size: int, *data: tuple[int, bytes]) -> None:
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, each in data:
            file.seek(offset)
            file.write(each)


def test_holes_stay_holes(world: World, tmp_path: Path) -> None:
    chunk = random.Random(1).randbytes(65_536)
    mib = 1 << 20
    sparse(world.top / "middle", 9 * mib, (0, chunk), (4 * mib, chunk), (9 * mib - 5, b"12345"))
    sparse(world.top / "end", 8 * mib, (mib, chunk))
    sparse(world.top / "all", 5 * mib)
    sparse(world.top / ("s" * 180), 5 * mib, (0, b"x"))
    seq = world.record()

    data, _ = tar_of(world, seq)
    extract(data, tmp_path / "target")

    assert len(data) < 2 * mib  # zeros next to data may be in its chunk
    for name in os.listdir(world.top):
        assert (tmp_path / "target" / name).read_bytes() == (world.top / name).read_bytes()
        assert (tmp_path / "target" / name).stat().st_blocks * 512 < mib
    assert {n: i.size for n, i in by_name(data).items() if n == "all"} == {"all": 5 * mib}


def test_holes_within_a_chunk_are_holes_in_a_tar_too(world: World, tmp_path: Path) -> None:
    block = incompressible(4096)
    put(world.top / "one", block + bytes(8192) + block + bytes(4096))
    put(world.top / "small", bytes(100))
    seq = world.record()
    data, _ = tar_of(world, seq)
    extract(data, tmp_path / "out")

    assert (tmp_path / "out" / "one").read_bytes() == (world.top / "one").read_bytes()
    assert (tmp_path / "out" / "small").read_bytes() == bytes(100)
    assert (tmp_path / "out" / "one").stat().st_blocks * 512 == 8192
    assert b"3\n0\n4096\n12288\n4096\n20480\n0\n" in data  # the map of the data


def test_a_part_is_named_from_there_and_a_file_by_its_name(world: World) -> None:
    put(world.top / "a" / "b" / "c", b"1")
    put(world.top / "a" / "z", b"1")
    seq = world.record()

    assert set(by_name(tar_of(world, seq, b"a")[0])) == {".", "b", "b/c", "z"}
    assert set(by_name(tar_of(world, seq, b"a/b/c")[0])) == {"c"}
    assert zip_of(world, seq, b"a")[0].namelist() == ["b/", "b/c", "z"]
    with pytest.raises(NotFoundError):
        tar_of(world, seq, b"nothing")


def test_of_a_part_that_holds_one_of_two_links_the_file_itself_is_there(world: World) -> None:
    put(world.top / "a" / "f", b"12")
    (world.top / "b").mkdir()
    os.link(world.top / "a" / "f", world.top / "b" / "f")
    os.link(world.top / "a" / "f", world.top / "b" / "g")
    seq = world.record()

    alone, found = (by_name(tar_of(world, seq, part)[0]) for part in (b"a", b"b"))
    for each in (alone, found):
        assert each["f"].isreg()
        assert each["f"].size == 2
    assert found["g"].islnk()
    assert found["g"].linkname == "f"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_every_link_leads_to_what_came_before(world: World, seed: int) -> None:
    rng = random.Random(seed)
    names: list[Path] = []
    for number in range(60):
        path = world.top / f"d{rng.randrange(4)}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        if names and rng.random() < 0.6:
            os.link(rng.choice(names), path)
        else:
            put(path, b"%d" % number)
        names.append(path)
        if rng.random() < 0.3:
            world.record()
            gone = names.pop(rng.randrange(len(names)))
            gone.unlink()
    seq = world.record()
    wanted: dict[int, set[str]] = {}
    for name in names:
        wanted.setdefault(name.stat().st_ino, set()).add(str(name.relative_to(world.top)))

    seen: set[str] = set()
    groups: dict[str, set[str]] = {}
    with tarfile.open(fileobj=io.BytesIO(tar_of(world, seq)[0])) as file:
        for each in file:
            if each.isreg():
                groups[each.name] = {each.name}
            elif each.islnk():
                assert each.linkname in seen
                groups[each.linkname].add(each.name)
            seen.add(each.name)
    assert sorted(map(sorted, groups.values())) == sorted(map(sorted, wanted.values()))


def test_sockets_are_left_out_of_a_tar_and_said(world: World) -> None:
    bind_socket(world.top / "socket")
    seq = world.record()

    data, result = tar_of(world, seq)

    assert set(by_name(data)) == {"."}
    assert result.left_out == ("socket: a socket",)


@pytest.mark.parametrize("size", [1000, 20 << 20])
def test_what_is_damaged_is_left_out_and_named_with_its_version(world: World, size: int) -> None:
    data = incompressible(1000)
    put(world.top / "bad", data)
    os.truncate(world.top / "bad", size)
    put(world.top / "good", b"1")
    seq = world.record()
    damage(world, data)

    found, result = tar_of(world, seq)
    zipped, zip_result = zip_of(world, seq)

    assert set(by_name(found)) == {".", "good"}
    assert zipped.namelist() == ["good"]
    for each in (result, zip_result):
        assert each.damaged == 1
        assert each.problems[0].startswith(f"bad at version {seq}: left out: blob ")
    damage(world, bytes((data[0] ^ 1,)) + data[1:])  # as it was


def test_names_of_a_hostile_store_are_in_no_archive(history: ModelHistory) -> None:
    seq = Seq(history.last + 1)
    root = history.state(b"")
    with history.store.write() as writer:
        names = [
            (ROOT, b"..", NodeId(50)),
            (NodeId(50), b"x", NodeId(51)),
            (NodeId(51), b"y", ROOT),
        ]
        names += [(ROOT, b"loop", NodeId(52)), (NodeId(52), b"again", NodeId(52))]
        operation = Operation(OpKind.FOUND, history.time_ns(seq), NOBODY)
        writer.append(seq, operation, [(NodeId(n), root) for n in (50, 51, 52)], names)
    out = io.BytesIO()
    with history.store.read() as reader:
        result = dump(reader, seq, b"", TarFormat(out.write))

    assert set(by_name(out.getvalue())) == {".", "loop"}
    assert len(result.problems) == 2


@pytest.mark.root
def test_unzip_makes_of_a_zip_what_it_can_hold_and_the_rest_is_said(
    world: World, tmp_path: Path
) -> None:
    put(world.top / "d" / "f", b"1" * 100_000, 1_234_567_890_000_000_000).chmod(0o640)
    os.link(world.top / "d" / "f", world.top / "same")
    os.setxattr(world.top / "same", "user.one", b"1")
    (world.top / "link").symlink_to("d/f")
    (world.top / "empty").mkdir()
    os.mkfifo(world.top / "fifo")
    put(world.top / "\N{EURO SIGN}", b"2")
    put(world.top / os.fsdecode(b"\xff"), b"3")
    os.chown(world.top / "d" / "f", 1234, 5678)
    seq = world.record()
    archive, result = zip_of(world, seq)
    with archive, open(tmp_path / "z.zip", "wb") as file:
        assert archive.fp is not None
        archive.fp.seek(0)
        file.write(archive.fp.read())
    target = tmp_path / "target"
    subprocess.run(
        ["unzip", "-qXK", tmp_path / "z.zip", "-d", target],
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )

    assert result.left_out == (
        "fifo: a fifo",
        "extended attributes and ACLs of 2 entries",
        "hard links: 1 files are in the archive once more",
    )
    assert [each.split(" at ")[0] for each in result.problems] == ["\\xff"]
    assert result.damaged == 0
    status = (target / "d" / "f").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 1234, 5678)
    assert status.st_mtime == 1_234_567_890
    assert (target / "same").read_bytes() == b"1" * 100_000
    assert os.readlink(target / "link") == "d/f"
    assert (target / "empty").is_dir()
    assert (target / "\N{EURO SIGN}").read_bytes() == b"2"


def test_times_that_a_zip_cannot_hold_are_the_nearest(world: World) -> None:
    put(world.top / "old", b"", -5_000_000_000)
    put(world.top / "late", b"", 5_000_000_000_000_000_000)
    seq = world.record()

    found = {each.filename: each.date_time for each in zip_of(world, seq)[0].infolist()}

    assert found == {"old": (1980, 1, 1, 0, 0, 0), "late": (2107, 12, 31, 23, 59, 58)}


@pytest.mark.slow
def test_a_large_version_takes_little_memory(world: World) -> None:
    rng = random.Random(3)
    with open(world.top / "large", "wb") as file:
        file.writelines(rng.randbytes(1 << 20) for _ in range(100))
    seq = world.record()
    script = (
        "import re, sys; from dkfs.cli.main import main; status = main(sys.argv[1:]);"
        # ru_maxrss would be at least that of the process that started this one.
        "peak = re.search(r'VmHWM:\\s+([0-9]+)', open('/proc/self/status').read())[1];"
        "print(status, peak, file=sys.stderr)"
    )
    words: Words = ["--store", world.store.path, "dump", str(seq), "--archive"]

    for form in ("tar", "zip"):
        done = subprocess.run(
            [sys.executable, "-c", script, *words, form],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )
        status, peak_kib = map(int, done.stderr.split())
        assert status == 0
        assert peak_kib < 120 * 1024


def test_attributes_that_are_damaged_leave_a_directory_in_the_archive(
    world: World,
) -> None:
    (world.top / "d").mkdir()
    value = incompressible(60)
    os.setxattr(world.top / "d", "user.one", value)
    put(world.top / "d" / "f", b"1")
    seq = world.record()
    record = codec.encode_xattrs({b"user.one": value})
    damage(world, record)

    data, result = tar_of(world, seq)

    assert set(by_name(data)) == {".", "d", "d/f"}
    assert result.damaged == 1
    damage(world, bytes((record[0] ^ 1,)) + record[1:])  # as it was
