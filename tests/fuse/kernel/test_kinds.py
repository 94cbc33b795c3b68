"""Which requests only look, and on which devices the others change something."""

import os
from pathlib import Path

import pytest

from dkfs.fuse.kernel.dispatcher import Dispatcher
from dkfs.fuse.kernel.kinds import NOTHING, Claim, Kind, claim_of, kind_of
from dkfs.fuse.kernel.request import Deferred, Held, Own
from dkfs.overlay.virtual import VIRTUAL
from tests.fuse.kernel import wire
from tests.fuse.kernel.kernel_side import CountingMeter
from tests.fuse.kernel.wire import ROOT, Op
from tests.overlay.world import World

_DEVICES = {ROOT: 10, 2: 20, 3: 30}
_RENAME2 = (3).to_bytes(8, "little") + bytes(8) + b"a\0b\0"
_FORGOTTEN = b"".join(each.to_bytes(8, "little") for each in (3, 2, 1, VIRTUAL + 5, 1, 3, 1))
_COPY = bytes(16) + (3).to_bytes(8, "little") + bytes(32)


def _request(op: int, node: int, body: bytes = b"") -> bytes:
    return wire.IN_HEADER.pack(40 + len(body), op, 1, node, 0, 0, 0, 0, 0) + body


class Tree:
    """Where the nodes are."""

    def devices(self, node: int) -> frozenset[int]:
        return frozenset((_DEVICES.get(node, 10),))

    def devices_above(self, node: int) -> frozenset[int]:
        return self.devices(node) | self.devices(ROOT)


def _claim(request: bytes) -> Claim:
    return claim_of(request, Tree())


@pytest.mark.parametrize(
    ("op", "body", "kind"),
    [
        (Op.LOOKUP, b"name\0", Kind.LOOK),
        (Op.READ, bytes(40), Kind.LOOK),
        (Op.OPEN, wire.OPEN.pack(os.O_RDONLY, 0), Kind.LOOK),
        (Op.OPEN, wire.OPEN.pack(os.O_RDONLY | os.O_TRUNC, 0), Kind.CHANGE),
        (Op.OPEN, wire.OPEN.pack(os.O_WRONLY, 0), Kind.CHANGE),
        (Op.WRITE, bytes(40), Kind.CHANGE),
        (Op.SYNCFS, bytes(8), Kind.CHANGE),
        (Op.FORGET, bytes(8), Kind.CHANGE),
        (Op.INIT, bytes(16), Kind.LOOPS),
        (9999, b"", Kind.CHANGE),  # what is not known might be anything
    ],
)
def test_a_request_is_of_one_kind(op: int, body: bytes, kind: Kind) -> None:
    request = _request(op, 2, body)

    assert kind_of(request, len(request)) is kind


@pytest.mark.parametrize(
    ("op", "node", "body", "claim"),
    [
        (Op.GETATTR, 2, bytes(16), NOTHING),
        (Op.WRITE, 2, bytes(40), {20}),
        (Op.RENAME2, 2, _RENAME2, {20, 30}),
        (Op.RENAME2, 3, _RENAME2, {30}),
        (Op.LINK, 2, _RENAME2, {20, 30}),
        (Op.COPY_FILE_RANGE, 2, _COPY, {20, 30}),
        (Op.SYNCFS, 2, bytes(8), None),
        (9999, 2, b"", None),
        (Op.MKDIR, VIRTUAL + 5, bytes(8) + b"tag\0", None),
        (Op.RELEASE, VIRTUAL + 5, bytes(24), NOTHING),
        (Op.FORGET, 2, bytes(8), {10, 20}),
        (Op.FORGET, VIRTUAL + 5, bytes(8), NOTHING),
        (Op.BATCH_FORGET, 0, _FORGOTTEN, {10, 20, 30}),
    ],
)
def test_a_request_claims_the_devices_of_its_nodes(
    op: int, node: int, body: bytes, claim: set[int] | None
) -> None:
    assert _claim(_request(op, node, body)) == (None if claim is None else frozenset(claim))


def test_a_file_on_another_device_than_its_directory_is_about_both(tmp_path: Path) -> None:
    """Over overlayfs a name's change and a write to the file must not go on at once."""
    world = World(tmp_path)
    world.create(b"file")
    inode, status = world.fs.names.lookup(world.root, b"file")
    inode.dev += 1

    assert world.fs.table.devices_above(inode.id) == {status.st_dev, status.st_dev + 1}

    assert world.fs.table.devices(inode.id) == {status.st_dev, status.st_dev + 1}
    assert world.fs.table.devices(ROOT) == {status.st_dev}
    inode.dev -= 1
    world.close()


def test_what_is_cut_off_claims_nothing_or_everything_and_is_no_error() -> None:
    for op in (
        Op.RENAME2,
        Op.LINK,
        Op.COPY_FILE_RANGE,
        Op.WRITE,
        Op.OPEN,
        Op.IOCTL,
        Op.BATCH_FORGET,
    ):
        whole = _request(op, 2, _COPY)
        for size in range(len(whole)):
            claim = _claim(whole[:size])
            assert claim is None or claim <= {10, 20, 30}


def test_what_comes_again_claims_what_it_did() -> None:
    request = _request(Op.WRITE, 3, bytes(40))
    held = Held(1, request, lambda: None, lambda _: b"", pid=0)

    assert isinstance(held, Deferred)
    assert claim_of(held, Tree()) == frozenset((30,))
    assert claim_of(Own(frozenset((7,))), Tree()) == frozenset((7,))


def test_every_request_that_waits_for_the_recorder_is_a_change(tmp_path: Path) -> None:
    world = World(tmp_path)
    dispatcher = Dispatcher(world.fs, CountingMeter())
    for op, handler in dispatcher._handlers.items():
        request = _request(op, 2, bytes(64))
        if handler.makes_changes:
            assert kind_of(request, len(request)) is Kind.CHANGE, handler.name
            assert _claim(request) != NOTHING, handler.name
    assert dispatcher.devices(ROOT) == {os.fstat(world.root_fd).st_dev}
    assert dispatcher.devices(12345) == dispatcher.devices(ROOT)
    world.close()
