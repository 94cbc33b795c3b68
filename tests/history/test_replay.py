import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dkfs.errors import DkfsError, UsageError
from dkfs.history.materialise import STAGING_NAME, apply
from dkfs.history.replay import Prefer, ReplayResult, reconcile
from dkfs.history.tree import Tree
from dkfs.model.ids import Seq
from dkfs.model.operation import OpKind
from dkfs.store import Store
from dkfs.store.check import check
from tests.history.trees import RandomTree, picture


class Mounts:
    """A store, and directories that are mounted with it one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.top = path / "state"
        self.top.mkdir()
        Store.create(path / "store")
        self.store = Store.open(path / "store", writable=True)
        self.identity = b"first"
        self._now = 0

    def lose(self) -> None:
        """Lose the directory; another one takes its place."""
        shutil.rmtree(self.top)
        self.top.mkdir()
        self.identity += b"+"

    def reconcile(self, prefer: Prefer = "newer", *, allow_reserved: bool = False) -> ReplayResult:
        fd = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return reconcile(
                self.store,
                fd,
                prefer=prefer,
                clock_ns=self._clock_ns,
                identity=self.identity,
                allow_reserved=allow_reserved,
            )
        finally:
            os.close(fd)

    def _clock_ns(self) -> int:
        self._now += 1
        return self._now

    def set_clean(self) -> None:
        with self.store.write() as writer:
            writer.set_clean(True)

    def paths(self, at: Seq) -> set[bytes]:
        """Return every path that version *at* has, but the root."""
        with self.store.read() as reader:
            return {path for path, _, _ in Tree(reader, at).walk() if path}

    def kinds(self) -> list[OpKind]:
        with self.store.read() as reader:
            return [each.operation.kind for each in reader.log(Seq(1), reader.last)]


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    made = Mounts(tmp_path)
    yield made
    assert list(check(made.store, read_data=True)) == []
    made.store.close()


def _age(path: Path, by_s: int) -> None:
    status = path.stat()
    os.utime(path, ns=(0, status.st_mtime_ns - by_s * 10**9))


# ---- the first time


def test_an_import_is_one_version(mounts: Mounts) -> None:
    (mounts.top / "dir").mkdir()
    (mounts.top / "dir" / "a").write_bytes(b"1")

    result = mounts.reconcile()

    assert (result.seq, result.found, result.recorded) == (1, 1, 3)
    assert mounts.kinds() == [OpKind.FOUND]
    assert mounts.paths(Seq(1)) == {b"dir", b"dir/a"}


def test_an_empty_directory_makes_version_1_with_the_root(mounts: Mounts) -> None:
    assert mounts.reconcile().seq == 1
    assert mounts.reconcile().seq == 1
    assert mounts.paths(Seq(1)) == set()


# ---- an empty directory


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize("seed", range(20))
def test_a_lost_directory_comes_back_exactly(mounts: Mounts, seed: int) -> None:
    RandomTree(mounts.top, random.Random(seed)).change(30)
    mounts.reconcile()
    before = picture(mounts.top)
    mounts.lose()

    result = mounts.reconcile()

    assert result.problems == ()
    assert picture(mounts.top) == before
    assert result.seq == 1
    assert mounts.reconcile().found == 0


# ---- the directory of the last mount


def test_what_was_deleted_in_the_same_directory_is_recorded_as_deleted(mounts: Mounts) -> None:
    (mounts.top / "dir").mkdir()
    (mounts.top / "dir" / "a").write_bytes(b"1")
    (mounts.top / "b").write_bytes(b"1")
    mounts.reconcile()
    shutil.rmtree(mounts.top / "dir")

    result = mounts.reconcile()

    assert result.seq == result.found == 2
    assert mounts.paths(Seq(2)) == {b"b"}
    assert os.listdir(mounts.top) == ["b"]


def test_what_changed_in_the_same_directory_is_recorded(mounts: Mounts) -> None:
    (mounts.top / "a").write_bytes(b"1")
    mounts.reconcile()
    (mounts.top / "a").write_bytes(b"after the crash")
    (mounts.top / "new").write_bytes(b"2")

    assert mounts.reconcile().seq == 2

    mounts.lose()
    mounts.reconcile()
    assert (mounts.top / "a").read_bytes() == b"after the crash"
    assert (mounts.top / "new").read_bytes() == b"2"


def test_a_file_unpacked_with_its_old_time_is_not_gone_back_on(mounts: Mounts) -> None:
    (mounts.top / "a").write_bytes(b"1")
    mounts.reconcile()
    (mounts.top / "a").write_bytes(b"from an archive")
    _age(mounts.top / "a", 3600)

    assert mounts.reconcile().found == 2
    assert (mounts.top / "a").read_bytes() == b"from an archive"


def test_contents_that_changed_unseen_are_recorded_after_a_crash(mounts: Mounts) -> None:
    (mounts.top / "a").write_bytes(b"one")
    mounts.reconcile()
    status = (mounts.top / "a").stat()
    (mounts.top / "a").write_bytes(b"two")
    os.utime(mounts.top / "a", ns=(0, status.st_mtime_ns))

    assert mounts.reconcile().found == 2


def test_nothing_to_do_makes_no_version(mounts: Mounts) -> None:
    (mounts.top / "a").write_bytes(b"one")
    mounts.reconcile()
    mounts.set_clean()

    result = mounts.reconcile()

    assert result == ReplayResult(seq=Seq(1))


# ---- another directory with something in it


def test_in_another_directory_what_is_missing_comes_back(mounts: Mounts) -> None:
    (mounts.top / "dir").mkdir()
    (mounts.top / "dir" / "a").write_bytes(b"1")
    os.link(mounts.top / "dir" / "a", mounts.top / "link")
    mounts.reconcile()
    mounts.lose()
    (mounts.top / "mine").write_bytes(b"2")

    result = mounts.reconcile()

    assert result.problems == ()
    assert result.found == 2
    assert mounts.paths(Seq(2)) == {b"dir", b"dir/a", b"link", b"mine"}
    assert (mounts.top / "dir" / "a").stat().st_ino == (mounts.top / "link").stat().st_ino
    assert mounts.reconcile().found == 0


def test_in_another_directory_the_newer_file_wins(mounts: Mounts) -> None:
    for name in ("older", "newer"):
        (mounts.top / name).write_bytes(b"history")
    mounts.reconcile()
    mounts.lose()
    for name in ("older", "newer"):
        (mounts.top / name).write_bytes(b"directory")
    _age(mounts.top / "older", 3600)

    mounts.reconcile()

    assert (mounts.top / "older").read_bytes() == b"history"
    assert (mounts.top / "newer").read_bytes() == b"directory"
    assert mounts.reconcile().found == 0


def test_in_another_directory_attributes_of_an_equal_file_come_back(mounts: Mounts) -> None:
    (mounts.top / "a").write_bytes(b"1")
    (mounts.top / "a").chmod(0o640)
    os.setxattr(mounts.top / "a", "user.a", b"1")
    mounts.reconcile()
    mtime_ns = (mounts.top / "a").stat().st_mtime_ns
    mounts.lose()
    (mounts.top / "a").write_bytes(b"1")
    os.utime(mounts.top / "a", ns=(0, mtime_ns))

    mounts.reconcile()

    assert (mounts.top / "a").stat().st_mode & 0o7777 == 0o640
    assert os.getxattr(mounts.top / "a", "user.a") == b"1"


# ---- prefer


def test_prefer_store_records_what_was_found_and_goes_back(mounts: Mounts) -> None:
    (mounts.top / "a").write_bytes(b"history")
    (mounts.top / "gone").write_bytes(b"")
    mounts.reconcile()
    before = picture(mounts.top)
    (mounts.top / "a").write_bytes(b"directory")
    (mounts.top / "new").write_bytes(b"")
    (mounts.top / "gone").unlink()

    result = mounts.reconcile("store")

    assert picture(mounts.top) == before
    assert (result.found, result.rolled_back, result.seq) == (2, 3, 3)
    assert mounts.paths(Seq(2)) == {b"a", b"new"}
    assert mounts.paths(Seq(3)) == {b"a", b"gone"}
    assert mounts.kinds() == [OpKind.FOUND, OpKind.FOUND, OpKind.ROLLBACK]
    assert mounts.reconcile("store").seq == 3


def test_prefer_dir_takes_the_directory_even_if_it_is_empty(mounts: Mounts) -> None:
    (mounts.top / "a").write_bytes(b"history")
    mounts.reconcile()
    mounts.lose()

    result = mounts.reconcile("dir")

    assert os.listdir(mounts.top) == []
    assert mounts.paths(result.seq) == set()


# ---- killed


class KilledError(DkfsError):
    """Where a real process would have ended."""


@pytest.mark.slow
def test_a_replay_that_is_killed_is_taken_up(
    mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        (mounts.top / f"f{number}").write_bytes(b"data" * 1000)
    mounts.reconcile()
    before = picture(mounts.top)
    for calls in range(1, 60, 4):
        mounts.lose()
        with monkeypatch.context() as patch:
            for name in ("utime", "pwrite", "chmod"):
                patch.setattr(os, name, _killing(getattr(os, name), calls))
            with suppress(KilledError):
                mounts.reconcile()
        if calls == 5:
            _write_half(mounts.top / "f11")

        mounts.reconcile()

        assert picture(mounts.top) == before
        with mounts.store.read() as reader:
            assert reader.last == 1


def _killing(call: Callable[..., object], count: int) -> Callable[..., object]:
    left = [count]

    def killing(*args: object, **kwargs: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KilledError("now")
        return call(*args, **kwargs)

    return killing


def _write_half(path: Path) -> None:
    path.write_bytes(b"da")


def test_prefer_store_goes_on_to_the_same_version_after_being_killed(
    mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mounts.top / "a").write_bytes(b"history")
    mounts.reconcile()
    before = picture(mounts.top)
    (mounts.top / "a").write_bytes(b"directory")
    with monkeypatch.context() as patch:
        patch.setattr("dkfs.history.replay.apply", _killing(apply, 0))
        with pytest.raises(KilledError):
            mounts.reconcile("store")

    mounts.reconcile("store")

    assert picture(mounts.top) == before


def test_what_a_killed_rollback_left_aside_is_recorded_and_removed(mounts: Mounts) -> None:
    (mounts.top / "a").write_bytes(b"1")
    (mounts.top / "dir").mkdir()
    (mounts.top / "dir" / "b").write_bytes(b"2")
    mounts.reconcile()
    staging = mounts.top / os.fsdecode(STAGING_NAME)
    staging.mkdir()
    (mounts.top / "dir").rename(staging / "m3")

    result = mounts.reconcile()

    assert not staging.exists()
    assert b".dkfs-rollback/m3/b" in mounts.paths(Seq(2))
    assert mounts.paths(result.seq) == {b"a"}
    assert os.listdir(mounts.top) == ["a"]


# ---- refused


def test_a_file_of_the_reserved_name_is_refused(mounts: Mounts) -> None:
    (mounts.top / ".dkfs").mkdir()
    with pytest.raises(UsageError, match=r"a file named \.dkfs in its root: expected none"):
        mounts.reconcile()

    assert mounts.reconcile(allow_reserved=True).seq == 1


def test_progress_is_told(mounts: Mounts) -> None:
    (mounts.top / "a").write_bytes(b"1234")
    mounts.reconcile()
    mounts.lose()
    told: list[tuple[int, int, int]] = []
    fd = os.open(mounts.top, os.O_RDONLY)
    reconcile(
        mounts.store,
        fd,
        prefer="newer",
        clock_ns=lambda: 1,
        identity=b"other",
        on_progress=lambda *numbers: told.append(numbers),
    )
    os.close(fd)

    assert told == [(1, 1, 4)]
