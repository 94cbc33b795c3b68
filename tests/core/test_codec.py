import stat
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.core import codec
from dkfs.errors import CorruptError
from dkfs.model.ids import BlobId, NodeId, Seq
from dkfs.model.node import Attr, Kind, NodeState
from dkfs.model.operation import LogRecord, Operation, OpKind, Origin, Tag

Changes = tuple[tuple[NodeId, ...], tuple[tuple[NodeId, bytes], ...]]

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
ids = st.binary(min_size=32, max_size=32).map(BlobId)
nodes = u64.map(NodeId)
seqs = u64.map(Seq)
names = st.binary(max_size=255)
long_ago_to_far = st.integers(-(2**62) * 10**9, 2**62 * 10**9)  # ns; wider than any file system's
times = st.integers(-(2**63), 2**63 - 1)

attrs = st.builds(
    Attr,
    kind=st.sampled_from(Kind),
    mode=st.integers(0, 0o7777),
    uid=u32,
    gid=u32,
    mtime_ns=long_ago_to_far,
    ctime_ns=long_ago_to_far,
    size=u64,
    rdev=u64,
)


@st.composite
def states(draw: st.DrawFn) -> NodeState:
    content = draw(st.none() | ids)
    attr = draw(attrs)
    return NodeState(
        attr=attr,
        parent=draw(nodes),
        name=draw(names),
        content=content,
        is_manifest=content is not None and draw(st.booleans()),
        target=b"" if attr.kind is Kind.FILE else draw(st.binary(max_size=4095)),
        xattrs=draw(st.none() | ids),
        is_forgotten=attr.kind is Kind.FILE and content is None and draw(st.booleans()),
    )


operations = st.builds(
    Operation,
    kind=st.sampled_from(OpKind),
    time_ns=times,
    origin=st.builds(Origin, pid=u32, uid=u32, comm=st.binary(max_size=16)),
    node=nodes,
    parent=nodes,
    name=st.binary(max_size=300),
    new_parent=nodes,
    new_name=names,
    target=seqs,
    undoes=seqs,
    paths=st.lists(st.binary(max_size=200), max_size=4).map(tuple),
)
tags = st.builds(
    Tag,
    name=st.text(min_size=1),
    seq=seqs,
    time_ns=times,
    is_hold=st.booleans(),
    expires_ns=st.none() | times,
).filter(lambda tag: tag.name.encode(errors="replace").decode() == tag.name)
changes = st.tuples(
    st.lists(nodes, max_size=5).map(tuple), st.lists(st.tuples(nodes, names), max_size=5).map(tuple)
)


@given(states())
def test_a_node_comes_back_as_it_was(state: NodeState) -> None:
    assert codec.decode_node(codec.encode_node(state)) == state


@given(states())
def test_a_glance_at_a_node_tells_what_the_whole_record_does(state: NodeState) -> None:
    attr = state.attr
    found = codec.glance(codec.encode_node(state))
    told = (attr.mode | stat.S_IFREG, attr.uid, attr.gid, attr.size, attr.mtime_ns)

    assert found in ({(attr.ctime_ns, told)} if attr.kind is Kind.FILE else set()) | {None}


@given(seqs, operations, changes, changes)
def test_a_log_record_comes_back_as_it_was(
    seq: Seq, operation: Operation, own: Changes, folded: Changes
) -> None:
    data = codec.encode_log(operation, *own, *folded)

    assert codec.decode_log(seq, data) == LogRecord(seq, operation, *own, *folded)
    assert codec.log_time_ns(data) == operation.time_ns


@given(st.dictionaries(st.binary(min_size=1, max_size=255), st.binary(max_size=300), max_size=5))
def test_xattrs_come_back_as_they_were(xattrs: dict[bytes, bytes]) -> None:
    assert codec.decode_xattrs(codec.encode_xattrs(xattrs)) == xattrs


@given(tags)
def test_a_tag_comes_back_as_it_was(tag: Tag) -> None:
    assert codec.decode_tag(codec.encode_tag(tag)) == tag


DECODERS: dict[str, Callable[[bytes], object]] = {
    "node": codec.decode_node,
    "log": lambda data: codec.decode_log(Seq(1), data),
    "time": codec.log_time_ns,
    "xattrs": codec.decode_xattrs,
    "tag": codec.decode_tag,
}
STATE = NodeState(
    attr=Attr(Kind.FILE, 0o644, 1000, 100, 1_700_000_000_123_456_789, -1, 5, 0),
    parent=NodeId(1),
    name=b"hello.text",
    content=BlobId(b"c" * 32),
    is_manifest=True,
    target=b"",
    xattrs=BlobId(b"x" * 32),
)
OPERATION = Operation(
    OpKind.RENAME,
    1_700_000_000_123_456_789,
    Origin(12, 1000, b"mv"),
    node=NodeId(7),
    parent=NodeId(1),
    name=b"a",
    new_parent=NodeId(2),
    new_name=b"b",
    target=Seq(3),
    undoes=Seq(4),
    paths=(b"x", b"y"),
)
EXAMPLES = {
    "node": codec.encode_node(STATE),
    "log": codec.encode_log(
        OPERATION,
        [NodeId(7)],
        [(NodeId(1), b"a"), (NodeId(2), b"b")],
        [NodeId(300)],
        [(NodeId(1), b"c")],
    ),
    "time": codec.encode_log(OPERATION, [], []),
    "xattrs": codec.encode_xattrs({b"user.a": b"1", b"user.b": b""}),
    "tag": codec.encode_tag(Tag("v1", Seq(9), 17, is_hold=True, expires_ns=18)),
}


def decodes_or_is_corrupt(decode: Callable[[bytes], object], data: bytes) -> None:
    try:
        decode(data)
    except CorruptError:
        pass


@pytest.mark.parametrize("record", DECODERS)
@given(data=st.binary(max_size=200))
def test_any_bytes_decode_or_are_corrupt(record: str, data: bytes) -> None:
    decodes_or_is_corrupt(DECODERS[record], data)
    decodes_or_is_corrupt(DECODERS[record], b"\1" + data)
    decodes_or_is_corrupt(DECODERS[record], b"\2" + data)


@pytest.mark.parametrize("record", DECODERS)
@given(at=st.integers(0, 10_000), bits=st.integers(1, 255))
def test_a_record_with_any_byte_changed_decodes_or_is_corrupt(
    record: str, at: int, bits: int
) -> None:
    data = bytearray(EXAMPLES[record])
    data[at % len(data)] ^= bits

    decodes_or_is_corrupt(DECODERS[record], bytes(data))


@pytest.mark.parametrize("record", [record for record in DECODERS if record != "time"])
def test_a_record_cut_anywhere_is_never_taken_for_the_whole(record: str) -> None:
    whole = DECODERS[record](EXAMPLES[record])

    for length in range(len(EXAMPLES[record])):
        try:
            assert DECODERS[record](EXAMPLES[record][:length]) != whole
        except CorruptError:
            continue


@pytest.mark.parametrize("record", ["node", "log"])
def test_bytes_behind_a_record_are_corrupt(record: str) -> None:
    with pytest.raises(CorruptError, match="need"):
        DECODERS[record](EXAMPLES[record] + b"\0")


@pytest.mark.parametrize("record", [record for record in DECODERS if record != "time"])
def test_a_record_of_another_format_is_corrupt(record: str) -> None:
    with pytest.raises(CorruptError):
        DECODERS[record](b"\3" + EXAMPLES[record][1:])


@pytest.mark.parametrize("record", DECODERS)
def test_nothing_at_all_is_corrupt(record: str) -> None:
    with pytest.raises(CorruptError):
        DECODERS[record](b"")


def test_a_node_with_content_and_a_short_name_is_compact() -> None:
    attr = replace(STATE.attr, ctime_ns=STATE.attr.mtime_ns)
    state = replace(STATE, attr=attr, is_manifest=False, xattrs=None)

    assert len(codec.encode_node(state)) == 75


def test_the_bytes_of_a_node_are_those_of_the_format() -> None:
    assert EXAMPLES["node"].hex() == (
        "0271" + "81a4" + "000000006553f100" + "075bcd15"
        "000003e8" + "00000064" + "00000005" + "00000001" + "0a"
        "ffffffffffffffff" + "3b9ac9ff"
        + b"hello.text".hex() + "63" * 32 + "78" * 32
    )  # fmt: skip


def test_a_large_file_has_a_longer_record() -> None:
    attr = replace(STATE.attr, size=2**32, ctime_ns=STATE.attr.mtime_ns)
    state = replace(STATE, attr=attr, content=None, is_manifest=False, xattrs=None)

    assert codec.encode_node(state).hex() == (
        "0201" + "41a4" + "000000006553f100" + "075bcd15"
        "000003e8" + "00000064" + "0000000100000000" + "0000000000000001" + "0a"
        + b"hello.text".hex()
    )  # fmt: skip


def test_the_bytes_of_a_log_record_are_those_of_the_format() -> None:
    assert EXAMPLES["log"].hex() == (
        "02090f" + "17979cfe3d85cd15" + "0000000c" + "000003e8" + "00000007" + "00000001"
        "026d76" + "0161" + "02" + "0162"
        "03" + "04"
        "02" + "0178" + "0179"
        "01" + "01" + "07"
        "02" + "01" + "0161" + "02" + "0162"
        "01" + "02" + "012c" + "01" + "01" + "0163"
    )  # fmt: skip


def test_the_bytes_of_a_tag_are_those_of_the_format() -> None:
    assert EXAMPLES["tag"].hex() == "0203" + f"{9:016x}" + f"{17:016x}" + f"{18:016x}" + "7631"
    assert codec.encode_tag(Tag("v1", Seq(9), 17)).hex() == "0200" + f"{9:016x}{17:016x}" + "7631"


# ---- what format 1 had


OLD_NODE = bytes.fromhex(
    "0171" + "01a4" + "000003e8" + "00000064"
    "000000006553f100" + "075bcd15"
    "ffffffffffffffff" + "3b9ac9ff"
    "0000000000000005" + "0000000000000001"
    "0a" + b"hello.text".hex() + "63" * 32 + "78" * 32
)  # fmt: skip
OLD_LOG = bytes.fromhex(
    "010907" + "17979cfe3d85cd15" + "0000000c" + "000003e8"
    "0000000000000007" + "0000000000000001"
    "026d76" + "0161" + "0000000000000002" + "0162"
    "0000000000000003" + "0000000000000004"
    "02" + "0178" + "0179"
    "01" + "0000000000000007"
    "02" + "0000000000000001" + "0161" + "0000000000000002" + "0162"
)  # fmt: skip


def test_a_node_of_format_1_is_read() -> None:
    assert codec.decode_node(OLD_NODE) == STATE


def test_a_node_of_format_1_that_no_later_format_can_say_is_corrupt() -> None:
    with pytest.raises(CorruptError, match="node record of a file with a target"):
        codec.decode_node(OLD_NODE[:1] + bytes((OLD_NODE[1] | 0x80,)) + OLD_NODE[2:] + b"target")


def test_a_log_record_of_format_1_is_read() -> None:
    record = codec.decode_log(Seq(1), OLD_LOG)

    names = ((NodeId(1), b"a"), (NodeId(2), b"b"))
    assert record == LogRecord(Seq(1), OPERATION, (NodeId(7),), names)
    assert codec.log_time_ns(OLD_LOG) == OPERATION.time_ns


@given(st.data(), st.integers(1, 255))
def test_a_record_of_format_1_with_any_byte_changed_decodes_or_is_corrupt(
    data: st.DataObject, bits: int
) -> None:
    for decode, good in ((DECODERS["node"], OLD_NODE), (DECODERS["log"], OLD_LOG)):
        changed = bytearray(good)
        changed[data.draw(st.integers(0, len(good) - 1))] ^= bits
        decodes_or_is_corrupt(decode, bytes(changed))
        decodes_or_is_corrupt(decode, good[: data.draw(st.integers(0, len(good) - 1))])


def test_a_log_record_of_format_1_has_nothing_folded() -> None:
    with pytest.raises(CorruptError, match="log record 1 of format 1"):
        codec.decode_log(Seq(1), OLD_LOG[:2] + b"\x0f" + OLD_LOG[3:])


def test_a_tag_of_format_1_is_read() -> None:
    data = bytes.fromhex(f"01{9:016x}{17:016x}7631")

    assert codec.decode_tag(data) == Tag("v1", Seq(9), 17)


def test_a_log_record_cannot_claim_more_nodes_than_it_has_bytes() -> None:
    data = codec.encode_log(OPERATION, [], [])[:-2] + b"\xff\xff\xff\xff\x0f" + b"\1" + b"\0"

    with pytest.raises(CorruptError, match="with 4294967295 nodes of 1 bytes each"):
        codec.decode_log(Seq(1), data)


def test_a_number_that_never_ends_is_corrupt() -> None:
    with pytest.raises(CorruptError, match="longer than 64 bits"):
        codec.decode_xattrs(b"\1" + b"\xff" * 20)


def test_xattrs_out_of_order_are_corrupt() -> None:
    with pytest.raises(CorruptError, match="out of order"):
        codec.decode_xattrs(b"\1" + b"\1b\0" + b"\1a\0")


def test_the_same_xattr_twice_is_corrupt() -> None:
    with pytest.raises(CorruptError, match="out of order"):
        codec.decode_xattrs(b"\1" + b"\1a\0" + b"\1a\0")


def test_a_manifest_flag_without_content_is_corrupt() -> None:
    state = replace(STATE, content=None, is_manifest=False)
    data = bytearray(codec.encode_node(state))
    data[1] |= 0x10

    with pytest.raises(CorruptError, match="no content"):
        codec.decode_node(bytes(data))


def test_contents_that_were_forgotten_are_not_there() -> None:
    data = bytearray(codec.encode_node(STATE))
    data[1] |= 0x80

    with pytest.raises(CorruptError, match="forgotten"):
        codec.decode_node(bytes(data))


def test_a_file_has_no_target() -> None:
    state = replace(STATE, content=None, is_manifest=False, is_forgotten=True)

    with pytest.raises(CorruptError, match="need"):
        codec.decode_node(codec.encode_node(state) + b"target")


def test_a_tag_with_flags_that_are_not_known_is_corrupt() -> None:
    with pytest.raises(CorruptError, match="flags 4"):
        codec.decode_tag(b"\2\4" + bytes(16) + b"name")


def test_a_tag_that_is_not_utf8_is_corrupt() -> None:
    with pytest.raises(CorruptError, match="UTF-8"):
        codec.decode_tag(EXAMPLES["tag"] + b"\xff")


def test_a_mode_with_bits_of_the_type_is_corrupt() -> None:
    with pytest.raises(CorruptError, match="mode"):
        codec.decode_node(EXAMPLES["node"][:2] + b"\xa1\xa4" + EXAMPLES["node"][4:])


@pytest.mark.parametrize("at", [12, 41])
def test_a_time_with_more_than_a_second_of_nanoseconds_is_corrupt(at: int) -> None:
    data = EXAMPLES["node"]

    with pytest.raises(CorruptError, match="time"):
        codec.decode_node(data[:at] + (10**9).to_bytes(4, "big") + data[at + 4 :])


@given(nodes, nodes)
def test_nodes_of_any_number_are_in_the_log(one: NodeId, other: NodeId) -> None:
    data = codec.encode_log(OPERATION, [one, other], [])

    assert codec.decode_log(Seq(1), data).nodes == (one, other)


def test_nodes_of_a_width_that_is_not_known_are_corrupt() -> None:
    data = codec.encode_log(OPERATION, [NodeId(1)], [])

    with pytest.raises(CorruptError, match="1 nodes of 3 bytes each"):
        codec.decode_log(Seq(1), data[:-3] + b"\3" + data[-2:])
