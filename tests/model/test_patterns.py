"""Sparsity patterns: constraints hold, projections are idempotent and nearest."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.patterns import (
    BalancedPattern,
    ChannelPattern,
    KernelPattern,
    LocalityPattern,
    UnstructuredPattern,
    budget,
    linear_energy,
    linear_mask,
    parse,
    project,
)
from model.projection import largest

RATIOS = st.one_of(st.integers(1, 8), st.sampled_from([4 / 3, 1 / 0.3, 2.5]))
PATTERNS = st.one_of(
    st.integers(1, 8).map(KernelPattern),
    st.integers(1, 8).map(BalancedPattern),
    st.integers(1, 8).flatmap(lambda m: st.integers(1, m).map(lambda n: ChannelPattern(n, m))),
    RATIOS.map(UnstructuredPattern),
    st.builds(LocalityPattern, RATIOS, st.integers(1, 4), st.integers(1, 3)),
)


@st.composite
def energies(draw, n=4, c=9, f=8):
    shape = [draw(st.integers(1, limit)) for limit in (n, c, f)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few distinct values, zero among them: ties and empty words are the hard cases.
    return rng.integers(0, draw(st.sampled_from([3, 1000])), shape).astype(float)


def obeys(mask, pattern):
    """The definition of the patterns, word by word."""
    if mask.sum() > budget(mask.shape, pattern):
        return False
    if isinstance(pattern, KernelPattern):
        return bool((mask.sum(axis=-1) <= mask.shape[-1] // pattern.alpha).all())
    if isinstance(pattern, BalancedPattern):
        rows = mask.sum(axis=1).max(axis=0)     # the longest row of each frequency
        return bool(rows.sum() <= mask[0].size // pattern.alpha)
    if isinstance(pattern, UnstructuredPattern):
        return True
    if isinstance(pattern, LocalityPattern):
        spots = {(n // pattern.lanes, c // pattern.channels, f) for n, c, f in np.argwhere(mask)}
        return len(spots) <= pattern.groups(mask.shape)
    starts = range(0, mask.shape[1], pattern.m)
    return all((mask[:, s : s + pattern.m].sum(axis=1) <= pattern.n).all() for s in starts)


@given(energies(), PATTERNS)
def test_projection_obeys_its_pattern(energy, pattern):
    mask = project(energy, pattern)
    assert obeys(mask, pattern)
    assert mask.mean() <= pattern.density + 1e-12
    assert not (mask & (energy == 0)).any()


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 99), PATTERNS)
def test_the_whole_budget_is_used(outputs, channels, seed, pattern):
    # Whole groups of every size: 12 = 3·4 outputs, 840 channels divide by all m up to 8.
    shape = (12 * outputs, 840 if isinstance(pattern, ChannelPattern) else 6 * channels, 8)
    energy = np.random.default_rng(seed).random(shape) + 1e-3
    assert project(energy, pattern).sum() == budget(shape, pattern)
    assert budget(shape, pattern) >= np.prod(shape) * pattern.density - np.prod(shape[:2]) - 12


@given(energies(), PATTERNS)
def test_projection_is_idempotent(energy, pattern):
    mask = project(energy, pattern)
    np.testing.assert_array_equal(project(energy * mask, pattern), mask)


@settings(max_examples=60, deadline=None)    # every mask of a small layer
@given(energies(n=2, c=3, f=2), PATTERNS)
def test_projection_is_the_nearest_point(energy, pattern):
    best = max(
        energy[mask].sum()
        for bits in product((False, True), repeat=energy.size)
        if obeys(mask := np.array(bits).reshape(energy.shape), pattern)
    )
    assert energy[project(energy, pattern)].sum() == best


@given(PATTERNS)
def test_text_round_trip(pattern):
    assert parse(str(pattern)) == pattern


def test_layers_with_few_channels_still_reach_their_density():
    energy = np.random.default_rng(0).random((20, 1, 32))
    assert project(energy, ChannelPattern(1, 4)).sum() == 20 * 32 // 4
    assert project(energy, KernelPattern(4)).sum(axis=-1).tolist() == [[8]] * 20


def test_balanced_rows_are_equally_long_for_every_output():
    energy = np.random.default_rng(1).random((16, 12, 32)) * np.linspace(1, 9, 32)
    rows = project(energy, BalancedPattern(4)).sum(axis=1)
    assert (rows == rows[0]).all() and rows[0].sum() == 12 * 32 // 4
    assert rows[0, -1] > rows[0, 0]


def test_groups_of_locality_are_kept_whole():
    energy = np.random.default_rng(0).random((16, 6, 32))
    mask = project(energy, LocalityPattern(4, 8, 2))
    groups = mask.reshape(2, 8, 3, 2, 32)
    assert (groups.all(axis=(1, 3)) == groups.any(axis=(1, 3))).all()
    assert mask.sum() == 16 * 6 * 32 // 4
    # Four outputs: the block of lanes is only so wide, and as many words are kept.
    assert project(energy[:4], LocalityPattern(4, 8, 2)).sum() == 4 * 6 * 32 // 4


def test_full_groups_are_all_used():
    energy = np.random.default_rng(0).random((5, 16, 32))
    mask = project(energy, ChannelPattern(1, 4))
    assert (mask.reshape(5, 4, 4, 32).sum(axis=2) == 1).all()


def test_ties_go_to_the_lowest_index():
    mask = project(np.ones((1, 1, 8)), KernelPattern(4))
    assert np.flatnonzero(mask).tolist() == [0, 1]


def test_linear_words_pair_adjacent_inputs():
    weight = np.array([[1.0, 2.0, 0.0, 3.0, 4.0]])
    energy = linear_energy(weight)
    assert energy[..., 0].tolist() == [[5.0, 9.0, 16.0]]
    mask = project(energy, ChannelPattern(1, 3))
    assert linear_mask(mask, 5).tolist() == [[False, False, False, False, True]]


@pytest.mark.parametrize("text", [
    "", "kernel", "channel 4", "channel 1:4 x", "block 4", "kernel 2.5", "unstructured",
    "locality 4 8", "locality 4 8x",
])
def test_unknown_text_is_refused(text):
    with pytest.raises(ValueError, match="unknown pattern"):
        parse(text)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="5:4"):
        ChannelPattern(5, 4)
    with pytest.raises(ValueError, match="alpha must be at least 1, not 0"):
        KernelPattern(0)
    with pytest.raises(TypeError, match="2.5"):
        KernelPattern(2.5)
    for wrong, error in ((0.5, ValueError), (float("nan"), ValueError), ("4", TypeError)):
        with pytest.raises(error, match="alpha must be"):
            UnstructuredPattern(wrong)
        with pytest.raises(error, match="alpha must be"):
            LocalityPattern(wrong)
    with pytest.raises(ValueError, match="lanes must be at least 1, not 0"):
        LocalityPattern(4, 0)
    with pytest.raises(TypeError, match="None"):
        parse(None)
    with pytest.raises(TypeError, match="no projection for 'kernel 4'"):
        project(np.ones((1, 1, 8)), "kernel 4")
    for energy, message in ((np.ones((1, 8)), r"\(1, 8\)"), (-np.ones((1, 1, 8)), "negative"),
                            (np.full((1, 1, 8), np.nan), "numbers")):
        with pytest.raises(ValueError, match=message):
            project(energy, KernelPattern(4))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        linear_energy(np.ones(3))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_selection_is_a_stable_sort(axis, count):
    values = np.random.default_rng(count).integers(0, 4, (5, 6, 7)).astype(float)
    order = np.argsort(-values, axis=axis, kind="stable")
    expected = np.take(order, range(min(count, values.shape[axis])), axis=axis)
    mask = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(mask, expected, True, axis=axis)
    np.testing.assert_array_equal(largest(values, count, axis), mask)
