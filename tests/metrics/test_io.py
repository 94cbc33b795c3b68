"""What the metrics tell of io modes."""

from dataclasses import replace

from dkfs.metrics.io import Io
from dkfs.metrics.registry import Metrics
from tests.metrics.conftest import SetSource


def _told(metrics: Metrics, source: SetSource, io: Io | None) -> list[str]:
    source.state = replace(source.state, io=io)
    lines = metrics.render("text/plain")[0].decode().splitlines()
    return [line for line in lines if line.startswith("dkfs_io_")]


def test_nothing_is_told_of_a_mount_that_does_not_know(metrics: Metrics, source: SetSource) -> None:
    assert _told(metrics, source, None) == []


def test_the_mode_what_was_asked_for_and_the_open_files_are_told(
    metrics: Metrics, source: SetSource
) -> None:
    io = Io(mode="strict", asked="hybrid", opens={"passthrough": 2, "cached": 1}, watched=3)

    assert _told(metrics, source, io) == [
        'dkfs_io_info{asked="hybrid",mode="strict"} 1.0',
        'dkfs_io_open_files{kind="cached"} 1.0',
        'dkfs_io_open_files{kind="passthrough"} 2.0',
        "dkfs_io_watched_files 3.0",
    ]
