"""mount(8) and umount(8), with the helpers of mount-helpers/ in place, in a mount namespace of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mounting import CHECKOUT, Mounted

pytestmark = [pytest.mark.mount, pytest.mark.root, pytest.mark.slow]

# A layer over the directory of the helpers: only this namespace sees what is put there.
PREPARE = """
set -eu
mkdir "$BASE/layer"
mount -t tmpfs tmpfs "$BASE/layer"
mkdir "$BASE/layer/up" "$BASE/layer/work"
helpers=$(realpath /sbin)
mount -t overlay overlay -o "lowerdir=$helpers,upperdir=$BASE/layer/up,workdir=$BASE/layer/work" "$helpers"
for helper in mount umount; do
    sed "s|^dkfs=.*|dkfs=$BASE/dkfs|" "$CHECKOUT/mount-helpers/$helper.fuse.dkfs" >"$helpers/$helper.fuse.dkfs"
    chmod 755 "$helpers/$helper.fuse.dkfs"
done
sources() { findmnt --noheadings --types fuse.dkfs --output SOURCE,TARGET,FSTYPE --mountpoint "$MNT" || true; }
"""


def run_inside(place: Mounted, script: str) -> subprocess.CompletedProcess[str]:
    """Run *script* where mount(8) finds the helpers; MNT, STATE and STORE are the places."""
    wrapper = place.base / "dkfs"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m dkfs "$@"\n')
    wrapper.chmod(0o755)
    names = {
        "BASE": place.base,
        "CHECKOUT": CHECKOUT,
        "PYTHONPATH": CHECKOUT,
        "MNT": place.mountpoint,
        "STATE": place.state_dir,
        "STORE": place.store,
        "DKFS_METRICS_ADDR": "",
    }
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", PREPARE + script],
        env=dict(os.environ, **{name: str(value) for name, value in names.items()}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def mount_line(place: Mounted) -> str:
    return f"{place.state_dir} {place.mountpoint} fuse.dkfs"


def words(text: str) -> str:
    return " ".join(text.split())


def test_mount_t_fuse_dkfs_mounts_and_names_the_state_dir_as_the_source(unmounted: Mounted) -> None:
    result = run_inside(
        unmounted,
        """
        mount -t fuse.dkfs "$STATE" "$MNT" -o "store=$STORE,allow_other"
        sources
        echo hello >"$MNT/file"
        umount.fuse.dkfs "$MNT"
        sources
        """,
    )

    assert result.returncode == 0, result.stderr
    assert words(result.stdout) == mount_line(unmounted)
    assert (unmounted.state_dir / "file").read_text() == "hello\n"
    assert unmounted.dkfs("cat", "latest:file").stdout == "hello\n"


def test_plain_umount_ends_the_mount(unmounted: Mounted) -> None:
    result = run_inside(
        unmounted,
        """
        mount -t fuse.dkfs "$STATE" "$MNT" -o "store=$STORE"
        umount "$MNT"
        sources
        """,
    )

    assert (result.returncode, result.stdout) == (0, ""), result.stderr


def test_mount_a_twice_mounts_once(unmounted: Mounted) -> None:
    result = run_inside(
        unmounted,
        """
        echo "$STATE $MNT fuse.dkfs store=$STORE,allow_other,default_permissions,_netdev,nofail 0 0" >"$BASE/fstab"
        mount --fstab "$BASE/fstab" --all
        mount --fstab "$BASE/fstab" --all
        sources
        umount.fuse.dkfs "$MNT"
        sources
        """,
    )

    assert result.returncode == 0, result.stderr
    assert words(result.stdout) == mount_line(unmounted)


def test_mount_f_mounts_nothing(unmounted: Mounted) -> None:
    result = run_inside(
        unmounted, 'mount -f -t fuse.dkfs "$STATE" "$MNT" -o "store=$STORE"; sources'
    )

    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert not unmounted.store.exists()


def test_an_unknown_option_is_one_line_that_names_it_and_status_1(unmounted: Mounted) -> None:
    result = run_inside(
        unmounted, 'mount -t fuse.dkfs "$STATE" "$MNT" -o "store=$STORE,colour=red"'
    )

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "colour" in result.stderr
    assert not unmounted.store.exists()


def test_an_unknown_option_is_passed_over_with_s(unmounted: Mounted) -> None:
    result = run_inside(
        unmounted,
        """
        mount -s -t fuse.dkfs "$STATE" "$MNT" -o "store=$STORE,colour=red"
        sources
        umount.fuse.dkfs "$MNT"
        """,
    )

    assert result.returncode == 0, result.stderr
    assert words(result.stdout) == mount_line(unmounted)


@pytest.mark.parametrize("helper", ["mount.fuse.dkfs", "umount.fuse.dkfs"])
def test_a_helper_holds_no_behaviour(helper: str) -> None:
    text = Path(CHECKOUT, "mount-helpers", helper).read_text()

    code = [line for line in text.splitlines() if not line.startswith("#")]
    assert code == ["dkfs=dkfs", f'exec "$dkfs" {helper} "$@"']
