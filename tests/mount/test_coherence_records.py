"""What one process has written is what others read next: records with a number, and SQLite's own test of threads."""

import subprocess
from pathlib import Path

import pytest

from tests.mount import sqlite_threads, witnesses
from tests.mount.engines import each_way
from tests.mounting import Mounted

pytestmark = [pytest.mark.mount, pytest.mark.slow]
each_question = pytest.mark.parametrize("asks", ["nothing", "fstat"])


def records_are_exact(place: Mounted, shared: Path, asks: str, seconds: float) -> None:
    path = place.mountpoint / "ring"
    path.write_bytes(bytes(witnesses.RING * witnesses.RECORD))
    readers = [witnesses.start("read", shared, path, asks) for _ in range(2)]
    writer = witnesses.start("write", shared, path, seconds)
    written, _, _ = witnesses.told(writer, seconds + 60)
    seen = [witnesses.told(reader, 60) for reader in readers]

    assert [(wrong, said[-2000:]) for _, wrong, said in seen] == [(0, "")] * 2
    assert min(looked for looked, _, _ in seen) >= witnesses.LEAST
    assert written >= witnesses.LEAST


@each_question
@each_way
def test_readers_see_exactly_the_record_that_was_published(
    unmounted: Mounted, tmp_path: Path, mount_options: tuple[str, ...], asks: str
) -> None:
    unmounted.mount(*mount_options)

    records_are_exact(unmounted, tmp_path / "shared", asks, 2.5)


@pytest.mark.torture
@pytest.mark.timeout(900)
@each_question
@each_way
def test_readers_see_exactly_the_record_that_was_published_for_ten_minutes(
    unmounted: Mounted, tmp_path: Path, mount_options: tuple[str, ...], asks: str
) -> None:
    unmounted.mount(*mount_options)

    records_are_exact(unmounted, tmp_path / "shared", asks, 600)


# ---- SQLite


def threads_find_no_damage(place: Mounted, name: str, milliseconds: int, tests: int) -> None:
    program = sqlite_threads.threadtest3(milliseconds)
    if program is None:
        pytest.skip("needs apt-get with SQLite's source package, gcc and libsqlite3")
    done = subprocess.run(
        [program, name],
        cwd=place.mountpoint,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=tests * (milliseconds / 1000 + 60),
    )
    assert done.returncode == 0, done.stdout
    assert f"0 errors out of {tests} tests" in done.stdout, done.stdout


@each_way
def test_threads_of_sqlite_find_no_damage(
    unmounted: Mounted, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)

    threads_find_no_damage(unmounted, "walthread[1234]", 1000, 4)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@each_way
def test_threads_of_sqlite_find_no_damage_in_many_runs(
    unmounted: Mounted, mount_options: tuple[str, ...]
) -> None:
    unmounted.mount(*mount_options)

    threads_find_no_damage(unmounted, "walthread*", 20_000, 5)
    for _ in range(40):
        threads_find_no_damage(unmounted, "walthread4", 20_000, 1)
