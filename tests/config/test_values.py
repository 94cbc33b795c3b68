"""dkfs.config.values."""

from pathlib import Path

import pytest

from dkfs.config.values import Given, boolean, choice, count, interval, path, seconds, size
from dkfs.errors import UsageError


def given(text: str) -> Given:
    return Given(text, "DKFS_THING")


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "on"])
def test_what_means_true(text: str) -> None:
    assert boolean(given(text)) is True


@pytest.mark.parametrize("text", ["0", "false", "False", "no", "off"])
def test_what_means_false(text: str) -> None:
    assert boolean(given(text)) is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("500ms", 0.5),
        ("1s", 1.0),
        ("2m", 120.0),
        ("1h", 3600.0),
    ],
)
def test_times_are_read_with_and_without_a_unit(text: str, expected: float) -> None:
    assert seconds(given(text)) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "1 s", "1d", "nan", "inf", "1e3", "9" * 400, "s"])
def test_a_bad_time_is_an_error_that_names_its_source(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"^DKFS_THING: .*, expected a time such as 0.5, 500ms or 2s$"
    ):
        seconds(given(text))


def test_a_bad_boolean_is_an_error_that_names_its_source() -> None:
    with pytest.raises(UsageError, match=r"^DKFS_THING: 'maybe', expected true or false$"):
        boolean(given("maybe"))


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "\u0663", "9" * 19])
def test_a_bad_count_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="expected a whole number"):
        count(given(text))


def test_a_choice_names_what_was_expected() -> None:
    assert choice(given("b"), ("a", "b")) == "b"
    with pytest.raises(UsageError, match=r"^DKFS_THING: 'c', expected a or b$"):
        choice(given("c"), ("a", "b"))


def test_a_path_keeps_a_link_in_its_last_part_only(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "inner").symlink_to("nowhere")

    assert path(given("link"), base=tmp_path) == tmp_path / "link"
    assert path(given("link/"), base=tmp_path) == tmp_path / "link"
    assert path(given("link/inner"), base=tmp_path) == tmp_path / "real" / "inner"
    assert path(given("link/../new"), base=tmp_path) == tmp_path / "new"
    assert path(given("link/.."), base=tmp_path) == tmp_path
    assert path(given("/"), base=tmp_path) == Path("/")
    assert path(given("."), base=tmp_path / "link") == tmp_path / "link"


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_what_cannot_be_a_path_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"DKFS_THING: .*, expected a path"):
        path(given(text), base=Path("/"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("0", 0), ("4096", 4096), ("64K", 65536), ("64k", 65536), ("1KiB", 1024)),
        *(("2MB", 2 << 20), ("3G", 3 << 30), ("1T", 1 << 40), ("17B", 17)),
    ],
)
def test_size_is_bytes_with_or_without_a_letter(text: str, expected: int) -> None:
    assert size(given(text)) == expected


def test_size_without_a_letter_is_in_the_unit_of_its_setting() -> None:
    assert size(given("4"), unit=1 << 20) == 4 << 20
    assert size(given("4K"), unit=1 << 20) == 4096
    assert size(given("4B"), unit=1 << 20) == 4


@pytest.mark.parametrize("text", ["", "-1", "1.5M", "K", "1X", "1 K", "1KK", "9" * 19, "0x10"])
def test_what_cannot_be_a_size_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"DKFS_THING: .*, expected a size such as"):
        size(given(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30d", 2_592_000.0), ("1m", 2_592_000.0), ("12h", 43_200.0), ("90min", 5400.0), ("0", None)],
)
def test_an_interval_is_a_length_of_time_or_never(text: str, expected: float | None) -> None:
    assert interval(given(text)) == expected


@pytest.mark.parametrize("text", ["", "soon", "-1d", "30", "0d"])
def test_what_is_no_interval_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"DKFS_THING: .* or 0, for never"):
        interval(given(text))
