"""Makes a real directory follow a Plan: the one way in which dkfs changes a directory that is not empty.

A node that stays keeps its inode: contents are rewritten in place, directories are renamed, so open files, maps and
locks stay what they are.  New files are complete before they get their name, by rename(2) over what had it.  Order:

1. what is new is made, in the staging directory or in a new directory there: if that fails, nothing has changed;
2. nodes that get another name are moved (directories) or linked (all else) into the staging directory;
3. names that go are removed, then all others are given;
4. contents and metadata of what stayed; the staging directory goes; metadata of directories, their mtimes untouched.

What cannot be done to one file (damage in the store, contents forgotten, no privilege) is a problem in the result, and the file stays as it
was; trouble with the whole (no space, no such directory) raises OSError.
"""

import errno
import os

from dkfs.core.plan import Binding, Plan, Step, has_same_content, is_directory
from dkfs.errors import CorruptError, ExistsError, ForgottenError
from dkfs.failpoints import failpoint
from dkfs.history import content, creation, fileout
from dkfs.history.links import Place
from dkfs.history.metadata import held, settle
from dkfs.history.outcome import Result, Tally
from dkfs.history.places import Directories, check_name
from dkfs.history.tree import shown
from dkfs.model.ids import NO_NODE, ROOT, NodeId
from dkfs.model.node import Kind, NodeState
from dkfs.store import Reader

STAGING_NAME = b".dkfs-rollback"  # in the root, while a plan is applied

_STAGING = NodeId(-1)
_SPARE = b"link"  # in the staging directory, for a moment
_IN_THE_WAY = frozenset((errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.EBUSY))
_NO_LINKS = frozenset((errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP))
_OWNER_ALL = 0o700


def apply(plan: Plan, reader: Reader, root_fd: int) -> Result:
    """Make the directory *root_fd*, which equals plan.base, what *plan* wants; raises OSError, CorruptError.

    Raises ExistsError if the staging directory of another run is there.
    """
    if plan.is_empty:
        return Result()
    for _, name, _, _ in plan.names:
        check_name(name)
    with Directories(root_fd, lambda node: _recorded_place(reader, plan, node)) as directories:
        return _Application(plan, reader, root_fd, directories).run()


def _recorded_place(reader: Reader, plan: Plan, node: NodeId) -> Place:
    state = reader.node(node, plan.base)
    if state is None:
        raise CorruptError(f"directory node {node} has no state at version {plan.base}")
    return state.parent, check_name(state.name)


class _Application:
    def __init__(self, plan: Plan, reader: Reader, root_fd: int, directories: Directories) -> None:
        self._plan = plan
        self._reader = reader
        self._root_fd = root_fd
        self._dirs = directories
        self._dirs.put(_STAGING, (ROOT, STAGING_NAME))
        self._steps = {step.node: step for step in plan.steps}
        self._made: dict[NodeId, Place] = {}  # new nodes, where they were made
        self._handles: dict[NodeId, Place] = {}  # where the next name of a file is linked from
        self._tally = Tally()
        self._failed = self._tally.failed

    def run(self) -> Result:
        """Do it all."""
        if self._plan.names:
            self._loosen()
            failpoint("rollback.stage")
            self._make_staging()
            try:
                self._create()
            except BaseException:
                self._discard()
                raise
            self._take_aside()
            self._remove()
            self._place()
        for step in self._plan.steps:
            if step.old is not None and step.new is not None and not is_directory(step.new):
                self._change(step, step.new)
        if self._plan.names:
            failpoint("rollback.unstage")
            self._remove_staging()
        failpoint("rollback.settle")
        self._settle_directories()
        return self._tally.result()

    # 1. What is new.

    def _loosen(self) -> None:
        """Let a user who is not root change directories of his own that he made read-only."""
        if os.geteuid() == 0:
            return
        for parent in dict.fromkeys(name.parent for name in self._plan.names):
            if self._is_new(parent):
                continue
            fd = self._dirs.fd(parent)
            mode = os.fstat(fd).st_mode & 0o7777
            if mode & _OWNER_ALL != _OWNER_ALL:
                os.fchmod(fd, mode | _OWNER_ALL)

    def _make_staging(self) -> None:
        try:
            os.mkdir(STAGING_NAME, _OWNER_ALL, dir_fd=self._root_fd)
        except FileExistsError:
            if os.listdir(self._dirs.fd(_STAGING)):
                raise ExistsError(
                    f"{shown(STAGING_NAME)} of an unfinished rollback is in the directory: expected none"
                ) from None
        fd = self._dirs.fd(_STAGING)
        for name in os.listxattr(fd):
            if name == "system.posix_acl_default":  # or everything made there would inherit it
                os.removexattr(fd, name)
        if os.fstat(fd).st_mode & 0o7777 != _OWNER_ALL:
            os.fchmod(fd, _OWNER_ALL)

    def _create(self) -> None:
        for step in self._plan.steps:
            if step.old is None and step.new is not None:
                failpoint("rollback.create")
                self._create_node(step.node, step.new)

    def _create_node(self, node: NodeId, state: NodeState) -> None:
        place = _STAGING, b"n%d" % node
        if state.parent in self._made and is_directory(self._state(state.parent)):
            place = state.parent, state.name
        dir_fd = self._dirs.fd(place[0])
        if is_directory(state):
            os.mkdir(place[1], _OWNER_ALL, dir_fd=dir_fd)
            self._dirs.put(node, place)
        else:
            try:
                written, problems = creation.create(self._reader, state, place[1], dir_fd)
            except (CorruptError, ForgottenError, PermissionError) as exc:
                self._failed.add(node)
                self._report(state.parent, state.name, f"not made: {self._tally.problem(exc)}")
                return
            self._tally.bytes_written += written
            for each in problems:
                self._report(state.parent, state.name, each)
        self._made[node] = place
        self._tally.created += 1

    def _discard(self) -> None:
        """Remove what was made, before anything else was changed."""
        for node, (parent, name) in reversed(self._made.items()):
            fd = self._dirs.fd(parent)
            if is_directory(self._state(node)):
                self._dirs.close(node)
                os.rmdir(name, dir_fd=fd)
            else:
                os.unlink(name, dir_fd=fd)
        self._remove_staging()

    # 2. What gets another name.

    def _take_aside(self) -> None:
        for node, source in self._plan.sources.items():
            failpoint("rollback.aside")
            aside = _STAGING, b"m%d" % node
            try:
                with self._dirs.pair(source[0], _STAGING) as (source_fd, staging_fd):
                    if self._is_dir(node):
                        os.rename(source[1], aside[1], src_dir_fd=source_fd, dst_dir_fd=staging_fd)
                        self._dirs.put(node, aside)
                    else:
                        _link_or_rename(source[1], source_fd, aside[1], staging_fd)
                        self._handles[node] = aside
            except FileNotFoundError:
                self._failed.add(node)
                self._report(*source, "is not there, expected it")

    # 3. Names.

    def _remove(self) -> None:
        going: list[Binding] = []
        for binding in self._plan.names:
            failpoint("rollback.remove")
            parent, name, old, new = binding
            if old == NO_NODE or new in self._failed:
                continue
            if self._is_dir(old):
                if old not in self._plan.sources:
                    going.append(binding)
            elif new == NO_NODE or self._is_dir(new):
                try:
                    os.unlink(name, dir_fd=self._dirs.fd(parent))
                except FileNotFoundError:
                    continue
        for parent, name, old, _ in reversed(going):  # a directory comes before what it holds
            failpoint("rollback.rmdir")
            self._dirs.close(old)
            try:
                os.rmdir(name, dir_fd=self._dirs.fd(parent))
            except FileNotFoundError:
                continue
            except OSError as exc:
                if exc.errno not in _IN_THE_WAY:
                    raise
                self._report(parent, name, f"not removed: {exc.strerror}")
        self._tally.removed = sum(step.new is None for step in self._plan.steps)

    def _place(self) -> None:
        names_left: dict[NodeId, int] = {}
        for binding in self._plan.names:
            names_left[binding.new] = names_left.get(binding.new, 0) + 1
        for parent, name, _, new in self._plan.names:
            if new == NO_NODE or new in self._failed or parent in self._failed:
                continue
            names_left[new] -= 1
            if self._made.get(new) == (parent, name):
                continue
            try:
                failpoint("rollback.name")
                self._give_name(parent, name, new, is_last=not names_left[new])
            except OSError as exc:
                if exc.errno not in _IN_THE_WAY:
                    raise
                self._report(parent, name, f"not put in place: {exc.strerror}")

    def _give_name(self, parent: NodeId, name: bytes, node: NodeId, *, is_last: bool) -> None:
        if self._is_dir(node):
            at = self._dirs.place(node)
            with self._dirs.pair(at[0], parent) as (source_fd, fd):
                os.rename(at[1], name, src_dir_fd=source_fd, dst_dir_fd=fd)
            self._dirs.put(node, (parent, name))
            return
        at = self._handles.get(node) or self._made[node]
        if at[0] == _STAGING and is_last:
            with self._dirs.pair(_STAGING, parent) as (staging_fd, fd):
                os.rename(at[1], name, src_dir_fd=staging_fd, dst_dir_fd=fd)
            return
        with self._dirs.pair(at[0], _STAGING) as (source_fd, staging_fd):
            os.link(
                at[1], _SPARE, src_dir_fd=source_fd, dst_dir_fd=staging_fd, follow_symlinks=False
            )
        with self._dirs.pair(_STAGING, parent) as (staging_fd, fd):
            os.rename(_SPARE, name, src_dir_fd=staging_fd, dst_dir_fd=fd)

    # 4. Contents and metadata.

    def _change(self, step: Step, new: NodeState) -> None:
        parent, name = new.parent, new.name
        if step.node in self._failed:
            return
        try:
            failpoint("rollback.change")
            with held(check_name(name), self._dirs.fd(parent)) as path:
                xattrs = content.xattrs(self._reader, new)
                if new.attr.kind is Kind.FILE and not (
                    step.known and step.old is not None and has_same_content(step.old, new)
                ):
                    self._rewrite(step, new, path)
                else:
                    self._tally.attributes += 1
                problems = settle(path, new, xattrs, fresh=False)
        except FileNotFoundError:
            self._failed.add(step.node)
            problems = ["is not there, expected it"]
        except (CorruptError, ForgottenError, PermissionError) as exc:
            self._failed.add(step.node)
            problems = [f"not changed: {self._tally.problem(exc)}"]
        except OSError as exc:
            if exc.errno != errno.ETXTBSY:
                raise
            self._failed.add(step.node)
            problems = ["not changed: it is being executed"]
        for each in problems:
            self._report(parent, name, each)

    def _rewrite(self, step: Step, new: NodeState, path: bytes) -> None:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            os.chmod(path, 0o600)  # one's own file, read-only; its mode is set afterwards
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            written = fileout.rewrite(fd, self._reader, step.old if step.known else None, new)
        finally:
            os.close(fd)
        self._tally.rewritten += 1
        self._tally.bytes_written += written

    def _settle_directories(self) -> None:
        wanted: dict[NodeId, NodeState | None] = {}
        touched = [name.parent for name in self._plan.names]
        for parent in (ROOT, *touched) if touched else ():  # the root held the staging directory
            if parent not in self._steps:
                wanted[parent] = self._reader.node(parent, self._plan.base)
        for step in self._plan.steps:
            if is_directory(step.new):
                wanted[step.node] = step.new
                self._tally.attributes += step.old is not None
        # The deepest first: a user who is not root may lose the way to what lies below.
        for node in sorted(wanted, key=self._depth, reverse=True):
            state = wanted[node]
            if state is None or node in self._failed:
                continue
            try:
                xattrs = content.xattrs(self._reader, state)
                problems = settle(self._dirs.fd(node), state, xattrs, fresh=False)
            except CorruptError as exc:
                problems = [self._tally.problem(exc)]
            for each in problems:
                self._report(state.parent, state.name, each)

    def _remove_staging(self) -> None:
        """Remove the staging directory and the handles in it; a directory with no place to go stays."""
        fd = self._dirs.fd(_STAGING)
        for name in os.listdir(fd):
            try:
                os.unlink(name, dir_fd=fd)
            except IsADirectoryError:
                self._report(_STAGING, os.fsencode(name), "left there, its place was taken")
        self._dirs.close(_STAGING)
        try:
            os.rmdir(STAGING_NAME, dir_fd=self._root_fd)
        except OSError as exc:
            if exc.errno != errno.ENOTEMPTY:
                raise

    # What is what.

    def _state(self, node: NodeId) -> NodeState | None:
        step = self._steps.get(node)
        if step is not None:
            return step.new or step.old
        return self._reader.node(node, self._plan.base)

    def _is_dir(self, node: NodeId) -> bool:
        return node != NO_NODE and is_directory(self._state(node))

    def _is_new(self, node: NodeId) -> bool:
        step = self._steps.get(node)
        return step is not None and step.old is None

    def _depth(self, node: NodeId) -> int:
        depth = 0
        while node != ROOT:
            node = self._dirs.place(node)[0]
            depth += 1
        return depth

    def _report(self, parent: NodeId, name: bytes, what: str) -> None:
        names = [name]
        while parent != ROOT:
            parent, name = self._place_of(parent)
            names.append(name)
        self._tally.problems.append(f"{shown(b'/'.join(reversed(names)))}: {what}")

    def _place_of(self, node: NodeId) -> Place:
        step = self._steps.get(node)
        if step is not None and step.new is not None:
            return step.new.parent, step.new.name
        return self._dirs.place(node)


def _link_or_rename(source: bytes, source_fd: int, name: bytes, fd: int) -> None:
    try:
        os.link(source, name, src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        os.rename(source, name, src_dir_fd=source_fd, dst_dir_fd=fd)
