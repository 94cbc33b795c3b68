"""Programs that others wrote work on a mount as in a plain directory, and all they did is in the history."""

import random
import sqlite3
import subprocess
import sys

import lmdb
import pytest

from tests.mount.engines import each_engine, each_way
from tests.mount.programs import need, run
from tests.mounting import CHECKOUT, Mounted

LONG = (pytest.mark.torture, pytest.mark.timeout(1500))
# Linux asks no daemon for these.
KERNEL_LACKS = ["cut_out", "push_in"]
# It has no fallocate: programs write zeros, or do without.
PYFUSE3_LACKS = ["cut_out", "punch", "push_in", "reserve", "reserve_beyond", "zero", "zero_within"]

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

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


@each_engine
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


@each_engine
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
def test_tree_is_copied_with_everything_in_out_and_within(place: Mounted, copy: str) -> None:
    need("rsync", "tar", "setfacl", "setfattr")
    plain, mounted = place.base / "plain", place.mountpoint / "on"
    left = "rsync -aHAXni --checksum --devices --specials --delete tree/ $1/"
    for directory in (plain, mounted):
        directory.mkdir()
        run(TREE, directory)

    for source, target in ((plain, mounted), (mounted, plain), (mounted, mounted)):
        copied = target / f"copy-of-{source.name}"
        run(copy, source, copied)
        assert run(left, source, copied) == ""


@each_way
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


@each_way
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


@each_engine
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


@each_way
@pytest.mark.parametrize("how", ["", "--direct"], ids=["cached", "direct"])
@pytest.mark.parametrize("times", [1, pytest.param(60, marks=LONG)], ids=["once", "long"])
def test_file_holds_what_a_model_holds_after_random_operations(
    place: Mounted, how: str, times: int
) -> None:
    for number in range(times):
        seed = random.randrange(1 << 30)
        print("seed", seed)
        # Of a file that is open to be written Linux sends pages of its own, past which a map stores: transparency.md.
        send = "--no-send" if "io=hybrid" in place.options else ""
        words = (
            f"{sys.executable} -m tests.mount.fsx $1 {how} {send} --seed {seed} --operations 1500"
        )
        said = run(words, CHECKOUT, place.mountpoint / f"file{number}")

        lacking = PYFUSE3_LACKS if "engine=pyfuse3" in place.options else KERNEL_LACKS
        assert said.splitlines()[0].split()[1:] == lacking


@each_engine
@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=LONG)])
def test_processes_race_on_the_same_names(place: Mounted, seconds: int) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    words = f"{sys.executable} -m tests.mount.exercisers $1 {seed} {seconds}"
    run(words, CHECKOUT, place.mountpoint, seconds=seconds + 60)
