"""Guesses about temporary names."""

import pytest

from dkfs.core.saving import GUESSES_MOST, kind_of, replaced


@pytest.mark.parametrize(
    "name",
    [
        b"data.json.tmp",
        b"data.json.tmp.4711",
        b"data.json.4711.tmp",
        b"data.json.new",
        b".data.json.swp",
        b"data.json~",
        b"~data.json",
        b"#data.json#",
        b".#data.json",
        b"tmp.data.json",
        b"data.json-Xq3wTf",
        b".data.json.Xq3wTf",
        b"data.json.lock",
        b".data.json.tmp.Xq3wTf",
    ],
)
def test_the_name_behind_a_temporary_one_is_guessed(name: bytes) -> None:
    assert b"data.json" in replaced(name)


@pytest.mark.parametrize("name", [b"data.json", b"main.c", b"README", b"~", b"#", b"x", b"\xff\n"])
def test_of_other_names_nothing_is_guessed(name: bytes) -> None:
    assert replaced(name) == ()


@pytest.mark.parametrize("name", [b"a.tmp" * 50, b"-abcdef" * 36, b"#" * 255, b"~" * 255])
def test_guesses_are_few_whatever_the_name(name: bytes) -> None:
    guesses = replaced(name)

    assert len(guesses) <= GUESSES_MOST
    assert all(0 < len(guess) < len(name) for guess in guesses)


def test_random_names_of_one_program_are_of_a_kind() -> None:
    assert kind_of(b"tmpk3j_x9qa") == kind_of(b"tmp00000000")
    assert kind_of(b".goutputstream-AB12CD") == kind_of(b".goutputstream-XXXXXX")
    assert kind_of(b"sedAbCdEf") != kind_of(b"tmpAbCdEf")
    assert kind_of(b"tmpk3j_x9qa") != kind_of(b"tmpk3j")
