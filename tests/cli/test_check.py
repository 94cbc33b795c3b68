"""dkfs check: what it says, and what it repairs."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.cli import check as command
from dkfs.history import content
from dkfs.model.ids import ROOT, Seq
from dkfs.store import Store
from dkfs.store.lock import StoreLock
from dkfs.store.segments import RECORD
from tests.cli.conftest import Dkfs
from tests.containment import make, truth


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Make a store of some 50 versions in three segments."""
    make(tmp_path / "store", 5)
    return tmp_path / "store"


def damage(place: Path, content: bytes | None = None) -> str:
    """Flip a bit in what is stored of *content*, or of some blob; return its id."""
    with Store.open(place, writable=False) as store, store.read() as reader:
        blobs = sorted(key for key, _ in reader.rows("blobs"))
        blob = store.hash(content) if content is not None else blobs[7]
        at = reader.location(blob)  # type: ignore[arg-type]  # keys of that table are ids
    assert at is not None
    path = place / "segments" / f"{at.segment:08d}.seg"
    data = bytearray(path.read_bytes())
    data[at.offset + RECORD.size + at.stored_length // 2] ^= 0x10
    path.write_bytes(data)
    return blob.hex()


def files(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != "index.lmdb-lock"
    }


# ---- looking


def test_a_sound_store_is_said_to_be_sound(dkfs: Dkfs, place: Path) -> None:
    structure = dkfs("check", "--store", place)
    data = dkfs("check", "--read-data", "--store", place)

    assert (structure.status, data.status) == (0, 0)
    assert structure.out.startswith("51 versions, ")
    assert structure.out.endswith("in 3 segments: no damage\n")
    assert data.out.endswith("read: no damage\n")


def test_damage_is_named_by_blob_path_and_versions(dkfs: Dkfs, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "etc").mkdir(parents=True)
    (state / "etc" / "app.conf").write_text("port=1\n" * 20)
    (state / "other").write_text("other")
    assert dkfs("replay", "--state-dir", state, "--store", tmp_path / "s").status == 0
    blob = damage(tmp_path / "s", b"port=1\n" * 20)

    plain = dkfs("check", "--read-data", "--store", tmp_path / "s")
    told = dkfs("check", "--read-data", "--json", "--store", tmp_path / "s")

    assert (plain.status, told.status) == (5, 5)
    assert plain.lines[0].startswith(f"damaged: blob {blob} in segment 1 at ")
    assert plain.lines[1] == f"affected: etc/app.conf, version 1 (blob {blob[:16]})"
    assert plain.lines[2].endswith("read: 1 damage; 1 path affected")
    first, second, summary = told.messages
    assert (first["message_type"], first["kind"], first["blob"]) == ("damage", "blob", blob)
    assert (second["path"], second["first"], second["last"]) == ("etc/app.conf", 1, 1)
    assert (summary["damages"], summary["affected_paths"]) == (1, 1)


def test_data_is_read_only_when_asked_for(dkfs: Dkfs, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "f").write_bytes(b"data" * 50)
    dkfs("replay", "--state-dir", tmp_path / "state", "--store", tmp_path / "s")
    damage(tmp_path / "s", b"data" * 50)

    assert dkfs("check", "--store", tmp_path / "s").status == 0
    assert dkfs("check", "--read-data", "--store", tmp_path / "s").status == 5


@pytest.mark.parametrize("name", ["missing", "junk", "cut", "page"])
def test_an_index_that_cannot_be_used_is_damage(dkfs: Dkfs, place: Path, name: str) -> None:
    index = place / "index.lmdb"
    if name == "missing":
        index.unlink()
    elif name == "junk":
        index.write_bytes(b"junk" * 5000)
    elif name == "cut":
        os.truncate(index, 9000)
    else:
        data = bytearray(index.read_bytes())
        for page in range(2, len(data) // 4096):
            data[page * 4096 : page * 4096 + 16] = bytes(16)
        index.write_bytes(data)

    result = dkfs("check", "--store", place)

    assert result.status == 5
    assert "index" in result.lines[0]
    assert result.lines[-1].startswith("the index cannot be used: `dkfs check --repair`")


def test_what_is_no_store_is_store_trouble(dkfs: Dkfs, tmp_path: Path) -> None:
    assert dkfs("check", "--store", tmp_path).status == 4
    assert dkfs("check", "--repair", "--store", tmp_path).status == 4
    assert dkfs("check", "--store", tmp_path / "none").status == 4


# ---- parts of the data


def test_the_shares_of_a_subset_are_everything_together_and_always_the_same(
    dkfs: Dkfs, place: Path
) -> None:
    def share(text: str) -> int:
        result = dkfs("check", "--read-data-subset", text, "--json", "--store", place)
        count = result.messages[-1]["read_blobs"]
        assert isinstance(count, int)
        return count

    whole = dkfs("check", "--read-data", "--json", "--store", place).messages[-1]["read_blobs"]
    counts = [share(f"{number}/4") for number in range(1, 5)]

    assert sum(counts) == whole
    assert counts == [share(f"{number}/4") for number in range(1, 5)]
    assert min(counts) > 0


def test_a_damage_is_in_exactly_one_share(dkfs: Dkfs, place: Path) -> None:
    damage(place)

    statuses = [
        dkfs("check", "--read-data-subset", f"{number}/7", "--store", place).status
        for number in range(1, 8)
    ]

    assert 5 in statuses
    assert 0 in statuses


@pytest.mark.parametrize("part", ["100%", "1G", "1/1"])
def test_a_part_may_be_all(dkfs: Dkfs, place: Path, part: str) -> None:
    damage(place)

    assert dkfs("check", "--read-data-subset", part, "--store", place).status == 5


def test_a_random_part_is_about_as_large_as_was_asked_for(
    dkfs: Dkfs, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Seeded(random.Random):
        def __init__(self) -> None:
            super().__init__(7)

    monkeypatch.setattr("dkfs.cli.check.random.Random", Seeded)

    summary = dkfs("check", "--read-data-subset", "20K", "--json", "--store", place).messages[-1]

    assert isinstance(summary["read_bytes"], int)
    assert 10_000 < summary["read_bytes"] < 30_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--read-data-subset", "0%"], "more than 0%"),
        (["--read-data-subset", "101%"], "at most 100%"),
        (["--read-data-subset", "3/2"], "n from 1 to t"),
        (["--read-data-subset", "0/2"], "n from 1 to t"),
        (["--read-data-subset", "much"], "a part such as 5%"),
        (["--read-data-subset", "0"], "a part such as 5%"),
        (["--read-data", "--read-data-subset", "5%"], "not allowed with"),
        (["--max-duration", "soon"], "expected a time"),
        (["--from", "x"], "go with --repair"),
        (["-n"], "go with --repair"),
        (["--repair", "--max-duration", "1s"], "not stopped in the middle"),
        (["--repair", "--state-dir", "/no/such"], "No such file"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    dkfs: Dkfs, place: Path, words: list[str], message: str
) -> None:
    result = dkfs("check", *words, "--store", place)

    assert result.status == 2
    assert message in result.err


class Blobs:
    """Lets so many blobs be read, and then no more: a clock that a test can trust."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self, passed: int) -> bool:
        self.left -= passed > 0
        return self.left > 0


def test_a_check_that_was_stopped_goes_on_where_it_was(
    dkfs: Dkfs, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dkfs("check", "--read-data", "--json", "--store", place).messages[-1]["read_blobs"]
    assert isinstance(whole, int)
    read = []
    for _ in range(4):
        monkeypatch.setattr(command, "_deadline", lambda _: Blobs(30))
        result = dkfs("check", "--read-data", "--max-duration", "1s", "--json", "--store", place)
        assert result.status == 0
        read.append(result.messages[-1]["read_blobs"])

    assert read == [30, 30, whole - 60, 30]


def test_a_check_that_was_stopped_says_so(
    dkfs: Dkfs, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_deadline", lambda _: Blobs(30))

    first = dkfs("check", "--read-data", "--max-duration", "1s", "--store", place)
    second = dkfs("check", "--read-data", "--max-duration", "1s", "--store", place)

    assert "the next check goes on there" in first.err
    assert "KiB read, then stopped: no damage so far" in first.out
    assert "then stopped" not in second.out or second.err
    assert second.lines[0].startswith("going on at segment ")


def test_a_check_without_time_looks_at_little(dkfs: Dkfs, place: Path) -> None:
    result = dkfs("check", "--read-data", "--max-duration", "0.000001", "--store", place)

    assert result.status == 0
    assert "stopped before everything but the data was looked at" in result.err
    assert "then stopped: no damage so far" in result.out


# ---- who may


@pytest.fixture
def readable(place: Path, open_dir: Path) -> Iterator[Path]:
    """Make a copy that everybody may read, and nobody write."""
    copy = open_dir / "copy"
    shutil.copytree(place, copy)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield copy
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o755)


@pytest.mark.root
@pytest.mark.parametrize("lock_file", ["there", "missing"])
def test_a_user_who_may_only_read_can_check(readable: Path, lock_file: str) -> None:
    if lock_file == "missing":
        (readable / "index.lmdb-lock").unlink()
    before = files(readable)

    run = subprocess.run(
        [sys.executable, "-m", "dkfs", "check", "--read-data", "--store", readable],
        user=65534,
        group=65534,
        extra_groups=(),
        cwd="/",
        env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.endswith("no damage\n")
    assert files(readable) == before


def test_a_check_changes_nothing(dkfs: Dkfs, place: Path) -> None:
    damage(place)
    before = files(place)

    dkfs("check", "--read-data", "--store", place)
    dkfs("check", "--repair", "--read-data", "-n", "--store", place)

    assert files(place) == before


def test_a_check_works_while_somebody_writes_and_a_repair_does_not(dkfs: Dkfs, place: Path) -> None:
    with StoreLock(place):
        assert dkfs("check", "--read-data", "--store", place).status == 0
        refused = dkfs("check", "--repair", "--store", place)

    assert refused.status == 4
    assert f"is in use by process {os.getpid()}: unmount before a repair" in refused.err


# ---- repairing


def test_a_repair_takes_chunks_and_attributes_from_the_state_directory(
    dkfs: Dkfs, tmp_path: Path
) -> None:
    state, store = tmp_path / "state", tmp_path / "s"
    (state / "d").mkdir(parents=True)
    large = random.Random(1).randbytes(300_000)
    (state / "d" / "large").write_bytes(large)
    (state / "small").write_bytes(b"small" * 50)
    assert dkfs("replay", "--state-dir", state, "--store", store).status == 0
    # Everything but the manifest, which is not among the files.
    damaged = {damage(store, b"small" * 50)}
    with Store.open(store, writable=False) as opened, opened.read() as reader:
        state_of = reader.node(
            reader.child(reader.child(ROOT, b"d", Seq(1)), b"large", Seq(1)), Seq(1)
        )
        assert state_of is not None
        chunks = [chunk for _, chunk in content.pieces(reader, state_of)]
        damaged |= {damage(store, reader.blob(chunk.blob)) for chunk in chunks[1:3] if chunk.blob}

    dry = dkfs("check", "--repair", "--read-data", "--state-dir", state, "-n", "--store", store)
    done = dkfs("check", "--repair", "--read-data", "--state-dir", state, "--store", store)

    assert (dry.status, dry.lines[-1].endswith("3 damages; 2 paths affected")) == (5, True)
    assert len(damaged) == 3
    for blob in damaged:
        assert f"to repair: blob {blob}: from the files in {state}" in dry.lines
        assert f"repaired: blob {blob}: from the files in {state}" in done.lines
    assert done.status == 0
    assert done.lines[-1].endswith("no damage")


@pytest.mark.parametrize("size", [300_000, 20_000_000])  # with one level of nodes, and with two
def test_a_manifest_is_made_again_from_the_file(dkfs: Dkfs, tmp_path: Path, size: int) -> None:
    state, store = tmp_path / "state", tmp_path / "s"
    state.mkdir()
    (state / "large").write_bytes(random.Random(2).randbytes(size))
    assert dkfs("replay", "--state-dir", state, "--store", store).status == 0
    (segment,) = (store / "segments").iterdir()
    segment.unlink()

    done = dkfs("check", "--repair", "--read-data", "--state-dir", state, "--store", store)

    assert (done.status, done.lines[-1].endswith("no damage")) == (0, True)
    words = ("restore", "latest", "--target", tmp_path / "back", "--store", store)
    assert dkfs(*words).status == 0
    assert (tmp_path / "back" / "large").read_bytes() == (state / "large").read_bytes()


def test_a_file_that_was_changed_since_does_not_help(dkfs: Dkfs, tmp_path: Path) -> None:
    state, store = tmp_path / "state", tmp_path / "s"
    state.mkdir()
    (state / "f").write_bytes(b"before" * 50)
    assert dkfs("replay", "--state-dir", state, "--store", store).status == 0
    blob = damage(store, b"before" * 50)
    (state / "f").write_bytes(b"after!" * 50)

    result = dkfs("check", "--repair", "--read-data", "--state-dir", state, "--store", store)

    assert result.status == 5
    assert f"not repaired: blob {blob}: lost: nobody has it" in result.lines
    assert result.lines[-1].endswith("1 damage, 1 of them known to be lost; 1 path affected")


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_lost_index_is_rebuilt_with_every_version(
    dkfs: Dkfs,
    place: Path,
    dry_run: bool,  # noqa: FBT001
) -> None:
    right = truth(place)
    (place / "index.lmdb").unlink()
    before = files(place)

    result = dkfs("check", "--repair", *(["-n"] if dry_run else []), "--store", place)

    if dry_run:
        assert result.status == 0
        assert result.lines[1].startswith(
            "to repair: index: rebuilt from the segments: 51 versions"
        )
        assert files(place) == before
    else:
        assert result.status == 0
        assert result.lines[1].startswith("repaired: index: rebuilt from the segments: 51 versions")
        assert truth(place) == right
