import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.access import Ports, Schedule, check, lane_work, lower_bound, pack_lanes
from model.cover import METHODS, cover
from model.order import arrange, interleave


def block(seed, lanes=64, channels=16, frequencies=8, density=0.25):
    rng = np.random.default_rng(seed)
    # Frequencies differ in density, as those of trained kernels do.
    rate = density * 2 * rng.random((1, 1, frequencies))
    return rng.random((lanes, channels, frequencies)) < rate


@st.composite
def problems(draw):
    kept = block(draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 64)),
                 draw(st.integers(1, 12)), draw(st.integers(1, 9)), draw(st.floats(0, 0.5)))
    addresses = draw(st.integers(1, 6))
    banks = draw(st.sampled_from([0, addresses, 8]))
    return kept, Ports(addresses, banks), draw(st.integers(1, 10)), draw(st.booleans())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problems(), st.sampled_from(METHODS))
def test_every_schedule_is_valid(problem, method):
    kept, ports, window, frequency_major = problem
    masks = pack_lanes(kept) if frequency_major else np.ascontiguousarray(pack_lanes(kept).T)
    banks = ports.bank_of(masks.shape, frequency_major)
    schedule = cover(masks, ports, window, method, banks)
    check(schedule, masks, ports, window, banks)
    literal_check(schedule, kept, ports, window, frequency_major)
    assert schedule.products == kept.sum()
    assert schedule.cycles >= lower_bound(masks, ports, window)


def literal_check(schedule, kept, ports, window, frequency_major):
    """The rules again, a product at a time: `check` itself is vectorised and could be wrong."""
    lanes, channels, frequencies = kept.shape
    width, groups = (channels, frequencies) if frequency_major else (frequencies, channels)
    todo = {(lane, c, f) for lane, c, f in zip(*(x.tolist() for x in np.nonzero(kept)),
                                               strict=True)}
    by_group = [0] * groups
    for _, c, f in todo:
        by_group[f if frequency_major else c] += 1
    for addresses, served in zip(schedule.addresses.tolist(), schedule.lanes.tolist(),
                                 strict=True):
        oldest = next(g for g in range(groups) if by_group[g])
        assert sum(address >= 0 for address in addresses) <= ports.addresses
        busy, banks, seen = set(), set(), set()
        for address, mask in zip(addresses, served, strict=True):
            if address < 0:
                assert mask == 0
                continue
            group, inner = divmod(address, width)
            c, f = (inner, group) if frequency_major else (group, inner)
            assert group < oldest + window
            assert address not in seen
            seen.add(address)
            if ports.banks:
                assert (c + f % 8) % ports.banks not in banks
                banks.add((c + f % 8) % ports.banks)
            for lane in range(64):
                if mask >> lane & 1:
                    assert lane not in busy
                    busy.add(lane)
                    todo.remove((lane, c, f))           # KeyError: not asked for, or twice
                    by_group[group] -= 1
    assert not todo


def rejected(masks, addresses, lanes, ports=None, window=1, banks=None):
    schedule = Schedule(np.array(addresses), np.array(lanes, dtype=np.uint64))
    with pytest.raises(ValueError) as caught:
        check(schedule, np.array(masks, dtype=np.uint64), ports or Ports(2), window, banks)
    return str(caught.value)


def test_check_names_each_broken_rule():
    masks = [[3, 1], [1, 0]]
    good = Schedule(np.array([[0, -1], [1, -1], [2, -1]]), np.array([[3, 0], [1, 0], [1, 0]],
                                                                    dtype=np.uint64))
    check(good, np.array(masks, dtype=np.uint64), Ports(2), 1)
    assert "exceed r" in rejected(masks, [[0, 1]], [[3, 1]], Ports(1))
    assert "without lanes" in rejected(masks, [[0, 1]], [[3, 0]])
    assert "presented twice" in rejected(masks, [[0, 0]], [[1, 2]])
    assert "one bank" in rejected(masks, [[0, 1]], [[2, 1]], banks=np.zeros((2, 2), dtype=int))
    assert "two words" in rejected(masks, [[0, 1]], [[3, 1]])
    assert "missing" in rejected(masks, [[0, -1]], [[3, 0]])
    assert "twice" in rejected(masks, [[0, -1], [0, -1], [1, -1], [2, -1]],
                               [[3, 0], [1, 0], [1, 0], [1, 0]])
    assert "in flight" in rejected(masks, [[0, -1], [2, -1], [1, -1]], [[3, 0], [1, 0], [1, 0]])
    with pytest.raises(ValueError, match="before it opens"):
        check(good, np.array(masks, dtype=np.uint64), Ports(2), 1, opens=np.array([0, 3]))
    check(good, np.array(masks, dtype=np.uint64), Ports(2), 1, opens=np.array([0, 2]))


def test_masks_hold_one_bit_per_lane():
    kept = block(1, lanes=50)
    masks = pack_lanes(kept)
    for lane in (0, 17, 49):
        assert np.array_equal(masks >> np.uint64(lane) & np.uint64(1), kept[lane].T)
    assert np.array_equal(lane_work(masks)[:50], kept.sum(axis=1))
    assert not lane_work(masks)[50:].any()


def test_lower_bound_of_hand_made_blocks():
    # One lane, three products in the first frequency, one in the second.
    assert lower_bound(np.array([[1, 1, 1], [1, 0, 0]], dtype=np.uint64), Ports(8), 1) == 4
    # Two lanes that take turns: window 1 waits for the fuller one twice, window 2 never.
    turns = np.array([[3, 1, 1], [3, 2, 2]], dtype=np.uint64)
    assert lower_bound(turns, Ports(8), 1) == 6
    assert lower_bound(turns, Ports(8), 2) == 4
    # Eight addresses through two ports.
    assert lower_bound(np.array([[1 << n for n in range(8)]], dtype=np.uint64), Ports(2), 1) == 4


def test_a_window_of_all_frequencies_beats_the_published_greedy():
    kept = np.zeros((64, 64, 32), dtype=bool)
    rng = np.random.default_rng(3)
    np.put_along_axis(kept, rng.random(kept.shape).argsort(axis=-1)[..., :8], True, axis=-1)
    masks = pack_lanes(kept)
    ideal = kept.sum() / 64
    ours = cover(masks, Ports(8), 32).cycles
    published = cover(np.ascontiguousarray(masks.T), Ports(8), 1, "fullest").cycles
    assert ideal / ours > 0.9 > 0.85 > ideal / published


def test_groups_wait_until_they_open():
    masks = pack_lanes(block(4, channels=6, frequencies=4))
    ports, opens = Ports(8), np.array([0, 5, 5, 90])
    schedule = cover(masks, ports, 4, opens=opens)
    check(schedule, masks, ports, 4, opens=opens)
    with pytest.raises(ValueError, match="before it opens"):
        check(cover(masks, ports, 4), masks, ports, 4, opens=opens)
    # Nothing is left to do until the last group opens.
    assert (schedule.addresses[60:90] < 0).all() and schedule.cycles > 90


def test_order_search_helps_a_small_window_and_is_a_permutation():
    masks = pack_lanes(block(5, channels=32, frequencies=32))
    ports = Ports(8)
    order = arrange(masks, ports, 4, tries=200)
    assert sorted(order) == list(range(32)) == sorted(interleave(masks))
    assert lower_bound(masks[order], ports, 4) < lower_bound(masks, ports, 4)
    assert cover(masks[order], ports, 4).cycles < cover(masks, ports, 4).cycles


def test_banks_follow_the_order_of_the_frequencies():
    ports = Ports(8, 8)
    order = np.array([3, 0])
    assert ports.bank_of((2, 4), True, order).tolist() == [[3, 4, 5, 6], [0, 1, 2, 3]]
    assert ports.bank_of((4, 2), False).tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert Ports(8).bank_of((2, 2), True) is None


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"addresses": 0}, "addresses must be at least 1"),
    ({"addresses": 8, "banks": 4}, "4 banks cannot deliver 8"),
])
def test_impossible_ports_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Ports(**kwargs)


def test_bad_requests_are_refused():
    masks = pack_lanes(block(1))
    with pytest.raises(TypeError, match="addresses must be an integer"):
        Ports(2.5)
    with pytest.raises(ValueError, match="unknown method 'best'"):
        cover(masks, Ports(8), 1, "best")
    with pytest.raises(ValueError, match="window must be at least 1"):
        cover(masks, Ports(8), 0)
    with pytest.raises(ValueError, match="opens must be ascending"):
        cover(masks, Ports(8), 8, opens=np.arange(8)[::-1])
    with pytest.raises(ValueError, match="not for the method 'lowest'"):
        cover(masks, Ports(8), 8, "lowest", opens=np.arange(8))
    with pytest.raises(ValueError, match="at most 64 kernels"):
        pack_lanes(np.ones((65, 2, 2), dtype=bool))
