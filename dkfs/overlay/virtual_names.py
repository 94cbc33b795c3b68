"""The names of the history tree: what each leads to, and what a listing shows."""

import errno
import os
from collections.abc import Callable
from itertools import islice

from dkfs.core.times import is_time
from dkfs.errors import NotFoundError, UsageError
from dkfs.history.versions import parse_version
from dkfs.model.ids import NO_NODE, ROOT, Seq
from dkfs.overlay.access import EXECUTE
from dkfs.overlay.virtual_files import DEPTH, find_version, number_of, path_names, was_there
from dkfs.overlay.virtual_numbers import Area, Place
from dkfs.overlay.virtual_rights import Rights
from dkfs.store import Reader

LISTED_VERSIONS = 1000  # of versions/, the newest

_NAME_MAX = 255  # bytes
_LATEST = b"latest"
_TOP_NAMES = {
    b"at": Area.AT,
    b"files": Area.FILES,
    _LATEST: Area.LATEST,
    b"tags": Area.TAGS,
    b"versions": Area.VERSIONS,
}
_TREES = frozenset((Area.IN_VERSION, Area.IN_TAG, Area.IN_TIME))


def error(number: int) -> OSError:
    """Return the error of errno *number*."""
    return OSError(number, os.strerror(number))


def check_length(name: bytes) -> None:
    """Raise OSError(ENAMETOOLONG) if no file system could have *name*."""
    if len(name) > _NAME_MAX:
        raise error(errno.ENAMETOOLONG)


def find_place(
    reader: Reader,
    above: Place,
    name: bytes,
    rights: Rights | None,
    *,
    now_ns: Callable[[], int],
) -> Place:
    """Return what *name* in *above* leads to; without *rights* nothing is refused.

    Raises OSError: ENOENT; ESTALE if the version was forgotten; EACCES where its tree may not be entered now.
    """
    check_kept(reader, above)
    area = above.area
    if area in _TREES:
        return _in_tree(reader, above, name, rights)
    if area is Area.FILES:
        return _in_files(reader, above.name, name, rights)
    if area is Area.TOP and name in _TOP_NAMES and (name != _LATEST or reader.last):
        # Another number for another version: the kernel may keep what a symlink says.
        said = b"%d" % reader.last if name == _LATEST else b""
        return Place(_TOP_NAMES[name], said)
    if area is Area.VERSIONS:
        seq = number_of(reader, name)
        if seq is not None:
            return Place(Area.IN_VERSION, b"", seq, ROOT)
    elif area is Area.TAGS:
        tag = reader.tag(_text(name))
        if tag is not None and tag.seq:
            return Place(Area.IN_TAG, name, tag.seq, ROOT)
    elif area is Area.AT:
        return Place(Area.IN_TIME, name, _version_at(reader, _text(name), now_ns()), ROOT)
    raise error(errno.ENOENT)


def check_kept(reader: Reader, place: Place) -> None:
    """Raise OSError(ESTALE) if the version that *place* is of was forgotten since it was found."""
    if place.at and reader.version(place.at) != place.at:
        raise error(errno.ESTALE)


def list_names(reader: Reader, place: Place) -> list[bytes]:
    """Return the names in a directory other than of files/; raises OSError(ESTALE)."""
    check_kept(reader, place)
    if place.node:
        return [name for name, _ in reader.children(place.node, place.at)]
    if place.area is Area.TOP:
        return [name for name in _TOP_NAMES if name != _LATEST or reader.last]
    if place.area is Area.VERSIONS:
        newest = islice(reader.versions(reverse=True), LISTED_VERSIONS)
        return [b"%d" % seq for seq, _ in newest][::-1]
    if place.area is Area.TAGS:
        return [tag.name.encode() for tag in reader.tags() if tag.seq]
    return []


def _in_tree(reader: Reader, above: Place, name: bytes, rights: Rights | None) -> Place:
    if rights is not None and not rights.now(above.node, EXECUTE):
        raise error(errno.EACCES)
    node = reader.child(above.node, name, above.at)
    if node == NO_NODE:
        raise error(errno.ENOENT)
    if rights is not None and not rights.reaches(node):
        raise error(errno.EACCES)
    return above._replace(node=node)


def _in_files(reader: Reader, path: bytes, name: bytes, rights: Rights | None) -> Place:
    above = path_names(path)
    if len(above) >= DEPTH:
        raise error(errno.ENAMETOOLONG)
    seq = number_of(reader, name)
    if seq is not None:
        node = find_version(reader, above, seq, rights)
        if node != NO_NODE:
            return Place(Area.FILE_VERSION, path, seq, node)
    if was_there(reader, (*above, name), rights):
        return Place(Area.FILES, b"/".join((*above, name)))
    raise error(errno.ENOENT)


def _version_at(reader: Reader, text: str, now_ns: int) -> Seq:
    if not is_time(text):
        raise error(errno.ENOENT)
    try:
        return parse_version(reader, text, now_ns=now_ns)
    except (NotFoundError, UsageError):
        raise error(errno.ENOENT) from None


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise error(errno.ENOENT) from None
