"""dkfs.config.sources."""

from pathlib import Path

import pytest

from dkfs.config.sources import from_environment, from_file, merge
from dkfs.config.values import Given
from dkfs.errors import UsageError


def test_dkfs_variables_come_before_those_of_the_seed() -> None:
    layer = from_environment(
        {"DKFS_STORE": "/a", "DIFFKEEPER_STORE": "/b", "DIFFKEEPER_HASH_ALGO": "sha256"}
    )

    assert layer == {
        "store": Given("/a", "DKFS_STORE"),
        "hash_algo": Given("sha256", "DIFFKEEPER_HASH_ALGO"),
    }


def test_an_empty_variable_says_nothing_but_for_the_metrics_address() -> None:
    layer = from_environment({"DKFS_STORE": "", "DKFS_METRICS_ADDR": ""})

    assert layer == {"metrics_addr": Given("", "DKFS_METRICS_ADDR")}


def test_variables_of_the_seed_are_known_by_the_name_of_their_flag() -> None:
    layer = from_environment({"DIFFKEEPER_CHUNK_SIZE_MB": "4", "DIFFKEEPER_SNAPDIR": "visible"})

    assert layer == {"chunk_size": Given("4", "DIFFKEEPER_CHUNK_SIZE_MB")}


def test_a_file_has_one_key_for_each_setting(tmp_path: Path) -> None:
    file = tmp_path / "dkfs.toml"
    file.write_text('store = "/d"\ndebug = true\ncapture_interval = 2.5\nmetrics_addr = ""\n')

    layer = from_file(file)

    assert {name: value.text for name, value in layer.items()} == {
        "store": "/d",
        "debug": "true",
        "capture_interval": "2.5",
        "metrics_addr": "",
    }
    assert layer["store"].where == f"store in {file}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", "colour in FILE: no such setting, expected one of "),
        ("retention = 3", "retention in FILE: expected a table, [retention]"),
        ("store = ['/a']", "store in FILE: expected a text, a number, true or false"),
        ("store = 'a'", "store in FILE: 'a', expected an absolute path"),
        ("store", "configuration file FILE is not TOML: "),
        ("\udcff", "configuration file FILE is not TOML: "),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "dkfs.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(UsageError) as caught:
        from_file(file)

    assert message.replace("FILE", str(file)) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"configuration file .*none: No such file or directory"):
        from_file(tmp_path / "none")


def test_the_first_layer_decides() -> None:
    flag, env = Given("1", "--a"), Given("2", "A")

    assert merge({"a": flag}, {"a": env, "b": env}, {}) == {"a": flag, "b": env}
