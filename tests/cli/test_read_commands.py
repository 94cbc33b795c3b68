"""The commands that only read a store: log, history, ls, cat, diff."""

from pathlib import Path

import pytest

from dkfs.cli.main import main
from tests.cli.conftest import Dkfs
from tests.history.model_history import ModelHistory


def test_log_shows_the_newest_first_with_time_operation_origin_and_path(
    dkfs: Dkfs, store: Path
) -> None:
    result = dkfs("log", "--store", store, "--limit", "2")

    assert result.status == 0
    assert result.lines == [
        "10  2023-11-14T22:13:30.000+00:00  unlink       test[100] uid=1000        conf/app.conf",
        " 9  2023-11-14T22:13:29.000+00:00  rename       test[100] uid=1000        etc -> conf",
    ]


def test_log_of_a_path_shows_only_what_was_done_to_it(dkfs: Dkfs, store: Path) -> None:
    result = dkfs("log", "etc/app.conf", "--store", store, "--reverse")

    assert [line.split()[2] for line in result.lines] == ["create", "write", "setattr", "rename"]


def test_log_takes_versions_and_times_as_bounds(dkfs: Dkfs, store: Path) -> None:
    result = dkfs("log", "--store", store, "--since", "4", "--until", "2023-11-14T22:13:25Z")

    assert [line.split()[0] for line in result.lines] == ["5", "4"]


def test_log_by_somebody_else_is_empty(dkfs: Dkfs, store: Path) -> None:
    assert dkfs("log", "--store", store, "--by", "uid=0").lines == []
    assert len(dkfs("log", "--store", store, "--by", "test").lines) == 10


def test_log_as_json_has_exact_times_and_both_paths_of_a_rename(dkfs: Dkfs, store: Path) -> None:
    (message,) = dkfs("log", "--json", "--store", store, "--since", "9", "--until", "9").messages

    assert message == {
        "message_type": "operation",
        "version": 9,
        "time": "2023-11-14T22:13:29.000000000Z",
        "time_ns": 1_700_000_009_000_000_000,
        "operation": "rename",
        "origin": {"pid": 100, "uid": 1000, "comm": "test"},
        "changed": message["changed"],
        "path": "etc",
        "new_path": "conf",
    }


def test_log_refuses_a_limit_that_is_no_number(dkfs: Dkfs, store: Path) -> None:
    result = dkfs("log", "--store", store, "--limit", "many")

    assert (result.status, result.err) == (
        2,
        "dkfs: --limit: 'many', expected a whole number\n",
    )


def test_a_name_with_control_characters_is_never_sent_to_the_terminal(
    dkfs: Dkfs, store: Path
) -> None:
    for words in (("log",), ("ls",), ("diff", "1"), ("ls", "latest:odd\x1b[31m")):
        result = dkfs(*words, "--store", store)
        assert "\x1b" not in result.out + result.err

    assert "$'odd\\x1b[31m\\xff'" in dkfs("ls", "--store", store).out


def test_a_name_that_is_not_utf_8_is_in_json_twice(dkfs: Dkfs, store: Path) -> None:
    messages = dkfs("ls", "--json", "--store", store).messages

    (odd,) = [message for message in messages if "path_b64" in message]
    assert (odd["path"], odd["path_b64"]) == ("odd\x1b[31m\ufffd", "b2RkG1szMW3/")


def test_ls_lists_as_ls_l_does(dkfs: Dkfs, store: Path) -> None:
    result = dkfs("ls", "-n", "8", "--store", store)

    assert [line.split()[:4] for line in result.lines] == [
        ["drwxr-xr-x", "1000", "1000", "0"],
        ["lrwxrwxrwx", "1000", "1000", "12"],
        ["crw-r--r--", "1000", "1000", "1,"],
        ["-rw-r--r--", "1000", "1000", "0"],
    ]
    assert result.lines[1].endswith("  link -> etc/app.conf")


def test_ls_of_a_file_shows_that_file(dkfs: Dkfs, store: Path) -> None:
    (line,) = dkfs("ls", "5:etc/app.conf", "--store", store).lines

    assert line.startswith("-rw-------")
    assert line.endswith("etc/app.conf")


def test_ls_recursive_shows_paths_from_the_root(dkfs: Dkfs, store: Path) -> None:
    result = dkfs("ls", "-R", "4", "--store", store)

    assert [line.split()[-1] for line in result.lines] == ["/", "etc", "etc/app.conf"]


def test_cat_prints_the_bytes_of_that_version(
    store: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["cat", "--store", str(store), "3:etc/app.conf", "4:etc/app.conf"]) == 0

    assert capfdbinary.readouterr().out == b"port=1\nport=8080\n"


def test_cat_of_a_directory_says_what_it_is(dkfs: Dkfs, store: Path) -> None:
    result = dkfs("cat", "3:etc", "--store", store)

    assert (result.status, result.err) == (
        2,
        "dkfs: etc is a dir at version 3, expected a file\n",
    )


def test_diff_shows_a_letter_a_path_and_the_fields(dkfs: Dkfs, store: Path) -> None:
    assert dkfs("diff", "3..5", "--store", store).lines == [
        "M  etc/app.conf  (content, size, mode, mtime)"
    ]
    assert dkfs("diff", "8..9", "--store", store).lines == ["R  etc -> conf"]


def test_diff_of_one_version_goes_to_the_latest_and_keeps_to_the_paths(
    dkfs: Dkfs, store: Path
) -> None:
    assert dkfs("diff", "8", "link", "null", "--store", store).lines == []
    assert dkfs("diff", "6", "link", "null", "--store", store).lines == ["+  link", "+  null"]


def test_diff_as_json_tells_both_states(dkfs: Dkfs, store: Path) -> None:
    (message,) = dkfs("diff", "--json", "4..5", "--store", store).messages

    assert (message["change"], message["fields"]) == ("U", ["mode"])
    old, new = message["old"], message["new"]
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    assert (old["mode"], new["mode"]) == (0o644, 0o600)


def test_history_shows_every_version_of_a_file_and_its_end(dkfs: Dkfs, store: Path) -> None:
    result = dkfs("history", "etc/app.conf", "--store", store)

    assert [line.split()[0] + line.split()[2] for line in result.lines] == ["3+", "4M", "5U", "9-"]
    assert [
        line.split()[0]
        for line in dkfs("history", "etc/app.conf", "--reverse", "--store", store).lines
    ] == ["9", "5", "4", "3"]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("ls", "99"), 3),
        (("ls", "nosuchtag"), 3),
        (("ls", "2001-01-01"), 3),
        (("ls", "3:nothing"), 3),
        (("cat", "latest:etc/app.conf"), 3),
        (("history", "never"), 3),
        (("log", "never"), 3),
        (("diff", "3..99"), 3),
        (("diff", "3", "never"), 3),
        (("ls", "3:../x"), 2),
        (("log", "--by", "uid=me"), 2),
    ],
)
def test_what_is_not_there_is_one_line_and_its_status(
    dkfs: Dkfs, store: Path, words: tuple[str, ...], status: int
) -> None:
    result = dkfs(*words, "--store", store)

    assert (result.status, result.out) == (status, "")
    assert result.err.startswith("dkfs: ")
    assert result.err.count("\n") == 1


def test_a_store_that_is_none_is_store_trouble(dkfs: Dkfs, tmp_path: Path) -> None:
    for place in (tmp_path / "nothing", tmp_path / "here"):
        result = dkfs("log", "--store", place)
        assert result.status == 4
        assert str(place) in result.err


def test_reading_works_beside_the_writer_and_leaves_no_trace(
    dkfs: Dkfs, history: ModelHistory
) -> None:
    before = sorted(history.store.path.rglob("*"))

    assert dkfs("ls", "--store", history.store.path).status == 0
    history.mkdir(b"more")
    assert "more" in dkfs("ls", "--store", history.store.path).out
    assert sorted(history.store.path.rglob("*")) == before
