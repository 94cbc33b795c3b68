"""The kernel engine on real mounts: how it begins, what it survives, how it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from dkfs.fuse.engine import choose
from tests.fuse.kernel.kernel_side import CountingMeter
from tests.mounting import CHECKOUT, PATIENCE_S, Mounted, mounts_below
from tests.overlay.world import World

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

KERNEL = "engine=kernel"


def engine_of(place: Mounted) -> str:
    """Return the engine that `dkfs status` names."""
    lines = place.dkfs("status").stdout.splitlines()
    return next(line.split()[1] for line in lines if line.startswith("engine"))


@pytest.mark.parametrize(
    ("asked", "got"), [("auto", "kernel"), ("kernel", "kernel"), ("pyfuse3", "pyfuse3")]
)
def test_status_names_the_engine_that_serves(unmounted: Mounted, asked: str, got: str) -> None:
    unmounted.mount(f"engine={asked}")

    assert engine_of(unmounted) == got


def test_auto_goes_on_with_pyfuse3_where_the_protocol_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dkfs.fuse.kernel.negotiate.MINOR_LEAST", 99)
    world = World(tmp_path)
    (tmp_path / "mnt").mkdir()
    engine = choose("auto")
    try:
        with (
            caplog.at_level("INFO", logger="dkfs.fuse.engine"),
            engine.mounted(
                world.fs, CountingMeter(), tmp_path / "mnt", source="test", options=set()
            ),
        ):
            assert engine.name == "pyfuse3"
            assert len(mounts_below(tmp_path)) == 1
    finally:
        world.close()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].endswith("need at least 7.99: going on with the engine pyfuse3")
    assert mounts_below(tmp_path) == []


@contextmanager
def no_commits(place: Mounted) -> Iterator[None]:
    """Keep the recorder from committing anything."""
    with (
        lmdb.open(str(place.store / "index.lmdb"), max_dbs=64, subdir=False) as index,
        index.begin(write=True),
    ):
        yield


def test_who_waits_for_the_store_can_be_killed(unmounted: Mounted) -> None:
    unmounted.mount(KERNEL)
    code = "import os, sys; os.write(1, b'x'); os.fsync(os.open(sys.argv[1], os.O_RDWR))"
    path = unmounted.mountpoint / "file"
    path.write_bytes(b"data")
    unmounted.flush()
    other = bytes(2 << 20)  # too much for the intent log
    with no_commits(unmounted):
        path.write_bytes(other)
        writing = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
        assert writing.stdout is not None
        writing.stdout.read(1)
        deadline_s = time.monotonic() + PATIENCE_S
        while b"request_wait" not in Path(f"/proc/{writing.pid}/wchan").read_bytes():
            assert time.monotonic() < deadline_s
            assert writing.poll() is None
            time.sleep(0.01)
        writing.kill()

        assert writing.wait(PATIENCE_S) == -signal.SIGKILL
        writing.stdout.close()
        assert path.read_bytes() == other


@contextmanager
def small_disk(base: Path) -> Iterator[Path]:
    """Mount an ext4 of its own."""
    image, top = base / "image", base / "disk"
    top.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, top], check=True)
    try:
        yield top
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", top], check=False, capture_output=True)
        subprocess.run(["umount", "--lazy", top], check=True)


@pytest.mark.alone  # sync(2) waits for every disk
def test_a_frozen_disk_keeps_only_who_writes(unmounted: Mounted) -> None:
    with small_disk(unmounted.base) as disk:
        place = Mounted(
            unmounted.base, disk / "state", unmounted.mountpoint, unmounted.base / "store"
        )
        place.state_dir.mkdir()
        place.mount(KERNEL)
        try:
            (place.mountpoint / "file").write_bytes(b"data")
            (place.mountpoint / "other").write_bytes(b"more")
            os.sync()
            # Whatever happens: who waits for a frozen disk cannot be killed, this process included.
            thaw = ["sh", "-c", "sleep 30; exec fsfreeze --unfreeze $1", "sh", str(disk)]
            thawing = subprocess.Popen(thaw, stderr=subprocess.DEVNULL)
            subprocess.run(["fsfreeze", "--freeze", disk], check=True)
            append = ["sh", "-c", f"echo stuck >> {place.mountpoint}/file"]
            writing = subprocess.Popen(append)
            time.sleep(0.2)

            assert (place.mountpoint / "other").read_bytes() == b"more"
            assert (place.mountpoint / "file").stat().st_size == 4
            assert sorted(os.listdir(place.mountpoint)) == ["file", "other"]
            assert writing.poll() is None

            thawing.kill()
            thawing.wait()
            subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)
            assert writing.wait(PATIENCE_S) == 0
            assert (place.mountpoint / "file").read_bytes() == b"datastuck\n"
        finally:
            place.umount()


_AS_USER = """
set -e
base=$1 python=$2
mknod $base/fuse c 10 229
chmod 666 $base/fuse
mount --bind $base/fuse /dev/fuse
chown -R nobody $base/user
as_user="setpriv --reuid=nobody --regid=nogroup --clear-groups env PYTHONDONTWRITEBYTECODE=1"
cd /
$as_user $python -m dkfs mount $base/user/state $base/user/mnt --store $base/user/store -o engine=kernel
$as_user sh -c "cd $base/user/mnt && echo data > file && mv file moved && chmod 600 moved && cat moved"
$as_user $python -m dkfs status --store $base/user/store
$as_user $python -m dkfs umount $base/user/mnt
"""


def test_a_user_mounts_through_fusermount3(open_dir: Path) -> None:
    for name in ("state", "mnt"):
        (open_dir / "user" / name).mkdir(parents=True)
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", _AS_USER, "sh", str(open_dir), sys.executable),
        ],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT), DKFS_METRICS_ADDR=""),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert done.returncode == 0, done.stderr
    assert "data\n" in done.stdout
    assert "engine             kernel" in done.stdout
    assert (open_dir / "user" / "state" / "moved").read_text() == "data\n"
