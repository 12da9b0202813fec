"""Tensors that workers of a DataLoader send by a `collate_fn` of the program, and those that torch shares."""

import pickle
import sys

import numpy as np
import pytest
from support import check_python, dumps

import sharedmem

torch = pytest.importorskip("torch")
pytest.importorskip("torch.utils.data")

import torch_samples  # noqa: E402 -- these import torch
from torch_loading import frees_all, installed, loader  # noqa: E402, F401
from torch_samples import Things, in_arena  # noqa: E402

# -- what a collate_fn of the program returns


def only(batch):
    return batch[0]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.usefixtures("installed")
def test_tensors_of_all_kinds_travel_as_they_are(method):
    wanted_ordinary, wanted_others = torch_samples.make_things()
    ordinary, others = loader(Things(), method, batch_size=1, num_workers=1, collate_fn=only)
    for name, wanted in wanted_ordinary.items():
        got = ordinary[name]
        assert type(got) is type(wanted), name
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), name
        assert (got.requires_grad, got.is_leaf) == (wanted.requires_grad, wanted.is_leaf), name
        assert torch.equal(got, wanted), name
        assert not got.is_shared(), name
        assert in_arena(got) or name in ("small", "scalar", "expanded"), name
    for name in ("transposed", "expanded"):
        assert ordinary[name].stride() == wanted_ordinary[name].stride()
    assert ordinary["expanded"].untyped_storage().nbytes() == 4
    assert ordinary["part"].untyped_storage().nbytes() == 45 * 34 * 4, "only the visible part is copied"
    for name, wanted in wanted_others.items():
        got = others[name]
        assert (got.shape, got.layout, got.dtype) == (wanted.shape, wanted.layout, wanted.dtype), name
        same = torch.equal(got.to_dense(), wanted.to_dense()) if got.is_sparse else torch.equal(got, wanted)
        assert same or name == "conjugate", name  # torch itself loses the mark
    assert others["shared by torch"].is_shared()
    assert type(others["tag"]) is torch_samples.Tagged


@pytest.mark.usefixtures("installed")
def test_what_has_a_history_is_refused_as_torch_does():
    with pytest.raises(RuntimeError, match="non-leaf"):
        run_as_worker(lambda: dumps(torch.ones(1000, requires_grad=True) * 2))


def run_as_worker(function):
    """Calls the function as if this process were a worker of a DataLoader."""
    worker = sys.modules["torch.utils.data._utils.worker"]
    worker._worker_info = worker.WorkerInfo(id=0, num_workers=1, seed=0, dataset=None)
    try:
        return function()
    finally:
        worker._worker_info = None


@pytest.mark.usefixtures("installed")
def test_only_workers_of_a_loader_copy():
    """Elsewhere torch promises that sender and receiver share a tensor."""
    tensor = torch.ones(5000)
    got = pickle.loads(run_as_worker(lambda: dumps(tensor)))
    assert in_arena(got)
    assert not tensor.is_shared()
    got = pickle.loads(dumps(tensor))
    assert got.is_shared()
    got[0] = 5
    assert tensor[0] == 5


@pytest.mark.usefixtures("installed")
def test_a_tensor_that_is_sent_twice_in_a_batch_arrives_once():
    tensor = torch.ones(5000)
    first, second = pickle.loads(run_as_worker(lambda: dumps([tensor, tensor])))
    assert first is second


@pytest.mark.usefixtures("installed")
def test_by_value_means_by_value():
    with sharedmem.pickle_by_value():
        message = run_as_worker(lambda: dumps({"a": np.ones(5), "t": torch.ones(5000).share_memory_()}))
        big = run_as_worker(lambda: dumps(torch.ones(5000)))
    assert len(message) < 5000 or len(big)  # torch shares its own as usual
    assert not in_arena(pickle.loads(big))


@pytest.mark.needs_memory_limit
def test_without_room_the_data_is_in_the_message():
    printed = check_python("""
        import contextlib, pickle, torch, sharedmem
        from multiprocessing.reduction import ForkingPickler
        from torch.utils.data._utils import worker
        sharedmem.torch.install()
        kept = []
        for size in (1 << 30, 1 << 24):  # until all memory is promised to arrays that are never written
            with contextlib.suppress(MemoryError):
                while True:
                    kept.append(sharedmem.empty(size, "u1", populate=False))
        worker._worker_info = worker.WorkerInfo(id=0, num_workers=1, seed=0, dataset=None)
        tensor = torch.arange(5.0 * (1 << 20))
        message = ForkingPickler.dumps(tensor)
        got = pickle.loads(message)
        print(len(message) > tensor.nbytes, torch.equal(got, tensor), got.is_shared(), tensor.is_shared())
        got[0] = 1
    """)
    assert printed == "True True False False"


# -- what torch itself shares


@pytest.mark.usefixtures("installed")
def test_hogwild():
    """Parameters that the program shares by torch's means are updated in place by the children."""
    model = torch.nn.Linear(3, 2)
    model.share_memory()
    before = model.weight.detach().clone()
    for method in ("fork", "spawn"):
        process = torch.multiprocessing.get_context(method).Process(target=add_one, args=(model,))
        process.start()
        process.join()
        assert process.exitcode == 0
    assert torch.allclose(model.weight.detach(), before + 2)
    assert model.weight.is_shared()


def add_one(model):
    with torch.no_grad():
        model.weight += 1
