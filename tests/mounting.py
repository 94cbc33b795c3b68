"""A real mount for a test to work on: directories, the dkfs command line, and the death of the daemon."""

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
FS_TYPE = b"fuse.dkfs"
PATIENCE_S = 60  # for a daemon to end; reached only when something is broken


def dkfs(
    *args: str | Path, check: bool = True, cwd: Path | None = None, store: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end; with *check*, a status other than 0 fails the test."""
    environment = dict(os.environ, PYTHONPATH=str(CHECKOUT), DKFS_METRICS_ADDR="")
    if store is not None:
        environment["DKFS_STORE"] = str(store)
    process = subprocess.run(
        [sys.executable, "-m", "dkfs", *map(str, args)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        timeout=120,
    )
    if check and process.returncode != 0:
        words = " ".join(map(str, args))
        raise AssertionError(f"dkfs {words}: status {process.returncode}\n{process.stderr}")
    return process


def mounts_below(directory: Path, *, kind: bytes | None = FS_TYPE) -> list[Path]:
    """Return the mount points of *kind*, of any if it is None, in or at *directory*, the latest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        if kind in {None, fields[fields.index(b"-") + 1]}:
            mountpoint = Path(os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1")))
            if mountpoint.is_relative_to(directory):
                found.append(mountpoint)
    return found[::-1]


def wait_for_no_mount(place: Path, *, seconds: float) -> bool:
    """Wait until nothing is mounted at or below *place*; return whether that is so."""
    deadline = time.monotonic() + seconds
    while mounts_below(place):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def wait_for_end(pid: int, *, seconds: float = PATIENCE_S) -> bool:
    """Return whether the process *pid* has ended within *seconds*."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)


@dataclass(frozen=True, slots=True)
class Mounted:
    """A state directory, its store, and the place where it is mounted."""

    base: Path  # everything below is removed after the test; other users may enter it
    state_dir: Path
    mountpoint: Path
    store: Path
    options: tuple[str, ...] = ()  # of every mount that is made here, as after -o

    def dkfs(self, *args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run dkfs on this store."""
        return dkfs(*args, check=check, cwd=self.base, store=self.store)

    def mount(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Mount, with *options* as mount(8) would pass them after -o; returns when it answers."""
        place = ("mount", self.state_dir, self.mountpoint, "--store", self.store)
        every = (*self.options, *options)
        words = ("-o", ",".join(every)) if every else ()
        return self.dkfs(*place, "--metrics-addr", "", *words, check=check)

    def umount(self) -> None:
        """Unmount; everything is recorded when this returns."""
        self.dkfs("umount", self.mountpoint)

    @property
    def mounted(self) -> bool:
        """Whether there is a mount, alive or dead."""
        return self.mountpoint in mounts_below(self.mountpoint)

    @property
    def daemon_pid(self) -> int:
        """The process that answers for this mount."""
        from dkfs.daemon.control import request  # noqa: PLC0415 -- only mount tests need it

        pid = request(self.store, {"command": "status"})["pid"]
        assert isinstance(pid, int)
        return pid

    def flush(self) -> None:
        """Return when everything done so far is recorded."""
        from dkfs.daemon.control import request  # noqa: PLC0415 -- see daemon_pid

        request(self.store, {"command": "flush"})

    def kill(self) -> None:
        """Kill the daemon as a machine's death would, and take its dead mount away."""
        pid = self.daemon_pid
        os.kill(pid, signal.SIGKILL)
        assert wait_for_end(pid)
        self.detach()

    def detach(self) -> None:
        """Take away what is mounted here, whatever its state."""
        for mountpoint in mounts_below(self.base):
            subprocess.run(["umount", "--lazy", mountpoint], check=True)
