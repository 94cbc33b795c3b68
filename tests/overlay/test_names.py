"""Names: what each change of a name leaves in the log, and in the table of inodes."""

import errno
import os
from pathlib import Path

import pytest

from dkfs.errors import CorruptError
from dkfs.history.tree import Tree
from dkfs.model.ids import NO_NODE, ROOT
from dkfs.model.operation import OpKind
from dkfs.overlay.backing import RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.overlay.driver import ME, Driver, driven


def names(it: Driver) -> list[bytes]:
    seq = it.flush()
    with it.store.read() as reader:
        return [name for name, _ in Tree(reader, seq).children(ROOT)]


def test_every_kind_of_name_is_one_operation(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        root, fs = it.root, it.fs.names
        file = it.create(b"file")
        fs.mkdir(root, b"dir", 0o755, ME)
        fs.symlink(root, b"symlink", b"target", ME)
        fs.mknod(root, b"fifo", 0o010644, 0, ME)
        fs.link(file, root, b"link", ME)
        fs.rename(root, b"file", root, b"renamed", 0, ME)
        fs.rename(root, b"fifo", root, b"dir", RENAME_EXCHANGE, ME)
        fs.unlink(root, b"symlink", ME)
        fs.rmdir(root, b"fifo", ME)

        assert it.kinds() == [
            *(OpKind.CREATE, OpKind.MKDIR, OpKind.SYMLINK, OpKind.MKNOD, OpKind.LINK),
            *(OpKind.RENAME, OpKind.EXCHANGE, OpKind.UNLINK, OpKind.RMDIR),
        ]
        assert names(it) == [b"dir", b"link", b"renamed"]
        assert it.node(b"link") == it.node(b"renamed")


def test_contents_are_recorded_before_the_name_that_they_get(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.create(b"file", b"old")
        number = it.open(it.create(b"tmp"))
        it.fs.files.write(number, 0, b"new")
        it.fs.names.rename(it.root, b"tmp", it.root, b"file", 0, ME)
        seq = it.flush()

        assert it.kinds()[-2:] == [OpKind.WRITE, OpKind.RENAME]
        assert it.recorded(b"file", seq) == b"new"
        it.close(number)


def test_what_is_refused_is_not_recorded_and_holds_nothing(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        root, fs = it.root, it.fs.names
        it.create(b"file")
        full, _ = fs.mkdir(root, b"full", 0o755, ME)
        fs.mkdir(full, b"in", 0o755, ME)
        fs.mkdir(root, b"dir", 0o755, ME)
        before = it.kinds()
        for code, attempt in (
            (errno.ENOTEMPTY, lambda: fs.rmdir(root, b"full", ME)),
            (errno.ENOTEMPTY, lambda: fs.rename(root, b"dir", root, b"full", 0, ME)),
            (errno.EEXIST, lambda: fs.rename(root, b"dir", root, b"full", RENAME_NOREPLACE, ME)),
            (errno.ENOENT, lambda: fs.unlink(root, b"none", ME)),
            (errno.EINVAL, lambda: fs.rename(root, b"dir", root, b"x", 8, ME)),
            (errno.EPERM, lambda: fs.mkdir(root, b".dkfs", 0o755, ME)),
        ):
            with pytest.raises(OSError) as refused:
                attempt()
            assert refused.value.errno == code

        assert it.kinds() == before
        assert it.fs.table.pinned == 0


@pytest.mark.parametrize("exc", [OSError(errno.EIO, "no"), CorruptError("damaged")])
def test_who_was_to_be_replaced_is_not_held_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exc: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise exc

    with driven(tmp_path) as it:
        for name in (b"one", b"two"):
            it.create(name, b"x")
        fs, root = it.fs.names, it.root
        with monkeypatch.context() as patch:
            patch.setattr(it.fs.captures, "capture", fail)
            with pytest.raises(type(exc)):
                fs.rename(root, b"one", root, b"two", 0, ME)
        with monkeypatch.context() as patch:
            root.node, node = NO_NODE, root.node
            patch.setattr(it.fs.journal, "_adopt", fail)
            patch.setattr(it.fs.journal.store, "read", fail)
            with pytest.raises(type(exc)):
                fs.unlink(root, b"two", ME)
            root.node = node

        assert it.fs.table.pinned == 0
        assert names(it) == [b"one", b"two"]


@pytest.mark.parametrize("victim", [b"two", b"none"])
def test_what_was_renamed_is_where_it_is_even_if_that_could_not_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: bytes
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CorruptError("damaged")

    with driven(tmp_path) as it:
        one, two = it.create(b"one", b"x"), it.create(b"two", b"x")
        with monkeypatch.context() as patch:
            patch.setattr(it.fs.journal, "named", fail)
            with pytest.raises(CorruptError):
                it.fs.names.rename(it.root, b"one", it.root, victim, 0, ME)

        assert it.fs.table.path(one) == victim
        assert it.fs.table.pinned == (1 if two.unlinked else 0)
        it.fs.table.spare_fds()
        assert it.fs.attributes.get(one).st_size == 1


def test_two_names_of_one_file_are_not_renamed_into_one(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.fs.names.link(it.create(b"one"), it.root, b"two", ME)
        it.fs.names.rename(it.root, b"one", it.root, b"two", 0, ME)

        assert names(it) == [b"one", b"two"]
        assert it.fs.table.pinned == 0


def test_a_file_keeps_its_node_when_the_name_it_was_known_by_goes(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.fs.names.link(it.create(b"one", b"old"), it.root, b"two", ME)
        node = it.node(b"two")
    with driven(tmp_path) as it:  # nothing is known of it
        inode = it.lookup(b"one")
        number = it.open(inode)
        it.fs.names.unlink(it.root, b"one", ME)
        it.fs.files.write(number, 0, b"new")
        it.close(number)

        assert (it.recorded(b"two"), it.node(b"two")) == (b"new", node)


def test_removing_a_synced_file_is_something_to_wait_for(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        number = it.open(it.create(b"journal"))
        it.fs.files.fsync(number)
        it.close(number)
        it.create(b"other")
        assert it.fs.names.unlink(it.root, b"other", ME) is None
        seq = it.fs.names.unlink(it.root, b"journal", ME)

        assert seq == it.recorder.last


@pytest.mark.parametrize("how", ["unlink", "replace"])
def test_who_syncs_a_file_waits_for_the_loss_of_its_other_name(tmp_path: Path, how: str) -> None:
    with driven(tmp_path) as it:
        file = it.create(b"one")
        it.create(b"other")
        it.fs.names.link(file, it.root, b"two", ME)
        number = it.open(file)
        it.flush()
        if how == "unlink":
            it.fs.names.unlink(it.root, b"two", ME)
        else:
            it.fs.names.rename(it.root, b"other", it.root, b"two", 0, ME)
        _, seq = it.fs.files.fsync(number)
        it.close(number)

        assert seq == it.recorder.last


def test_a_directory_is_read_anew_from_its_beginning(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.create(b"a")
        number = it.fs.names.opendir(it.root)
        before = {each.name for each in it.fs.names.listing(number, 0)}
        it.create(b"b")

        assert before == {b".", b"..", b"a"}
        assert {e.name for e in it.fs.names.listing(number, 0)} == before | {b"b"}
        it.fs.names.releasedir(number)


def test_a_directory_is_read_on_from_any_position_by_any_handle(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        names = [b"%d" % number for number in range(12)]
        for name in names:
            it.create(name)
        first, second = (it.fs.names.opendir(it.root) for _ in range(2))
        listed = list(it.fs.names.listing(first, 0))
        for index, each in enumerate(listed):
            assert list(it.fs.names.listing(second, each.after)) == listed[index + 1 :]
        gone = [each.name for each in listed if each.name in names][::2]
        for name in gone:
            it.fs.names.unlink(it.root, name, ME)
        later = it.fs.names.opendir(it.root)
        rest = [e.name for e in it.fs.names.listing(later, listed[6].after)]

        assert rest == [e.name for e in listed[7:] if e.name not in gone]


def test_a_directory_larger_than_a_window_is_read_to_its_end(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        names = {b"%0200d" % number for number in range(2500)}  # 580 kB
        for name in names:
            (tmp_path / "top" / name.decode()).touch()
        number = it.fs.names.opendir(it.root)

        listed = [each.name for each in it.fs.names.listing(number, 0)]
        assert len(listed) == 2502
        assert set(listed) == names | {b".", b".."}


def test_what_appeared_behind_the_mount_is_found_when_it_is_used(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        (tmp_path / "top" / "dir").mkdir()
        (tmp_path / "top" / "dir" / "file").write_bytes(b"behind")
        number = it.open(it.lookup(b"dir/file"))
        it.fs.files.write(number, 6, b" and more")
        it.close(number)

        assert it.kinds() == [OpKind.FOUND, OpKind.FOUND, OpKind.WRITE]
        assert it.recorded(b"dir/file") == b"behind and more"


def test_a_new_file_is_its_makers(tmp_path: Path) -> None:
    with driven(tmp_path) as it:
        it.create(b"file")
        status = os.stat(tmp_path / "top" / "file")

        assert (status.st_uid, status.st_gid) == (ME.uid, ME.gid)
