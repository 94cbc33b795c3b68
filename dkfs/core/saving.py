"""How programs save a file: names of temporary files, and which name they are going to replace.

Only guesses: what is found under a guessed name is compared with what is saved, never taken for it.
"""

import re
from collections.abc import Iterator
from typing import Final

GUESSES_MOST: Final = 6

_ENDINGS: Final = (
    rb"tmp|temp|new|part|partial|swp|swx|bak|old|orig|lock|download|crdownload|filepart|save|saving"
)
_RULES: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rb"#(.+)#",  # Emacs
        rb"(.+)~",
        rb"(.+)[.,_-](?:" + _ENDINGS + rb")[.,_-]?\d*",  # NAME.tmp, NAME.tmp.4711
        rb"(.+)[.,_-]\d+[.,_-](?:" + _ENDINGS + rb")",  # NAME.4711.tmp
        rb"(?:" + _ENDINGS + rb")[.,_-](.+)",  # tmp.NAME
        rb"(.+)[.,_-][0-9A-Za-z]{6,16}",  # mkstemp, rsync: NAME-Xq3wTf, .NAME.Xq3wTf
        rb"\.#?(.+)",  # after the others: .NAME.swp is NAME.swp no less than .NAME
        rb"~(.+)",
    )
)
_DEPTH: Final = 3  # of rules one after the other
_FIXED: Final = 3  # bytes: tmpXXXXXXXX, sedXXXXXX, .goutputstream-XXXXXX


def replaced(name: bytes) -> tuple[bytes, ...]:
    """Return names that a file saved as *name* may be about to replace, likeliest first; none for most names."""
    found: dict[bytes, None] = {}
    level = [name]
    for _ in range(_DEPTH):
        level = [shorter for longer in level for shorter in _shorter(longer)]
        found.update(dict.fromkeys(level))
    found.pop(name, None)
    # What took more rules is what is left when everything temporary is gone.
    return tuple(sorted(found, key=len))[:GUESSES_MOST]


def kind_of(name: bytes) -> bytes:
    """Return what temporary files of one program have in common when the rest of *name* is random."""
    return b"%d:%b" % (len(name), name[:_FIXED])


def _shorter(name: bytes) -> Iterator[bytes]:
    for rule in _RULES:
        match = rule.fullmatch(name)
        if match is not None:
            yield match.group(1)
