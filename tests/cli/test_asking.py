"""The commands that ask a daemon, against one that answers what the test says, over a real socket."""

import base64
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cli.conftest import Dkfs

Message = Mapping[str, object]


class Daemon:
    """Answers each command with what was set for it, and remembers what it was asked."""

    def __init__(self, store: Path) -> None:
        self._answers: dict[str, list[Message]] = {}
        self.asked: list[Message] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(store / "control"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def answers(self, command: str, *messages: Message) -> None:
        self._answers[command] = list(messages)

    def result(self, command: str, **members: object) -> None:
        self.answers(command, {"message_type": "result", **members})

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                request = json.loads(lines.readline())
                self.asked.append(request)
                for message in self._answers.get(request["command"], []):
                    connection.sendall(json.dumps(message).encode() + b"\n")


@pytest.fixture
def daemon(store: Path) -> Iterator[Daemon]:
    made = Daemon(store)
    made.result("flush", last=10)
    yield made
    made.close()


ROLLED = {
    "seq": 11,
    "target": 4,
    "changed": 2,
    "changes": [
        {"change": "M", "path": "etc/app.conf", "path_b64": "ZXRjL2FwcC5jb25m"},
        {"change": "-", "path": "\ufffd", "path_b64": "/xs="},
    ],
    "problems": [],
}


def test_rollback_resolves_the_version_and_sends_paths_as_bytes(
    dkfs: Dkfs, daemon: Daemon, store: Path
) -> None:
    daemon.result("rollback", **ROLLED)

    result = dkfs("rollback", "latest~6", "etc/app.conf", "--store", store)

    assert result.status == 0
    assert result.lines == [
        "M  etc/app.conf",
        "-  $'\\xff\\x1b'",
        "rolled back to version 4, 2 changes; this is version 11",
    ]
    assert daemon.asked == [
        {"command": "flush"},
        {
            "command": "rollback",
            "version": "4",
            "paths": [base64.b64encode(b"etc/app.conf").decode()],
            "dry_run": False,
        },
    ]


def test_rollback_as_json_is_changes_and_a_summary(dkfs: Dkfs, daemon: Daemon, store: Path) -> None:
    daemon.result("rollback", **ROLLED)

    assert dkfs("rollback", "4", "-n", "--json", "--store", store).messages == [
        {"message_type": "change", "path": "etc/app.conf", "change": "M"},
        {"message_type": "change", "path": "\ufffd\x1b", "path_b64": "/xs=", "change": "-"},
        {
            "message_type": "summary",
            "version": 11,
            "target": 4,
            "changed": 2,
            "problems": [],
            "dry_run": True,
        },
    ]
    assert daemon.asked[-1]["dry_run"] is True


def test_a_dry_run_says_would(dkfs: Dkfs, daemon: Daemon, store: Path) -> None:
    daemon.result("undo", **{**ROLLED, "changes": [], "changed": 1})

    assert dkfs("undo", "-n", "--store", store).lines == ["would go to version 4, 1 change"]


@pytest.mark.parametrize("command", ["undo", "redo"])
def test_undo_and_redo_say_where_they_went(
    dkfs: Dkfs, daemon: Daemon, store: Path, command: str
) -> None:
    daemon.result(command, **ROLLED)

    result = dkfs(command, "--store", store)

    assert result.status == 0
    assert result.lines[-1].endswith(" to version 4, 2 changes; this is version 11")
    assert daemon.asked == [{"command": command, "dry_run": False}]


def test_what_could_not_be_changed_is_said_and_is_a_failure(
    dkfs: Dkfs, daemon: Daemon, store: Path
) -> None:
    daemon.result("rollback", **{**ROLLED, "problems": ["f: blob 00 is damaged"]})

    result = dkfs("rollback", "4", "--store", store)

    assert (result.status, result.err) == (1, "dkfs: f: blob 00 is damaged\n")


def test_an_unknown_version_is_not_sent(dkfs: Dkfs, daemon: Daemon, store: Path) -> None:
    assert dkfs("rollback", "99", "--store", store).status == 3
    assert daemon.asked == [{"command": "flush"}]


def test_what_the_daemon_raises_is_raised_here(dkfs: Dkfs, daemon: Daemon, store: Path) -> None:
    error = {"message_type": "error", "class": "NotFoundError", "message": "nothing to redo"}
    daemon.answers("redo", {"message_type": "progress", "done": 1, "total": 2}, error)

    result = dkfs("redo", "--store", store)

    assert (result.status, result.err) == (3, "dkfs: nothing to redo\n")


@pytest.mark.parametrize("words", [("rollback", "4"), ("undo",), ("redo",)])
def test_without_a_daemon_there_is_one_line(
    dkfs: Dkfs, store: Path, words: tuple[str, ...]
) -> None:
    result = dkfs(*words, "--store", store)

    assert result.status == 1
    assert result.err.startswith(f"dkfs: no mount is using store {store}")
    assert result.err.count("\n") == 1


def test_tag_names_what_the_daemon_says_is_the_present(
    dkfs: Dkfs, daemon: Daemon, store: Path
) -> None:
    daemon.result("tag", name="v1", seq=10)

    assert dkfs("tag", "v1", "--store", store).out == "named version 10 v1\n"
    assert daemon.asked == [{"command": "tag", "name": "v1"}]


def test_tag_of_a_version_sends_its_number(dkfs: Dkfs, daemon: Daemon, store: Path) -> None:
    daemon.result("tag", name="v1", seq=3)

    (message,) = dkfs("tag", "v1", "latest~7", "--json", "--store", store).messages

    assert message == {"message_type": "tag", "name": "v1", "version": 3, "dry_run": False}
    assert daemon.asked[-1] == {"command": "tag", "name": "v1", "version": "3"}


def test_a_dry_run_of_tag_asks_for_no_tag(dkfs: Dkfs, daemon: Daemon, store: Path) -> None:
    assert dkfs("tag", "v1", "4", "-n", "--store", store).out == "would name version 4 v1\n"
    assert dkfs("tag", "--delete", "v1", "-n", "--store", store).status == 3
    assert daemon.asked == [{"command": "flush"}]


def test_a_name_that_is_a_version_is_no_tag(dkfs: Dkfs, daemon: Daemon, store: Path) -> None:
    for name in ("12", "latest", "10m", "a/b"):
        assert dkfs("tag", name, "--store", store).status == 2
    assert daemon.asked == []


def test_tags_are_listed_from_the_store(dkfs: Dkfs, store: Path) -> None:
    assert dkfs("tag", "--store", store).out == ""
    assert dkfs("tag", "--list", "x", "--store", store).status == 2


def test_tag_delete_asks_for_it(dkfs: Dkfs, daemon: Daemon, store: Path) -> None:
    daemon.result("untag", name="v1", seq=3)

    assert dkfs("tag", "--delete", "v1", "--store", store).out == "removed tag v1\n"
    assert daemon.asked == [{"command": "untag", "name": "v1"}]


STATUS = {
    "pid": 77,
    "version": "0.1.0",
    "mountpoint": "/m\x1b",
    "last": 10,
    "queued_operations": 2,
    "queued_bytes": 2048,
    "recording": True,
    "lag_seconds": 0.0125,
    "since": 1_700_000_000.5,
}


def test_status_tells_what_the_daemon_tells_and_the_size_of_the_store(
    dkfs: Dkfs, daemon: Daemon, store: Path
) -> None:
    daemon.result("status", **STATUS)

    result = dkfs("status", "--store", store)

    assert result.status == 0
    assert result.lines[:8] == [
        "state              recording",
        "mount point        $'/m\\x1b'",
        "mounted since      2023-11-14T22:13:20.500+00:00",
        "daemon pid         77",
        "dkfs               0.1.0",
        "last version       10",
        "queued operations  2",
        "queued bytes       2.0 KiB",
    ]
    assert result.lines[8] == "lag                0.013 s"
    assert result.lines[9].startswith("store size         ")
    assert result.lines[10:] == ["last scrub         never"]


def test_status_tells_of_the_last_scrub_and_of_the_one_under_way(
    dkfs: Dkfs, daemon: Daemon, store: Path
) -> None:
    members: dict[str, object] = {
        "scrub_running": True,
        "scrub_done_bytes": 2048,
        "scrub_total_bytes": 1 << 20,
        "scrub_found": 1,
        "scrub_finished": 1_700_000_000.5,
        "scrub_damage": 2,
    }
    daemon.result("status", **STATUS | members)

    result = dkfs("status", "--store", store)

    assert result.lines[-2:] == [
        "last scrub         2023-11-14T22:13:20.500+00:00, 2 damages",
        "scrub              scrubbing, 2.0 KiB of 1.0 MiB read, 1 damaged",
    ]


def test_status_fails_where_nothing_is_recorded(dkfs: Dkfs, daemon: Daemon, store: Path) -> None:
    daemon.result("status", **{**STATUS, "recording": False})

    result = dkfs("status", "--store", store)

    assert (result.status, result.lines[0]) == (1, "state              NOT recording")


def test_status_of_a_store_that_is_not_mounted_says_so(dkfs: Dkfs, store: Path) -> None:
    result = dkfs("status", "--json", "--store", store)

    assert result.status == 1
    (message,) = result.messages
    assert (message["mounted"], message["last"]) == (False, 10)
