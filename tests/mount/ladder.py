"""A mount that says of itself how it is while its store, its directory or its machine fails."""

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self
from unittest.mock import patch

from dkfs.store import Store
from dkfs.store.check import check
from tests.mounting import PATIENCE_S, Mounted

MIB = 1 << 20
RECORDING, NOT = ("1.0", True, True), ("0.0", False, False)  # what Ladder.says() returns


class Ladder:
    """A mount and what it says of itself; a context manager, checked at its end."""

    def __init__(self, place: Mounted, store: Path, *options: str, failpoints: str = "") -> None:
        """*failpoints*: what fails in the daemon that is mounted first."""
        self.place = Mounted(place.base, place.state_dir, place.mountpoint, store)
        self.top = place.mountpoint
        self.log = place.base / "log"
        self._socket = place.base / "metrics"
        self._options = (f"log_file={self.log}", "reserve=0", *options)
        self._failpoints = failpoints

    def __enter__(self) -> Self:
        with patch.dict(os.environ, DKFS_FAILPOINTS=self._failpoints):
            self.mount()
        return self

    def mount(self) -> None:
        """Mount, again if the daemon was killed."""
        words = ("mount", self.place.state_dir, self.top, "--store", self.place.store)
        options = ("-o", ",".join(self._options))
        self.place.dkfs(*words, "--metrics-addr", f"unix:{self._socket}", *options)

    def __exit__(self, *_: object) -> None:
        if self.place.mounted:
            self.place.dkfs("umount", self.top)

    def _ask(self, path: str) -> str:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(os.fspath(self._socket))
            asking.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            return b"".join(iter(lambda: asking.recv(65536), b"")).decode()

    def says(self, *, with_status: bool = True) -> tuple[str, bool, bool]:
        """Return what dkfs_recording is, whether it is healthy, and what its status says of recording."""
        (metric,) = (
            line.split()[1]
            for line in self._ask("/metrics").splitlines()
            if line.startswith("dkfs_recording ")
        )
        is_healthy = " 200 " in self._ask("/healthz").splitlines()[0]
        if not with_status:  # which is found in the store
            return metric, is_healthy, is_healthy
        status = self.place.dkfs("status", "--json", check=False).stdout
        return metric, is_healthy, '"recording": true' in status

    def write(self, name: str, data: bytes) -> None:
        """Write and sync a file as an application."""
        with (self.top / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def kinds(self) -> list[str]:
        """Return the kinds of all versions, the oldest first."""
        lines = self.place.dkfs("log", "--json").stdout.splitlines()
        return [str(json.loads(line).get("operation")) for line in lines if "operation" in line][
            ::-1
        ]

    def expect(self, files: dict[str, bytes]) -> None:
        """Fail unless directory and last version hold exactly *files*, and the store is sound."""
        self.place.flush()
        found = {name: (self.place.state_dir / name).read_bytes() for name in files}
        assert found == files
        assert sorted(os.listdir(self.place.state_dir)) == sorted(files)
        target = self.place.base / "restored"
        self.place.dkfs("restore", "latest", "--target", target)
        assert {path.name: path.read_bytes() for path in target.iterdir()} == files
        shutil.rmtree(target)
        with Store.open(self.place.store, writable=False) as store:
            assert list(check(store, read_data=True)) == []


def until(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def refused(what: Callable[[], object]) -> int | None:
    """Do *what* until it is refused; return the errno."""
    while True:
        try:
            what()
        except OSError as exc:
            return exc.errno


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Leave no room on *disk*."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
        os.fsync(file.fileno())
    yield
    ballast.unlink()
