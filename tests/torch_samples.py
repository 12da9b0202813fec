"""Datasets for the tests of torch's DataLoader, which spawned workers can import."""

import collections
import os
import signal

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

import sharedmem

Pair = collections.namedtuple("Pair", ["first", "second"])


class Samples(Dataset):
    """Sample i of every kind that torch collates; the numbers in it are i."""

    def __init__(self, count=32, pixels=64):
        self.count = count
        self.pixels = pixels

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return {
            "image": torch.full((3, self.pixels, self.pixels), i, dtype=torch.uint8),
            "array": np.full((10, 20), float(i)),
            "half": torch.full((1000,), i, dtype=torch.bfloat16),
            "pair": Pair(torch.tensor(i), np.float32(i)),
            "tuple": (torch.full((2000,), i, dtype=torch.complex64), [i, float(i)]),
            "text": str(i),
        }


def check(batch, first, size):
    """Whether a batch is that of samples `first` to `first + size - 1`."""
    expected = torch.arange(first, first + size)
    for tensor in tensors_in(batch):
        assert tensor.shape[0] == size
        flat = tensor.reshape(size, -1)
        assert torch.equal(flat[:, 0], expected.to(tensor.dtype))
        assert torch.equal(flat, flat[:, :1].expand(flat.shape))
    assert batch["text"] == [str(i) for i in range(first, first + size)]
    assert batch["half"].dtype is torch.bfloat16
    assert type(batch["pair"]) is Pair


def tensors_in(batch):
    if isinstance(batch, torch.Tensor):
        return [batch]
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, (list, tuple)):
        return [tensor for each in batch for tensor in tensors_in(each)]
    return []


def in_arena(tensor):
    """Whether the first element of a tensor lies in shared memory of this library."""
    tensor = tensor.detach().resolve_conj()
    return sharedmem.is_shared(tensor.as_strided((1,), (1,)).view(torch.uint8).numpy())


class Images(Dataset):
    """Large samples, and a label."""

    def __init__(self, count, nbytes):
        self.count = count
        self.nbytes = nbytes

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return torch.full((self.nbytes,), i % 256, dtype=torch.uint8), i


class Stream(IterableDataset):
    """Each worker gives its part."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        yield from (np.full(1000, i) for i in range(info.id, self.count, info.num_workers))


class Failing(Images):
    """A sample that cannot be read, or on which the worker is killed."""

    def __init__(self, count, nbytes, at, kill=False):
        super().__init__(count, nbytes)
        self.at = at
        self.kill = kill

    def __getitem__(self, i):
        if i == self.at:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError(f"no sample {i}")
        return super().__getitem__(i)


class Things(Dataset):
    """One thing of each kind in a list, a batch of its own: what a `collate_fn` of the program may return."""

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return make_things()[i]


def make_things():
    whole = torch.arange(10_000.0)
    shared_by_torch = torch.ones(1000).share_memory_()
    ordinary = {
        "plain": whole.clone(),
        "small": torch.arange(3),
        "scalar": torch.tensor(7.5),
        "part": whole.view(100, 100)[5:50, ::3],
        "transposed": torch.arange(6000).view(60, 100).T,
        "expanded": torch.ones(1).expand(500, 600),
        "parameter": torch.nn.Parameter(whole.clone()),
        "frozen": torch.nn.Parameter(torch.arange(5000), requires_grad=False),
        "leaf": whole.clone().requires_grad_(),
        "bool": whole > 17,
        "half": whole.bfloat16(),
        "complex": torch.complex(whole, whole),
        "over shared memory": torch.from_numpy(np.asarray(sharedmem.ones(2000))),
    }
    others = {
        "empty": torch.empty(0, 3),
        "sparse": torch.eye(50).to_sparse(),
        "conjugate": torch.complex(whole, whole).conj().clone().conj(),
        "shared by torch": shared_by_torch,
        "tag": tagged(whole.clone()),
    }
    return ordinary, others


class Tagged(torch.Tensor):
    """A class of a program's own."""


def tagged(tensor):
    return tensor.as_subclass(Tagged)
