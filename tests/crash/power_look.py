"""A child that opens what a power cut left: each line of its input is a directory, and it says one line of JSON for each.

It is a process of its own because a store that is damaged enough can end the process that opens it.
"""

import json
import logging
import sys
from pathlib import Path

from dkfs.errors import DkfsError
from dkfs.store import Store, is_absent
from dkfs.store.check import check
from tests.crash.power_record import prefix
from tests.crash.power_work import digest, open_store
from tests.store.making import append

_LATER_NS = 1 << 62


def look(path: Path) -> dict[str, object]:
    """Open the store at *path* twice; return what it holds, and what is wrong with it."""
    if is_absent(path):
        Store.create(path)
        return {"absent": True, "wrong": []}
    with open_store(path) as store:
        with store.read() as reader:
            before = prefix(reader, reader.last)
            found, last = digest(reader).decode(), reader.last
            wrong = [damage.message for damage in check(store, read_data=True)]
        with store.write() as writer:
            writer.put_blob(b"after the cut" * 9)
            append(writer, time_ns=_LATER_NS)
    with open_store(path) as store:
        with store.read() as reader:
            if reader.last != last + 1:
                wrong.append(f"one version after {last} the last is {reader.last}")
    return {"digest": found, "prefix": before, "last": last, "wrong": wrong}


def main() -> None:
    """Serve until the input ends."""
    logging.basicConfig(level=logging.ERROR)
    for line in sys.stdin:
        try:
            answer = look(Path(line.rstrip("\n")))
        except (DkfsError, OSError) as exc:
            answer = {"wrong": [f"{type(exc).__name__}: {exc}"]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
