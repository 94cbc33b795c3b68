"""Programs that others wrote work on a mount as in a plain directory, and all they did is in the history."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from dkfs.daemon import control
from tests.mount.model import differences, pictures_of, statuses_of
from tests.mounting import CHECKOUT, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

GIT = dict(
    os.environ,
    GIT_CONFIG_GLOBAL="/dev/null",
    GIT_CONFIG_SYSTEM="/dev/null",
    **{
        f"GIT_{who}_{what}": "test@localhost"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
)
# Each with what it needs, in a tree that has a bit of everything.
TREE = """
set -e
mkdir tree && cd tree
mkdir -p inc empty/below
for n in $(seq 60); do seq $((n * 50)) >"inc/file$n"; done
ln inc/file7 linked; ln -s inc link; ln -s /nowhere dangling; mkfifo fifo; mknod null c 1 3
truncate -s 5M sparse; printf x | dd of=sparse bs=1 seek=3000000 conv=notrunc status=none
printf a >$'not-utf8-\\xff'; : >empty-file
chown 33:44 inc/file1; chmod 4755 inc/file1; chmod 1777 empty
setfattr -n user.key -v $'a\\nvalue' inc/file2
setfacl -m u:1234:rwx,g:33:r inc/file3; setfacl -d -m u:1234:rx empty
touch -d '1999-01-02 03:04:05.678901234' inc/file3; touch -h -d 2001-01-01 link; touch -d 2002-02-02 empty inc
"""


@pytest.fixture
def place(unmounted: Mounted) -> Iterator[Mounted]:
    """Mount for everybody; afterwards the mount, the directory and the history must agree."""
    log = unmounted.base / "log"
    unmounted.mount("allow_other", "suid", "dev", f"log_file={log}")
    pid = unmounted.daemon_pid
    yield unmounted
    check(unmounted, pid)
    said = log.read_text()
    assert not any(word in said for word in ("WARNING", "ERROR", "Traceback")), said


def check(place: Mounted, pid: int) -> None:
    status = control.request(place.store, {"command": "flush"})
    status = control.request(place.store, {"command": "status"})
    assert (status["pid"], status["recording"], status["queued_operations"]) == (pid, True, 0)
    tops = os.fsencode(place.mountpoint), os.fsencode(place.state_dir)
    assert statuses_of(tops[0]) == statuses_of(tops[1])
    backing = pictures_of(tops[1])
    assert not differences(backing, pictures_of(tops[0]))
    restored = place.base / "restored"
    place.dkfs("restore", "latest", "--privileged", "--target", restored)
    assert not differences(backing, pictures_of(os.fsencode(restored)))
    shutil.rmtree(restored)


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


def run(script: str, cwd: Path, *args: str | Path, seconds: int = 100) -> str:
    """Run a bash script to its end and return what it said; its status must be 0."""
    done = subprocess.run(
        ["nice", "bash", "-e", "-o", "pipefail", "-c", script, "bash", *args],
        cwd=cwd,
        env=GIT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout[-5000:]}"
    return done.stdout


def test_git_works_and_its_checks_find_nothing(place: Mounted) -> None:
    need("git")
    run(
        """
        git init -q -b main g; cd g
        for n in $(seq 12); do mkdir -p d$n; seq $n 400 >d$n/a; echo $n >f$n; git add -A; git commit -qm $n; done
        for n in 2 4 6; do git checkout -q -b b$n HEAD~$n; echo $n >new$n; git add -A; git commit -qm b$n; done
        git checkout -q main; git merge -q -m m b4; git rebase -q b6; git worktree add -q ../w b2
        echo x >>f1; git stash -q; git stash pop -q; git checkout -q -- f1
        git gc -q --aggressive --prune=now; git repack -adq
        [ -z "$(git status --porcelain)" ]; git fsck --full --strict
        git clone -q . ../clone; git -C ../clone fsck --full
        """,
        place.mountpoint,
    )


@pytest.mark.parametrize(
    "copy",
    [
        pytest.param("rsync -aHAX --devices --specials tree/ $1/", id="rsync"),
        pytest.param(
            "mkdir $1; tar --acls --xattrs -cf - -C tree . | tar --acls --xattrs -xpf - -C $1",
            id="tar",
        ),
        pytest.param("cp -a tree $1", id="cp"),
    ],
)
@pytest.mark.parametrize("way", ["in", "out", "within"])
def test_tree_is_copied_with_everything(place: Mounted, copy: str, way: str) -> None:
    need("rsync", "tar", "setfacl", "setfattr")
    plain = place.base / "plain"
    plain.mkdir()
    source = plain if way == "in" else place.mountpoint
    target = (plain if way == "out" else place.mountpoint) / "copy"
    run(TREE, source)
    run(copy, source, target)

    left = "rsync -aHAXni --checksum --devices --specials --delete tree/ $1/"
    assert run(left, source, target) == ""


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite_is_used_by_two_processes(place: Mounted, journal: str) -> None:
    path = place.mountpoint / "db"
    writer = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for n in range(60):
    database.execute("begin immediate")
    database.execute("insert into t (b) values (randomblob(3000))")
    database.execute("update t set b = randomblob(500) where a % 7 = ?", (n % 7,))
    database.execute("commit")
"""
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute(f"pragma journal_mode={journal}")
        database.execute("create table t (a integer primary key, b)")
    database.close()
    processes = [subprocess.Popen([sys.executable, "-c", writer, path]) for _ in range(2)]

    assert [process.wait(60) for process in processes] == [0, 0]
    with sqlite3.connect(path) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert database.execute("select count(*) from t").fetchall() == [(120,)]
    database.close()


@pytest.mark.parametrize("writemap", [False, True], ids=["written", "mapped"])
def test_lmdb_holds_what_was_put(place: Mounted, *, writemap: bool) -> None:
    rng = random.Random(5)
    expected: dict[bytes, bytes] = {}
    path = str(place.mountpoint / "db")
    with lmdb.open(path, map_size=1 << 24, writemap=writemap) as env:
        for _ in range(60):
            with env.begin(write=True) as txn:
                for _ in range(20):
                    key, value = b"%04d" % rng.randrange(500), rng.randbytes(rng.randrange(1, 6000))
                    txn.put(key, value)
                    expected[key] = value
                gone = rng.choice(sorted(expected))
                txn.delete(gone)
                del expected[gone]

    with lmdb.open(path, map_size=1 << 24, readonly=True) as env, env.begin() as txn:
        assert dict(txn.cursor()) == expected


def test_make_builds_and_then_finds_nothing_to_do(place: Mounted) -> None:
    need("make", "gcc")
    said = run(
        """
        for n in $(seq 20); do echo "int f$n(void) { return $n; }" >f$n.c; done
        echo 'int main(void) { return 0; }' >main.c
        printf 'prog: $(patsubst %%.c,%%.o,$(wildcard *.c))\\n\\tgcc -o $@ $^\\n' >Makefile
        unset MAKEFLAGS MAKELEVEL MFLAGS  # of the make that runs the tests
        make -s -j2; ./prog; make
        """,
        place.mountpoint,
    )

    assert said == "make: 'prog' is up to date.\n"


@pytest.mark.parametrize("name", ["file", "direct"])
def test_file_holds_what_a_model_holds_after_random_operations(place: Mounted, name: str) -> None:
    exercise(name, place.mountpoint / "file", 700)


def test_processes_race_on_the_same_names(place: Mounted) -> None:
    exercise("tree", place.mountpoint, 4)


def exercise(name: str, path: Path, amount: int) -> None:
    seed = random.randrange(1 << 30)
    words = (sys.executable, "-m", "tests.mount.exercisers", name, path, seed, amount)
    print(*words)
    run('"$@"', CHECKOUT, *map(str, words))


# ---- suites of others, from Debian's packages


@pytest.mark.torture
@pytest.mark.timeout(3000)
def test_stress_ng_finds_nothing(place: Mounted) -> None:
    need("stress-ng")
    listing = subprocess.run(
        ["stress-ng", "--class", "filesystem?"], capture_output=True, text=True, check=False
    )
    failed = []
    for name in listing.stdout.partition("stressors:")[2].split():
        directory = place.mountpoint / name
        directory.mkdir()
        words = ("stress-ng", f"--{name}", "2", "-t", "4", "--verify", "--temp-path", directory)
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode not in {0, 1, 3, 4}:  # 1, 3 and 4: not possible on this machine
            failed.append(f"{name}: {done.returncode} {done.stderr}")
        shutil.rmtree(directory)

    assert failed == []


FIO = (
    "fio --name=x --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0 --size=24m "
)


@pytest.mark.torture
@pytest.mark.parametrize(
    "how",
    [
        "--rw=write --bs=64k",
        "--rw=randwrite --bs=4k --fsync=32",
        "--rw=randrw --bs=4k-32k --numjobs=2",
    ],
)
@pytest.mark.parametrize(
    "engine",
    ["psync", "psync --direct=1", "libaio --direct=1", "io_uring", "io_uring --direct=1", "mmap"],
)
def test_fio_reads_what_it_wrote(place: Mounted, engine: str, how: str) -> None:
    need("fio")
    run(f"{FIO} --ioengine={engine} {how}", place.mountpoint, seconds=200)


@pytest.mark.torture
@pytest.mark.parametrize("clients", [1, 2, 4])
def test_dbench_finds_nothing(place: Mounted, clients: int) -> None:
    need("dbench")
    run(f"dbench -c /usr/share/dbench/client.txt -D . -t 8 {clients}", place.mountpoint)


@pytest.mark.torture
@pytest.mark.timeout(1500)
def test_cpython_passes_its_own_tests(place: Mounted) -> None:
    if not Path("/usr/lib/python3.11/test/test_os.py").exists():
        pytest.skip("needs libpython3.11-testsuite")
    names = "os shutil pathlib mmap fcntl tarfile posix zipfile tempfile dbm dbm_dumb shelve file fileio io largefile"
    names += " mailbox zipimport import runpy filecmp glob bz2 gzip lzma venv logging httpservers"
    tests = " ".join(f"test_{name}" for name in names.split())
    script = f"/usr/bin/python3.11 -m test --tempdir . -q {tests}"
    run(script, place.mountpoint, seconds=1200)


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_postgresql_survives_being_killed(place: Mounted) -> None:
    directory = Path("/usr/lib/postgresql/15/bin")
    if not directory.is_dir():
        pytest.skip("needs postgresql-15")
    sockets = place.base / "sockets"
    sockets.mkdir()
    sockets.chmod(0o777)
    (place.mountpoint / "pg").mkdir()
    shutil.chown(place.mountpoint / "pg", "postgres", "postgres")
    said = run(
        f"""
        PATH={directory}:$PATH; export PGHOST=$1 PGPORT=54391
        as() {{ runuser -u postgres -- env PATH=$PATH PGHOST=$PGHOST PGPORT=$PGPORT "$@"; }}
        start() {{ as pg_ctl -w -t 90 -D pg/d -l pg/log -o "-k $1 -c listen_addresses=''" start >/dev/null; }}
        chmod 700 pg; as initdb -A trust -k -D pg/d >/dev/null; start $1
        as pgbench -i -q -s 2 postgres 2>/dev/null
        for n in 1 2 3; do
            as pgbench -c 4 -j 2 -T 6 -n postgres >/dev/null 2>&1 & bench=$!
            sleep 4
            main=$(head -1 pg/d/postmaster.pid); all="$main $(ps -o pid= --ppid $main)"
            kill -9 $all || true; wait $bench || true
            for p in $all; do while kill -0 $p 2>/dev/null; do sleep 0.1; done; done
            rm -f pg/d/postmaster.pid; start $1
            as psql -AtX postgres -c "select count(distinct s) from (select sum(abalance) s from pgbench_accounts
                union all select sum(bbalance) from pgbench_branches union all select sum(tbalance) from pgbench_tellers
                union all select sum(delta) from pgbench_history) t"
        done
        as psql -qAtX postgres -c 'create extension amcheck'; as pg_amcheck postgres
        as pg_ctl -w -D pg/d stop -m fast >/dev/null; as pg_checksums -c -D pg/d >/dev/null
        """,
        place.mountpoint,
        sockets,
        seconds=600,
    )

    assert said == "1\n1\n1\n"  # the four sums are one
