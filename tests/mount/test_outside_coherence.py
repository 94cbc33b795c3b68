"""What one program writes is what another one reads next, however either of them does it."""

import fcntl
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.slow]

# Writes blocks of one number with Linux's asynchronous I/O (the C library has no calls for it), and
# counts how often a reader then finds an older one; two threads read all the time.
ASYNCHRONOUS = """
import ctypes, mmap, os, platform, struct, sys, threading
SETUP, SUBMIT, EVENTS = {"x86_64": (206, 209, 208), "aarch64": (0, 2, 4)}[platform.machine()]
call = ctypes.CDLL(None, use_errno=True).syscall
path, count, PWRITE = sys.argv[1], int(sys.argv[2]), 1
page = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
os.pwrite(fd, page, 0)
reader = os.open(path, os.O_RDONLY)
context = ctypes.c_ulong(0)
assert call(SETUP, 8, ctypes.byref(context)) == 0
going = True
def read():
    while going:
        os.pread(reader, 4096, 0)
threads = [threading.Thread(target=read) for _ in range(2)]
for thread in threads:
    thread.start()
old = 0
for number in range(1, count + 1):
    struct.pack_into("<Q", page, 0, number)
    control = ctypes.create_string_buffer(
        struct.pack("<QIIHhIQQqQII", 0, 0, 0, PWRITE, 0, fd, address, 4096, 0, 0, 0, 0))
    pointer = ctypes.c_void_p(ctypes.addressof(control))
    assert call(SUBMIT, context, 1, ctypes.byref(pointer)) == 1
    event = ctypes.create_string_buffer(32)
    assert call(EVENTS, context, 1, 1, event, None) == 1
    assert struct.unpack_from("<q", event, 16) == (4096,)
    old += struct.unpack("<Q", os.pread(reader, 8, 0)) != (number,)
going = False
print(old)
"""


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="numbers of calls")
def test_pages_do_not_stay_as_they_were_before_an_asynchronous_direct_write(
    mounted: Mounted,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASYNCHRONOUS, mounted.mountpoint / "file", "3000"],
        check=True,
        capture_output=True,
        timeout=60,
    )

    assert int(done.stdout) == 0


@pytest.mark.alone
def test_write_after_o_direct_was_taken_away_waits_at_most_once(mounted: Mounted) -> None:
    path = mounted.mountpoint / "file"
    path.write_bytes(bytes(50_000))
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT)
    os.pwrite(fd, b"first", 1)
    started = time.monotonic()
    for offset in range(5001, 50_000, 5000):
        os.pwrite(fd, b"later", offset)
    seconds = time.monotonic() - started
    os.close(fd)

    assert seconds < 7  # and not one for each, which makes nine
    assert path.read_bytes().count(b"later") == 9


def test_what_was_read_stays_cached_while_another_part_is_written(mounted: Mounted) -> None:
    path = mounted.mountpoint / "file"
    path.write_bytes(b"a" * 16384)
    fd = os.open(path, os.O_RDWR)
    cached = os.pread(fd, 4096, 0)
    # Behind the mount, to tell the cache from the file.
    behind = os.open(mounted.state_dir / "file", os.O_WRONLY)
    os.pwrite(behind, b"b" * 4096, 0)
    os.close(behind)
    os.pwrite(fd, b"c", 8192)
    os.fstat(fd)

    assert os.pread(fd, 4096, 0) == cached
    os.close(fd)


def test_processes_see_what_was_written_before_they_read(mounted: Mounted, tmp_path: Path) -> None:
    program = """
import mmap, os, struct, sys
shared = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 4096)
fd = os.open(sys.argv[1], os.O_RDWR)
old = 0
if sys.argv[3] == "write":
    for number in range(1, 8001):
        slot = number % 7
        os.pwrite(fd, struct.pack("<Q", number) * 515, slot * 4120)
        struct.pack_into("<Q", shared, slot * 8, number)
    struct.pack_into("<Q", shared, 4088, 1)
else:
    slot = 0
    while not shared[4088]:
        slot = (slot + 1) % 7
        least, = struct.unpack_from("<Q", shared, slot * 8)
        if slot % 3 == 0:
            os.fstat(fd)
        data = os.pread(fd, 4120, slot * 4120)
        old += min(struct.unpack("<515Q", data)) < least
print(old)
"""
    path, shared = mounted.mountpoint / "file", tmp_path / "shared"
    path.write_bytes(bytes(7 * 4120))
    shared.write_bytes(bytes(4096))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, path, shared, what], stdout=subprocess.PIPE
        )
        for what in ("read", "read", "write")
    ]

    assert [p.communicate(timeout=60)[0] for p in processes] == [b"0\n"] * 3
