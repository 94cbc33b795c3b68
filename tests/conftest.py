"""What holds for every test: no unexpected warning in the log, nothing left mounted or running."""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import leftovers
from tests.beside import Beside
from tests.mounting import Mounted, wait_for_no_mount

# Every mount that does not say otherwise has this engine, and this io mode; random operations have this seed.
_CHOSEN = frozenset(("DKFS_ENGINE", "DKFS_IO", "DKFS_TEST_SEED"))
_beside = pytest.StashKey[Beside]()


def pytest_configure(config: pytest.Config) -> None:
    """Mark the processes that this run starts, and shut out the settings of whoever runs it."""
    for name in [n for n in os.environ if n.startswith(("DKFS_", "DIFFKEEPER_"))]:
        if name not in _CHOSEN:
            del os.environ[name]
    beside = config.stash[_beside] = Beside(config)
    config.pluginmanager.register(beside, "beside")
    os.environ[leftovers.VARIABLE] = beside.run
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


@pytest.fixture(scope="session")
def _open_base(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    beside = pytestconfig.stash[_beside]
    base = Path(tempfile.mkdtemp(prefix="dkfs-test-"))
    base.chmod(0o755)
    beside.note_base(base)
    yield base
    left = leftovers.remove(beside.run, base, tmp_path_factory.getbasetemp())
    left += [f"directory: {path}" for path in base.iterdir()]
    shutil.rmtree(base)
    if left:
        pytest.fail("the tests left behind:\n" + "\n".join(left))


@pytest.fixture(autouse=True)
def _nothing_left_behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _open_base: Path
) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("mount"):
        run = request.config.stash[_beside].run
        left = leftovers.remove(run, _open_base, tmp_path_factory.getbasetemp())
        if left:
            pytest.fail("this test left behind:\n" + "\n".join(left))


# ---- places


@pytest.fixture
def open_dir(_open_base: Path) -> Iterator[Path]:
    """Make a directory that every user may enter, as they may not enter tmp_path."""
    directory = Path(tempfile.mkdtemp(dir=_open_base))
    directory.chmod(0o755)
    yield directory
    # A daemon whose mount is gone may be making its index smaller yet, in this very directory.
    leftovers.wait_for_processes(directory, seconds=10)
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
