"""The ladder, step by step: no fds, syncs that fail once, a collection that fails; see test_ladder."""

import errno
import os
import resource
import signal
from unittest.mock import patch

import pytest

from tests.mount.ladder import MIB, RECORDING, Ladder, until
from tests.mounting import Mounted, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]


@pytest.mark.parametrize("engine", ["kernel", "pyfuse3"])
def test_a_daemon_without_fds_refuses_what_needs_one_and_goes_on(
    unmounted: Mounted, engine: str
) -> None:
    with Ladder(unmounted, unmounted.store, f"engine={engine}") as ladder:
        ladder.write("before", b"1")
        pid = ladder.place.daemon_pid
        limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        refusals = set()
        with (ladder.top / "open").open("wb", buffering=0) as kept:
            used = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, limit[1]))
            try:
                handles = []
                for n in range(used + 10):
                    try:
                        handles.append((ladder.top / f"f{n}").open("wb", buffering=0))
                    except OSError as exc:
                        refusals.add(exc.errno)
                kept.write(b"still")
                os.fsync(kept.fileno())
                for handle in handles:
                    handle.close()
            finally:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        until(lambda: ladder.says() == RECORDING)
        ladder.write("after", b"2")

        assert refusals <= {errno.EMFILE, errno.ENFILE}
        assert refusals
        names = sorted(os.listdir(unmounted.state_dir))
        assert {"before", "open", "after"} <= set(names)
        ladder.expect({name: (unmounted.state_dir / name).read_bytes() for name in names})
        assert (unmounted.state_dir / "open").read_bytes() == b"still"
    assert "internal error" not in ladder.log.read_text()


def test_a_segment_that_could_not_be_synced_is_never_relied_on_again(unmounted: Mounted) -> None:
    files: dict[str, bytes] = {}
    # The mount itself syncs less than ten times.
    with Ladder(unmounted, unmounted.store, failpoints="segment.sync=10*off->1*EIO") as ladder:
        while "cannot be synced: Input/output error" not in ladder.log.read_text():
            assert len(files) < 20
            name, data = f"f{len(files)}", os.urandom(MIB + 1)  # too much for the intent log
            files[name] = data
            ladder.write(name, data)
        until(lambda: ladder.says() == RECORDING)
        ladder.write("after", b"2")

        assert ladder.log.read_text().count("the store failed, versions are not recorded") == 1
        # Nothing more went to the segment of which nobody knows what is on the disk.
        assert len(list((unmounted.store / "segments").iterdir())) == 2
        assert "gap" not in ladder.kinds()
        ladder.expect({**files, "after": b"2"})


def test_a_directory_that_could_not_be_synced_is_told_to_who_synced_and_recorded(
    unmounted: Mounted,
) -> None:
    with Ladder(unmounted, unmounted.store, failpoints="fsync.backing=1*EIO") as ladder:
        with pytest.raises(OSError, match="Input/output error"):
            ladder.write("f", b"1")
        assert ladder.says() == RECORDING
        ladder.write("g", b"2")

        ladder.expect({"f": b"1", "g": b"2"})


def test_an_intent_log_that_could_not_be_written_is_not_relied_on(unmounted: Mounted) -> None:
    files = {f"f{n}": b"%d" % n for n in range(5)}
    with Ladder(unmounted, unmounted.store, failpoints="intent.write=2*off->EIO") as ladder:
        for name, data in files.items():
            ladder.write(name, data)
        assert (
            "from now on a sync waits until its version is in the index" in ladder.log.read_text()
        )
        assert ladder.says() == RECORDING
        pid = ladder.place.daemon_pid
        os.kill(pid, signal.SIGKILL)
        assert wait_for_end(pid)
        ladder.mount()

        ladder.expect(files)


def test_a_budget_that_cannot_be_kept_holds_nobody_up_and_loses_nothing(
    unmounted: Mounted,
) -> None:
    config = unmounted.base / "dkfs.toml"
    config.write_text('budget = "2M"\n[retention]\nkeep-last = 2\n')
    with (
        patch.dict(os.environ, DKFS_CONFIG=str(config)),
        Ladder(unmounted, unmounted.store, failpoints="forget.fold=EIO") as ladder,
    ):
        data = b""
        for _ in range(8):
            data = os.urandom(MIB)
            ladder.write("f", data)
        until(lambda: "cannot be made smaller: " in ladder.log.read_text())
        ladder.write("after", b"2")

        assert ladder.says() == RECORDING
        assert "internal error" not in ladder.log.read_text()
        ladder.expect({"f": data, "after": b"2"})
