"""Handles have numbers that are never used twice."""

import pytest

from dkfs.overlay.handles import HandleTable


def test_a_number_names_one_thing_and_is_not_used_again() -> None:
    table: HandleTable[str] = HandleTable()
    one = table.add("one")
    assert table.remove(one) == "one"
    two = table.add("two")

    assert one != two
    assert (table[two], len(table), table.all()) == ("two", 1, ("two",))
    with pytest.raises(OSError, match="Bad file descriptor"):
        table[one]
    with pytest.raises(OSError, match="Bad file descriptor"):
        table.remove(one)
