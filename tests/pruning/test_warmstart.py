"""The layer-wise start: exact where nothing is pruned, elsewhere better than cutting."""

import pytest
import torch

from model.network import Conv, Linear, Network
from model.patterns import ChannelPattern, KernelPattern
from pruning.admm import ADMMPruner
from pruning.masks import free_weight
from pruning.nets import SpatialNet, SpectralNet
from pruning.warmstart import Effort, warm_start

NETWORK = Network("small", (3, 12, 12), (
    Conv("a", 3, 8, 3, padding=1), Conv("b", 8, 8, 3, padding=1, pool=2),
    Linear("fc", 288, 4, relu=False),
))
EFFORT = Effort(images=40, tiles=120, steps=4, solve_steps=12)


def _nets(batch_norm):
    torch.manual_seed(0)
    dense = SpatialNet(NETWORK, batch_norm).eval()
    for norm in dense.norms.values():
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.5, 2)
    return dense, SpectralNet(NETWORK, dense)


def _images():
    return torch.rand((40, 3, 12, 12), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_nothing_pruned_changes_nothing(batch_norm):
    dense, model = _nets(batch_norm)
    images = _images()
    report = warm_start(model, dense, {"a": ChannelPattern(1, 1), "b": ChannelPattern(1, 1)},
                        images, EFFORT)
    assert [entry["layer"] for entry in report] == ["a", "b"]
    assert all(entry["error"] < 1e-2 and entry["db"] > 40 for entry in report)
    torch.testing.assert_close(model.eval()(images), dense(images), rtol=0.02, atol=5e-3)


@pytest.mark.parametrize("pattern", [ChannelPattern(1, 4), KernelPattern(4)])
def test_the_pattern_is_met_and_beats_cutting(pattern):
    dense, model = _nets(batch_norm=True)
    images, patterns = _images(), {"a": ChannelPattern(1, 2), "b": pattern}
    wanted = dense(images)
    cut = SpectralNet(NETWORK, dense)
    ADMMPruner(cut.layers, layers=patterns | {"fc": None}).finalise()
    heard = []
    warm_start(model.train(), dense, patterns, images, EFFORT, lambda *told: heard.append(told))
    assert heard == [("a", 0.0), ("b", 0.5)] and model.training
    started = {name: free_weight(module).detach().clone() for name, module in model.compressed()}
    ADMMPruner(model.layers, layers=patterns | {"fc": None}).finalise()
    for name, module in model.compressed():
        assert torch.equal(module.weight, started[name]), "the pruner finds the same support"
    gaps = [float((net.eval()(images) - wanted).square().mean().detach()) for net in (model, cut)]
    assert gaps[0] < 0.7 * gaps[1]
