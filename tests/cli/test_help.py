"""dkfs help."""

from pathlib import Path

import pytest

from dkfs.cli import help as help_command
from tests.cli.conftest import Dkfs


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "docs"
    directory.mkdir()
    (directory / "promises.md").write_text("# What dkfs promises\n")
    monkeypatch.setattr(help_command, "DOCS", directory)
    return directory


def test_a_topic_is_printed_as_it_is_written(dkfs: Dkfs, docs: Path) -> None:
    assert dkfs("help", "promises").out == "# What dkfs promises\n"


def test_topics_and_commands_are_listed(dkfs: Dkfs, docs: Path) -> None:
    out = dkfs("help").out

    assert "topics:\n  promises\n" in out
    assert "  rollback\n" in out


def test_a_command_is_explained_as_by_its_own_help(dkfs: Dkfs, docs: Path) -> None:
    assert dkfs("help", "ls").out == dkfs("ls", "--help").out


@pytest.mark.parametrize("topic", ["nothing", "../docs/promises", "/etc/passwd"])
def test_an_unknown_topic_is_not_found_and_what_there_is_is_named(
    dkfs: Dkfs, docs: Path, topic: str
) -> None:
    result = dkfs("help", topic)

    assert (result.status, result.out) == (3, "")
    assert f"no help on {topic}, expected one of promises, " in result.err


def test_a_flag_with_one_value_only_is_explained_if_others_are_to_come(
    dkfs: Dkfs, docs: Path
) -> None:
    assert "--dedup-scope VALUE" in dkfs("mount", "--help").out
