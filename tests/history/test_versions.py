import pytest

from dkfs.errors import NotFoundError, UsageError
from dkfs.history.versions import (
    check_tag_name,
    parse_place,
    parse_range,
    parse_since,
    parse_until,
    parse_version,
)
from dkfs.model.ids import Seq
from dkfs.model.operation import Tag
from dkfs.store import Store
from tests.history.model_history import START_NS, STEP_NS, ModelHistory

S = STEP_NS


@pytest.fixture
def five(history: ModelHistory) -> ModelHistory:
    """Make versions 1 to 5, at 22:13:21 to 22:13:25 UTC on 2023-11-14; 3 is tagged."""
    for name in (b"a", b"b", b"c"):
        history.create(name)
    history.tag("three", Seq(3))
    return history


def version(history: ModelHistory, text: str, *, now_ns: int = START_NS + 10 * S) -> int:
    with history.store.read() as reader:
        return parse_version(reader, text, now_ns=now_ns)


def place(history: ModelHistory, text: str) -> tuple[int, bytes]:
    with history.store.read() as reader:
        return parse_place(reader, text, now_ns=START_NS + 10 * S)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("005", 5),
        ("0", 0),
        ("latest", 5),
        ("latest~3", 2),
        ("latest~", 4),
        ("latest~5", 0),
        ("4~1", 3),
        ("three", 3),
        ("three~2", 1),
        ("2023-11-14T22:13:23Z", 3),
        ("2023-11-14T22:13:23.999Z", 3),
        ("2023-11-14T23:13:23+01:00", 3),
        ("2023-11-14 22:13:24", 4),
        ("7s", 3),
        ("7s~1", 2),
        ("6 seconds ago", 4),
        ("now", 5),
        ("2024-01-01", 5),
    ],
)
def test_every_way_to_write_a_version(five: ModelHistory, text: str, expected: int) -> None:
    assert version(five, text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("6", "no version 6: the last is 5"),
        ("9" * 5000, "the last is 5"),
        ("latest~6", "latest~6 is before the first version: latest is 5"),
        ("latest~" + "9" * 5000, "is before the first version"),
        ("nosuch", "no version 'nosuch': expected a number up to 5"),
        ("-1", "no version '-1'"),
        ("x" * 600, "no version"),
        ("\udcff", "no version"),
        ("a\0b", "no version"),
        ("three~x", "no version"),
        ("latest~1~1", "no version"),
        ("2023-11-14", "no version at .* or before: the first is 2023-11-14T22:13:21.000000000Z"),
        ("yesterday", "no version at"),
        ("100 years ago", "no version at"),
    ],
)
def test_what_the_store_does_not_have_is_not_found(
    five: ModelHistory, text: str, message: str
) -> None:
    with pytest.raises(NotFoundError, match=message):
        version(five, text)


@pytest.mark.parametrize("text", ["", "2023-02-30", "2023-11-14T25:00Z"])
def test_what_no_store_could_have_is_refused(five: ModelHistory, text: str) -> None:
    with pytest.raises(UsageError):
        version(five, text)


def test_an_empty_store_has_no_latest_version(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("empty") / "store"
    Store.create(path)
    with Store.open(path, writable=False) as store, store.read() as reader:
        for text in ("latest", "1", "now", "nosuch"):
            with pytest.raises(NotFoundError):
                parse_version(reader, text, now_ns=START_NS)
        assert parse_version(reader, "0", now_ns=START_NS) == 0


def test_the_offset_of_the_zone_moves_local_times(five: ModelHistory) -> None:
    with five.store.read() as reader:
        seq = parse_version(reader, "2023-11-14 23:13:23", now_ns=0, utc_offset_s=3600)
        assert seq == 3


def test_a_number_wins_over_a_tag_and_a_tag_over_a_time(five: ModelHistory) -> None:
    # Such names are refused by check_tag_name; another writer may have put them.
    with five.store.write() as writer:
        for name in ("2", "latest", "7s"):
            writer.put_tag(Tag(name, Seq(1), 0))

    assert version(five, "2") == 2
    assert version(five, "latest") == 5
    assert version(five, "7s") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3:a/b", (3, b"a/b")),
        ("3", (3, b"")),
        ("3:", (3, b"")),
        ("3:/", (3, b"")),
        ("three:/a//b/", (3, b"a/b")),
        ("latest~1:a:b", (4, b"a:b")),
        ("3:30:30", (3, b"30:30")),
        ("2023-11-14T22:13:23Z", (3, b"")),
        ("2023-11-14T22:13:23Z:a:b", (3, b"a:b")),
        ("2023-11-14 22:13:23:a", (3, b"a")),
        ("2023-11-14T23:13:23+01:00:a", (3, b"a")),
        ("2023-11-14T22:14:a", (5, b"a")),
        ("2023-11-14T22:14:05", (5, b"")),
        ("2023-11-14T22:14Z:05", (5, b"05")),
        ("7s:12:30", (3, b"12:30")),
        ("3:" + "x:" * 100 + "x", (3, b"x:" * 100 + b"x")),
        ("3:\udcff", (3, b"\xff")),
    ],
)
def test_a_place_is_a_version_and_a_path_even_with_colons(
    five: ModelHistory, text: str, expected: tuple[int, bytes]
) -> None:
    assert place(five, text) == expected


@pytest.mark.parametrize("text", ["3:../a", "3:a/../b", ":a", ""])
def test_a_place_that_climbs_or_has_no_version_is_refused(five: ModelHistory, text: str) -> None:
    with pytest.raises(UsageError):
        place(five, text)


def test_a_place_in_an_unknown_version_is_not_found(five: ModelHistory) -> None:
    with pytest.raises(NotFoundError, match="'nosuch'"):
        place(five, "nosuch:a")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1..3", (1, 3)),
        ("3..1", (3, 1)),
        ("2", (2, 5)),
        ("2..", (2, 5)),
        ("..2", (0, 2)),
        ("three..latest~1", (3, 4)),
        ("8s..2023-11-14T22:13:24.5Z", (2, 4)),
    ],
)
def test_every_way_to_write_a_range(
    five: ModelHistory, text: str, expected: tuple[int, int]
) -> None:
    with five.store.read() as reader:
        assert parse_range(reader, text, now_ns=START_NS + 10 * S) == expected


@pytest.mark.parametrize("text", ["", ".."])
def test_a_range_of_nothing_is_refused(five: ModelHistory, text: str) -> None:
    with five.store.read() as reader, pytest.raises(UsageError, match=r"A\.\.B"):
        parse_range(reader, text, now_ns=0)


def test_a_range_with_three_dots_is_not_found(five: ModelHistory) -> None:
    with five.store.read() as reader, pytest.raises(NotFoundError):
        parse_range(reader, "1...3", now_ns=0)


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("3", 3, 3),
        ("three", 3, 3),
        ("2023-11-14T22:13:23Z", 3, 3),
        ("2023-11-14T22:13:23.5Z", 4, 3),
        ("2023-11-14", 1, 0),
        ("2024-01-01", 6, 5),
        ("1960-01-01", 1, 0),
    ],
)
def test_since_is_from_a_time_on_and_until_is_up_to_it(
    five: ModelHistory, text: str, since: int, until: int
) -> None:
    with five.store.read() as reader:
        assert parse_since(reader, text, now_ns=0) == since
        assert parse_until(reader, text, now_ns=0) == until


def test_since_a_tag_that_reads_as_a_time_is_since_the_tag(five: ModelHistory) -> None:
    with five.store.write() as writer:
        writer.put_tag(Tag("7s", Seq(2), 0))

    with five.store.read() as reader:
        assert parse_since(reader, "7s", now_ns=START_NS + 10 * S) == 2
        assert parse_until(reader, "7s", now_ns=START_NS + 10 * S) == 2


def test_since_an_unknown_version_is_not_found(five: ModelHistory) -> None:
    with five.store.read() as reader, pytest.raises(NotFoundError):
        parse_since(reader, "nosuch", now_ns=0)


@pytest.mark.parametrize(
    "name", ["v1.2", "before upgrade", "2026-11-22-release", "größe", "x" * 255, "latest-good", "a"]
)
def test_a_tag_may_have_an_ordinary_name(name: str) -> None:
    check_tag_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "7",
        "latest",
        "10m",
        "yesterday",
        "now",
        "5 minutes ago",
        "2026-11-22",
        "2026-02-30",
        "2026-11-22T10",
        "today 10",
        "@5",
        "a/b",
        "a:b",
        "a~1",
        "a..b",
        ".",
        "..",
        ".hidden",
        "-n",
        " a",
        "a ",
        "a\nb",
        "a\0b",
        "\udcff",
        "x" * 256,
        "ü" * 128,
    ],
)
def test_a_tag_may_not_be_taken_for_something_else(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a tag"):
        check_tag_name(name)
