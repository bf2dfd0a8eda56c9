"""The projections that stay on a GPU choose what `model.patterns.project` does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from model.patterns import project
from pruning.projection import project_on_device, project_words
from tests.model.test_patterns import PATTERNS, energies


# The first call of a torch function is slow.
@settings(deadline=None)
@given(energies(), PATTERNS)
def test_torch_chooses_the_same_words(energy, pattern):
    for choice in (project_on_device, project_words):
        kept = choice(torch.from_numpy(energy), pattern)
        np.testing.assert_array_equal(kept.numpy(), project(energy, pattern))


def test_an_unknown_pattern_is_refused():
    with pytest.raises(TypeError, match="no projection for 'kernel 4'"):
        project_on_device(torch.ones(1, 1, 8), "kernel 4")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_chooses_the_same_words():
    from model.patterns import ChannelPattern, KernelPattern, LocalityPattern

    energy = np.random.default_rng(0).random((64, 32, 32))
    for pattern in (KernelPattern(4), ChannelPattern(1, 4), LocalityPattern(4)):
        kept = project_words(torch.from_numpy(energy).cuda(), pattern)
        assert kept.is_cuda
        np.testing.assert_array_equal(kept.cpu().numpy(), project(energy, pattern))
