"""The bytes of a tar: what Python's own tarfile reads back from them."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core import tar
from dkfs.core.tar import Member, Type


def archive(*members: tuple[Member, bytes]) -> bytes:
    out = b""
    for member, data in members:
        assert member.size == len(data)
        out += tar.header(member) + data + tar.padding(len(data))
    return out + tar.trailer(len(out))


def read(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as file:
        return file.getmembers()


NAMES = st.lists(
    st.binary(min_size=1, max_size=200).filter(
        lambda name: not set(name) & set(b"\0/") and name not in (b".", b"..")
    ),
    min_size=1,
    max_size=3,
).map(b"/".join)


@given(
    NAMES,
    st.integers(0, 0o7777),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 32) - 1),
    st.integers(-(10**18), 10**20),
    st.dictionaries(
        st.binary(min_size=1, max_size=20).map(lambda name: b"user." + name.replace(b"\0", b"")),
        st.binary(max_size=300),
        max_size=3,
    ),
)
def test_any_member_is_read_back(
    name: bytes, mode: int, uid: int, gid: int, mtime_ns: int, xattrs: dict[bytes, bytes]
) -> None:
    member = Member(
        name, Type.FILE, mode, uid, gid, mtime_ns, 3, xattrs=tuple(sorted(xattrs.items()))
    )

    (found,) = read(archive((member, b"abc")))

    assert found.name.encode("utf-8", "surrogateescape") == name
    assert (found.mode, found.uid, found.gid, found.size) == (mode, uid, gid, 3)
    assert abs(found.mtime - mtime_ns / 1e9) <= max(1e-6, abs(mtime_ns) * 1e-15)
    for attribute, value in xattrs.items():
        key = attribute.replace(b"%", b"%25").replace(b"=", b"%3D")
        text = found.pax_headers["SCHILY.xattr." + key.decode("utf-8", "surrogateescape")]
        assert text.encode("utf-8", "surrogateescape") == value


def test_a_plain_member_takes_one_block() -> None:
    assert len(tar.header(Member(b"a", Type.FILE, 0o644, 0, 0, 10**18))) == 512


def test_sizes_beyond_8_gib_are_told() -> None:
    size = 9 << 30
    head = tar.header(Member(b"big", Type.FILE, 0o644, 0, 0, 0, size))

    with tarfile.open(fileobj=io.BytesIO(head), mode="r:") as file:
        info = file.next()
        assert info is not None
        assert info.size == size


@pytest.mark.parametrize("length", range(80, 120))
def test_a_record_knows_its_own_length(length: int) -> None:
    member = Member(b"\xff" * length, Type.FILE, 0o644, 0, 0, 0)

    assert read(archive((member, b"")))[0].name.encode("utf-8", "surrogateescape") == member.name


def test_links_and_devices_are_read_back() -> None:
    found = read(
        archive(
            (Member(b"d", Type.DIR, 0o755, 0, 0, 0), b""),
            (Member(b"l", Type.SYMLINK, 0o777, 0, 0, 0, target=b"t" * 300), b""),
            (Member(b"h", Type.LINK, 0o644, 0, 0, 0, target=b"d/\xff"), b""),
            (Member(b"c", Type.CHAR, 0o600, 0, 0, 0, device=(1, 3)), b""),
            (Member(b"p", Type.FIFO, 0o600, 0, 0, 0), b""),
        )
    )

    assert [each.isdir() for each in found] == [True, False, False, False, False]
    assert found[1].linkname == "t" * 300
    assert found[2].linkname.encode("utf-8", "surrogateescape") == b"d/\xff"
    assert (found[3].devmajor, found[3].devminor) == (1, 3)
    assert found[4].isfifo()


@pytest.mark.parametrize(
    ("pieces", "size", "wanted"),
    [
        ([], 0, []),
        ([(0, 10, True)], 10, [(0, 10)]),
        ([(0, 10, True), (10, 5, True)], 15, [(0, 15)]),
        ([(0, 10, False), (10, 5, True)], 15, [(10, 5)]),
        ([(0, 10, True), (10, 5, False)], 15, [(0, 10), (15, 0)]),
        ([(0, 1, True), (1, 5, False), (6, 2, True)], 8, [(0, 1), (6, 2)]),
        ([(0, 99, False)], 99, [(99, 0)]),
    ],
)
def test_extents_are_the_data_and_the_end(
    pieces: list[tuple[int, int, bool]], size: int, wanted: list[tuple[int, int]]
) -> None:
    assert list(tar.extents(pieces, size)) == wanted
