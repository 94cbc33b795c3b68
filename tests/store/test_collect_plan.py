"""Which segments are given up, and what that brings."""

from dkfs.store.collect_plan import Plan, SegmentUse, Victim, groups, plan

MIB = 1 << 20


def planned(*uses: SegmentUse, max_unused: float = 0.1, checkpoint: int | None = None) -> Plan:
    return plan(uses, max_unused=max_unused, overhead=100, limit=256 * MIB, checkpoint=checkpoint)


def test_a_segment_without_anything_that_is_needed_comes_back_whole() -> None:
    found = planned(SegmentUse(1, 5000, 0, 0), max_unused=0.9)

    assert found.victims == (Victim(1, 5000, 0),)
    assert found.freed == 5000
    assert found.copied == 0


def test_a_segment_is_given_up_from_the_share_that_was_asked_for() -> None:
    nearly, just = SegmentUse(1, 10_000, 9000, 0), SegmentUse(2, 10_000, 8900, 0)

    assert planned(nearly, just).victims == (Victim(2, 10_000, 8900),)
    assert planned(nearly, just, max_unused=0).freed == 20_000 - 17_900 - 100


def test_nothing_is_done_if_nothing_would_come_back() -> None:
    assert planned(SegmentUse(1, 1000, 900, 0), max_unused=0).victims == ()
    assert planned(SegmentUse(1, 1010, 890, 0), max_unused=0).victims == (Victim(1, 1010, 890),)


def test_journals_are_copied_where_a_checkpoint_would_take_more() -> None:
    use = SegmentUse(1, 100_000, 10_000, 5_000)

    dear = planned(use, checkpoint=4_000)
    cheap = planned(use, checkpoint=1_000)

    assert not dear.is_checkpoint
    assert dear.copied == 15_000
    assert dear.freed == 100_000 - 15_000 - 100
    assert cheap.is_checkpoint
    assert cheap.copied == 10_000
    assert cheap.freed == 100_000 - 11_000 - 100


def test_what_needs_least_room_comes_first() -> None:
    found = planned(
        SegmentUse(1, 9000, 5000, 0), SegmentUse(2, 9000, 0, 0), SegmentUse(3, 9000, 200, 0)
    )

    assert [victim.number for victim in found.victims] == [2, 3, 1]


def test_groups_fill_one_segment_and_those_that_cost_nothing_are_a_group_of_their_own() -> None:
    victims = [Victim(n, 100, kept) for n, kept in enumerate((0, 0, 30, 30, 50, 120))]

    found = [[victim.number for victim in group] for group in groups(victims, limit=100)]

    assert found == [[0, 1], [2, 3], [4], [5]]


def test_many_small_segments_are_joined() -> None:
    uses = [SegmentUse(n, 1000, 900, 0) for n in range(1, 40)]

    assert planned(*uses[:32]).victims == ()
    assert len(planned(*uses).victims) == 39
