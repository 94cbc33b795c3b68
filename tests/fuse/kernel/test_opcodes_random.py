"""No message crashes the dispatcher: sound ones with other numbers in them, and any bytes.

What must hold is in bench/fuzz_requests.py, which `make fuzz` runs guided by coverage.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import fuzz_requests

NUMBERS = st.sampled_from(
    [
        *(0, 1, 2, 3, 7, 255, 4096, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1),
        *(1 << 61, 1 << 62, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1),
    ]
)
SOUND = fuzz_requests._bodies(1)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw a request some of whose fields, or whose length, are not what they were."""
    opcode, node, body = draw(st.sampled_from(SOUND))
    changed = bytearray(body)
    for _ in range(draw(st.integers(0, 3))):
        size = draw(st.sampled_from((4, 8)))
        if len(changed) >= size:
            at = draw(st.integers(0, (len(changed) - size) // 4)) * 4
            value = draw(NUMBERS) & ((1 << 8 * size) - 1)
            changed[at : at + size] = value.to_bytes(size, "little")
    if draw(st.integers(0, 4)) == 0:
        changed = changed[: draw(st.integers(0, len(changed)))] + draw(st.binary(max_size=40))
    node = draw(st.one_of(st.just(node), NUMBERS))
    return fuzz_requests.request(opcode, node, bytes(changed))


@settings(max_examples=300)
@given(st.lists(mutated(), max_size=6))
def test_sound_requests_with_other_numbers_are_borne(requests: list[bytes]) -> None:
    before = fuzz_requests.seeds()[1]

    fuzz_requests.serve(before + b"".join(requests))


@settings(max_examples=150)
@given(st.binary(max_size=300))
def test_any_bytes_are_borne(data: bytes) -> None:
    fuzz_requests.serve(data)


@settings(max_examples=100)
@given(st.integers(0, 60), NUMBERS, st.binary(max_size=120))
def test_any_body_of_any_opcode_is_borne(opcode: int, node: int, body: bytes) -> None:
    fuzz_requests.serve(fuzz_requests.request(opcode, node, body))


def test_what_is_left_open_or_changed_outside_is_noticed() -> None:
    victim = fuzz_requests.Victim()
    (victim.base / "outside").write_bytes(b"changed")

    with pytest.raises(fuzz_requests.RequestError, match="outside"):
        victim.serve(b"")
    victim.close()
