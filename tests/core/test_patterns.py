"""Globs and selections: what they say of paths, and that what lies below is found."""

import re
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dkfs.core.patterns import Chosen, Pattern, Selection
from dkfs.errors import UsageError


@pytest.mark.parametrize(
    ("pattern", "path", "is_match"),
    [
        (b"*.c", b"a.c", True),
        (b"*.c", b"deep/er/a.c", True),
        (b"*.c", b"a.c/b", False),  # below a match: the selection's business
        (b"/*.c", b"deep/a.c", False),
        (b"/*.c", b"a.c", True),
        (b"src/*.c", b"x/src/a.c", True),
        (b"src/*.c", b"x/src/y/a.c", False),
        (b"src/**/a.c", b"src/a.c", True),
        (b"src/**/a.c", b"x/src/y/z/a.c", True),
        (b"/src/**/a.c", b"x/src/y/a.c", False),
        (b"/src/**", b"src", False),
        (b"/src/**", b"src/y/z", True),
        (b"**/a", b"a", True),
        (b"**", b"a/b", True),
        (b"a?c", b"abc", True),
        (b"a?c", "a\N{LATIN SMALL LETTER E WITH ACUTE}c".encode(), True),
        (b"a?c", b"a/c", False),
        (b"a?c", b"a\xffc", True),
        (b"[!a]", b"b", True),
        (b"[!a]", b"/", False),
        (b"[a-c]x", b"bx", True),
        (b"[a-c]x", b"-x", False),
        (b"[]x]", b"]", True),
        (b"[", b"[", True),
        (b"\\*", b"*", True),
        (b"\\*", b"a", False),
        (b"a.c", b"abc", False),
        (b"./a/", b"a", True),
        (b"new\nline", b"new\nline", True),
        (b"*", b"new\nline", True),
    ],
)
def test_a_pattern_matches_what_restic_matches(
    pattern: bytes, path: bytes, *, is_match: bool
) -> None:
    assert Pattern(pattern).matches(path) is is_match


def test_case_is_ignored_only_when_asked() -> None:
    name = "\N{LATIN CAPITAL LETTER A WITH DIAERESIS}.TXT".encode()

    assert not Pattern(b"*.txt").matches(name)
    assert Pattern(
        "\N{LATIN SMALL LETTER A WITH DIAERESIS}.txt".encode(), ignore_case=True
    ).matches(name)


@pytest.mark.parametrize("text", [b"", b"/", b"a/../b", b"a\0b", b"[z-a]"])
def test_a_pattern_that_can_match_nothing_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError, match="pattern"):
        Pattern(text)


@pytest.mark.parametrize(
    ("pattern", "path", "may"),
    [
        (b"a", b"x", True),
        (b"/a/b", b"a", True),
        (b"/a/b", b"x", False),
        (b"/a/b", b"a/b", False),
        (b"/a/**/c", b"a/x/y/z", True),
        (b"/a/**/c", b"b", False),
        (b"/*/b", b"", True),
    ],
)
def test_a_directory_that_can_hold_no_match_is_known(
    pattern: bytes, path: bytes, *, may: bool
) -> None:
    assert Pattern(pattern).may_match_below(path) is may


def _walk(selection: Selection, path: bytes) -> Chosen:
    chosen, done = selection.top, b""
    for name in path.split(b"/"):
        done = done + b"/" + name if done else name
        chosen = selection.choose(done, chosen)
        if not chosen.may_hold:
            break
    return chosen


def test_what_is_below_a_match_is_meant_and_an_exclusion_wins() -> None:
    selection = Selection([Pattern(b"/src")], [Pattern(b"*.o"), Pattern(b"cache")])

    assert _walk(selection, b"src/a/b.c").is_in
    assert not _walk(selection, b"src/a/b.o").is_in
    assert not _walk(selection, b"src/cache/b.c").is_in
    assert not _walk(selection, b"other/src/a").is_in
    assert not selection.is_everything
    assert Selection().is_everything
    assert _walk(Selection(), b"any/thing").is_in


_NAMES = st.sampled_from([b"a", b"b", b"ab", b"c.c", b"\xff", b"*"])
_PARTS = st.sampled_from([b"a", b"b", b"*", b"**", b"?", b"[ab]", b"a*", b"[!a]", b"c.?"])


@given(
    anchored=st.booleans(),
    parts=st.lists(_PARTS, min_size=1, max_size=4),
    names=st.lists(_NAMES, min_size=1, max_size=5),
)
@example(anchored=True, parts=[b"**", b"**", b"a"], names=[b"a"])
def test_no_match_lies_where_none_was_expected(
    *, anchored: bool, parts: list[bytes], names: list[bytes]
) -> None:
    pattern = Pattern((b"/" if anchored else b"") + b"/".join(parts))
    path = b"/".join(names)

    assert pattern.matches(path) is _reference(parts, names, anchored=anchored)
    if pattern.matches(path):
        for end in range(len(names)):
            assert pattern.may_match_below(b"/".join(names[:end]))


def _reference(parts: list[bytes], names: list[bytes], *, anchored: bool) -> bool:
    """Match as a person would explain it."""
    starts = [0] if anchored else range(len(names))
    return any(_fits(parts, names[start:]) for start in starts)


def _fits(parts: list[bytes], names: list[bytes]) -> bool:
    if not parts:
        return not names
    if parts[0] == b"**":
        rest = parts[1:]
        while rest[:1] == [b"**"]:
            rest = rest[1:]
        least = 0 if rest else 1  # "a/**" is what is below a
        return any(_fits(rest, names[n:]) for n in range(least, len(names) + 1))
    expressions = {b"*": b".*", b"?": b".", b"a*": b"a.*", b"c.?": b"c\\..", b"[!a]": b"[^a]"}
    expression = expressions.get(parts[0], parts[0])
    return (
        bool(names)
        and bool(re.fullmatch(expression, names[0], re.DOTALL))
        and _fits(parts[1:], names[1:])
    )


@given(st.binary(max_size=12), st.binary(min_size=1, max_size=12))
def test_any_bytes_are_a_pattern_or_a_usage_error(text: bytes, path: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            pattern = Pattern(text)
        except UsageError:
            return
        pattern.matches(path)
        pattern.may_match_below(path)
