"""dkfs.config.options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkfs.config.options import parse_options, split
from dkfs.errors import UsageError


def texts(text: str, *, sloppy: bool = False) -> dict[str, str]:
    return {name: value.text for name, value in parse_options(text, sloppy=sloppy).items()}


def test_what_mount_8_passes_is_understood() -> None:
    line = "rw,nosuid,nodev,relatime,user=me,_netdev,nofail,x-systemd.requires=a,X-b,store=/d,allow_other"

    assert texts(line) == {
        "read_only": "false",
        "suid": "false",
        "dev": "false",
        "store": "/d",
        "allow_other": "true",
    }


def test_every_class_of_option() -> None:
    line = (
        "ro,suid,dev,noexec,noatime,sync,dirsync,debug,default_permissions,nonempty,fsname=a b,subtype=dkfs,"
        "snapdir=visible,engine=pyfuse3,io=strict,capture_interval=2s,metrics_addr=,prefer=dir,log_file=/l,"
        "hash_algo=sha256,budget=2G,reserve=0"
    )

    assert texts(line) == {
        "read_only": "true",
        "suid": "true",
        "dev": "true",
        "exec": "false",
        "noatime": "true",
        "sync": "true",
        "dirsync": "true",
        "debug": "true",
        "fsname": "a b",
        "snapdir": "visible",
        "engine": "pyfuse3",
        "io": "strict",
        "capture_interval": "2s",
        "metrics_addr": "",
        "prefer": "dir",
        "log_file": "/l",
        "hash_algo": "sha256",
        "budget": "2G",
        "reserve": "0",
    }


def test_the_last_of_two_wins() -> None:
    assert texts("ro,rw,store=/a,store=/b") == {"read_only": "false", "store": "/b"}


@pytest.mark.parametrize(
    ("text", "store"),
    [
        ('store="/a,b"', "/a,b"),
        ('"store=/a,b"', "/a,b"),
        ("store=/a\\,b", "/a,b"),
        ('store=/a\\"b', '/a"b'),
        ("store=/a\\\\b", "/a\\b"),
        ("store=/a\\b", "/a\\b"),
        ("store=/a=b", "/a=b"),
        ('store=/a"=,"b', "/a=,b"),
    ],
)
def test_quotes_and_backslashes_protect(text: str, store: str) -> None:
    if text.startswith('"'):
        assert list(split(text)) == [("store=/a,b", None)]
    else:
        assert texts(f"ro,{text},nodev") == {"read_only": "true", "dev": "false", "store": store}


@pytest.mark.parametrize("text", ["", ",", ",,"])
def test_nothing_is_nothing(text: str) -> None:
    assert texts(text) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour=red", "-o colour: unknown mount option"),
        ("kernel_cache", "-o kernel_cache: unknown mount option"),
        ("ro=1", "-o ro: unknown mount option"),
        ("=x", "-o : unknown mount option"),
        ("store", "-o store: expected store=VALUE"),
        ("subtype=other", "-o subtype: expected subtype=dkfs"),
        ("auto_unmount", "-o auto_unmount is not supported: the daemon unmounts by itself"),
        ("allow_root", "-o allow_root is not supported: expected allow_other"),
        ("remount,ro", "-o remount is not supported: unmount and mount again"),
        ('store="/a', "a quote or backslash at the end protects nothing"),
        ("store=/a\\", "a quote or backslash at the end protects nothing"),
    ],
)
def test_what_is_refused_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options(text)

    assert message in str(caught.value)


def test_sloppy_ignores_only_what_is_unknown() -> None:
    assert texts("colour=red,ro", sloppy=True) == {"read_only": "true"}
    with pytest.raises(UsageError, match="auto_unmount"):
        parse_options("auto_unmount", sloppy=True)


@given(st.text(st.sampled_from('a=,"\\ /'), max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        options = list(split(text))
    except UsageError:
        return
    assert len(options) <= text.count(",") + 1


@given(st.text(max_size=30))
def test_a_value_that_is_escaped_comes_back(value: str) -> None:
    escaped = "".join(f"\\{char}" if char in ',"\\' else char for char in value)

    assert list(split(f"store={escaped},ro")) == [("store", value), ("ro", None)]
