"""A zip archive: contents, names in UTF-8, modes, owners, symlinks, and times to the second; what it lacks it says."""

import stat
import struct
import time
import zipfile
from collections.abc import Mapping
from typing import Final

from dkfs.errors import NotFoundError
from dkfs.history.archive import Data, Write
from dkfs.history.tree import shown
from dkfs.model.node import Kind, NodeState

_UNIX: Final = 3  # "made by": external attributes are st_mode, shifted by 16
_MS_DIRECTORY: Final = 0x10
_LARGE: Final = (
    0x7000_0000  # bytes; from here on sizes have 64 bits, as compression may add a little
)
_FIRST_S: Final = 315_532_800  # 1980-01-01, the first day of a zip
_LAST_S: Final = 4_354_819_198  # 2107-12-31T23:59:58
_TIME: Final = struct.Struct("<HHBi")  # "UT", size, flags: modification time, seconds
_OWNER: Final = struct.Struct("<HHBBIBI")  # "ux", size, version, length and uid, length and gid
_LINK_MODE: Final = 0o777
_TYPES: Final = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIR: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
}


class ZipFormat:
    """See Format."""

    copies_links = True

    def __init__(self, write: Write) -> None:
        self.left_out: list[str] = []
        self._with_xattrs = 0
        # It has no tell() and no seek(), so the archive is written from its start to its end.
        self._archive = zipfile.ZipFile(_Sink(write), "w", zipfile.ZIP_DEFLATED)  # type: ignore[arg-type,call-overload,unused-ignore]

    def directory(self, path: bytes, state: NodeState, xattrs: Mapping[bytes, bytes]) -> None:
        """See Format."""
        if path:
            self._add(path + b"/", state, xattrs, b"")

    def link(self, path: bytes, state: NodeState, first: bytes) -> None:
        """See Format."""
        raise AssertionError(f"{state.attr.kind} {path!r} as a link to {first!r} in a zip")

    def special(self, path: bytes, state: NodeState, xattrs: Mapping[bytes, bytes]) -> None:
        """See Format."""
        if state.attr.kind is Kind.SYMLINK:
            self._add(path, state, xattrs, state.target)
        else:
            self.left_out.append(f"{shown(path)}: a {state.attr.kind.name.lower()}")

    def file(
        self, path: bytes, state: NodeState, xattrs: Mapping[bytes, bytes], data: Data
    ) -> None:
        """See Format."""
        info = self._info(path, state, xattrs)
        with self._archive.open(info, "w", force_zip64=data.size >= _LARGE) as member:
            for chunk in data.chunks(holes=True):
                member.write(chunk)

    def close(self) -> None:
        """See Format."""
        self._archive.close()
        if self._with_xattrs:
            self.left_out.append(f"extended attributes and ACLs of {self._with_xattrs} entries")

    def _add(
        self, path: bytes, state: NodeState, xattrs: Mapping[bytes, bytes], data: bytes
    ) -> None:
        info = self._info(path, state, xattrs)
        info.compress_type = zipfile.ZIP_STORED
        self._archive.writestr(info, data)

    def _info(
        self, path: bytes, state: NodeState, xattrs: Mapping[bytes, bytes]
    ) -> zipfile.ZipInfo:
        try:
            name = path.decode()
        except UnicodeDecodeError:
            raise NotFoundError("a zip holds names in UTF-8 only: use a tar") from None
        attr = state.attr
        self._with_xattrs += bool(xattrs)
        seconds = attr.mtime_ns // 10**9
        moment = time.gmtime(min(max(seconds, _FIRST_S), _LAST_S))
        info = zipfile.ZipInfo(name, moment[:6])
        info.create_system = _UNIX
        info.compress_type = zipfile.ZIP_DEFLATED
        mode = _LINK_MODE if attr.kind is Kind.SYMLINK else attr.mode
        info.external_attr = (_TYPES[attr.kind] | mode) << 16
        if attr.kind is Kind.DIR:
            info.external_attr |= _MS_DIRECTORY
        if -(1 << 31) <= seconds < 1 << 31:
            info.extra += _TIME.pack(0x5455, 5, 1, seconds)
        info.extra += _OWNER.pack(0x7875, 11, 1, 4, attr.uid, 4, attr.gid)
        return info


class _Sink:
    """As much of a file as zipfile needs to stream."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        """Hand *data* on."""
        self._write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""
