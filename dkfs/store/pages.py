"""The pages of an index, looked at without LMDB, which would die of some kinds of damage."""

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from lmdb.verify import VerifyError, verify

from dkfs.errors import CorruptError, DkfsError, StoreFormatError
from dkfs.store.helper import Helper

# The meta pages 0 and 1 of LMDB 0.9 on 64 bits: magic, version, page size; then last page and transaction.
_MAGIC: Final = 0xBEEFC0DE
_META_HEAD: Final = struct.Struct("=16xII8x8xI")
_META_TAIL: Final = struct.Struct("=QQ")
_META_TAIL_OFFSET: Final = 136
_VERIFIED_SIZE: Final = 8 << 20  # bytes; 60 ms
_VERIFY_ATTEMPTS: Final = 5  # a live writer may commit while the file is being verified


def check_length(path: Path) -> None:
    """Raise CorruptError if the file at *path* lacks pages: LMDB would die of SIGBUS reading them.

    A file that is shorter than its meta pages say may still be whole (see Index.cover), so then every page that the
    trees lead to is looked at, without LMDB.
    """
    size, need, _ = _measure(path)
    problems = verify_pages(path) if size < need else []
    if problems:
        raise CorruptError(f"index {path} is {size} bytes, need {need}: {problems[0]}")


def check_pages(path: Path, *, writable: bool, verification: "Verification | None") -> None:
    """Raise CorruptError if the index at *path* has pages that LMDB had better not see.

    It follows what it finds. Of 1,000 indexes with a page that was zeroed, swapped or filled with junk, 233 ended the
    process that read them, all of them among the 750 that are refused here. A writer always looks, whoever only reads
    does if that takes no time worth speaking of, and nobody if *verification* did.
    """
    if verification is not None and verification.is_sound():
        return
    if writable or path.stat().st_size <= _VERIFIED_SIZE:
        problems = verify_pages(path)
        if problems:
            raise CorruptError(f"index {path}: {problems[0]}; `dkfs check --repair` makes it anew")


class Verification:
    """A look of a second process at every page of an index, while this one has other things to do before it opens it."""

    def __init__(self, path: Path) -> None:
        """Begin with the index at *path*, if it is there."""
        self._path = path
        self._helper = Helper()
        self._found: bytes | None = None  # what was looked at, if it is sound
        if path.exists():
            with suppress(OSError):  # no memory, say: whoever opens the index looks himself
                self._helper.start(self._look)

    def is_sound(self) -> bool:
        """Wait; return whether the index was found sound and is, to the last write, the one that was looked at.

        False also where it cannot be told: then the pages are to be looked at again.
        """
        self.wait()
        return bool(self._found) and self._found == self._stamp()

    def wait(self) -> None:
        """Wait for the process to end."""
        if self._found is None:
            self._found = self._helper.answer() or b""

    def close(self) -> None:
        """End the process, if nobody waited for it."""
        self._helper.close()

    def _look(self) -> bytes:
        before = self._stamp()
        return b"" if verify_pages(self._path) else before

    def _stamp(self) -> bytes:
        """Return what every commit changes, and every other write that the file system knows of; nothing if it cannot be told."""
        try:
            status = self._path.stat()
            told = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
            return repr((told, _measure(self._path))).encode()
        except (OSError, DkfsError):
            return b""


def verify_pages(path: Path) -> list[str]:
    """Return what is wrong with the pages of the index at *path*, read without LMDB.

    Nothing if it cannot be told because of a writer at work.
    """
    for _ in range(_VERIFY_ATTEMPTS):
        before = _measure(path)[2]
        try:
            # py-lmdb has no types for it
            problems = list(verify(os.fspath(path), subdir=False))  # type: ignore[no-untyped-call]
        except VerifyError as exc:
            problems = [str(exc)]
        if not problems:
            return []
        if _measure(path)[2] == before:
            return problems
    return []


def _measure(path: Path) -> tuple[int, int, int]:
    """Return the size of the file, the size that its meta pages need, and their transaction."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        need = newest = 0
        offset = 0
        for _ in range(2):
            head = os.pread(file.fileno(), _META_TAIL_OFFSET + _META_TAIL.size, offset)
            if len(head) < _META_TAIL_OFFSET + _META_TAIL.size:
                raise CorruptError(f"index {path} is {size} bytes, less than its two meta pages")
            magic, version, page_size = _META_HEAD.unpack_from(head)
            if magic != _MAGIC:
                raise StoreFormatError(f"index {path} is not an LMDB file")
            if version != 1 or not 256 <= page_size <= 65536:
                raise StoreFormatError(f"index {path} is of LMDB format {version}, need 1")
            last_page, txn = _META_TAIL.unpack_from(head, _META_TAIL_OFFSET)
            need, newest = max(need, (last_page + 1) * page_size), max(newest, txn)
            offset = page_size
        return size, need, newest
