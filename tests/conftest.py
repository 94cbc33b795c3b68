"""What holds for every test: no unexpected warning in the log, nothing left mounted or running."""

import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.mounting import Mounted, mounts_below, wait_for_end, wait_for_no_mount

_RUN_VARIABLE = "DKFS_TEST_RUN"  # in the environment of every process that the tests start
# Every mount that does not say otherwise has this engine, and this io mode.
_CHOSEN = frozenset(("DKFS_ENGINE", "DKFS_IO"))
_RUN = uuid.uuid4().hex


def pytest_configure() -> None:
    """Mark the processes that this run starts, and shut out the settings of whoever runs it."""
    for name in [n for n in os.environ if n.startswith(("DKFS_", "DIFFKEEPER_"))]:
        if name not in _CHOSEN:
            del os.environ[name]
    os.environ[_RUN_VARIABLE] = _RUN
    # How long an example takes says something of the machine, not of dkfs.
    settings.register_profile(
        "dkfs", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("dkfs")


# ---- the log


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.levelname} {record.name}: {record.getMessage()}")


@contextmanager
def _only_expected_logs(item: pytest.Item) -> Iterator[None]:
    collector = _Collector()
    logging.getLogger().addHandler(collector)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(collector)
    marks = item.iter_markers("expect_logs")
    patterns = [pattern for mark in marks for pattern in (mark.args or ("",))]
    unexpected = [m for m in collector.messages if not any(re.search(p, m) for p in patterns)]
    if unexpected:
        pytest.fail("logged, but not declared with expect_logs:\n" + "\n".join(unexpected))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Skip what cannot run here, with the reason; then see _only_expected_logs."""
    if item.get_closest_marker("root"):
        _skip_unless_root()
    if item.get_closest_marker("mount"):
        _skip_unless_fuse()
    with _only_expected_logs(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """See _only_expected_logs."""
    with _only_expected_logs(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """See _only_expected_logs."""
    with _only_expected_logs(item):
        return (yield)


# ---- what a test needs


def _skip_unless_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs to be root")


def _skip_unless_fuse() -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse, readable and writable")
    if shutil.which("fusermount3") is None:
        pytest.skip("needs fusermount3 (Debian: fuse3)")


@pytest.fixture
def needs_root() -> None:
    """Skip the test unless it runs as root."""
    _skip_unless_root()


@pytest.fixture
def needs_fuse() -> None:
    """Skip the test unless a FUSE mount can be made."""
    _skip_unless_fuse()


# ---- nothing is left behind


def _left_processes() -> Iterator[tuple[int, str]]:
    """Find the processes of dkfs that this run started: (pid, command line)."""
    marker = f"{_RUN_VARIABLE}={_RUN}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if marker not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # ended meanwhile, or not ours to look at
        if b"dkfs" in command:
            yield int(entry.name), os.fsdecode(command.replace(b"\0", b" ")).strip()


def _remove_what_is_left(*places: Path) -> list[str]:
    left = []
    for pid, command in _left_processes():
        if not wait_for_end(pid, seconds=2):  # what was told to end may still be on its way
            os.kill(pid, signal.SIGKILL)
            left.append(f"process {pid}: {command}")
    for place in places:
        for mountpoint in mounts_below(place):
            subprocess.run(["umount", "--lazy", mountpoint], check=True)
            left.append(f"mount: {mountpoint}")
    return left


@pytest.fixture(scope="session")
def _open_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="dkfs-test-"))
    base.chmod(0o755)
    yield base
    left = _remove_what_is_left(base, tmp_path_factory.getbasetemp())
    shutil.rmtree(base)
    if left:
        pytest.fail("the tests left behind:\n" + "\n".join(left))


@pytest.fixture(autouse=True)
def _nothing_left_behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _open_base: Path
) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("mount"):
        left = _remove_what_is_left(_open_base, tmp_path_factory.getbasetemp())
        if left:
            pytest.fail("this test left behind:\n" + "\n".join(left))


# ---- places


@pytest.fixture
def open_dir(_open_base: Path) -> Iterator[Path]:
    """Make a directory that every user may enter, as they may not enter tmp_path."""
    directory = Path(tempfile.mkdtemp(dir=_open_base))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def mount_options() -> tuple[str, ...]:
    """Return what every mount of the test is given; tests/mount/engines.py has marks that replace it."""
    return ()


@pytest.fixture
def unmounted(
    needs_fuse: None, open_dir: Path, mount_options: tuple[str, ...]
) -> Iterator[Mounted]:
    """Make the directories of a mount, for a test that mounts by itself."""
    state_dir, mountpoint, store = (open_dir / name for name in ("state", "mnt", "store"))
    place = Mounted(open_dir, state_dir, mountpoint, store, mount_options)
    place.state_dir.mkdir()
    place.mountpoint.mkdir()
    yield place
    if place.mounted:
        try:
            place.umount()
        finally:
            place.detach()
    # A `dkfs run` that lost its terminal is still recording when the test ends.
    wait_for_no_mount(open_dir, seconds=10)


@pytest.fixture
def mounted(unmounted: Mounted) -> Mounted:
    """Make a mount of an empty state directory, recording into a new store."""
    unmounted.mount()
    return unmounted
