"""torch's DataLoader with `sharedmem.torch`: every batch is right, in shared memory, and given back."""

import contextlib
import os
import signal
import sys
import time

import pytest
from support import check_python, needs_namespaces, run_python, settle, wait_until

import sharedmem

torch = pytest.importorskip("torch")
pytest.importorskip("torch.utils.data")

from torch.utils.data import default_collate  # noqa: E402 -- these import torch
from torch_loading import (  # noqa: E402
    SIZE,
    WITHIN,
    WORKERS,
    counts,
    free_what_was_being_sent,
    frees_all,  # noqa: F401
    installed,  # noqa: F401
    loader,
)
from torch_samples import Failing, Images, Samples, Stream, check, in_arena, tensors_in  # noqa: E402


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def files_of_torch():
    """Files of torch in /dev/shm, those without a name too, that this process has mapped or open."""
    with open("/proc/self/maps") as maps:
        found = {line.split(maxsplit=5)[5] for line in maps if "/dev/shm/torch_" in line}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return {name for name in found if "/dev/shm/torch_" in name}


# -- batches


@pytest.mark.parametrize("way", ["install", "collate"])
def test_batches_are_right_and_in_the_arena(way, start_method):
    options = {}
    if way == "collate":
        options["collate_fn"] = sharedmem.torch.collate
    else:
        sharedmem.torch.install()
    try:
        kept = list(loader(Samples(), start_method, **options))
    finally:
        sharedmem.torch.uninstall()
    assert len(kept) == 4
    for number, batch in enumerate(kept):
        check(batch, number * SIZE, SIZE)
        for tensor in tensors_in(batch):
            # What is sent as bytes in the message is small, and private.
            assert in_arena(tensor) or (way == "install" and tensor.nbytes < 1024)
            assert not tensor.is_shared()
    assert files_of_torch() == set()
    batch["image"][:] = 7  # a batch belongs to its receiver
    check(kept[0], 0, SIZE)


@pytest.mark.usefixtures("installed")
def test_kept_batches_need_no_descriptors():
    batches = iter(loader(Images(80, 5000)))
    kept = [next(batches)]
    before = descriptors()
    kept += batches
    assert descriptors() <= before
    assert files_of_torch() == set()
    assert [int(labels[0]) for _, labels in kept] == list(range(0, 80, SIZE))


def test_importing_the_library_changes_nothing():
    kept = list(loader(Samples(SIZE)))
    check(kept[0], 0, SIZE)
    assert all(tensor.is_shared() and not in_arena(tensor) for tensor in tensors_in(kept))
    assert files_of_torch()
    module = sys.modules["torch.utils.data._utils.collate"]
    assert module.default_collate_fn_map[torch.Tensor] is module.collate_tensor_fn


def test_uninstalling_gives_all_back():
    module = sys.modules["torch.utils.data._utils.collate"]
    before = dict(module.default_collate_fn_map)
    for _ in range(2):
        sharedmem.torch.install()
    assert module.default_collate_fn_map != before
    assert list(module.default_collate_fn_map) == list(before)
    for _ in range(2):
        sharedmem.torch.uninstall()
    assert module.default_collate_fn_map == before
    for method in ("fork", "spawn"):
        kept = list(loader(Samples(SIZE), method, num_workers=1))
        assert all(tensor.is_shared() and not in_arena(tensor) for tensor in tensors_in(kept))


@pytest.mark.usefixtures("installed")
def test_without_workers_batches_stay_private():
    (batch,) = loader(Samples(SIZE), None, num_workers=0, timeout=0)
    check(batch, 0, SIZE)
    assert not any(in_arena(tensor) or tensor.is_shared() for tensor in tensors_in(batch))


@pytest.mark.usefixtures("installed")
def test_a_function_of_the_program_for_tensors_stays(monkeypatch):
    functions = sys.modules["torch.utils.data._utils.collate"].default_collate_fn_map
    sharedmem.torch.uninstall()
    monkeypatch.setitem(functions, torch.Tensor, sums)
    sharedmem.torch.install()
    assert functions[torch.Tensor] is sums
    (batch, labels), *_ = loader(Images(SIZE, 5000))
    assert (batch.shape, labels.shape) == ((SIZE,), (SIZE,))


def sums(batch, *, collate_fn_map=None):
    return torch.stack([each.sum() for each in batch])


@pytest.mark.usefixtures("installed")
def test_collate_makes_batches_in_the_arena_where_all_loaders_do():
    assert in_arena(sharedmem.torch.collate([torch.ones(1000)] * 2))


@pytest.mark.usefixtures("installed")
def test_default_collate_elsewhere_is_torchs_own():
    assert not in_arena(default_collate([torch.ones(5000)] * 2))


# -- limits of the system


def test_two_thousand_kept_batches_with_few_descriptors():
    printed = check_python(
        """
        import os, resource, torch_samples, sharedmem
        from torch.utils.data import DataLoader
        sharedmem.torch.install()
        loader = DataLoader(torch_samples.Images(4000, 2000), batch_size=2, num_workers=2)
        kept = list(loader)
        right = all((images == i % 256).all() for (both, labels) in kept
                    for images, i in zip(both, labels.tolist()))
        few = len(os.listdir("/proc/self/fd")) < 50
        print(len(kept), right, few, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        """,
        shell="ulimit -n 256",
    )
    assert printed == "2000 True True 256"


MOUNT = "mount -t tmpfs -o size=8m tmpfs /dev/shm"


def test_a_small_dev_shm():
    """Batches of 16 MiB, where /dev/shm has 8 MiB."""
    needs_namespaces("--mount")
    printed = check_python(
        """
        import os, torch_samples, sharedmem
        from torch.utils.data import DataLoader
        sharedmem.torch.install()
        room = os.statvfs("/dev/shm")
        kept = list(DataLoader(torch_samples.Images(24, 4 << 20), batch_size=4, num_workers=2))
        print(room.f_blocks * room.f_frsize >> 20, len(kept), all((b[0][:, 0] == b[1]).all() for b in kept),
              os.listdir("/dev/shm"))
        """,
        prefix=["unshare", "--mount", "sh", "-c", f'{MOUNT} && exec "$@"', "sh"],
    )
    assert printed == "8 6 True []"


def test_killing_the_group_leaves_nothing():
    status, out, err = run_python("""
        import os, signal, torch_samples, sharedmem
        from torch.utils.data import DataLoader
        sharedmem.torch.install()
        batches = iter(DataLoader(torch_samples.Images(64, 1 << 20), batch_size=4, num_workers=2))
        kept = [next(batches) for _ in range(3)]
        assert torch_samples.in_arena(kept[0][0])
        os.killpg(0, signal.SIGKILL)
    """)
    assert (status, out) == (-signal.SIGKILL, b""), err


# -- the life of a loader


@pytest.mark.usefixtures("installed")
def test_ten_epochs_use_the_memory_of_the_first():
    mapped = []
    for _ in range(10):
        for images, _ in loader(Images(48, 1 << 20), batch_size=4):
            assert in_arena(images)
            time.sleep(0.01)  # the workers are as far ahead as they may be, in each epoch
        mapped.append(sharedmem.stats()["mapped_bytes"])
    assert max(mapped) <= 1.5 * mapped[0] + (1 << 20), mapped


@pytest.mark.usefixtures("installed")
def test_persistent_workers_over_epochs():
    batches = loader(Images(40, 5000), persistent_workers=True, prefetch_factor=3)
    for epoch in range(3):
        for number, (images, labels) in enumerate(batches):
            assert labels.tolist() == list(range(number * SIZE, (number + 1) * SIZE))
            assert in_arena(images)
            if (epoch, number) == (1, 1):
                break  # the next epoch reads what is in flight
    del batches


@pytest.mark.usefixtures("installed")
def test_iterable_datasets():
    numbers = sorted(int(row[0]) for batch in loader(Stream(50)) for row in batch)
    assert numbers == list(range(50))


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.usefixtures("installed")
def test_leaving_a_loop_early_gives_back_what_is_in_flight(persistent, start_method):
    if persistent and start_method != "fork":
        pytest.skip("the same as with workers of one epoch")
    before = counts()
    options = {"persistent_workers": persistent, "prefetch_factor": 8}
    batches = iter(loader(Images(400, 50_000), start_method, **options))
    images, _ = next(batches)
    assert wait_until(lambda: sharedmem.stats()["leases"] > before[0] + WORKERS)
    del batches
    settle()
    free_what_was_being_sent(before)
    assert counts() == (before[0], before[1] + 1), "everything except the batch that is kept"
    assert in_arena(images)


@pytest.mark.usefixtures("installed")
def test_leaving_early_where_memory_is_pinned(monkeypatch):
    """torch closes its queue there before its workers have ended. Private copies stand for pinned memory."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda *args: True)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *device: self.clone())
    before = counts()
    kept = []
    for images, labels in loader(Images(200, 50_000), pin_memory=True):
        assert not in_arena(images)
        assert labels[0] == len(kept) * SIZE
        kept.append(images)
        if len(kept) == 10:
            break
    settle()
    free_what_was_being_sent(before)
    assert counts() == before
    assert all((images[:, 7] == images[:, 8]).all() for images in kept)


@pytest.mark.usefixtures("installed")
def test_errors_of_a_worker_arrive(monkeypatch):
    # Seconds that torch waits for each worker, which does not end by itself then.
    monkeypatch.setattr(sys.modules["torch.utils.data._utils"], "MP_STATUS_CHECK_INTERVAL", 1.0)
    with pytest.raises(ValueError, match="no sample 20"):
        list(loader(Failing(40, 5000, at=20)))
    settle()


@pytest.mark.usefixtures("installed")
def test_a_killed_worker_is_an_error_and_leaves_nothing():
    before = counts()
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(loader(Failing(400, 50_000, at=100, kill=True)))
    settle()
    free_what_was_being_sent(before)


def test_ctrl_c_in_a_loop():
    """The terminal sends it to workers, too."""
    status, out, err = run_python("""
        import os, signal, time, torch_samples, sharedmem
        from torch.utils.data import DataLoader
        sharedmem.torch.install()
        def loop():
            images = torch_samples.Images(4000, 50_000)
            for number, _ in enumerate(DataLoader(images, batch_size=4, num_workers=2)):
                if number == 5:
                    os.killpg(0, signal.SIGINT)
        try:
            loop()
        except KeyboardInterrupt:
            pass
        sharedmem.collect()
        print(sharedmem.stats()["leases"] <= 2)  # each worker may have ended while it was sending
        sharedmem.collect(leases=True)
        print(sharedmem.stats()["leases"], sharedmem.stats()["live_blocks"])
    """)
    assert (status, out.split()) == (0, [b"True", b"0", b"0"]), err


@pytest.mark.usefixtures("installed")
def test_child_processes_have_it_too(context):
    ours, theirs = context.Pipe()
    process = context.Process(target=send_one_batch, args=(theirs,))
    process.start()
    theirs.close()
    assert ours.poll(WITHIN)
    assert ours.recv() is True
    process.join()
    ours.close()


def send_one_batch(conn):
    (images, _), *_ = loader(Images(SIZE, 5000), "fork", num_workers=1)
    conn.send(in_arena(images))
    conn.close()
