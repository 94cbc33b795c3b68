"""Makes a directory follow a version, or a part of one: what `dkfs restore` does.

The target may hold something, and somebody may be changing it meanwhile.  Every step is one name in an open directory
that was reached from the target without following a link, so nothing outside of it is ever touched; a file that has
further names is replaced, never written to.  A file is complete before it gets its name.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

from dkfs.core.patterns import Chosen
from dkfs.errors import CorruptError, NotFoundError
from dkfs.history import content, existing
from dkfs.history.existing import IN_THE_WAY, Inode, Match
from dkfs.history.fill import Source
from dkfs.history.level import Item, Level
from dkfs.history.links import Place
from dkfs.history.metadata import OwnerRefused, is_settled, settle
from dkfs.history.outcome import Tally
from dkfs.history.places import Directories, check_name
from dkfs.history.removal import Remover
from dkfs.history.tree import shown
from dkfs.history.wish import Action, Overwrite, Wish, permitted
from dkfs.model.ids import ROOT, NodeId
from dkfs.model.node import Kind, NodeState

_OWNER_ALL = 0o700


class Extraction:
    """One run."""

    def __init__(self, source: Source, root_fd: int | None, wish: Wish, only: bytes | None) -> None:
        """*root_fd*: None for one that does not exist, in a dry run; *only* this name of the source."""
        self._reader = source.reader
        self._source = source
        self._root_fd = root_fd
        self._wish = wish
        self._only = only
        self.tally = Tally()
        self._dirs = Directories(-1 if root_fd is None else root_fd, self._unknown)
        self._seen: set[NodeId] = {source.top}
        # What has been made, for further links and for a last look; no inode: would have been made.
        self._files: dict[NodeId, tuple[Place, Inode | None]] = {}
        self._remover = Remover(
            self._dirs,
            selection=wish.selection,
            device=0 if root_fd is None else os.fstat(root_fd).st_dev,
            dry_run=wish.dry_run,
            on_removed=self._removed,
            on_problem=self._report,
        )

    def run(self) -> None:
        """Do it all."""
        with self._dirs:
            top = self._top()
            self._loosen(top)
            stack: list[tuple[Level, bool]] = [(top, False)]
            while stack:
                level, is_done = stack.pop()
                if is_done:
                    self._finish(level)
                else:
                    stack.append((level, True))
                    stack += [(below, False) for below in self._enter(level)]
            if self._wish.verify and not self._wish.dry_run:
                self._verify()

    def _top(self) -> Level:
        node, fd = self._source.top, self._root_fd
        state = self._state(node)
        chosen = self._wish.selection.top
        is_wanted = self._only is None and chosen.is_in
        if fd is not None and not self._may_replace(os.fstat(fd), state):
            is_wanted = False
        level = Level(node, ROOT, b"", b"", None, chosen, None, is_there=fd is not None)
        level.state = state if is_wanted else None
        level.is_made = fd is None
        return level

    # Down: what the version has.

    def _enter(self, level: Level) -> list[Level]:
        """Make all that is in *level* but what is in its directories; return these."""
        below = []
        for name, node in self._children(level):
            level.names.add(name)
            path = level.path_of(name)
            try:
                chosen = self._wish.selection.choose(path, level.chosen)
                if chosen.may_hold:
                    found = self._one(level, check_name(name), path, node, chosen)
                    if found is not None:
                        below.append(found)
            except (CorruptError, NotFoundError, OSError) as exc:
                self._failed(path, exc)
            if self._wish.on_progress is not None:
                self._wish.on_progress(self.tally.created, 0, self.tally.bytes_written)
        return below

    def _children(self, level: Level) -> Iterator[tuple[bytes, NodeId]]:
        if self._only is None or level.above is not None:
            return self._reader.children(level.node, self._source.at)
        node = self._reader.child(level.node, self._only, self._source.at)
        return iter([(self._only, node)])

    def _one(
        self, level: Level, name: bytes, path: bytes, node: NodeId, chosen: Chosen
    ) -> Level | None:
        """Make one name; return it if it is a directory to enter."""
        status = existing.look(name, self._dirs.fd(level.key)) if level.is_there else None
        item = Item(level, name, path, node, self._state(node), status)
        if item.state.attr.kind is Kind.DIR:
            return self._directory(item, chosen)
        if chosen.is_in:
            self._file(item)
        return None

    def _directory(self, item: Item, chosen: Chosen) -> Level | None:
        if item.node in self._seen:
            raise CorruptError(f"directory node {item.node} has two names")
        self._seen.add(item.node)
        status = item.status
        is_there = status is not None and existing.kind_of(status) is Kind.DIR
        is_wanted = status is None or self._may_replace(status, item.state)
        if not is_there and not is_wanted:
            self.tally.kept += 1
            return None
        above, name = item.level, item.name
        level = Level(item.node, item.node, name, item.path, above, chosen, None, is_there)
        if not is_there or (is_wanted and chosen.is_in):
            level.state = item.state
        level.replaces = status is not None and not is_there
        self._dirs.put(item.node, (above.key, name))
        if is_there:
            self._loosen(level)
        elif chosen.is_in:
            self._ensure(level)
        return level

    def _file(self, item: Item) -> None:
        if item.status is not None and not self._may_replace(item.status, item.state):
            self.tally.kept += 1
            return
        first = self._files.get(item.node)
        if first is not None:
            self._link(item, *first)
            return
        state, xattrs, omitted = permitted(
            self._wish, item.state, content.xattrs(self._reader, item.state)
        )
        if omitted:
            self.tally.left_out.append(f"{shown(item.path)}: {omitted} left out")
        if state is None:
            return
        item = replace(item, state=state)
        match, status = self._compared(item, xattrs), item.status
        inode = None if status is None else existing.inode_of(status)
        if match is Match.METADATA and status is not None and status.st_nlink == 1:
            self._settle_file(item, xattrs, status)
        elif match is not Match.SAME:
            inode = self._put(item, xattrs)
        self._files[item.node] = (item.level.key, item.name), inode

    # What one name gets.

    def _compared(self, item: Item, xattrs: Mapping[bytes, bytes]) -> Match:
        if item.status is None:
            return Match.OTHER
        return existing.compare(
            self._reader,
            item.state,
            xattrs,
            name=item.name,
            dir_fd=self._dirs.fd(item.level.key),
            status=item.status,
            trust=self._wish.overwrite is not Overwrite.ALWAYS,
        )

    def _put(self, item: Item, xattrs: Mapping[bytes, bytes]) -> Inode | None:
        self._make_room(item)
        self._ensure(item.level)
        inode = None
        if self._wish.dry_run:
            written, problems = item.size(self._reader), list[str]()
        else:
            written, problems, inode = existing.put(
                self._reader,
                item.state,
                xattrs,
                name=item.name,
                dir_fd=self._dirs.fd(item.level.key),
                fresh=item.level.is_made,
            )
        self.tally.bytes_written += written
        self._count(item.path, is_new=item.status is None)
        for each in problems:
            self._report(item.path, each)
        return inode

    def _link(self, item: Item, place: Place, inode: Inode | None) -> None:
        if item.status is not None and existing.inode_of(item.status) == inode:
            return
        self._make_room(item)
        self._ensure(item.level)
        if inode is not None and not self._wish.dry_run:
            with self._dirs.pair(place[0], item.level.key) as (source_fd, fd):
                existing.link(place[1], source_fd, item.name, fd, inode=inode)
        self._notify(Action.MAKE if item.status is None else Action.CHANGE, item.path)

    def _settle_file(
        self, item: Item, xattrs: Mapping[bytes, bytes], status: os.stat_result
    ) -> None:
        if not self._wish.dry_run:
            fd = self._dirs.fd(item.level.key)
            for each in existing.settle_file(
                item.name, fd, status, state=item.state, xattrs=xattrs
            ):
                self._report(item.path, each)
        self.tally.attributes += 1
        self._notify(Action.SETTLE, item.path)

    def _make_room(self, item: Item) -> None:
        """Remove a directory that is where a file is to be."""
        if item.status is None or existing.kind_of(item.status) is not Kind.DIR:
            return
        level = item.level
        if not self._wish.delete:
            fd = self._dirs.fd(level.key)
            existing.make_room(item.name, fd, dry_run=self._wish.dry_run)
        elif not self._remover.remove(level.key, item.name, item.path, level.chosen):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), item.name)

    def _ensure(self, level: Level) -> None:
        """Make *level*, and what is above it, unless they are there."""
        missing: list[Level] = []
        above: Level | None = level
        while above is not None and not above.is_there and not above.is_made:
            missing.append(above)
            above = above.above
        for each in reversed(missing):
            if not self._wish.dry_run:
                self._make_directory(each)
            each.is_made = True
            self._count(each.path, is_new=not each.replaces)

    def _make_directory(self, level: Level) -> None:
        assert level.above is not None
        fd = self._dirs.fd(level.above.key)
        if level.replaces:
            os.unlink(level.name, dir_fd=fd)
        os.mkdir(level.name, _OWNER_ALL, dir_fd=fd)
        existing.drop_default_acl(self._dirs.fd(level.key))
        level.is_there = True

    # Up: what a directory gets when all in it is done.

    def _finish(self, level: Level) -> None:
        try:
            if level.is_there:
                if not level.is_made and (self._only is None or level.above is not None):
                    self._clear(level)
                self._settle_directory(level)
        except (CorruptError, OSError) as exc:
            self._failed(level.path, exc)
        self._dirs.close(level.key)

    def _clear(self, level: Level) -> None:
        """Remove what an interrupted restore left, and, if wished, what the version does not have."""
        fd = self._dirs.fd(level.key)
        for name in sorted(set(map(os.fsencode, os.listdir(fd))) - level.names):
            if existing.is_leftover(name):
                if not self._wish.dry_run:
                    os.unlink(name, dir_fd=self._dirs.fd(level.key))
            elif self._wish.delete:
                self._remover.remove(level.key, name, level.path_of(name), level.chosen)

    def _settle_directory(self, level: Level) -> None:
        fd = self._dirs.fd(level.key)
        if level.state is None:
            if level.mode is not None:
                os.fchmod(fd, level.mode)
            return
        xattrs = content.xattrs(self._reader, level.state)
        if not self._wish.dry_run:
            for each in settle(fd, level.state, xattrs, fresh=False):
                self._report(level.path, each)
            return
        # Its time is set again whenever something in it changes: no change worth telling.
        status = os.fstat(fd)
        wanted = replace(level.state, attr=replace(level.state.attr, mtime_ns=status.st_mtime_ns))
        if not is_settled(b".", fd, status, state=wanted, xattrs=xattrs):
            self._notify(Action.SETTLE, level.path)

    def _verify(self) -> None:
        for node, ((parent, name), inode) in self._files.items():
            state = self._state(node)
            if state.attr.kind is not Kind.FILE or inode is None:
                continue
            path = self._path_of(parent, name)
            try:
                fd = existing.open_file(name, self._dirs.fd(parent), inode)
                try:
                    is_good = existing.is_written(fd, self._reader, state)
                finally:
                    os.close(fd)
            except (CorruptError, OSError) as exc:
                self._report(path, f"not verified: {self._said(exc)}")
                continue
            self.tally.verified += 1
            if not is_good:
                self.tally.damaged += 1
                self._report(path, "differs from the version now that it is read again")

    # What is what.

    def _loosen(self, level: Level) -> None:
        """Let a user who is not root change a directory of his own that is read-only."""
        if self._wish.dry_run or os.geteuid() == 0:
            return
        fd = self._dirs.fd(level.key)
        status = os.fstat(fd)
        if status.st_uid == os.geteuid() and status.st_mode & _OWNER_ALL != _OWNER_ALL:
            level.mode = status.st_mode & 0o7777
            os.fchmod(fd, level.mode | _OWNER_ALL)

    def _may_replace(self, status: os.stat_result, state: NodeState) -> bool:
        overwrite = self._wish.overwrite
        if overwrite is Overwrite.IF_NEWER:
            return state.attr.mtime_ns > status.st_mtime_ns
        return overwrite is not Overwrite.NEVER

    def _state(self, node: NodeId) -> NodeState:
        state = self._reader.node(node, self._source.at)
        if state is None:
            raise CorruptError(f"node {node} has a name but no state at version {self._source.at}")
        return state

    def _unknown(self, node: NodeId) -> Place:
        raise CorruptError(f"directory node {node} was not made")

    def _path_of(self, directory: NodeId, name: bytes) -> bytes:
        names = [name]
        while directory != ROOT:
            directory, name = self._dirs.place(directory)
            names.append(name)
        return b"/".join(reversed(names))

    # What is told.

    def _count(self, path: bytes, *, is_new: bool) -> None:
        if is_new:
            self.tally.created += 1
        else:
            self.tally.rewritten += 1
        self._notify(Action.MAKE if is_new else Action.CHANGE, path)

    def _removed(self, path: bytes) -> None:
        self.tally.removed += 1
        self._notify(Action.REMOVE, path)

    def _notify(self, action: Action, path: bytes) -> None:
        if self._wish.on_action is not None:
            self._wish.on_action(action, path)

    def _failed(self, path: bytes, exc: CorruptError | NotFoundError | OSError) -> None:
        if isinstance(exc, OSError) and exc.errno not in IN_THE_WAY:
            raise exc
        self._report(path, f"not made: {self._said(exc)}")

    def _said(self, exc: CorruptError | NotFoundError | OSError) -> str:
        return str(exc) if isinstance(exc, NotFoundError) else self.tally.problem(exc)

    def _report(self, path: bytes, what: str) -> None:
        if isinstance(what, OwnerRefused):
            self.tally.owners_kept += 1
            return
        self.tally.problems.append(f"{shown(path)}: {what}")
