"""What each process of tests/pruning/test_ddp.py does; run by torchrun."""

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pruning.admm import ADMMPruner, parameter_groups
from pruning.masks import mask_of
from pruning.spectral import spectralise

STEPS, UPDATES, EVERY = 16, 4, 2


def gathered(value):
    """The flat tensor of every rank."""
    both = [torch.zeros_like(value) for _ in range(distributed.get_world_size())]
    distributed.all_gather(both, value)
    return both


def flat(values):
    return torch.cat([value.detach().flatten().float() for value in values])


def main():
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(spectralise(nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4),
    )))
    pruner = ADMMPruner(model, "channel", 0.25, updates=UPDATES, every=EVERY)
    adam = torch.optim.Adam(parameter_groups(model, 1e-3))
    # Every rank has its own images.
    generator = torch.Generator().manual_seed(rank)
    for index in range(STEPS):
        x = torch.randn(8, 1, 8, 8, generator=generator)
        loss = nn.functional.cross_entropy(model(x), x[:, 0, 0, :4].argmax(1))
        if index == 0:
            a, b = gathered(loss.detach().reshape(1))
            assert a != b, "the ranks saw the same images"
        if not pruner.finalised:
            loss = loss + pruner.penalty()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if not pruner.finalised:
            pruner.step()
            for state in (pruner.z, pruner.u):
                a, b = gathered(flat(state.values()))
                assert torch.equal(a, b), f"pruners differ after step {index}"
            if index == UPDATES * EVERY - 1:
                pruner.finalise()
    a, b = gathered(flat(model.parameters()))
    assert torch.equal(a, b), "weights differ"
    masks = [mask_of(layer) for layer in pruner.layers.values()]
    a, b = gathered(flat(masks))
    assert torch.equal(a, b) and 0.2 < float(a.mean()) <= 0.25
    if rank == 0:
        print(f"rho {pruner.rho:.3f}, {int(a.sum())} weights kept: the ranks agree")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
