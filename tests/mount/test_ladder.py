"""The ladder: what a mount does when its store, its directory or its machine fails, step by step, and back again.

At each step three agree: the application is served, the metrics and the log say what is so, and the history holds what
it says it holds.
"""

import contextlib
import errno
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disks import loop
from tests.mount.ladder import MIB, NOT, RECORDING, Ladder, filled, refused, until
from tests.mounting import Mounted, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

_QUEUE = 128  # MiB of contents that may wait


@pytest.fixture
def disk(open_dir: Path, needs_root: None) -> Iterator[Path]:
    """Mount an ext4 of 24 MiB."""
    with loop(open_dir, "disk", 24) as point:
        yield point


def test_a_full_store_stops_versions_and_nothing_else_and_loses_none(
    unmounted: Mounted, disk: Path
) -> None:
    with Ladder(unmounted, disk / "store") as ladder:
        ladder.write("before", b"1")
        assert ladder.says() == RECORDING
        large = os.urandom(2 * MIB)
        with filled(disk):
            ladder.write("during", large)
            ladder.write("also", b"2")
            assert ladder.says() == NOT
            assert ladder.log.read_text().count("the store failed, versions are not recorded") == 1
        until(lambda: ladder.says() == RECORDING)

        assert "recording goes on" in ladder.log.read_text()
        assert "gap" not in ladder.kinds()
        ladder.expect({"before": b"1", "during": large, "also": b"2"})


def test_after_a_store_was_full_for_long_recording_resumes_with_a_gap(
    unmounted: Mounted, disk: Path
) -> None:
    files = {f"f{n}": bytes([n]) * MIB for n in range(_QUEUE + 4)}
    with Ladder(unmounted, disk / "store") as ladder:
        ladder.write("f0", b"before")
        with filled(disk):
            ladder.write("f0", os.urandom(2 * MIB))
            for name, data in files.items():
                (ladder.top / name).write_bytes(data)
            until(lambda: "are dropped; recording stops" in ladder.log.read_text())
            assert ladder.says() == NOT
            assert ladder.place.dkfs("tag", "now", check=False).returncode != 0
        until(lambda: ladder.says() == RECORDING)

        assert ladder.kinds()[-1] == "gap"
        ladder.expect(files)
        ladder.write("after", b"3")
        ladder.expect({**files, "after": b"3"})


@pytest.mark.parametrize("engine", ["kernel", "pyfuse3"])
def test_with_fail_nothing_is_changed_that_cannot_be_recorded(
    unmounted: Mounted, disk: Path, engine: str
) -> None:
    options = ("on_store_error=fail", f"engine={engine}")
    with Ladder(unmounted, disk / "store", *options) as ladder:
        ladder.write("before", b"1")
        large = os.urandom(2 * MIB)
        with filled(disk):
            assert refused(lambda: ladder.write("during", large)) in {errno.ENOSPC, errno.EIO}
            for change in (
                lambda: (ladder.top / "other").write_bytes(b"x"),
                (ladder.top / "before").unlink,
                lambda: (ladder.top / "before").rename(ladder.top / "moved"),
            ):
                with pytest.raises(OSError, match=r"No space left|Input/output"):
                    change()
            assert (ladder.top / "before").read_bytes() == b"1"
            assert ladder.says() == NOT
        until(lambda: ladder.says() == RECORDING)

        ladder.write("other", b"2")
        assert "gap" not in ladder.kinds()
        # The store may have failed before all of it was written: then the rest was refused.
        landed = (unmounted.state_dir / "during").read_bytes()
        assert large.startswith(landed)
        ladder.expect({"before": b"1", "during": landed, "other": b"2"})


def test_a_store_whose_disk_becomes_read_only_costs_versions_only(
    unmounted: Mounted, disk: Path
) -> None:
    device = next(
        line.split()[0]
        for line in Path("/proc/mounts").read_text().splitlines()
        if str(disk) in line
    )
    with Ladder(unmounted, disk / "store") as ladder:
        ladder.write("before", b"1")
        Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("a test")
        ladder.write("during", b"2")

        assert ladder.says() == NOT
        assert (unmounted.state_dir / "during").read_bytes() == b"2"
        ladder.place.dkfs("umount", ladder.top, check=False)
    assert "internal error" not in ladder.log.read_text()


def test_a_store_that_is_removed_is_not_recorded_into(unmounted: Mounted) -> None:
    with Ladder(unmounted, unmounted.store) as ladder:
        ladder.write("before", b"1")
        assert ladder.says() == RECORDING
        away = unmounted.base / "away"
        unmounted.store.rename(away)
        ladder.write("during", b"2")
        assert ladder.says(with_status=False) == NOT
        assert (unmounted.state_dir / "during").read_bytes() == b"2"
        away.rename(unmounted.store)
        until(lambda: ladder.says() == RECORDING)

        ladder.expect({"before": b"1", "during": b"2"})


def test_a_store_that_is_deleted_costs_versions_only_and_the_next_mount_begins_another(
    unmounted: Mounted,
) -> None:
    with Ladder(unmounted, unmounted.store) as ladder:
        ladder.write("before", b"1")
        ladder.place.flush()
        pid = ladder.place.daemon_pid
        shutil.rmtree(unmounted.store)
        ladder.write("during", b"2")
        (ladder.top / "before").write_bytes(b"3")

        assert ladder.says(with_status=False) == NOT
        assert not unmounted.store.exists()
        assert "internal error" not in ladder.log.read_text()
        assert ladder.place.dkfs("umount", ladder.top, check=False).returncode == 4
        assert wait_for_end(pid)
        ladder.mount()
        ladder.expect({"before": b"3", "during": b"2"})


def test_a_directory_without_room_says_so_and_what_landed_is_recorded(
    unmounted: Mounted, disk: Path
) -> None:
    state = disk / "state"
    state.mkdir()
    place = Mounted(unmounted.base, state, unmounted.mountpoint, unmounted.store)
    with Ladder(place, unmounted.store) as ladder:
        with filled(disk):
            with (ladder.top / "f").open("wb", buffering=0) as file:
                assert refused(lambda: file.write(bytes(65536))) == errno.ENOSPC
        landed = (state / "f").read_bytes()
        assert ladder.says() == RECORDING
        ladder.write("g", b"2")

        ladder.expect({"f": landed, "g": b"2"})


def test_a_daemon_without_memory_refuses_what_needs_it_and_goes_on(unmounted: Mounted) -> None:
    with Ladder(unmounted, unmounted.store) as ladder:
        ladder.write("before", b"1")
        pid = ladder.place.daemon_pid
        size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        limit = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (size, limit[1]))
        try:
            for n in range(40):
                with contextlib.suppress(OSError):
                    (ladder.top / f"f{n}").write_bytes(bytes([n]) * MIB)
        finally:
            resource.prlimit(pid, resource.RLIMIT_AS, limit)
        until(lambda: ladder.says() == RECORDING)
        ladder.write("after", b"2")

        names = sorted(os.listdir(unmounted.state_dir))
        ladder.expect({name: (unmounted.state_dir / name).read_bytes() for name in names})
