"""A torch DataLoader whose batches go through shared memory, by one line: the same batches, sooner."""

import sys
import time

import torch
from torch.utils.data import DataLoader, Dataset

import sharedmem

IMAGES, SIDE = 512, 224
WORKERS = 2


class Images(Dataset):
    """Coloured images with a label each, as a reader of files would give them."""

    def __init__(self):
        shades = torch.arange(IMAGES, dtype=torch.uint8).reshape(IMAGES, 1, 1, 1)
        self.images = shades.repeat(1, 3, SIDE, SIDE)

    def __len__(self):
        return IMAGES

    def __getitem__(self, number):
        return self.images[number], number % 10


def epoch(loader):
    """The sum of all labels, and the mean shade: what stands here for a step of training."""
    labels, shade = 0, 0.0
    for images, batch_labels in loader:
        shade += images[:, 0, 0, 0].float().mean().item()
        labels += int(batch_labels.sum())
    return labels, shade / len(loader)


def new_loader():
    return DataLoader(Images(), batch_size=64, num_workers=WORKERS, persistent_workers=True)


def main():
    before = epoch(new_loader())

    sharedmem.torch.install()  # the one line: DataLoaders whose workers start from now on have it
    loader = new_loader()
    after = epoch(loader)
    print("the same results:", before == after)

    images, _ = next(iter(loader))
    print("a batch is an ordinary tensor:", type(images) is torch.Tensor, tuple(images.shape), images.dtype)
    print("in shared memory:", sharedmem.is_shared(images.numpy()))
    print("with a file of torch's:", images.is_shared())


def measure(times=9):
    """Prints the least seconds of an epoch without and with it; epochs take turns."""
    own = torch.empty((64, 3, SIDE, SIDE), dtype=torch.uint8)
    loaders = {"without": new_loader()}
    epoch(loaders["without"])  # its workers start now
    sharedmem.torch.install()
    loaders["with"] = new_loader()
    epoch(loaders["with"])
    seconds = {name: [] for name in loaders}
    for _ in range(times):
        for name, loader in loaders.items():
            start = time.perf_counter()
            for images, _ in loader:
                own.copy_(images)  # on the way to a GPU, say
            seconds[name].append(time.perf_counter() - start)
    print(", ".join(f"{name} {min(each) * 1e3:.0f} ms" for name, each in seconds.items()))


if __name__ == "__main__":
    measure() if "--measure" in sys.argv else main()
