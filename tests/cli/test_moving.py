"""dkfs send, receive and copy."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from dkfs.store import Store, is_absent
from tests.cli.conftest import Dkfs
from tests.history.model_history import ModelHistory
from tests.history.random_history import fill
from tests.history.streams import assert_equal, assert_prefix, send
from tests.mounting import CHECKOUT

ENVIRONMENT = dict(os.environ, PYTHONPATH=str(CHECKOUT))
DKFS = [sys.executable, "-m", "dkfs"]

# Commits often, and kills itself after as many seconds as the first word says, if any.
CHILD = """
import os, sys, threading
from dkfs.cli.main import main
from dkfs.history.stream_in import Receiver
Receiver.__init__.__kwdefaults__.update(batch_bytes=1 << 18, batch_versions=40)
delay = float(sys.argv.pop(1))
if delay:
    timer = threading.Timer(delay, os.kill, (os.getpid(), 9))
    timer.daemon = True
    timer.start()
sys.exit(main(sys.argv[1:]))
"""

Words = list[str | Path]

KILLS = 20


def run(words: Words, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*DKFS, *words], input=data, capture_output=True, env=ENVIRONMENT, check=False
    )


def start(
    delay: float, *words: str | Path, stdin: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(delay), *words],
        stdin=stdin,
        stdout=subprocess.PIPE if stdin is None else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def test_what_is_sent_is_received(history: ModelHistory, store: Path, target: Path) -> None:
    sent = run(["send", "--store", store])
    received = run(["receive", "--store", target], sent.stdout)

    assert sent.returncode == received.returncode == 0
    assert sent.stderr.startswith(b"sent 10 versions, up to version 10, in ")
    assert received.stdout == (
        f"received 10 versions with 17 B of contents: {target} is at version 10\n".encode()
    )
    assert_equal(history.store, target)


def test_a_token_is_what_resumes(
    dkfs: Dkfs, history: ModelHistory, store: Path, target: Path
) -> None:
    assert run(["send", "--store", store, "--to", "5"]).returncode == 0
    empty = dkfs("receive", "--token", "--store", target).out.strip()
    first = run(["send", "--resume", empty, "--to", "5", "--store", store])
    run(["receive", "--store", target], first.stdout)
    token = dkfs("receive", "--token", "--store", target)
    rest = run(["send", "--resume", token.out.strip(), "--store", store])
    (message,) = dkfs("receive", "--token", "--store", target, "--json").messages

    assert run(["receive", "--store", target], rest.stdout).returncode == 0
    assert message == {"message_type": "token", "version": 5, "token": token.out.strip()}
    assert_equal(history.store, target)


def test_copy_makes_and_continues(
    dkfs: Dkfs, history: ModelHistory, store: Path, target: Path
) -> None:
    words = ("copy", "--to-store", target, "--store", store)

    assert dkfs(*words, "-n").out == "would copy 10 versions after version 0, up to version 10\n"
    assert not target.exists()
    assert dkfs(*words, "--to", "4").out == (
        f"copied 4 versions with 17 B of contents: {target} is at version 4\n"
    )
    (message,) = dkfs(*words, "--json").messages
    assert message["versions"] == 6
    assert dkfs(*words).status == 0
    assert_equal(history.store, target)


def test_what_does_not_belong_together_is_status_2(
    dkfs: Dkfs, store: Path, target: Path, tmp_path: Path
) -> None:
    with ModelHistory(target):
        pass

    result = dkfs("copy", "--to-store", target, "--store", store)
    assert (result.status, "history of its own" in result.err) == (2, True)
    inside = dkfs("copy", "--to-store", store / "below", "--store", store)
    assert (inside.status, "lies in the store" in inside.err) == (2, True)
    assert dkfs("send", "--resume", "nonsense", "--store", store).status == 2
    assert dkfs("send", "--from", "99", "--store", store).status == 3
    assert run(["receive", "--store", target], send_of(store)).returncode == 2


def send_of(store: Path) -> bytes:
    with Store.open(store, writable=False) as opened:
        return send(opened)


def test_dry_runs_say_what_there_is_and_do_nothing(store: Path, target: Path) -> None:
    told = run(["send", "-n", "--store", store])
    checked = run(["receive", "-n", "--store", target], send_of(store))

    assert (told.stdout, told.stderr[:22]) == (b"", b"would send 10 versions")
    assert checked.stdout == (
        b"the stream is whole: 10 versions after version 0, up to version 10,"
        b" with 17 B of contents\n"
    )
    assert not target.exists()
    assert run(["receive", "-n", "--store", target], send_of(store)[:-5]).returncode == 5


def test_a_stream_cut_short_is_status_5_and_what_came_is_there(
    history: ModelHistory, store: Path, target: Path
) -> None:
    data = send_of(store)

    done = run(["receive", "--store", target], data[: len(data) // 2])

    assert done.returncode == 5
    assert b"the stream ends within a record" in done.stderr
    assert 0 < assert_prefix(history.store, target) < history.last


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_any_moment_the_target_is_a_prefix_and_goes_on(
    tmp_path: Path, target: Path
) -> None:
    rng = random.Random(11)
    with ModelHistory(tmp_path / "source") as history:
        for number in range(8):
            fill(history, number, history.last + 150)
            history.create(b"large%d" % number, rng.randbytes(3 << 20))
        path = history.store.path
        kills = 0
        parts: set[int] = set()  # versions up to which a killed run came
        until = time.monotonic() + 300
        while time.monotonic() < until:
            begun = time.monotonic()
            token = run(["receive", "--token", "--store", target]).stdout.decode().strip()
            start_s = time.monotonic() - begun
            delays = [0.0, 0.0]
            if (
                kills < KILLS
            ):  # from before it has begun to when it may have ended, however fast this machine is
                delays = [rng.choice((0, 1, 1)) * rng.uniform(0.05, 4) * start_s for _ in delays]
                kills += any(delays)
            sender = start(delays[0], "send", "--resume", token, "--store", path)
            receiver = start(delays[1], "receive", "--store", target, stdin=sender.stdout)
            assert sender.stdout is not None
            sender.stdout.close()
            sender.wait()
            status = receiver.wait()
            if not is_absent(target):
                parts.add(assert_prefix(history.store, target))
            if status == 0 and kills >= KILLS:
                break
            if status == 0:
                shutil.rmtree(target)
        assert_equal(history.store, target)
        assert len(parts) > 3
