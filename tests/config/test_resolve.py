"""dkfs.config.resolve, with the seed's flags."""

from pathlib import Path

import pytest

from dkfs.config.resolve import resolve
from dkfs.config.seed import SEED_FLAGS
from dkfs.config.settings import MountSettings
from dkfs.config.sources import from_environment
from dkfs.config.values import Given
from dkfs.errors import UsageError


def settings(**texts: str) -> MountSettings:
    return resolve({name: Given(text, f"--{name}") for name, text in texts.items()}, base=Path("/"))


def test_what_nobody_says_is_as_the_seed_had_it() -> None:
    assert settings() == MountSettings(
        state_dir=Path("/data"),
        mountpoint=Path("/data"),
        store=Path("/deltas/db"),
        fsname="/data",
        metrics_addr=":9911",
    )


def test_everything_that_can_be_said() -> None:
    assert settings(
        state_dir="/s",
        mountpoint="/m",
        store="/d",
        allow_other="true",
        read_only="1",
        suid="yes",
        dev="on",
        exec="false",
        noatime="true",
        sync="true",
        dirsync="true",
        snapdir="visible",
        engine="pyfuse3",
        io="strict",
        fsname="name",
        capture_interval="500ms",
        hash_algo="sha256",
        metrics_addr="",
        log_file="/l",
        debug="true",
        prefer="dir",
    ) == MountSettings(
        state_dir=Path("/s"),
        mountpoint=Path("/m"),
        store=Path("/d"),
        allow_other=True,
        read_only=True,
        suid=True,
        dev=True,
        exec=False,
        noatime=True,
        sync=True,
        dirsync=True,
        snapdir="visible",
        engine="pyfuse3",
        io="strict",
        fsname="name",
        capture_interval_s=0.5,
        hash_algo="sha256",
        metrics_addr=None,
        log_file=Path("/l"),
        debug=True,
        prefer="dir",
    )


def test_what_keeps_a_store_small_and_sound_can_be_said() -> None:
    said = settings(budget="1G", reserve="1M", scrub_interval="12h")

    assert (said.budget, said.reserve, said.scrub_interval_s) == (1 << 30, 1 << 20, 43_200.0)


def test_no_budget_is_none_at_all() -> None:
    assert settings().budget is None
    assert settings(budget="0").budget is None


def test_the_source_of_the_mount_is_the_state_dir_as_it_was_written_if_absolute() -> None:
    assert settings(state_dir="/a/../b").fsname == "/a/../b"
    assert settings(state_dir="b").fsname == "/b"


def test_there_are_three_io_modes() -> None:
    assert [settings(io=io).io for io in ("strict", "hybrid", "checkpoint")] == [
        "strict",
        "hybrid",
        "checkpoint",
    ]
    with pytest.raises(
        UsageError, match=r"^--io: 'fast', expected strict or hybrid or checkpoint$"
    ):
        settings(io="fast")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dedup_scope", "cluster"),
        ("enable_ebpf", "true"),
        ("btfhub_mirror", "x"),
        ("no_exec", "true"),
    ],
)
def test_what_the_seed_had_and_this_release_has_not_is_refused(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"^--{name}={text} is not in this release: "):
        settings(**{name: text})


def test_the_value_that_says_what_this_release_does_is_accepted() -> None:
    same = {seed.name: seed.same for seed in SEED_FLAGS if seed.same is not None}

    assert settings(**same) == settings()
    assert same["enable_ebpf"] == "false"


def test_the_seeds_environment_is_checked_like_its_flags() -> None:
    layer = from_environment({"DIFFKEEPER_ENABLE_EBPF": "TRUE"})

    with pytest.raises(UsageError, match=r"^DIFFKEEPER_ENABLE_EBPF=TRUE is not in this release"):
        resolve(layer, base=Path("/"))


def test_a_switch_of_the_seed_that_is_neither_true_nor_false_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"^--enable_ebpf: 'maybe', expected true or false$"):
        settings(enable_ebpf="maybe")
