import random
from collections.abc import Sequence
from functools import partial

import pytest
from hypothesis import given

from dkfs.core.delta import Copy
from dkfs.core.location import BSDIFF, EXTENTS, PATCH, XDELTA
from dkfs.errors import StoreError
from dkfs.store.compression import compress
from dkfs.store.encoders import (
    DEFAULT,
    ENCODERS,
    Contents,
    EncodingPolicy,
    Library,
    choose,
    decode_delta,
)
from tests.alike import alike

PATIENT = 60.0  # seconds; a budget that nothing exceeds
RANDOM = random.Random(1).randbytes(65_536)
CODES: dict[Library, int] = {"extents": EXTENTS, "zstd": PATCH, "bsdiff": BSDIFF, "xdelta": XDELTA}


def chosen(
    policy: EncodingPolicy,
    data: bytes,
    reference: bytes,
    copies: Sequence[Copy] | None = None,
) -> tuple[int, bytes] | None:
    """Choose for contents that are compressed if they are stored whole."""
    whole_size = min(len(data), len(compress(data)))
    return choose(policy, data, whole_size, lambda: reference, len(reference), copies)


def no_reference() -> bytes:
    raise AssertionError("the reference was not needed")


def rewritten(data: bytes, start: int, size: int, seed: int = 2) -> bytes:
    return data[:start] + random.Random(seed).randbytes(size) + data[start + size :]


def scattered(data: bytes) -> bytes:
    changed = bytearray(data)
    for at in random.Random(3).sample(range(len(data)), len(data) // 100):
        changed[at] ^= 0x55
    return bytes(changed)


# ---- the encoders


@pytest.mark.parametrize("library", CODES)
@given(contents=alike())
def test_a_payload_makes_what_it_was_made_of(
    library: Library, contents: tuple[bytes, bytes]
) -> None:
    data, reference = contents
    encoder = ENCODERS[library]

    payload = encoder.encode(Contents(data, lambda: reference, None))

    if payload is not None:
        assert decode_delta(encoder.code, payload, reference, len(data)) == data


@pytest.mark.parametrize("library", CODES)
@pytest.mark.parametrize("length", [0, 1, 7, 8, 40])
def test_contents_and_references_may_be_very_short(library: Library, length: int) -> None:
    encoder = ENCODERS[library]
    for data, reference in ((bytes(length), b""), (b"", bytes(length)), (bytes(9), bytes(length))):
        payload = encoder.encode(Contents(data, partial(bytes, reference), None))

        assert payload is not None
        assert decode_delta(encoder.code, payload, reference, len(data)) == data


@pytest.mark.parametrize("library", CODES)
def test_an_encoder_has_the_name_of_its_library(library: Library) -> None:
    assert (ENCODERS[library].name, ENCODERS[library].code) == (library, CODES[library])


def test_extents_of_known_copies_do_not_need_the_reference() -> None:
    data = rewritten(RANDOM, 1000, 100)
    copies = (Copy(0, 0, 1000), Copy(1100, 1100, 64_436))

    payload = ENCODERS["extents"].encode(Contents(data, no_reference, copies))

    assert payload is not None
    assert len(payload) == 111
    assert decode_delta(EXTENTS, payload, RANDOM, len(data)) == data


def test_the_literals_of_extents_are_compressed() -> None:
    data = RANDOM[:1000] + b"text " * 1000 + RANDOM[1000:]
    copies = (Copy(0, 0, 1000), Copy(6000, 1000, 64_536))

    payload = ENCODERS["extents"].encode(Contents(data, no_reference, copies))

    assert payload is not None
    assert len(payload) < 60
    assert decode_delta(EXTENTS, payload, RANDOM, len(data)) == data


def test_a_higher_level_compresses_more() -> None:
    words = [random.Random(i).randbytes(i % 9 + 2) for i in range(3000)]
    rng = random.Random(5)
    data = b"".join(rng.choice(words) for _ in range(20_000))

    libraries: tuple[Library, ...] = ("extents", "zstd")

    for library in libraries:
        low, high = (
            ENCODERS[library].encode(Contents(data, lambda: RANDOM, (), level=level))
            for level in (1, 9)
        )

        assert low is not None
        assert high is not None
        assert len(high) < 0.95 * len(low)
        assert decode_delta(CODES[library], high, RANDOM, len(data)) == data


# ---- the choice


def test_no_delta_is_made_if_the_policy_says_so() -> None:
    assert chosen(EncodingPolicy(diff=False), RANDOM + b"x", RANDOM) is None


@pytest.mark.parametrize("library", CODES)
def test_a_named_library_is_the_only_one_that_is_used(library: Library) -> None:
    data = rewritten(RANDOM, 30_000, 1000)

    found = chosen(EncodingPolicy(library=library), data, RANDOM)

    assert found is not None
    code, payload = found
    assert code == CODES[library]
    assert len(payload) < 1100
    assert decode_delta(code, payload, RANDOM, len(data)) == data


def test_a_delta_that_is_not_smaller_is_none() -> None:
    data = rewritten(RANDOM, 30_000, 1000)

    for library in CODES:
        assert (
            choose(EncodingPolicy(library=library), data, 900, lambda: RANDOM, 65_536, None) is None
        )
    assert chosen(DEFAULT, random.Random(9).randbytes(65_536), RANDOM) is None


def test_known_copies_are_used_without_the_reference_if_little_was_written() -> None:
    data = rewritten(RANDOM, 1000, 100)
    copies = (Copy(0, 0, 1000), Copy(1100, 1100, 64_436))

    assert choose(DEFAULT, data, 65_536, no_reference, 65_536, copies) == (
        EXTENTS,
        b"\0\2" + bytes.fromhex("00e80700" + "64b4f70300") + data[1000:1100],
    )


def test_pages_that_were_written_but_hardly_changed_are_a_patch() -> None:
    # As a database writes them: 4 KiB for a changed byte.
    data = RANDOM[:10_000] + b"!" + RANDOM[10_001:]
    copies = (Copy(0, 0, 8192), Copy(12_288, 12_288, 65_536 - 12_288))

    found = chosen(DEFAULT, data, RANDOM, copies)

    assert found is not None
    code, payload = found
    assert code == PATCH
    assert len(payload) < 100
    assert decode_delta(code, payload, RANDOM, len(data)) == data


def test_a_patch_is_not_looked_for_where_nothing_but_random_bytes_is_new() -> None:
    data = rewritten(RANDOM, 10_000, 20_000)
    page = RANDOM[:10_000] + b"!" + RANDOM[10_001:]
    text = RANDOM[:10_000] + b"as text, " * 2222 + RANDOM[29_998:]
    copies = (Copy(0, 0, 10_000), Copy(30_000, 30_000, 35_536))

    def seems_new(data: bytes) -> bool:
        contents = Contents(data, lambda: RANDOM, copies)
        assert not contents.seems_new  # nothing was tried
        ENCODERS["extents"].encode(contents)
        return contents.seems_new

    assert seems_new(data)
    assert not seems_new(page)
    assert not seems_new(text)
    found = chosen(DEFAULT, data, RANDOM, copies)
    assert found is not None
    assert found[0] == EXTENTS


def test_much_that_is_not_written_is_not_looked_at() -> None:
    # 4 KiB written to a piece of 16 MiB: what finds a smaller delta would read all of it.
    size = 16 << 20
    data = bytes(8192) + RANDOM[:4096] + bytes(size - 12_288)
    copies = (Copy(0, 0, 8192), Copy(12_288, 12_288, size - 12_288))

    found = choose(DEFAULT, data, size, no_reference, size, copies)

    assert found is not None
    assert found[0] == EXTENTS
    assert len(found[1]) < 4200


def test_contents_that_moved_are_a_patch() -> None:
    data = RANDOM[:1000] + b"inserted" * 10 + RANDOM[1000:]

    found = chosen(DEFAULT, data, RANDOM)

    assert found is not None
    assert found[0] == PATCH
    assert len(found[1]) < 150


def test_contents_that_changed_in_place_are_extents_of_the_same_positions() -> None:
    data = rewritten(RANDOM, 30_000, 1000)

    found = chosen(DEFAULT, data, RANDOM)

    assert found is not None
    assert found[0] == EXTENTS
    assert len(found[1]) < 1020


def test_a_small_program_with_moved_addresses_is_bsdiff() -> None:
    rng = random.Random(6)
    code = [rng.randbytes(12) for _ in range(300)]
    addresses = [rng.randrange(1 << 16, 1 << 20) for _ in range(300)]
    reference, data = (
        b"".join(
            c + (a + moved).to_bytes(4, "little") for c, a in zip(code, addresses, strict=True)
        )
        for moved in (0, 0x40)
    )

    found = chosen(DEFAULT, data, reference)
    patch = chosen(EncodingPolicy(library="zstd"), data, reference)

    assert found is not None
    assert patch is not None
    assert found[0] == BSDIFF
    assert len(found[1]) < 0.5 * len(patch[1])


def test_nothing_is_tried_that_takes_longer_than_the_budget() -> None:
    data = rewritten(RANDOM, 30_000, 1000)

    assert chosen(EncodingPolicy(budget_s=1e-6), data, RANDOM) is None
    for library in CODES:
        assert chosen(EncodingPolicy(library=library, budget_s=1e-6), data, RANDOM) is None
    assert chosen(EncodingPolicy(library="bsdiff"), data * 8, RANDOM * 8) is None


def test_a_larger_budget_finds_smaller_deltas() -> None:
    data = bytes((byte + 1) % 256 for byte in RANDOM[:16_384]) + RANDOM[16_384:]

    quick, slow = chosen(DEFAULT, data, RANDOM), chosen(EncodingPolicy(budget_s=1), data, RANDOM)

    assert quick is not None
    assert slow is not None
    assert len(quick[1]) > 16_000
    assert slow[0] == BSDIFF
    assert len(slow[1]) < 100


def test_what_was_tried_is_taken_off_the_budget() -> None:
    data = b"inserted" * 10 + RANDOM
    policy = EncodingPolicy(budget_s=0.0024)  # 0.15 ms: extents are to take 0.06, a patch 0.13

    found = chosen(policy, data, RANDOM)

    assert found is None or found[0] == EXTENTS
    assert chosen(EncodingPolicy(library="zstd", budget_s=0.00015), data, RANDOM) is not None


def test_bsdiff_is_not_given_what_repeats_for_it_would_take_very_long() -> None:
    reference = b"test data " * 6500 + RANDOM[:1000]
    data = RANDOM[:1000] + b"test data " * 6500

    assert chosen(EncodingPolicy(library="bsdiff", budget_s=PATIENT), data, reference) is None


def test_bsdiff_is_not_given_long_references_for_it_would_take_much_memory() -> None:
    assert ENCODERS["bsdiff"].encode(Contents(b"x", lambda: bytes(5 << 20), None)) is None


def test_bsdiff_is_not_tried_where_it_is_known_what_was_written() -> None:
    data = bytes((byte + 1) % 256 for byte in RANDOM[:800]) + RANDOM[800:4000]

    sizes = [
        len(found[1])
        for copies in (None, (Copy(800, 800, 3200),))
        if (found := chosen(DEFAULT, data, RANDOM[:4000], copies))
    ]

    assert sizes[0] < 100
    assert sizes[1] > 800


def test_the_reference_is_fetched_once() -> None:
    calls = []

    def reference() -> bytes:
        calls.append(1)
        return RANDOM

    found = choose(
        EncodingPolicy(budget_s=PATIENT), RANDOM[9:], 65_000, reference, len(RANDOM), None
    )

    assert found is not None
    assert calls == [1]


def test_a_reference_that_cannot_be_read_is_the_callers_to_handle() -> None:
    def reference() -> bytes:
        raise StoreError("segment 1 cannot be read")

    with pytest.raises(StoreError):
        choose(DEFAULT, RANDOM, 65_536, reference, 65_536, None)


@pytest.mark.expect_logs("does not make its contents")
def test_a_delta_that_does_not_make_the_contents_is_not_used() -> None:
    data = rewritten(RANDOM, 0, 2000)
    wrong = (Copy(1000, 1000, 64_000),)  # its first 1000 bytes are not those of the reference
    policy = EncodingPolicy(budget_s=0.001)
    contents = Contents(data, lambda: RANDOM, wrong)
    payload = ENCODERS["extents"].encode(contents)

    assert payload is not None
    assert contents.reference == RANDOM
    assert not contents.is_made_by(EXTENTS, payload)
    assert choose(EncodingPolicy(budget_s=1), data, 65_536, lambda: RANDOM, 65_536, wrong) is None
    assert choose(policy, data, 65_536, lambda: RANDOM, 65_536, None) is not None


# ---- sizes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "limits"),
    [
        # At most so many bytes: extents, zstd, bsdiff, xdelta, and what is chosen without waiting.
        ("10 % rewritten", (104_900, 105_100, 105_100, 105_000, 104_900)),
        ("first 10 % plus 1", (104_900, 105_100, 100, 105_000, 104_900)),
        ("1 % scattered", (1 << 20, 32_000, 18_000, 430_000, 32_000)),
        ("100 bytes inserted", (1 << 20, 300, 200, 150, 300)),
    ],
)
def test_a_change_of_a_mebibyte_takes_no_more_than(change: str, limits: Sequence[int]) -> None:
    reference = random.Random(1).randbytes(1 << 20)
    data = {
        "10 % rewritten": rewritten(reference, 100_000, 104_857),
        "first 10 % plus 1": bytes((byte + 1) % 256 for byte in reference[:104_857])
        + reference[104_857:],
        "1 % scattered": scattered(reference),
        "100 bytes inserted": reference[:1000] + RANDOM[:100] + reference[1000:],
    }[change]
    policies = [EncodingPolicy(library=library, budget_s=PATIENT) for library in CODES]

    for policy, limit in zip((*policies, DEFAULT), limits, strict=True):
        found = chosen(policy, data, reference)

        assert found is not None
        code, payload = found
        assert len(payload) <= limit
        assert decode_delta(code, payload, reference, len(data)) == data
