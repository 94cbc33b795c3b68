"""The room that is kept for a disk that is full."""

import errno
from pathlib import Path

import pytest

from dkfs import failpoints
from dkfs.errors import StoreError
from dkfs.store.reserve import RESERVE_NAME, Reserve


class FullOnce:
    """A piece of work that finds the disk full the first time."""

    def __init__(self, number: int = errno.ENOSPC) -> None:
        self.calls = 0
        self._errno = number

    def __call__(self) -> str:
        self.calls += 1
        if self.calls == 1:
            error = StoreError("no")
            error.errno = self._errno
            raise error
        return "done"


def test_the_room_is_really_taken(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 1 << 20)

    assert reserve.take()

    assert (tmp_path / RESERVE_NAME).stat().st_blocks * 512 >= 1 << 20
    assert (tmp_path / RESERVE_NAME).stat().st_mode & 0o777 == 0o600
    assert reserve.held >= 1 << 20


def test_no_room_is_kept_if_none_is_wanted(tmp_path: Path) -> None:
    assert Reserve(tmp_path, 4096).take()

    assert Reserve(tmp_path, 0).take()

    assert not (tmp_path / RESERVE_NAME).exists()


def test_the_room_changes_with_what_is_wanted(tmp_path: Path) -> None:
    Reserve(tmp_path, 1 << 20).take()

    Reserve(tmp_path, 8192).take()

    assert (tmp_path / RESERVE_NAME).stat().st_size == 8192


def test_work_that_finds_the_disk_full_is_done_again_without_the_reserve(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 8192)
    reserve.take()
    work = FullOnce()

    with reserve.spending():
        assert reserve.attempt(work) == "done"
        assert reserve.held == 0

    assert work.calls == 2
    assert reserve.held == 8192


def test_without_a_reserve_a_full_disk_is_an_error(tmp_path: Path) -> None:
    work = FullOnce()

    with pytest.raises(StoreError):
        Reserve(tmp_path, 0).attempt(work)

    assert work.calls == 1


def test_another_error_leaves_the_reserve_alone(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 8192)
    reserve.take()

    with pytest.raises(StoreError):
        reserve.attempt(FullOnce(errno.EIO))

    assert reserve.held == 8192


@pytest.mark.expect_logs("no reserve")
def test_where_nothing_can_be_made_there_is_no_reserve(tmp_path: Path) -> None:
    assert not Reserve(tmp_path / "missing", 8192).take()


@pytest.mark.expect_logs("no reserve")
def test_a_reserve_that_cannot_be_allocated_is_none_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reserve = Reserve(tmp_path, 8192, plenty=1 << 62)
    failpoints.arm("reserve.take=2*EIO")
    try:
        for _ in range(2):
            reserve.keep()
            assert (tmp_path / RESERVE_NAME).stat().st_size == 0
        assert len(caplog.records) == 1

        reserve.keep()
        assert reserve.held == 8192
    finally:
        failpoints.arm("")


def test_a_disk_with_room_in_plenty_needs_no_reserve(tmp_path: Path) -> None:
    Reserve(tmp_path, 8192, plenty=1 << 62).keep()
    assert (tmp_path / RESERVE_NAME).exists()

    Reserve(tmp_path, 8192, plenty=1).keep()
    assert not (tmp_path / RESERVE_NAME).exists()


@pytest.mark.expect_logs("no reserve")
def test_a_store_that_is_gone_has_no_reserve(tmp_path: Path) -> None:
    Reserve(tmp_path / "missing", 8192).keep()

    assert not (tmp_path / "missing").exists()
