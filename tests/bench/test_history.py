"""The bench notices a history that is missing or wrong."""

import os
from pathlib import Path

import pytest

from bench.history import History, IncompleteError
from dkfs.model.ids import Seq
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.slow]


def _work(mounted: Mounted) -> Seq:
    before = History(mounted.store).flush()
    (mounted.mountpoint / "work").mkdir()
    (mounted.mountpoint / "work" / "file").write_bytes(b"recorded")
    mounted.flush()
    return before


def test_complete_history_passes(mounted: Mounted) -> None:
    before = _work(mounted)

    History(mounted.store).check(mounted.state_dir, Path("work"), after=before)


def test_log_that_did_not_grow_is_noticed(mounted: Mounted) -> None:
    _work(mounted)
    history = History(mounted.store)

    with pytest.raises(IncompleteError, match="nothing was recorded"):
        history.check(mounted.state_dir, Path("work"), after=history.flush())


def test_name_that_was_not_recorded_is_noticed(mounted: Mounted) -> None:
    before = _work(mounted)
    (mounted.state_dir / "work" / "unseen").touch()

    with pytest.raises(IncompleteError, match="1 names"):
        History(mounted.store).check(mounted.state_dir, Path("work"), after=before)


def test_contents_that_were_not_recorded_are_noticed(mounted: Mounted) -> None:
    before = _work(mounted)
    file = mounted.state_dir / "work" / "file"
    status = file.stat()
    file.write_bytes(b"replaced")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(IncompleteError, match="other contents"):
        History(mounted.store).check(mounted.state_dir, Path("work"), after=before)
