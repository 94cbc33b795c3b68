"""dkfs replay."""

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Dkfs


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    directory.mkdir()
    (directory / "file").write_text("precious\n")
    return directory


pytestmark = pytest.mark.root  # only root gives files back to their owners


def test_the_first_replay_records_what_is_there(dkfs: Dkfs, state: Path, tmp_path: Path) -> None:
    result = dkfs("replay", "--state-dir", state, "--store", tmp_path / "new")

    assert result.status == 0
    assert dkfs("cat", "1:file", "--store", tmp_path / "new").status == 0


def test_a_lost_directory_comes_back_and_is_summed_up(
    dkfs: Dkfs, state: Path, tmp_path: Path
) -> None:
    dkfs("replay", "--state-dir", state, "--store", tmp_path / "new")
    shutil.rmtree(state)

    result = dkfs("replay", "--state-dir", state, "--store", tmp_path / "new", "--json")

    assert (state / "file").read_text() == "precious\n"
    (message,) = result.messages
    assert message == {
        "message_type": "summary",
        "version": 1,
        "restored": message["restored"],
        "recorded": 0,
        "bytes": 9,
        "found": 0,
        "rolled_back": 0,
        "problems": 0,
    }


def test_without_history_a_missing_directory_is_an_error_and_is_not_made(
    dkfs: Dkfs, tmp_path: Path
) -> None:
    result = dkfs("replay", "--state-dir", tmp_path / "none", "--store", tmp_path / "new")

    assert result.status == 2
    assert result.err == f"dkfs: state directory {tmp_path / 'none'}: No such file or directory\n"
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "new").exists()


def test_a_store_that_cannot_be_looked_at_is_store_trouble(
    dkfs: Dkfs, state: Path, tmp_path: Path
) -> None:
    store = tmp_path / ("s" * 300)

    result = dkfs("replay", "--state-dir", state, "--store", store)

    assert result.status == 4
    assert result.err == f"dkfs: store {store} cannot be read: File name too long\n"


def test_an_empty_directory_is_one_change(dkfs: Dkfs, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    dkfs("replay", "--state-dir", tmp_path / "empty", "--store", tmp_path / "new")

    (line,) = dkfs("log", "--store", tmp_path / "new").lines

    assert line.endswith("  1 change")


def test_a_dry_run_names_what_would_be_done_and_changes_nothing(
    dkfs: Dkfs, state: Path, tmp_path: Path
) -> None:
    store = tmp_path / "new"
    (state / "dir").mkdir()
    (state / "dir" / "below").write_text("x")
    dkfs("replay", "--state-dir", state, "--store", store)
    words = ("replay", "--state-dir", state, "--store", store, "-n")
    before = {path: path.read_bytes() for path in store.rglob("*.*") if path.suffix != ".lmdb-lock"}
    assert dkfs(*words).lines == [f"{state}: 0 to restore, 0 to record"]

    (state / "file").write_text("changed since\n")
    (state / "new").mkdir()
    (state / "new" / "file").write_text("new\n")
    said = dkfs(*words)
    assert said.status == 0
    assert sorted(said.lines[:-1]) == [
        "would record /",
        "would record file",
        "would record new",
        "would record new/file",
    ]
    shutil.rmtree(state)
    lost = dkfs(*words, "--json").messages
    assert sorted(str(message["path"]) for message in lost[:-1]) == ["dir", "dir/below", "file"]
    assert {message["action"] for message in lost[:-1]} == {"restore"}
    assert not state.exists()
    assert {path: path.read_bytes() for path in before} == before
