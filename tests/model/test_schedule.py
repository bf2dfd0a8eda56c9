import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.schedule import lower_bound, schedule

needs_lists = st.lists(
    st.sets(st.integers(0, 40), max_size=20).map(sorted), min_size=1, max_size=8
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(needs_lists, st.sampled_from([1, 2, 4, 8]))
def test_every_weight_once_and_never_more_than_r_addresses(needs, banks):
    steps = schedule(needs, banks)
    seen = [[] for _ in needs]
    for taken in steps:
        assert len(taken) == len(needs)
        delivered = {channel for channel in taken if channel is not None}
        assert len({channel % banks for channel in delivered}) == len(delivered) <= banks
        assert delivered, "an empty step"
        for lane, channel in enumerate(taken):
            if channel is not None:
                seen[lane].append(channel)
    assert [sorted(lane) for lane in seen] == [list(need) for need in needs]
    assert len(steps) >= lower_bound(needs, banks)


def test_conflict_free_needs_reach_the_lower_bound():
    needs = [[0, 9], [0, 9], [9, 0], [3]]
    assert len(schedule(needs, 8)) == 2 == lower_bound(needs, 8)


def test_a_bank_serves_one_address_a_step():
    assert len(schedule([[0], [8], [16]], 8)) == 3


def test_duplicate_need_is_refused():
    with pytest.raises(ValueError, match="lane 1 needs a channel twice"):
        schedule([[1], [2, 2]], 8)
