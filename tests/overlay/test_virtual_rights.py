"""Who may see what in the history tree."""

import errno
import random
from functools import partial
from pathlib import Path

import pytest

from dkfs.model.ids import ROOT, NodeId
from dkfs.model.node import Kind
from dkfs.overlay.access import ACL_ACCESS
from tests.history.model_history import ModelHistory
from tests.overlay.acls import Entry, acl, oracle
from tests.overlay.virtual_kernel import (
    ADMIN,
    OTHER,
    OWNER,
    PEOPLE,
    Kernel,
    Somebody,
    can,
    number_of_error,
    virtual_of,
)
from tests.overlay.virtual_operations import Operations

# ---- who may see it


def test_what_was_closed_then_stays_closed(history: ModelHistory, kernel: Kernel) -> None:
    history.create(b"f", b"secret")
    history.chmod(b"f", 0o600)
    history.write(b"f", b"public")
    history.chmod(b"f", 0o644)

    paths = [b".dkfs/versions/%d/f" % version for version in (2, 3, 4, 5)]
    assert [can(partial(kernel.read, path, OTHER)) for path in paths] == [True, False, False, True]
    assert not can(lambda: kernel.read(b".dkfs/files/f/4", OTHER))


@pytest.mark.parametrize("version", [3, 4])
def test_what_is_closed_now_is_closed_in_all_versions(
    history: ModelHistory, kernel: Kernel, version: int
) -> None:
    history.mkdir(b"d")
    history.create(b"d/f", b"once public")
    history.symlink(b"d/s", b"f")
    history.setxattr(b"d/f", {b"user.a": b"1"})
    assert kernel.read(b".dkfs/versions/%d/d/f" % version, OTHER) == b"once public"

    history.chmod(b"d", 0o700)
    assert not can(lambda: kernel.read(b".dkfs/versions/%d/d/f" % version, OTHER))
    assert not can(lambda: kernel.list(b".dkfs/versions/%d/d" % version, OTHER))
    assert not can(lambda: kernel.find(b".dkfs/files/d/f", OTHER))
    assert kernel.list(b".dkfs/files", OTHER) == [b"d"]
    assert kernel.list(b".dkfs/files/d", OTHER) == []
    assert can(lambda: kernel.read(b".dkfs/versions/%d/d/f" % version, OWNER))


def test_open_readlink_and_getxattr_ask_again(history: ModelHistory, kernel: Kernel) -> None:
    history.create(b"f", b"x")
    history.setxattr(b"f", {b"user.a": b"1", ACL_ACCESS: acl((1, 6, 0), (4, 4, 0), (32, 4, 0))})
    history.mkdir(b"d")
    history.symlink(b"d/s", b"f")
    number = kernel.find(b".dkfs/versions/3/f", OTHER).number
    link = kernel.find(b".dkfs/versions/5/d/s", OTHER).number
    directory = kernel.find(b".dkfs/versions/5/d", OTHER).number
    history.chmod(b"f", 0o600)
    history.chmod(b"d", 0o700)

    virtual = kernel.virtual
    assert number_of_error(lambda: virtual.open(number, 0, OTHER)) == errno.EACCES
    assert number_of_error(lambda: virtual.getxattr(number, b"user.a", OTHER)) == errno.EACCES
    assert virtual.listxattr(number, OTHER) == [ACL_ACCESS]
    assert virtual.getxattr(number, ACL_ACCESS, OTHER)
    assert number_of_error(lambda: virtual.readlink(link, OTHER)) == errno.EACCES
    assert number_of_error(lambda: virtual.opendir(directory, OTHER)) == errno.EACCES


def test_removed_file_is_judged_by_the_directory_it_was_removed_from_last(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"open")
    history.mkdir(b"closed")
    history.chmod(b"closed", 0o700)
    history.create(b"open/f", b"1")  # 5
    history.create(b"open/g", b"2")  # 6
    history.link(b"open/f", b"closed/f")
    history.link(b"open/g", b"closed/g")
    history.unlink(b"closed/g")
    history.unlink(b"open/g")
    history.unlink(b"open/f")
    assert not can(lambda: kernel.read(b".dkfs/versions/5/open/f", OTHER))  # still in closed/

    history.unlink(b"closed/f")
    assert not can(lambda: kernel.read(b".dkfs/versions/5/open/f", OTHER))
    assert kernel.read(b".dkfs/versions/6/open/g", OTHER) == b"2"


def test_contents_that_moved_to_a_closed_place_are_closed_where_they_were(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"open")
    history.mkdir(b"closed")
    history.mkdir(b"open/d")
    history.create(b"open/d/f", b"1")  # 5
    assert can(lambda: kernel.read(b".dkfs/versions/5/open/d/f", OTHER))
    history.chmod(b"closed", 0o700)
    history.rename(b"open/d", b"closed/d")

    assert not can(lambda: kernel.read(b".dkfs/versions/5/open/d/f", OTHER))
    assert not can(lambda: kernel.find(b".dkfs/versions/5/open/d", OTHER))
    assert kernel.list(b".dkfs/files/open/d", ADMIN) == [b"f"]
    assert not can(lambda: kernel.find(b".dkfs/files/open/d/f", OTHER))


def test_one_of_two_names_that_is_open_now_is_enough(history: ModelHistory, kernel: Kernel) -> None:
    history.mkdir(b"open")
    history.mkdir(b"closed")
    history.create(b"open/f", b"1")  # 4
    history.chmod(b"closed", 0o700)
    history.link(b"open/f", b"closed/f")

    assert kernel.read(b".dkfs/versions/4/open/f", OTHER) == b"1"


def test_files_lists_only_what_could_be_listed_then(history: ModelHistory, kernel: Kernel) -> None:
    history.mkdir(b"d")
    history.create(b"d/early", b"1")  # 3
    history.chmod(b"d", 0o711)
    history.create(b"d/hidden", b"2")  # 5
    history.unlink(b"d/early")
    history.unlink(b"d/hidden")
    history.chmod(b"d", 0o755)

    assert kernel.list(b".dkfs/files/d") == [b"early", b"hidden"]
    assert kernel.list(b".dkfs/files/d", OTHER) == [b"early"]
    assert kernel.read(b".dkfs/files/d/hidden/5", OTHER) == b"2"  # whose name had to be known


def test_files_lists_only_versions_that_could_be_reached_then(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"d")
    history.create(b"d/f", b"1")  # 3
    history.chmod(b"d", 0o700)
    history.write(b"d/f", b"2")  # 5
    history.chmod(b"d", 0o755)
    history.write(b"d/f", b"3")  # 7

    assert kernel.list(b".dkfs/files/d/f") == [b"7", b"5", b"3"]
    assert kernel.list(b".dkfs/files/d/f", OTHER) == [b"7", b"3"]
    assert not kernel.exists(b".dkfs/files/d/f/5", OTHER)


def test_file_that_lost_all_names_at_once_is_open_only_if_all_their_directories_are(
    history: ModelHistory, kernel: Kernel
) -> None:
    history.mkdir(b"d")
    history.mkdir(b"d/open")
    history.mkdir(b"d/closed")
    history.create(b"d/open/f", b"1")  # 5
    history.chmod(b"d/closed", 0o700)
    history.link(b"d/open/f", b"d/closed/f")
    history.link(b"d/open/f", b"d/open/g")
    history.found(removed=[b"d/open/f", b"d/open/g", b"d/closed/f"])

    assert not can(lambda: kernel.read(b".dkfs/versions/5/d/open/f", OTHER))
    history.chmod(b"d/closed", 0o755)
    assert kernel.read(b".dkfs/versions/5/d/open/f", OTHER) == b"1"


def test_new_names_of_a_node_count_at_once(history: ModelHistory, kernel: Kernel) -> None:
    history.mkdir(b"open")
    history.mkdir(b"closed")
    history.chmod(b"closed", 0o700)
    history.create(b"open/f", b"1")  # 5
    history.rename(b"open/f", b"closed/f")
    assert not can(lambda: kernel.read(b".dkfs/versions/5/open/f", OTHER))

    history.link(b"closed/f", b"open/g")
    history.rename(b"closed/f", b"closed/h")  # the last state does not tell of open/g any more
    assert kernel.read(b".dkfs/versions/5/open/f", OTHER) == b"1"
    history.unlink(b"open/g")
    assert not can(lambda: kernel.read(b".dkfs/versions/5/open/f", OTHER))


def test_listing_gives_up_where_it_would_take_too_long(
    history: ModelHistory, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dkfs.overlay.virtual_rights._ASKED", 5)
    monkeypatch.setattr("dkfs.overlay.virtual_files.LISTED_NAMES", 20)
    with history.batch():
        for i in range(10, 40):
            history.create(b"f%d" % i)
            history.unlink(b"f%d" % i)

    assert kernel.list(b".dkfs/files") == [b"f%d" % i for i in range(10, 30)]
    assert kernel.list(b".dkfs/files", OTHER) == [b"f%d" % i for i in range(10, 15)]


def test_malformed_acl_closes_a_file(history: ModelHistory, kernel: Kernel) -> None:
    history.create(b"f", b"1")
    assert can(lambda: kernel.read(b".dkfs/versions/2/f", OTHER))
    history.setxattr(b"f", {ACL_ACCESS: b"\2\0\0\0junk"})

    assert not can(lambda: kernel.read(b".dkfs/versions/2/f", OTHER))
    assert can(lambda: kernel.read(b".dkfs/versions/2/f", OWNER))


# ---- generated cases


class Oracle:
    """Says who may read what, from copies of every tree and by the words of the promise."""

    def __init__(self, history: ModelHistory, who: Somebody) -> None:
        self._history = history
        self._who = who
        self._acls: dict[object, list[Entry]] = history.__dict__.get("acls", {})

    def may_read(self, path: bytes, version: int) -> bool:
        """Return whether *path* as of *version* could be read then and may be read now."""
        tree = self._history.trees[version]
        node = ROOT
        for name in path.split(b"/"):
            if not (self._has(1, node, version) and self._has(1, node) and self._reaches(node)):
                return False
            node = tree.names[node, name]
        return self._has(4, node, version) and self._has(4, node) and self._reaches(node)

    def _has(self, want: int, node: NodeId, version: int = -1) -> bool:
        state = self._history.trees[version].states[node]
        attr = state.attr
        case = attr.mode, attr.uid, attr.gid, self._acls.get(state.xattrs)
        return oracle(want, case, self._who.uid, self._who.all_groups)

    def _reaches(self, node: NodeId) -> bool:
        if node == ROOT:
            return True
        for version in range(self._history.last, 0, -1):
            names = self._history.trees[version].names
            ways = [
                self._has(1, parent) and self._reaches(parent)
                for (parent, _), child in names.items()
                if child == node
            ]
            if ways:
                return any(ways) if version == self._history.last else all(ways)
        raise AssertionError("a node that never had a name")


@pytest.mark.parametrize("seed", range(12))
def test_generated_cases_are_decided_as_the_oracle_decides(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    allowed = refused = 0
    with ModelHistory(tmp_path / "store") as history:
        Operations(history, rng).run(70)
        kernel = Kernel(virtual_of(history))
        everything = [
            (path, version)
            for version in range(1, history.last + 1)
            for path, node in history.trees[version].paths().items()
            if history.trees[version].states[node].attr.kind is Kind.FILE
        ]
        for path, version in rng.sample(everything, min(60, len(everything))):
            for who in PEOPLE:
                expected = Oracle(history, who).may_read(path, version)
                found = can(lambda: kernel.read(b".dkfs/versions/%d/" % version + path, who))  # noqa: B023
                assert found == expected, (path, version, who)
                if can(lambda: kernel.read(b".dkfs/files/" + path + b"/%d" % version, who)):  # noqa: B023
                    assert expected, (path, version, who)
                allowed += found
                refused += not found

    assert allowed + refused >= 30
