"""Removes what a restore finds in its target and the version does not have: by open directories, never by a path."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from dkfs.core.patterns import Chosen, Selection
from dkfs.history.existing import IN_THE_WAY
from dkfs.history.places import Directories
from dkfs.model.ids import NodeId

_FIRST = -2  # numbers below stand for directories that no history knows; -1 is taken


@dataclass(slots=True)
class _Entry:
    parent: NodeId  # key in Directories
    name: bytes
    path: bytes
    chosen: Chosen
    above: "_Entry | None"
    key: NodeId | None = None  # of a directory whose contents have been dealt with
    is_kept: bool = False  # something below stays


class Remover:
    """Removes whole trees; what the selection does not mean stays, with the directories that lead to it."""

    def __init__(
        self,
        directories: Directories,
        *,
        selection: Selection,
        device: int,
        dry_run: bool,
        on_removed: Callable[[bytes], None],
        on_problem: Callable[[bytes, str], None],
    ) -> None:
        """*device*: that of the target; what lies on another is not the target's."""
        self._dirs = directories
        self._selection = selection
        self._device = device
        self._dry_run = dry_run
        self._on_removed = on_removed
        self._on_problem = on_problem
        self._keys = count(_FIRST, -1)

    def remove(self, parent: NodeId, name: bytes, path: bytes, above: Chosen) -> bool:
        """Remove *name* in the directory *parent*, and all below it; return whether it is gone."""
        top = _Entry(parent, name, path, self._selection.choose(path, above), None)
        stack = [top]
        while stack:
            entry = stack[-1]
            try:
                if entry.key is None and not self._is_plain(entry):
                    stack += self._below(entry)
                    continue
                self._take(entry)
            except OSError as exc:
                if exc.errno not in IN_THE_WAY:
                    raise
                entry.is_kept = True
                self._on_problem(entry.path, f"not removed: {exc.strerror}")
            stack.pop()
            if entry.key is not None:
                self._dirs.close(entry.key)
            if entry.is_kept and entry.above is not None:
                entry.above.is_kept = True
        return not top.is_kept

    def _is_plain(self, entry: _Entry) -> bool:
        status = os.stat(entry.name, dir_fd=self._dirs.fd(entry.parent), follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            return True
        if status.st_dev != self._device:
            entry.is_kept = True
            self._on_problem(entry.path, "not removed: another file system is mounted there")
            return True
        return not entry.chosen.may_hold

    def _below(self, entry: _Entry) -> list[_Entry]:
        """Return what is in the directory *entry*, which has a key from now on."""
        entry.key = NodeId(next(self._keys))
        self._dirs.put(entry.key, (entry.parent, entry.name))
        names = sorted(map(os.fsencode, os.listdir(self._dirs.fd(entry.key))), reverse=True)
        return [
            _Entry(
                entry.key,
                name,
                path := entry.path + b"/" + name,
                self._selection.choose(path, entry.chosen),
                entry,
            )
            for name in names
        ]

    def _take(self, entry: _Entry) -> None:
        if entry.is_kept or not entry.chosen.is_in:
            entry.is_kept = True
            return
        if not self._dry_run:
            fd = self._dirs.fd(entry.parent)
            if entry.key is None:
                os.unlink(entry.name, dir_fd=fd)
            else:
                os.rmdir(entry.name, dir_fd=fd)
        self._on_removed(entry.path)
