"""The io modes through the kernel: no mix that it refuses, what each sees, and what each promises."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkfs.daemon.control import request
from dkfs.history import content as contents
from dkfs.history.tree import Tree
from dkfs.store import Store
from tests.disks import disk, overlay
from tests.mount.io_app import Map
from tests.mounting import CHECKOUT, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

_MODES = ("strict", "hybrid", "checkpoint")
_LARGE = 3 << 20


@pytest.fixture(params=_MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=_MODES[1:])
def past(request: pytest.FixtureRequest) -> str:
    """Return a mode in which files are served past dkfs; test_posix.py and others have the same in strict."""
    return str(request.param)


def _mount(place: Mounted, mode: str, *options: str) -> None:
    place.mount("engine=kernel", f"io={mode}", *options)


def _status(place: Mounted) -> dict[str, object]:
    return dict(request(place.store, {"command": "status"}))


def _recorded(place: Mounted, name: str) -> bytes:
    place.flush()
    with Store.open(place.store, writable=False) as store, store.read() as reader:
        tree = Tree(reader, reader.last)
        state = tree.state(tree.find(os.fsencode(name)))
        return contents.read(reader, state, 0, state.attr.size)


def _has(place: Mounted, name: str, content: bytes) -> bool:
    """Wait for the timer; return whether *content* is what is recorded."""
    for _ in range(300):
        if _recorded(place, name) == content:
            return True
        time.sleep(0.1)
    return False


def _close_dead(fd: int) -> None:
    with contextlib.suppress(OSError):  # there is nobody to flush it to
        os.close(fd)


# ---- the kernel's rules


def test_processes_that_open_in_all_ways_never_see_an_error(unmounted: Mounted) -> None:
    config = unmounted.base / "dkfs.toml"
    config.write_text(
        '[[io]]\npath = "*.db"\nmode = "strict"\n[[io]]\npath = "*.log"\nmode = "hybrid"\n'
    )
    place = ("mount", unmounted.state_dir, unmounted.mountpoint, "--store", unmounted.store)
    unmounted.dkfs(*place, "--metrics-addr", "", "--config", config, "-o", "io=checkpoint")
    assert _status(unmounted)["io"] == "checkpoint"
    for name in ("a", "b.db", "c.log", "d"):
        (unmounted.mountpoint / name).write_bytes(os.urandom(20_000))
    program = Path(__file__).with_name("io_app.py")
    seeds = [time.time_ns() % 10**6 + index for index in range(6)]
    print("seeds", seeds)
    apps = [
        subprocess.Popen(
            [sys.executable, program, unmounted.mountpoint, str(seed), "4"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in seeds
    ]

    said = [app.communicate(timeout=120)[1] for app in apps]
    assert said == [""] * len(apps)
    assert _status(unmounted)["io_opens"] == {} or _wait_for_releases(unmounted)
    for path in unmounted.mountpoint.iterdir():
        assert _has(unmounted, path.name, path.read_bytes())


def _wait_for_releases(place: Mounted) -> bool:
    for _ in range(600):
        if _status(place)["io_opens"] == {}:
            return True
        time.sleep(0.05)
    return False


# ---- what each mode sees


def test_what_is_written_is_recorded_after_close(unmounted: Mounted, past: str) -> None:
    _mount(unmounted, past)
    for name, size in (("small", 1000), ("large", _LARGE)):
        content = os.urandom(size)
        (unmounted.mountpoint / name).write_bytes(content)
        assert _has(unmounted, name, content)
        with (unmounted.mountpoint / name).open("r+b") as file:
            file.seek(500)
            file.write(b"changed")
        content = content[:500] + b"changed" + content[507:]
        assert (unmounted.mountpoint / name).read_bytes() == content
        assert _has(unmounted, name, content)


@pytest.mark.parametrize("size", [1000, _LARGE])
def test_what_was_synced_survives_the_daemon(unmounted: Mounted, past: str, size: int) -> None:
    _mount(unmounted, past)
    content = bytearray(os.urandom(size))
    fd = os.open(unmounted.mountpoint / "f", os.O_RDWR | os.O_CREAT, 0o644)
    os.write(fd, content)
    os.fsync(fd)
    content[100:105] = b"again"
    os.pwrite(fd, b"again", 100)
    os.fdatasync(fd)
    unmounted.kill()
    _close_dead(fd)
    (unmounted.state_dir / "f").unlink()

    unmounted.mount("prefer=store")
    assert (unmounted.mountpoint / "f").read_bytes() == content


def test_a_write_with_o_sync_is_recorded_when_it_returns(unmounted: Mounted, past: str) -> None:
    _mount(unmounted, past, "capture_interval=1h")
    fd = os.open(unmounted.mountpoint / "f", os.O_RDWR | os.O_CREAT | os.O_DSYNC, 0o644)
    os.write(fd, b"synced")
    unmounted.kill()
    _close_dead(fd)
    (unmounted.state_dir / "f").unlink()

    unmounted.mount("prefer=store")
    assert (unmounted.mountpoint / "f").read_bytes() == b"synced"


def test_contents_are_recorded_before_the_rename_that_makes_them_current(
    unmounted: Mounted, past: str
) -> None:
    _mount(unmounted, past)
    for number in range(3):
        content = os.urandom(_LARGE)
        (unmounted.mountpoint / "tmp").write_bytes(content)
        (unmounted.mountpoint / "tmp").rename(unmounted.mountpoint / "f")
        assert _recorded(unmounted, "f") == content, number


# ---- maps


@pytest.mark.parametrize("size", [8192, _LARGE])
def test_stores_through_a_map_are_recorded_after_it_is_closed(
    unmounted: Mounted, mode: str, size: int
) -> None:
    _mount(unmounted, mode)
    content = bytearray(os.urandom(size))
    (unmounted.mountpoint / "f").write_bytes(content)
    assert _has(unmounted, "f", bytes(content))
    fd = os.open(unmounted.mountpoint / "f", os.O_RDWR)
    shared = Map(fd, size)
    content[4096:4101] = b"store"
    shared.store(4096, b"store")
    shared.close()
    os.close(fd)

    assert _has(unmounted, "f", bytes(content))


@pytest.mark.parametrize("size", [8192, _LARGE])
def test_a_map_that_outlives_its_file_descriptor_is_still_recorded(
    unmounted: Mounted, mode: str, size: int
) -> None:
    _mount(unmounted, mode)
    content = bytearray(os.urandom(size))
    (unmounted.mountpoint / "f").write_bytes(content)
    fd = os.open(unmounted.mountpoint / "f", os.O_RDWR)
    shared = Map(fd, size)
    shared.store(0, b"before")
    os.close(fd)
    content[:6] = b"before"
    if mode != "strict":  # there the page is written when the map goes, or is synced
        assert _has(unmounted, "f", bytes(content))
    shared.store(4096, b"after")
    content[4096:4101] = b"after"
    shared.close()

    assert _has(unmounted, "f", bytes(content))


def test_msync_is_an_fsync_where_the_kernel_tells_of_it(unmounted: Mounted) -> None:
    _mount(unmounted, "strict", "capture_interval=1h")
    (unmounted.mountpoint / "f").write_bytes(bytes(8192))
    fd = os.open(unmounted.mountpoint / "f", os.O_RDWR)
    shared = Map(fd, 8192)
    shared.store(4096, b"synced")
    shared.sync()
    unmounted.kill()
    shared.close()
    _close_dead(fd)
    (unmounted.state_dir / "f").unlink()

    unmounted.mount("prefer=store")
    assert (unmounted.mountpoint / "f").read_bytes()[4096:4102] == b"synced"


def test_what_msync_made_durable_past_dkfs_is_found_by_the_next_mount(
    unmounted: Mounted, mode: str
) -> None:
    """The kernel does not tell of an msync(2) of a file that it passes through."""
    _mount(unmounted, mode, "capture_interval=1h")
    (unmounted.mountpoint / "f").write_bytes(bytes(8192))
    unmounted.flush()
    fd = os.open(unmounted.mountpoint / "f", os.O_RDWR)
    shared = Map(fd, 8192)
    shared.store(4096, b"synced")
    shared.sync()
    unmounted.kill()
    shared.close()
    _close_dead(fd)

    unmounted.mount()
    assert _recorded(unmounted, "f")[4096:4102] == b"synced"


def test_a_reader_sees_what_a_writer_has_just_written(unmounted: Mounted, mode: str) -> None:
    _mount(unmounted, mode)
    path = unmounted.mountpoint / "f"
    path.write_bytes(bytes(8192))
    reader, writer = os.open(path, os.O_RDONLY), os.open(path, os.O_RDWR)
    seen = Map(reader, 8192, writable=False)
    for number in range(200):
        word = b"%08d" % number
        os.pwrite(writer, word, 4090)
        assert os.pread(reader, 8, 4090) == word
        assert seen.load(4090, 8) == word
    seen.close()
    os.close(reader)
    os.close(writer)


# ---- backing file systems


@pytest.fixture(params=["xfs", "btrfs", "tmpfs"])
def on_disk(request: pytest.FixtureRequest, open_dir: Path) -> Iterator[Mounted]:
    with disk(request.param, open_dir) as top:
        place = Mounted(open_dir, top / "state", open_dir / "mnt", open_dir / "store")
        place.state_dir.mkdir()
        place.mountpoint.mkdir()
        yield place
        if place.mounted:
            place.umount()


def test_checkpoint_finds_what_changed_on_every_file_system(on_disk: Mounted) -> None:
    _mount(on_disk, "checkpoint")
    content = bytearray(os.urandom(_LARGE))
    fd = os.open(on_disk.mountpoint / "f", os.O_RDWR | os.O_CREAT, 0o644)
    os.write(fd, content)
    os.fsync(fd)
    for number in range(5):
        offset = number * 500_000
        content[offset : offset + 7] = b"changed"
        os.pwrite(fd, b"changed", offset)
        os.fsync(fd)
        assert _recorded(on_disk, "f") == content
    os.close(fd)
    assert _has(on_disk, "f", bytes(content))


@pytest.mark.parametrize("mode", ["hybrid", "checkpoint"])
def test_the_root_of_a_container_is_passed_through_too(open_dir: Path, mode: str) -> None:
    with overlay(open_dir) as merged:
        place = Mounted(open_dir, merged, open_dir / "mnt", open_dir / "store")
        place.mountpoint.mkdir()
        _mount(place, mode)
        assert _status(place)["io"] == mode
        from_image = place.mountpoint / "from-image"
        assert from_image.read_bytes() == b"from the image\n" * 1000
        with from_image.open("r+b") as file:  # copied up while it is open
            file.write(b"FROM")
            file.flush()
            assert from_image.read_bytes().startswith(b"FROM the image\n")
        (place.mountpoint / "new").write_bytes(b"new")
        assert _has(place, "from-image", b"FROM" + (b"from the image\n" * 1000)[4:])
        assert _has(place, "new", b"new")
        place.umount()


# ---- where the kernel does not grant it


@pytest.mark.parametrize("mode", ["hybrid", "checkpoint"])
def test_without_the_right_it_is_strict_and_says_so_once(unmounted: Mounted, mode: str) -> None:
    """A user namespace may mount, but not pass through: that takes the right in the initial one."""
    log = unmounted.base / "log"
    script = f"""
        set -e
        export PYTHONPATH={CHECKOUT} DKFS_METRICS_ADDR=
        run="{sys.executable} -m dkfs"
        $run mount {unmounted.state_dir} {unmounted.mountpoint} --store {unmounted.store} \
            -o engine=kernel,io={mode} --log-file {log}
        echo one > {unmounted.mountpoint}/f; cat {unmounted.mountpoint}/f
        echo two >> {unmounted.mountpoint}/f; cat {unmounted.mountpoint}/f > /dev/null
        $run status {unmounted.mountpoint}
        $run umount {unmounted.mountpoint}
    """
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no user namespaces: {done.stderr.strip()}")

    assert done.returncode == 0, done.stderr
    why = "it takes CAP_SYS_ADMIN in the initial user namespace"
    assert f"strict ({mode} was asked for: {why})" in done.stdout
    assert log.read_text().count(f"io={mode} is served as io=strict: {why}") == 1


def test_the_state_of_a_mount_names_the_mode_and_its_opens(unmounted: Mounted) -> None:
    _mount(unmounted, "hybrid")
    path = unmounted.mountpoint / "f"
    path.write_bytes(b"x")
    with path.open("rb") as reader, path.open("r+b") as writer:
        assert reader.read() == b"x"
        assert writer.fileno()
        told = _status(unmounted)

    assert (told["io"], told["io_asked"], told["io_why"]) == ("hybrid", "hybrid", "")
    opens = told["io_opens"]
    assert isinstance(opens, dict)
    assert opens["passthrough_direct"] >= 1
    assert opens["passthrough"] >= 1
