"""The INIT handshake, with bytes and without a mount."""

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from dkfs.fuse.handshake import Handshake

AUTO_INVAL_DATA = 1 << 12
POSIX_ACL = 1 << 20
HANDLE_KILLPRIV_V2 = 1 << 28

# fuse_in_header: len, opcode 26 = INIT, unique, nodeid, uid, gid, pid, padding; then fuse_init_in.
REQUEST = struct.Struct("<IIQQIIIIIIII48x")
# fuse_out_header: len, error, unique; then fuse_init_out.
ANSWER = struct.Struct("<IiQIIII48x")


class Ends(NamedTuple):
    handshake: Handshake
    kernel: socket.socket  # stands for the kernel's side of /dev/fuse


@pytest.fixture
def ends() -> Iterator[Ends]:
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Ends(Handshake(device.detach()), kernel)
    yield made
    made.handshake.close()
    os.close(made.handshake.fd)
    kernel.close()


def request(flags: int) -> bytes:
    return REQUEST.pack(REQUEST.size, 26, 7, 0, 0, 0, 0, 0, 7, 45, 131072, flags)


def answered(ends: Ends, *, offered: int, wanted: int) -> bytes:
    ends.kernel.send(request(offered))
    ends.handshake.step()
    assert os.read(ends.handshake.fd, 8192) == request(offered)
    os.write(ends.handshake.fd, ANSWER.pack(ANSWER.size, 0, 7, 7, 31, 131072, wanted))
    ends.handshake.step()
    return ends.kernel.recv(8192)


def test_killing_privileges_is_taken_and_the_kernels_own_invalidation_is_not(ends: Ends) -> None:
    offered = HANDLE_KILLPRIV_V2 | AUTO_INVAL_DATA | POSIX_ACL

    answer = answered(ends, offered=offered, wanted=AUTO_INVAL_DATA | POSIX_ACL)

    expected = ANSWER.pack(ANSWER.size, 0, 7, 7, 31, 131072, HANDLE_KILLPRIV_V2 | POSIX_ACL)
    assert answer == expected


def test_what_the_kernel_does_not_offer_is_not_taken(ends: Ends) -> None:
    answer = answered(ends, offered=POSIX_ACL, wanted=POSIX_ACL)

    assert answer == ANSWER.pack(ANSWER.size, 0, 7, 7, 31, 131072, POSIX_ACL)


def test_an_answer_that_is_an_error_is_passed_on_as_it_is(ends: Ends) -> None:
    ends.kernel.send(request(POSIX_ACL))
    ends.handshake.step()
    os.read(ends.handshake.fd, 8192)
    error = struct.pack("<IiQ", 16, -71, 7)
    os.write(ends.handshake.fd, error)

    ends.handshake.step()

    assert ends.kernel.recv(8192) == error


def test_afterwards_the_fd_is_the_device(ends: Ends) -> None:
    answered(ends, offered=POSIX_ACL, wanted=POSIX_ACL)

    ends.kernel.send(b"the next request")

    assert ends.handshake.is_done
    assert os.read(ends.handshake.fd, 8192) == b"the next request"


def test_mount_that_libfuse_made_loses_the_kernels_own_invalidation_only() -> None:
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = device.detach()
    with kernel:
        ends = Ends(Handshake.between(fd), kernel)
        offered = HANDLE_KILLPRIV_V2 | AUTO_INVAL_DATA | POSIX_ACL
        answer = answered(ends, offered=offered, wanted=AUTO_INVAL_DATA | POSIX_ACL)
        kernel.send(b"next")

        assert ends.handshake.fd == fd
        assert answer == ANSWER.pack(ANSWER.size, 0, 7, 7, 31, 131072, POSIX_ACL)
        assert os.read(fd, 100) == b"next"
    os.close(fd)
