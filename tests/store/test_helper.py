import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from dkfs.store.helper import Helper


def test_what_a_helper_finds_is_its_answer() -> None:
    with closing(Helper()) as helper:
        helper.start(lambda: b"%d" % os.getppid())

        assert helper.answer() == b"%d" % os.getpid()
        assert helper.answer() is None


def test_a_helper_that_fails_has_no_answer() -> None:
    def fail() -> bytes:
        raise MemoryError

    def die() -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    for work in (fail, die):
        with closing(Helper()) as helper:
            helper.start(work)

            assert helper.answer() is None


def test_a_helper_has_none_of_the_files_that_are_open(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, closing(Helper()) as helper:
        number = file.fileno()
        helper.start(lambda: b"%d" % Path(f"/proc/self/fd/{number}").exists())

        assert helper.answer() == b"0"


def test_a_helper_that_is_not_waited_for_is_ended() -> None:
    before = _children()
    with closing(Helper()) as helper:
        helper.start(_wait_for_ever)

    assert _children() == before


def test_a_helper_ends_with_who_started_it() -> None:
    code = """if True:
        import os, signal
        from dkfs.store.helper import Helper
        Helper().start(lambda: os.write(1, b"begun") and signal.pause() or b"")
        signal.pause()
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.read(5) == b"begun"
        starter.kill()

        assert starter.stdout.read() == b""  # who else had it open has ended


def _wait_for_ever() -> bytes:
    signal.pause()
    return b""


def _children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
