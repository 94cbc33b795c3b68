"""dkfs.cli.output."""

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.cli.output import aligned, emit, json_path, local_time, printable, size_text, utc_time


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain name", "plain name"),
        ("caf\u00e9".encode(), "caf\u00e9"),
        (b"it's", "it's"),
        (b"a\nb", "$'a\\nb'"),
        (b"it's\t", "$'it\\'s\\t'"),
        (b"back\\slash\x7f", "$'back\\\\slash\\x7f'"),
        (b"\xff", "$'\\xff'"),
        ("\u202egnp.exe".encode(), "$'\\xe2\\x80\\xaegnp.exe'"),
        ("\x9b31m".encode(), "$'\\xc2\\x9b31m'"),
        (b"", ""),
    ],
)
def test_printable_shows_a_name_without_control_characters(name: bytes, shown: str) -> None:
    assert printable(name) == shown


@given(st.binary(max_size=20))
def test_printable_never_lets_anything_unprintable_through(name: bytes) -> None:
    assert printable(name).isprintable()


@pytest.mark.parametrize("name", [b"a\nb'c\\d\xff\x1b[0m", "\u202ex\x9b\t".encode()])
def test_the_shell_reads_an_escaped_name_back(name: bytes) -> None:
    echoed = subprocess.run(
        ["bash", "-c", f"printf %s {printable(name)}"], capture_output=True, check=True
    )

    assert echoed.stdout == name


def test_json_has_the_bytes_of_a_path_only_if_they_are_not_utf_8() -> None:
    assert json_path("\u00e9".encode()) == {"path": "\u00e9"}
    assert json_path(b"\xff", "old") == {"old": "\ufffd", "old_b64": "/w=="}


def test_emit_prints_one_ascii_line_with_its_type_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emit("node", {"path": "a\nb\x9b"}, size=3)

    out = capsys.readouterr().out
    assert out == '{"message_type": "node", "path": "a\\nb\\u009b", "size": 3}\n'
    assert json.loads(out)["path"] == "a\nb\x9b"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (2**60, "1024.0 PiB")],
)
def test_sizes_are_in_the_largest_unit(size: int, text: str) -> None:
    assert size_text(size) == text


def test_times_keep_what_a_float_would_lose() -> None:
    assert utc_time(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"


def test_local_times_have_the_offset_of_that_day(monkeypatch: pytest.MonkeyPatch) -> None:
    import time  # noqa: PLC0415 - tzset is for this test only

    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        assert local_time(1_700_000_000_999_999_999) == "2023-11-14T23:13:20.999+01:00"
        assert local_time(1_690_000_000_000_000_000) == "2023-07-22T06:26:40.000+02:00"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("a", "1", "x"), ("bcd", "10", "")]

    assert aligned(rows, right=(1,)) == ["a     1  x", "bcd  10"]
