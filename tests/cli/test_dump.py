"""dkfs dump."""

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.cli.conftest import Dkfs
from tests.mounting import CHECKOUT


def dump(store: Path, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "dkfs", "dump", *words, "--store", store],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        check=False,
    )


def test_a_tar_goes_to_stdout(store: Path) -> None:
    done = dump(store, "7", "--archive", "tar")

    assert (done.returncode, done.stderr) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as file:
        assert file.getnames() == [".", "etc", "etc/app.conf", "link", "odd\x1b[31m\udcff"]
        member = file.extractfile("etc/app.conf")
        assert member is not None
        assert member.read() == b"port=8080\n"


def test_what_a_zip_cannot_hold_is_said_and_names_it_cannot_are_status_1(
    store: Path, tmp_path: Path
) -> None:
    done = dump(store, "8", "--archive", "zip")

    assert done.returncode == 1
    assert b"dkfs: a zip cannot hold null: a char: left out\n" in done.stderr
    assert b"odd\\x1b[31m\\xff at version 8: left out: a zip holds names in UTF-8" in done.stderr
    with zipfile.ZipFile(io.BytesIO(done.stdout)) as file:
        assert file.namelist() == ["etc/", "etc/app.conf", "link"]


def test_a_file_without_archive_is_its_bytes(store: Path, dkfs: Dkfs, tmp_path: Path) -> None:
    assert dump(store, "4:etc/app.conf").stdout == b"port=8080\n"
    (tmp_path / "out").write_bytes(b"old")

    result = dkfs("dump", "4:etc/app.conf", "-o", tmp_path / "out", "--store", store)

    assert result.out == f"wrote 1 entry, 10 B, of version 4 to {tmp_path / 'out'}\n"
    assert (tmp_path / "out").read_bytes() == b"port=8080\n"
    assert dump(store, "4:etc").returncode == 2
    assert dump(store, "7:link").returncode == 2


def test_with_output_there_is_a_summary_and_a_file_that_is_whole(
    dkfs: Dkfs, store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.tar"
    (message,) = dkfs(
        "dump", "4", "--archive", "tar", "-o", out, "--json", "--store", store
    ).messages

    assert message == {
        "message_type": "summary",
        "version": 4,
        "output": str(out),
        "entries": 3,
        "bytes": out.stat().st_size,
        "left_out": 0,
        "problems": 0,
    }
    assert sorted(os.listdir(tmp_path)) == ["here", "out.tar", "store"]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("99", "--archive", "tar"), 3),
        (("4:never", "--archive", "tar"), 3),
        (("4", "--archive", "rar"), 2),
        (("4", "--archive", "tar", "--json"), 2),
    ],
)
def test_what_cannot_be_leaves_no_file(
    store: Path, tmp_path: Path, words: tuple[str, ...], status: int
) -> None:
    assert dump(store, *words).returncode == status
    further = () if "--json" in words else ("-o", tmp_path / "out")
    assert dump(store, *words, *further).returncode == status
    assert sorted(os.listdir(tmp_path)) == ["store"]


def test_a_terminal_is_refused(store: Path) -> None:
    main, side = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "dkfs", "dump", "4", "--archive", "tar", "--store", store],
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        stdout=side,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(side)
    os.close(main)

    assert done.returncode == 2
    assert b"does not write to a terminal" in done.stderr


def test_damage_is_named_and_is_status_5_and_the_rest_is_there(store: Path, tmp_path: Path) -> None:
    (segment,) = (store / "segments").iterdir()
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b"port=8080", b"PORT=8080"))

    done = dump(store, "4", "--archive", "tar", "-o", tmp_path / "out.tar")

    assert done.returncode == 5
    assert b"etc/app.conf at version 4: left out: " in done.stderr
    with tarfile.open(tmp_path / "out.tar") as file:
        assert file.getnames() == [".", "etc"]
    assert dump(store, "4:etc/app.conf").returncode == 5
    assert dump(store, "4:etc/app.conf").stdout == b""


def test_a_place_that_is_not_there_is_named_as_it_was_given(
    dkfs: Dkfs, store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "nowhere" / "out.tar"

    result = dkfs("dump", "4", "--archive", "tar", "-o", out, "--store", store)

    assert (result.status, result.err) == (1, f"dkfs: {out}: No such file or directory\n")


@pytest.mark.parametrize("words", [("dump", "4", "--archive", "tar"), ("cat", "4:etc/app.conf")])
def test_where_it_could_not_be_written_is_named(store: Path, words: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dkfs", *words, "--store", store],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            text=True,
        )

    assert done.returncode == 1
    assert done.stderr == "dkfs: standard output: No space left on device\n"


def test_a_dump_that_is_killed_leaves_nothing(store: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from dkfs.cli.appearing import replacing\n"
        "from pathlib import Path\n"
        "with replacing(Path(sys.argv[1])) as file:\n"
        "    file.write(b'x' * 100_000)\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    place = tmp_path / "out"
    place.mkdir()
    subprocess.run([sys.executable, "-c", script, place / "a.tar"], check=False)

    assert os.listdir(place) == []


def test_a_dump_takes_the_place_of_a_file_at_once(dkfs: Dkfs, store: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    target = place / "file"
    target.write_text("before")
    with open(target, "rb") as before:
        assert dkfs("dump", "4:etc/app.conf", "-o", target, "--store", store).status == 0
        assert before.read() == b"before"

    assert target.read_bytes() == b"port=8080\n"
    assert os.listdir(place) == ["file"]
