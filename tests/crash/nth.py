"""A child in which the n-th call fails, n = 1, 2, 3 ... until nothing fails: see nth_scenes.py for what it does.

One process imports everything and makes what the scene begins with; each attempt is a fork of it, with a copy of that.  A
line of its input is a case (scene, fault, once or sticky, store or backing, the first n, the step), its answers lines of
JSON: one for each n, and an empty line.
"""

import json
import logging
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

from tests.crash.nth_scenes import SCENES, Scene
from tests.crash.shim import FAULTS, Shim

_PATIENCE_S = 100  # for one attempt: who waits for ever is found


def attempt(scene: Scene, directory: Path, words: list[str], n: int) -> dict[str, object]:
    """Do *scene* in *directory* with the *n*-th call failing; return what became of it."""
    _, fault, how, where, *_ = words
    shim = Shim()
    place = scene.begin(directory)
    shim.root(directory / where)
    shim.arm(n, FAULTS[fault], is_sticky=how == "sticky")
    try:
        said = scene.run(place)
    finally:
        failures, failed = shim.disarm()
    wrong = scene.check(place, directory, said)
    return {"n": n, "failures": failures, "failed": failed, "said": said, "wrong": wrong}


def in_a_child(scene: Scene, top: Path, words: list[str], n: int) -> dict[str, object]:
    """Do attempt() in a fork, in a copy of what the scene begins with."""
    directory = top / f"case{n}"
    shutil.copytree(top / f"scene-{words[0]}", directory, symlinks=True)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(_PATIENCE_S)
        try:
            answer = attempt(scene, directory, words, n)
        except BaseException:  # noqa: BLE001 -- the edge of a process: it is what is reported
            failures = Shim().disarm()[0]
            answer = {"n": n, "failures": failures, "wrong": [traceback.format_exc()]}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        data = answers.read()
    _, status = os.waitpid(pid, 0)
    shutil.rmtree(directory)
    if not data:
        return {"n": n, "failures": 1, "wrong": [f"it ended with status {status}"]}
    found: dict[str, object] = json.loads(data)
    return found


def main() -> None:
    """Serve until the input ends."""
    top = Path(sys.argv[1])
    logging.basicConfig(level=logging.CRITICAL)
    for line in sys.stdin:
        words = line.split()
        scene = SCENES[words[0]]
        made = top / f"scene-{words[0]}"
        if not made.exists():
            pid = os.fork()  # this process opens no store
            if pid == 0:
                scene.make(made)
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            assert status == 0
        n, step = int(words[4]), int(words[5])
        while True:
            answer = in_a_child(scene, top, words, n)
            print(json.dumps(answer), flush=True)
            if not answer["failures"]:
                break
            n += step
        print(flush=True)


if __name__ == "__main__":
    main()
