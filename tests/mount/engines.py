"""The engines, and the ways in which contents go through them, that tests of conformance are run with."""

from typing import NamedTuple

import pytest


class Way(NamedTuple):
    """How a mount is served, and what `pytest -k` calls it."""

    name: str
    options: tuple[str, ...]


PYFUSE3 = Way("pyfuse3", ("engine=pyfuse3",))
STRICT = Way("kernel", ("engine=kernel", "io=strict"))
HYBRID = Way("kernel-hybrid", ("engine=kernel", "io=hybrid"))
CHECKPOINT = Way("kernel-checkpoint", ("engine=kernel", "io=checkpoint"))

ENGINES = (PYFUSE3, STRICT)
WAYS = (PYFUSE3, STRICT, HYBRID, CHECKPOINT)


def _mark(*ways: Way, torture: tuple[Way, ...] = ()) -> pytest.MarkDecorator:
    """Return a mark that runs a test once for each; those of *torture* in `make torture` only."""
    usual = [pytest.param(way.options, id=way.name) for way in ways]
    long = [pytest.param(w.options, id=w.name, marks=pytest.mark.torture) for w in torture]
    return pytest.mark.parametrize("mount_options", usual + long)


each_engine = _mark(*ENGINES)  # for what has nothing to do with how contents travel
each_way = _mark(*WAYS)  # for tests of contents
first_way_others_long = _mark(
    STRICT, torture=(PYFUSE3, HYBRID, CHECKPOINT)
)  # for what takes many seconds
