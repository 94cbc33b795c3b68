"""The engines, and the ways in which contents go through them, that tests of conformance are run with."""

import pytest

PYFUSE3 = pytest.param(("engine=pyfuse3",), id="pyfuse3")
STRICT = pytest.param(("engine=kernel", "io=strict"), id="kernel")
HYBRID = pytest.param(("engine=kernel", "io=hybrid"), id="kernel-hybrid")
CHECKPOINT = pytest.param(("engine=kernel", "io=checkpoint"), id="kernel-checkpoint")

# A mark: the test is run with each engine.
each_engine = pytest.mark.parametrize("mount_options", [PYFUSE3])
# A mark for tests of contents: with each engine, and each of its io modes.
each_way = pytest.mark.parametrize("mount_options", [PYFUSE3])
