"""Programs that write without end and say each time when something was acknowledged to them."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.mounting import Mounted, wait_for_end

SQLITE = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("pragma journal_mode=" + sys.argv[2])
database.execute("pragma synchronous=" + sys.argv[3])
database.execute("create table if not exists t (n integer primary key, a blob, b blob)")
n = database.execute("select coalesce(max(n), 0) from t").fetchone()[0]
while True:
    n += 1
    database.execute("begin")
    database.execute("insert into t values (?, randomblob(700), randomblob(3000))", (n,))
    database.execute("update t set b = randomblob(2000) where n = ? / 2", (n,))
    database.execute("commit")
    print(n, flush=True)
"""

GIT = """
cd "$1"
git init -q -b main
git config user.name test
git config user.email test@localhost
git config core.fsync all
git config core.fsyncMethod fsync
git config gc.auto 0
n=0
while :; do
    n=$((n + 1))
    echo "$n $RANDOM" >"file$((n % 7))"
    mkdir -p "d$((n % 3))"
    seq "$n" >"d$((n % 3))/$n"
    git add -A
    git commit -q -m "$n"
    [ $((n % 5)) != 0 ] || git repack -q -d
    echo "$n"
done
"""


class Workload:
    """A program that prints a number after each thing that is promised to stay."""

    def __init__(self, *words: str | Path, cwd: Path) -> None:
        self.cwd = cwd
        self.process = subprocess.Popen(
            words,
            cwd=cwd,
            env=dict(os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.last = 0

    def await_count(self, count: int) -> None:
        assert self.process.stdout is not None
        while self.last < count:
            line = self.process.stdout.readline()
            assert line, f"ended after {self.last}, before it was killed"
            self.last = int(line)

    def end(self) -> int:
        """End it; return the last number that it said."""
        os.killpg(self.process.pid, signal.SIGKILL)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.last = int(line)
        self.process.wait()
        self.process.stdout.close()
        return self.last


def sqlite(database: Path, journal: str, synchronous: str, cwd: Path) -> Workload:
    return Workload(sys.executable, "-c", SQLITE, database, journal, synchronous, cwd=cwd)


def git(repository: Path, cwd: Path) -> Workload:
    return Workload("bash", "-e", "-c", GIT, "bash", repository, cwd=cwd)


def kill_under(place: Mounted, workload: Workload, rng: random.Random, counts: range) -> int:
    """Kill the daemon somewhere in the middle of *workload*; return the last number it said."""
    pid = place.daemon_pid
    try:
        workload.await_count(workload.last + rng.choice(counts))
        until_s = time.perf_counter() + rng.random() * 0.03
        while time.perf_counter() < until_s:
            pass  # not asleep: the kill is to come at any instruction
        os.kill(pid, signal.SIGKILL)
    finally:
        said = workload.end()
    assert wait_for_end(pid)
    place.detach()
    return said


def lose(place: Mounted) -> None:
    """Lose the state directory."""
    shutil.rmtree(place.state_dir)
    place.state_dir.mkdir()
