"""Which files are served how, as people write it."""

from pathlib import Path

import pytest

from dkfs.config.io import check_io, rules_in_file
from dkfs.config.resolve import resolve
from dkfs.config.settings import MountSettings
from dkfs.config.sources import from_file
from dkfs.config.values import Given
from dkfs.core.io_mode import IoMode
from dkfs.errors import UsageError


def _file(top: Path, text: str) -> Path:
    file = top / "dkfs.toml"
    file.write_text(text)
    return file


_TWO = """\
[[io]]
path = "models/**"
mode = "checkpoint"

[[io]]
path = "*.db"
mode = "strict"
"""


def test_the_tables_are_rules_in_their_order_and_no_setting(tmp_path: Path) -> None:
    file = _file(tmp_path, 'snapdir = "visible"\n' + _TWO)

    rules = rules_in_file(file)
    assert [rule.mode for rule in rules] == [IoMode.CHECKPOINT, IoMode.STRICT]
    assert rules[0].matches(b"models/a")
    assert set(from_file(file)) == {"snapdir"}


def test_without_tables_the_file_may_say_the_mode_of_all(tmp_path: Path) -> None:
    file = _file(tmp_path, 'io = "hybrid"\n')

    assert rules_in_file(file) == ()
    assert resolve(from_file(file), base=tmp_path).io == "hybrid"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[io]]\npath = "a"\n', "mode is None, expected strict or hybrid or checkpoint"),
        ('[[io]]\npath = "a"\nmode = "fast"\n', r"\(a\): mode is 'fast', expected strict or"),
        ('[[io]]\nmode = "strict"\n', 'expected path = "PATTERN"'),
        ('[[io]]\npath = "../a"\nmode = "strict"\n', "names no path below the top"),
        (
            '[[io]]\npath = "a"\nmode = "strict"\nwhen = 1\n',
            "when of .*no such key, expected path and",
        ),
        ("io = [1]\n", "expected a table"),
    ],
)
def test_a_bad_table_is_one_line_that_says_what_was_expected(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        rules_in_file(_file(tmp_path, text))


def test_a_single_table_is_not_a_list_of_rules(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"io in .*: expected a text, a number, true or false"):
        from_file(_file(tmp_path, '[io]\npath = "a"\nmode = "strict"\n'))


def _settings(top: Path, rules: str = "", **given: str) -> MountSettings:
    layer = {name: Given(text, f"-o {name}") for name, text in given.items()}
    settings = resolve(layer, base=top)
    return MountSettings(
        state_dir=settings.state_dir,
        mountpoint=settings.mountpoint,
        store=settings.store,
        engine=settings.engine,
        io=settings.io,
        io_rules=rules_in_file(_file(top, rules)),
    )


@pytest.mark.parametrize("io", ["hybrid", "checkpoint"])
def test_pyfuse3_serves_strict_only(tmp_path: Path, io: str) -> None:
    for engine in ("auto", "kernel"):
        check_io(_settings(tmp_path, engine=engine, io=io))
    check_io(_settings(tmp_path, engine="pyfuse3"))
    with pytest.raises(
        UsageError, match=f"^io={io}: the engine pyfuse3 serves io=strict only, expected engine="
    ):
        check_io(_settings(tmp_path, engine="pyfuse3", io=io))


def test_a_rule_that_pyfuse3_cannot_follow_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^\[\[io\]\]: mode = checkpoint: the engine pyfuse3"):
        check_io(_settings(tmp_path, _TWO, engine="pyfuse3"))


def test_the_modes_of_a_mount_are_its_rules_and_its_mode_for_the_rest(tmp_path: Path) -> None:
    modes = _settings(tmp_path, _TWO, io="hybrid").io_modes

    assert modes.mode_of(b"models/x") is IoMode.CHECKPOINT
    assert modes.mode_of(b"a/b.db") is IoMode.STRICT
    assert modes.mode_of(b"a/b") is IoMode.HYBRID
