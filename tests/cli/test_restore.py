"""dkfs restore."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dkfs.cli import restore as command
from tests.cli.conftest import Dkfs
from tests.mounting import CHECKOUT


def test_restore_copies_a_version_out_and_sums_up(dkfs: Dkfs, store: Path, tmp_path: Path) -> None:
    result = dkfs("restore", "4:etc", "--target", tmp_path / "out", "--store", store)

    assert (tmp_path / "out" / "app.conf").read_bytes() == b"port=8080\n"
    if result.err == "":  # as root; anybody else is told whose owner was not set
        assert result.status == 0
    assert result.out == f"restored 1 entry, 10 B, of version 4 to {tmp_path / 'out'}\n"


def test_a_target_that_holds_something_is_refused_and_kept(
    dkfs: Dkfs, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()

    for dry in ((), ("-n",)):
        result = dkfs("restore", "4", "--target", tmp_path / "out", *dry, "--store", store)
        assert result.status == 1
        assert "not empty" in result.err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_target_that_is_no_directory_or_in_the_store_is_refused(
    dkfs: Dkfs, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(store)

    for target, said in (
        (tmp_path / "file", "is not a directory"),
        (store, "lies in the store"),
        (store / "below", "lies in the store"),
        (tmp_path / "link" / "below", "lies in the store"),
    ):
        for dry in ((), ("-n",)):
            result = dkfs("restore", "4", "--target", target, *dry, "--store", store)
            assert result.status == 2
            assert said in result.err
    assert not (store / "below").exists()


def test_a_dry_run_says_what_the_real_run_does_and_makes_nothing(
    dkfs: Dkfs, store: Path, tmp_path: Path
) -> None:
    words = ("restore", "4", "--target", tmp_path / "out", "--json", "--store", store)

    *named, planned = dkfs(*words, "-n").messages
    assert named == [
        {"message_type": "restore", "action": "make", "path": "etc"},
        {"message_type": "restore", "action": "make", "path": "etc/app.conf"},
    ]
    assert not (tmp_path / "out").exists()
    (done,) = dkfs(*words).messages

    assert planned == {**done, "dry_run": True, "problems": 0}


@pytest.mark.parametrize(("place", "status"), [("4:never", 3), ("99", 3), ("4:../x", 2)])
def test_what_is_not_in_the_history_makes_no_target(
    dkfs: Dkfs, store: Path, tmp_path: Path, place: str, status: int
) -> None:
    result = dkfs("restore", place, "--target", tmp_path / "out", "--store", store)

    assert result.status == status
    assert not (tmp_path / "out").exists()


def test_without_a_target_it_is_a_usage_error(dkfs: Dkfs, store: Path) -> None:
    assert dkfs("restore", "4", "--store", store).status == 2


def test_damage_is_named_and_is_status_5_and_the_rest_is_restored(
    dkfs: Dkfs, store: Path, tmp_path: Path
) -> None:
    (segment,) = (store / "segments").iterdir()
    data = segment.read_bytes()
    at = data.index(b"port=8080")
    segment.write_bytes(data[:at] + b"PORT" + data[at + 4 :])

    result = dkfs("restore", "4", "--target", tmp_path / "out", "--store", store)

    assert result.status == 5
    assert "etc/app.conf" in result.err
    assert not (tmp_path / "out" / "etc" / "app.conf").exists()
    assert (tmp_path / "out" / "etc").is_dir()


def test_a_target_that_holds_something_is_treated_as_overwrite_says(
    dkfs: Dkfs, store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "etc").mkdir(parents=True)
    (out / "etc" / "app.conf").write_bytes(b"mine\n")
    (out / "etc" / "more").write_bytes(b"mine\n")
    words = ("restore", "4", "--target", out, "--store", store)

    assert dkfs(*words, "--overwrite", "never").out.endswith("(1 kept)\n")
    assert (out / "etc" / "app.conf").read_bytes() == b"mine\n"
    told = dkfs(*words, "--overwrite", "always", "--delete", "-n").lines
    assert told[:2] == ["would change etc/app.conf", "would remove etc/more"]
    done = dkfs(*words, "--overwrite", "always", "--delete", "--verify")
    assert (out / "etc" / "app.conf").read_bytes() == b"port=8080\n"
    assert not (out / "etc" / "more").exists()
    assert done.out == (
        f"restored 0 entries, 10 B, of version 4 to {out} (1 changed, 1 removed, 1 verified)\n"
    )


def test_what_is_chosen_is_restored(dkfs: Dkfs, store: Path, tmp_path: Path) -> None:
    for number, (words, wanted) in enumerate(
        (
            (("--include", "*.conf"), ["etc", "etc/app.conf"]),
            (("--iinclude", "/ETC/*.CONF"), ["etc", "etc/app.conf"]),
            (("--exclude", "etc", "--exclude", "odd*"), ["link"]),
            (("-i", "link", "-i", "odd*", "--iexclude", "ODD*"), ["link"]),
        )
    ):
        out = tmp_path / f"out{number}"
        dkfs("restore", "7", "--target", out, *words, "--store", store)
        assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == wanted


def test_delete_without_overwrite_and_bad_patterns_are_usage_errors(
    dkfs: Dkfs, store: Path, tmp_path: Path
) -> None:
    words = ("restore", "4", "--target", tmp_path / "out", "--store", store)

    assert dkfs(*words, "--delete").status == 2
    assert dkfs(*words, "--include", "..").status == 2
    assert dkfs(*words, "--overwrite", "sometimes").status == 2
    assert not (tmp_path / "out").exists()


def test_a_device_is_left_out_named_and_no_failure(dkfs: Dkfs, store: Path, tmp_path: Path) -> None:
    result = dkfs(
        "restore", "8", "--target", tmp_path / "out", "--include", "null", "--store", store
    )

    assert result.status == 0
    assert "dkfs: null: device left out\ndkfs: what is left out comes with --privileged\n" in (
        result.err
    )
    assert result.out.endswith("(1 left out)\n")


def test_a_restore_that_is_interrupted_says_what_it_left(
    dkfs: Dkfs, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        (tmp_path / "out").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "restore", interrupted)
    result = dkfs("restore", "4:etc", "--target", tmp_path / "out", "--store", store)

    assert result.status == 130
    assert result.err == (
        f"dkfs: interrupted: {tmp_path / 'out'} has a part of it;"
        " the same command with --overwrite if-changed goes on\n"
    )


@pytest.mark.root
def test_who_may_give_files_to_nobody_is_told_once_and_gets_his_own(
    store: Path, open_dir: Path
) -> None:
    copy = open_dir / "store"
    shutil.copytree(store, copy)
    for path in [copy, *copy.rglob("*")]:
        os.chown(path, 65534, 65534)
    target = open_dir / "out"
    os.chown(open_dir, 65534, 65534)
    done = subprocess.run(
        [sys.executable, "-m", "dkfs", "restore", "4", "--target", target, "--store", copy],
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        env=dict(os.environ, PYTHONPATH=str(CHECKOUT)),
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert (
        "entries have other owners or groups than they had: only root may give them" in done.stderr
    )
    assert (target / "etc" / "app.conf").read_bytes() == b"port=8080\n"
