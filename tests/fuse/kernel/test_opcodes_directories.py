"""OPENDIR, READDIR, READDIRPLUS, RELEASEDIR: bytes in, bytes out."""

import errno
import os
import stat

import pytest

from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import DAY_S, KernelSide
from tests.fuse.kernel.wire import ROOT, Dirent, Op

HOW = ("plain", "plus")


def all_of(kernel: KernelSide, node: int, *, plus: bool, size: int = 4096) -> list[Dirent]:
    """Return a whole directory, buffer by buffer."""
    fh = kernel.opendir(node)
    found: list[Dirent] = []
    while part := kernel.readdir(node, fh, found[-1].off if found else 0, size, plus=plus):
        found += part
    kernel.done(Op.RELEASEDIR, node, wire.RELEASE.pack(fh, 0, 0, 0))
    return found


@pytest.mark.parametrize("how", HOW)
def test_a_directory_is_listed_with_itself_its_parent_numbers_and_types(
    kernel: KernelSide, how: str
) -> None:
    (kernel.top / "file").write_bytes(b"123")
    (kernel.top / "dir").mkdir()
    (kernel.top / "link").symlink_to("file")
    os.mkfifo(kernel.top / "fifo")
    found = {dirent.name: dirent for dirent in all_of(kernel, ROOT, plus=how == "plus")}

    types = {name: dirent.type for name, dirent in found.items()}
    assert types == {
        b".": 4,
        b"..": 4,
        b"file": 8,
        b"dir": 4,
        b"link": 10,
        b"fifo": 1,
    }
    for name in ("file", "dir", "link", "fifo"):
        assert found[os.fsencode(name)].ino == (kernel.top / name).lstat().st_ino


def test_readdirplus_carries_entries_and_takes_a_reference_to_each_but_the_dots(
    kernel: KernelSide,
) -> None:
    (kernel.top / "file").write_bytes(b"123")
    (kernel.top / "dir").mkdir()
    found = {dirent.name: dirent.entry for dirent in all_of(kernel, ROOT, plus=True)}
    file, directory = found[b"file"], found[b"dir"]
    assert file is not None
    assert directory is not None

    assert file == kernel.lookup(b"file")
    assert (file.attr.size, file.entry_valid, file.attr_valid) == (3, DAY_S, DAY_S)
    assert [kernel.lookups(number) for number in (file.nodeid, directory.nodeid)] == [2, 1]
    for dot in (found[b"."], found[b".."]):
        assert dot is not None
        assert dot.nodeid == 0  # with any other the kernel would take a reference
    assert kernel.lookups(ROOT) == 1


def test_readdir_takes_no_references(kernel: KernelSide) -> None:
    (kernel.top / "file").touch()
    all_of(kernel, ROOT, plus=False)

    assert kernel.lookups((kernel.top / "file").stat().st_ino) == 0


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("size", [180, 512, 4096, 65536])
def test_a_long_directory_comes_in_pieces_without_loss_or_repetition(
    kernel: KernelSide, how: str, size: int
) -> None:
    names = {f"{number:03}-{'n' * (number % 40)}" for number in range(100)}
    for name in names:
        (kernel.top / name).touch()
    if how == "plus" and size < 256:
        size += 128
    found = all_of(kernel, ROOT, plus=how == "plus", size=size)

    assert len(found) == 102
    assert {os.fsdecode(dirent.name) for dirent in found} == names | {".", ".."}
    offsets = [dirent.off for dirent in found]
    assert len(set(offsets)) == 102
    assert 0 not in offsets


def test_readdirplus_references_only_what_fitted(kernel: KernelSide) -> None:
    for number in range(20):
        (kernel.top / f"{number:02}").touch()
    fh = kernel.opendir()
    found = kernel.readdir(ROOT, fh, 0, 700, plus=True)
    shown = {dirent.name for dirent in found} - {b".", b".."}

    assert 0 < len(shown) < 20
    for number in range(20):
        path = kernel.top / f"{number:02}"
        expected = 1 if os.fsencode(path.name) in shown else 0
        assert kernel.lookups(path.stat().st_ino) == expected


@pytest.mark.parametrize("how", HOW)
def test_a_buffer_without_room_for_one_name_is_answered_with_nothing(
    kernel: KernelSide, how: str
) -> None:
    fh = kernel.opendir()

    assert kernel.readdir(ROOT, fh, 0, 16, plus=how == "plus") == []


@pytest.mark.parametrize("how", HOW)
def test_reading_goes_on_where_it_was_told_to_while_names_come_and_go(
    kernel: KernelSide, how: str
) -> None:
    for number in range(30):
        (kernel.top / f"{number:02}").touch()
    fh = kernel.opendir()
    size = 1200 if how == "plus" else 500
    first = kernel.readdir(ROOT, fh, 0, size, plus=how == "plus")
    seen = {dirent.name for dirent in first}
    gone = next(os.fsencode(f"{n:02}") for n in range(30) if os.fsencode(f"{n:02}") not in seen)
    kernel.done(Op.UNLINK, ROOT, wire.name(gone))
    rest: list[Dirent] = []
    while part := kernel.readdir(ROOT, fh, (rest or first)[-1].off, size, plus=how == "plus"):
        rest += part

    names = [dirent.name for dirent in first + rest]
    assert len(names) == len(set(names))
    assert {os.fsencode(f"{n:02}") for n in range(30)} - {gone} <= set(names)


def test_rewinding_reads_anew(kernel: KernelSide) -> None:
    fh = kernel.opendir()
    before = {dirent.name for dirent in kernel.readdir(ROOT, fh)}
    kernel.file(b"new")
    after = {dirent.name for dirent in kernel.readdir(ROOT, fh)}

    assert after - before == {b"new"}


def test_an_offset_behind_the_last_name_is_the_end_for_every_handle(kernel: KernelSide) -> None:
    (kernel.top / "file").touch()
    fh = kernel.opendir()
    last = kernel.readdir(ROOT, fh)[-1].off

    assert kernel.readdir(ROOT, fh, last) == []
    assert kernel.readdir(ROOT, kernel.opendir(), last) == []


@pytest.mark.parametrize("how", HOW)
def test_a_handle_goes_on_where_another_one_stopped(kernel: KernelSide, how: str) -> None:
    for number in range(20):
        (kernel.top / f"{number:02}").touch()
    first, second = kernel.opendir(), kernel.opendir()
    size = 900 if how == "plus" else 300
    found = kernel.readdir(ROOT, first, 0, size, plus=how == "plus")
    rest = kernel.readdir(ROOT, second, found[-1].off, 1 << 16, plus=how == "plus")

    assert len(found) < 12
    assert len({each.name for each in found + rest}) == len(found) + len(rest) == 22


def test_the_kernel_may_cache_listings_but_not_of_the_history(kernel: KernelSide) -> None:
    history = kernel.lookup(b".dkfs").nodeid
    flags = [
        wire.OPEN_OUT.unpack(kernel.done(Op.OPENDIR, node, wire.OPEN.pack(0, 0)))[1]
        for node in (ROOT, history)
    ]

    assert flags == [8 | 2, 0]  # FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE


def test_what_is_no_directory_cannot_be_read_as_one(kernel: KernelSide) -> None:
    entry, fh = kernel.create(b"file")
    reply = kernel.ask(Op.OPENDIR, entry.nodeid, wire.OPEN.pack(0, 0))
    if reply.error == 0:
        handle, _, _ = wire.OPEN_OUT.unpack(reply.body)
        reply = kernel.ask(Op.READDIR, entry.nodeid, wire.READ.pack(handle, 0, 4096, 0, 0, 0, 0))

    assert reply.error == errno.ENOTDIR
    body = wire.READ.pack(fh + 1000, 0, 4096, 0, 0, 0, 0)
    assert kernel.ask(Op.READDIR, ROOT, body) == (errno.EBADF, b"")


def test_releasedir_is_answered_with_nothing_once(kernel: KernelSide) -> None:
    fh = kernel.opendir()
    body = wire.RELEASE.pack(fh, 0, 0, 0)

    assert kernel.done(Op.RELEASEDIR, ROOT, body) == b""
    assert kernel.ask(Op.RELEASEDIR, ROOT, body) == (errno.EBADF, b"")


@pytest.mark.parametrize("how", HOW)
def test_the_history_is_listed_and_not_to_be_remembered(kernel: KernelSide, how: str) -> None:
    top = kernel.lookup(b".dkfs").nodeid
    found = {dirent.name: dirent for dirent in all_of(kernel, top, plus=how == "plus")}

    assert found.keys() == {b".", b"..", b"at", b"files", b"latest", b"tags", b"versions"}
    assert stat.S_ISLNK(found[b"latest"].type << 12)
    entry = found[b"tags"].entry
    if entry is not None:
        assert (entry.entry_valid, entry.attr_valid) == (0, 0)
        assert entry.nodeid == found[b"tags"].ino == kernel.lookup(b"tags", top).nodeid


def test_listing_does_not_show_the_name_of_the_history(kernel: KernelSide) -> None:
    assert {d.name for d in all_of(kernel, ROOT, plus=True)} == {b".", b".."}
