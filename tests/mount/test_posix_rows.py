"""Every call on every kind of path, by root, an owner and a stranger: the mount says what a plain directory says."""

import os
import re
import subprocess
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mount import behaviours_of_limits, behaviours_of_rights, posix_sticky, posix_times
from tests.mount.behaviours import BEHAVIOURS, Behaviour, Seen, tried
from tests.mount.behaviours_of_kernel import OF_KERNEL
from tests.mount.engines import PYFUSE3, STRICT, each_engine, each_way
from tests.mount.posix_attributes import ATTRIBUTES
from tests.mount.posix_naming import NAMING, NAMING_OF_KERNEL
from tests.mount.posix_opening import OPENING
from tests.mount.posix_scene import PATHS, USERS, Call, build, families, remains
from tests.mount.posix_scene import answers as answers_of
from tests.mounting import Mounted

for module in (behaviours_of_limits, behaviours_of_rights):
    assert module.BEHAVIOURS is BEHAVIOURS  # it has added its own
pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

TABLES = {"opening": OPENING, "naming": NAMING, "attributes": ATTRIBUTES}
Answers = dict[str, object]

# What is not as on a plain directory, and why.
KNOWN = {
    # The kernel asks nobody whether the size is possible: that the backing file system refuses it is
    # known when what a truncation takes away is gone.
    r"\['f?truncate 2\^62'\], left: b'/(suid|setgid/in)'": "(set-id bits)",
    # Linux tells a daemon of both in the same words: a chown to nobody, and a write that takes set-id bits.
    r"l?chown -1, -1: other: b'(setgid/in|suid|sgid)'": "(set-id bits)",
    r"chown -1 -1: file": "(ctime)",
    # The kernel knows the size, and does not ask for what lies behind it.
    r"read nothing: file": "(atime)",
}
# pyfuse3 knows no flags of setxattr but one at a time.
KNOWN_OF_PYFUSE3 = {r"both flags of setxattr: ": "(both flags)"}


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def shared(unmounted: Mounted) -> Mounted:
    """Mount for everybody, with everything allowed."""
    unmounted.mount("allow_other", "suid", "dev")
    return unmounted


def compare(place: Mounted, expected: Answers, found: Answers) -> list[str]:
    """Return a line for each answer that is not as expected, and not known to differ."""
    known = KNOWN | (KNOWN_OF_PYFUSE3 if "engine=pyfuse3" in place.options else {})
    lines = (
        f"{key}: {found.get(key)!r}, expected {expected.get(key)!r}"
        for key in (expected | found)
        if expected.get(key) != found.get(key)
    )
    return [line for line in lines if not any(re.match(pattern, line) for pattern in known)]


@each_way
def test_mount_behaves_as_a_plain_directory(shared: Mounted) -> None:
    wrong = []
    behaviours = BEHAVIOURS + ([] if "engine=pyfuse3" in shared.options else OF_KERNEL)
    for behave in behaviours:
        expected, found = (
            seen(behave, top / behave.__name__) for top in (shared.base, shared.mountpoint)
        )
        if found != expected:
            wrong.append(f"{behave.__name__}: {found}, expected {expected}")

    assert not wrong, "\n".join(wrong[:50])
    assert set(os.listdir(shared.mountpoint)) == {behave.__name__ for behave in behaviours}


def seen(behave: Behaviour, top: Path) -> Seen:
    """Return what *behave* sees in the new directory *top*; how it failed, if it did."""
    os.umask(0o022)
    top.mkdir()
    try:
        return behave(top)
    except OSError:
        return traceback.format_exc()


def answered(top: Path, calls: dict[str, Call]) -> tuple[Answers, Answers]:
    """Return what *calls* answer for each user and path, and what is there afterwards."""
    scene = build(top)
    answers = {
        f"{name}: {user.name}: {path[:60]!r}": answer
        for user in USERS
        for name, answers in answers_of(user, scene, calls, PATHS).items()
        for path, answer in zip(PATHS, answers, strict=True)
    }
    return answers, {f"{[*calls]}, left: {path!r}": what for path, what in remains(scene).items()}


# All of a third of the families reach every method of pyfuse3's adapter; what lies below it is the same for both.
@pytest.mark.parametrize(
    ("mount_options", "every"),
    [
        pytest.param(STRICT.options, 1, id=STRICT.name),
        pytest.param(PYFUSE3.options, 3, id=f"{PYFUSE3.name}-third"),
        pytest.param(PYFUSE3.options, 1, id=PYFUSE3.name, marks=pytest.mark.torture),
    ],
)
@pytest.mark.parametrize("table", TABLES)
def test_every_call_is_answered_as_by_a_plain_directory(
    shared: Mounted, table: str, every: int
) -> None:
    rows = dict(TABLES[table])
    if table == "naming" and "engine=pyfuse3" not in shared.options:
        rows |= NAMING_OF_KERNEL
    wrong = []
    for number, calls in enumerate(families(rows)[::every]):
        answers, left = answered(shared.base / "plain" / str(number), calls)
        answers_here, left_here = answered(shared.mountpoint / str(number), calls)
        wrong += compare(shared, answers, answers_here)
        if answers == answers_here:  # otherwise what is left follows from them
            wrong += compare(shared, left, left_here)

    assert not wrong, "\n".join(wrong[:50])


@each_way
def test_every_call_moves_the_times_that_it_moves_in_a_plain_directory(shared: Mounted) -> None:
    expected, found = (
        posix_times.moved_by_each(top / "times") for top in (shared.base, shared.mountpoint)
    )
    wrong = compare(shared, expected, found)

    assert not wrong, "\n".join(wrong[:50])


@each_engine
def test_sticky_directories_protect_whom_they_protect_in_a_plain_directory(shared: Mounted) -> None:
    expected, found = (
        posix_sticky.answers(top / "sticky") for top in (shared.base, shared.mountpoint)
    )
    wrong = compare(shared, expected, found)

    assert not wrong, "\n".join(wrong[:50])


# ---- a file system that is full


def filled(top: Path) -> list[object]:
    """Fill *top*, which has room for little; return what each attempt ended with, on the way and after."""
    (top / "dir").mkdir()
    said: list[object] = []
    with (top / "big").open("wb", buffering=0) as big:
        said.append(tried(lambda: [big.write(bytes(range(256)) * 256) for _ in range(100)]))
        said.append(tried(lambda: os.fsync(big.fileno())))
    said.append(tried(lambda: (top / "small").write_bytes(b"x" * 5000)))
    os.truncate(top / "big", 100_000)
    said.append(tried(lambda: (top / "small").write_bytes(b"x" * 5000)))
    said.append(tried(lambda: [(top / f"file{n}").write_bytes(b"") for n in range(100)]))
    calls: tuple[Callable[[Path], object], ...] = (
        *(os.mkdir, os.mkfifo, lambda p: os.symlink("x", p), lambda p: os.open(p, os.O_CREAT)),
        lambda p: os.link(top / "small", p),
    )
    said += [tried(partial(call, top / "dir" / "new")) for call in calls]
    said.append(tried(lambda: os.rename(top / "small", top / "dir" / "small")))
    said.append(tried((top / "file0").unlink))
    # The room of a removed file comes back when the kernel has told that it has forgotten it, which is no request.
    said.append(any(not tried(lambda: os.mkdir(top / "dir" / "new")) for _ in range(5000)))
    return [*said, (top / "big").read_bytes(), (top / "dir" / "small").read_bytes()]


@each_engine
def test_full_backing_directory_refuses_what_any_full_directory_refuses(unmounted: Mounted) -> None:
    plain = unmounted.base / "plain"
    plain.mkdir()
    for directory in (plain, unmounted.state_dir):
        options = "size=2m,nr_inodes=60"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", directory], check=True)
    try:
        unmounted.mount()
        expected, found = filled(plain), filled(unmounted.mountpoint)
        unmounted.umount()
    finally:
        for directory in (plain, unmounted.state_dir):
            subprocess.run(["umount", "--lazy", directory], check=True)

    assert "ENOSPC" in expected
    assert found == expected
