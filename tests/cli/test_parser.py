"""dkfs.cli.parser and dkfs.cli.mounting: flags as texts, the seed's among them."""

import argparse
from pathlib import Path

import pytest

from dkfs.cli import run as run_command
from dkfs.cli.mounting import make_state_dir, settings_of
from dkfs.config.settings import MountSettings
from dkfs.errors import StoreError, UsageError
from dkfs.store import Store


def parsed(*words: str) -> argparse.Namespace:
    return run_command.add_parser().parse(words, argparse.Namespace())


def settings(*words: str) -> MountSettings:
    return settings_of(parsed(*words), {})


@pytest.mark.parametrize(
    "words",
    [
        ("--state-dir=/s", "--debug", "--", "cmd", "--debug", "-x"),
        ("--state-dir", "/s", "--debug=true", "cmd", "--debug", "-x"),
        ("--debug", "--state-dir", "/s", "--enable-ebpf=false", "cmd", "--debug", "-x"),
    ],
)
def test_the_flags_end_where_the_command_begins(words: tuple[str, ...]) -> None:
    args = parsed(*words)

    assert [word for word in args.program if word != "--"] == ["cmd", "--debug", "-x"]
    assert settings_of(args, {}).debug is True


def test_a_switch_may_say_false() -> None:
    assert settings("--debug=false", "cmd").debug is False


def test_a_switch_of_the_seed_without_a_value_means_true_and_eats_no_word() -> None:
    with pytest.raises(UsageError, match="--enable-ebpf=true is not in this release"):
        settings("--enable-ebpf", "cmd")
    assert parsed("--enable-ebpf", "cmd").program == ["cmd"]


def test_a_flag_beats_an_option_beats_the_environment_beats_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "dkfs.toml"
    config.write_text(
        'snapdir = "visible"\nhash_algo = "sha256"\nprefer = "dir"\nstore = "/file"\n'
    )
    monkeypatch.setenv("DKFS_CONFIG", str(config))
    monkeypatch.setenv("DIFFKEEPER_STORE", "/environment")
    monkeypatch.setenv("DKFS_HASH_ALGO", "blake3")

    made = settings("-o", "store=/option,prefer=store", "-o", "ro", "--store", "/flag", "cmd")

    assert made.store == Path("/flag")
    assert made.prefer == "store"
    assert made.read_only
    assert made.hash_algo == "blake3"
    assert made.snapdir == "visible"
    assert settings("-o", "store=/option", "cmd").store == Path("/option")
    assert settings("cmd").store == Path("/environment")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--capture-interval", "0"), "--capture-interval: '0', expected a time"),
        (("--metrics-addr", "nonsense"), "metrics address 'nonsense': expected :PORT"),
        (("--hash-algo", "md5"), "--hash-algo: 'md5', expected blake3 or sha256"),
        (("--ebpf-program", "x"), "--ebpf-program=x is not in this release"),
        (("-o", "colour"), "-o colour: unknown mount option"),
        (("--engine", "fuse"), "--engine: 'fuse', expected auto or kernel or pyfuse3"),
    ],
)
def test_a_bad_flag_names_itself(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(*words, "cmd")

    assert message in str(caught.value)


def test_a_lost_state_dir_is_made_only_if_a_history_can_fill_it(tmp_path: Path) -> None:
    lost = MountSettings(
        state_dir=tmp_path / "a" / "state", mountpoint=tmp_path / "m", store=tmp_path / "store"
    )

    make_state_dir(lost)
    assert not lost.state_dir.exists()

    Store.create(lost.store)
    make_state_dir(lost)
    assert lost.state_dir.is_dir()


def test_a_store_that_cannot_be_had_makes_no_state_dir(tmp_path: Path) -> None:
    store = tmp_path / "store"
    Store.create(store)

    with Store.open(store, writable=True):
        lost = MountSettings(state_dir=tmp_path / "a", mountpoint=tmp_path / "a", store=store)
        with pytest.raises(StoreError, match="in use by process"):
            make_state_dir(lost)
        assert not lost.state_dir.exists()

    inside = MountSettings(state_dir=store / "a", mountpoint=store / "a", store=store)
    with pytest.raises(UsageError, match="lies in the store"):
        make_state_dir(inside)
    assert not inside.state_dir.exists()
