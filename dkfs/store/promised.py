"""What was promised and is not in the index: who opens a store has it taken in, or waits for the writer to do that."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from dkfs.errors import CorruptError, DkfsError, StoreError
from dkfs.store.intent import (
    Asking,
    IntentRecord,
    has_intents,
    read_intents,
    remove_intents,
    set_aside,
)
from dkfs.store.lock import is_held

if TYPE_CHECKING:
    from dkfs.store.store import Store

# Commits what the records of an intent log have that the store has not; returns whether that is all they have.
Recover = Callable[["Store", Sequence[IntentRecord]], bool]

_AWAIT_S: Final = 2.0  # for a writer to commit what was promised
_LOOK_S: Final = 0.002

log = logging.getLogger(__name__)


def take_in(store: "Store", recover: Recover | None) -> None:
    """Have *recover* take in what is only in the intent log of *store*, open for writing, and remove that.

    Raises StoreError.
    """
    try:
        with store.read() as reader:
            last = reader.last
        records = [r for r in read_intents(store.path, store.uuid.bytes) if r.span.last > last]
        if records and recover is None:
            raise StoreError(f"store {store.path} has versions after {last} in its intent log only")
        is_complete = not records or (recover is not None and recover(store, records))
    except CorruptError as exc:
        log.warning("what is only in the intent log is not recorded: %s", exc)
        is_complete = False
    if (
        not is_complete
    ):  # first: while the index says that there may be a log, an older dkfs refuses the store
        log.warning("the intent log is kept as %s", set_aside(store.path))
    with store.write() as writer:
        writer.set_intent(allowed=False)
    remove_intents(store.path)


def await_writer(store: "Store") -> None:
    """Wait until a writer at work has committed what was promised until now; not for long."""
    if not has_intents(store.path) or not is_held(store.path):
        return
    deadline_s = time.monotonic() + _AWAIT_S
    with suppress(DkfsError, OSError), Asking(store.path):
        records = read_intents(store.path, store.uuid.bytes)
        promised = max((record.span.last for record in records), default=0)
        while time.monotonic() < deadline_s and is_held(store.path):
            with store.read() as reader:
                if reader.last >= promised:
                    return
            time.sleep(_LOOK_S)
