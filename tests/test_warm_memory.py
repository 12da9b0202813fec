"""Memory of workers that have ended is used again by those that come after them."""

import multiprocessing

import pytest

import sharedmem


def send_one_after_the_other(conn, count, size):
    for number in range(count):
        conn.send(sharedmem.full(size, number, "u1"))
        conn.recv()


# Without `collect` a death is noticed a tenth of a second later; until then small arrays get fresh chunks.
@pytest.mark.parametrize(
    ("size", "collecting"), [(1000, True), (300_000, True), (19_000_000, True), (19_000_000, False)]
)
def test_generations_of_workers_use_the_same_warm_memory(size, collecting):
    """Each worker of a generation adopts as much memory as it needs, and no more."""
    context = multiprocessing.get_context("fork")
    mapped = []
    for _ in range(6):
        ends, processes = [], []
        for _ in range(2):
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=send_one_after_the_other, args=(theirs, 4, size)))
            processes[-1].start()
            theirs.close()
            ends.append(ours)
        for number in range(4):
            arrays = [end.recv() for end in ends]
            assert all((a == number).all() for a in arrays)
            del arrays
            for end in ends:
                end.send(None)
        for process, end in zip(processes, ends, strict=True):
            process.join()
            end.close()
        if collecting:
            sharedmem.collect()
        mapped.append(sharedmem.stats()["mapped_bytes"])
    assert mapped[-1] <= 1.5 * max(mapped[:2]), mapped
    sharedmem.collect()
    assert sharedmem.cleanup() > 0  # memory that was not adopted is given back, too
