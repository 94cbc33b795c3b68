"""What is remembered of the passes over the data, beside kills."""

import os
from pathlib import Path

from dkfs import failpoints
from dkfs.store import verified
from dkfs.store.verified import FILE_NAME, Place, Verified


def killed_while_it_saves(store: Path) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            failpoints.arm("scrub.note=kill")
            verified.save(store, "scrub", Verified(begun_ns=1, at=Place(2, 3)))
        finally:
            os._exit(1)
    os.waitpid(pid, 0)


def test_what_a_killed_process_left_is_taken_away_by_the_next_that_saves(tmp_path: Path) -> None:
    killed_while_it_saves(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] != []

    remembered = Verified(begun_ns=4, at=Place(5, 6))
    assert verified.save(tmp_path, "scrub", remembered)

    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert verified.load(tmp_path, "scrub") == remembered


def test_what_a_living_process_is_writing_is_left_to_it(tmp_path: Path) -> None:
    others = tmp_path / f"{FILE_NAME}.{os.getppid()}"
    others.touch()
    not_ours = tmp_path / f"{FILE_NAME}.old"
    not_ours.touch()

    assert verified.save(tmp_path, "check", Verified())

    assert others.exists()
    assert not_ours.exists()
