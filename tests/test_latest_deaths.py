"""Latest whose readers and writers are killed."""

import gc
import multiprocessing
import os
import random
import signal
import time
import warnings

import numpy as np
import support
import workers

import sharedmem


def numbers(latest):
    return int(repr(latest).rpartition(" ")[2][:-1])


def leases():
    return sharedmem.stats()["leases"]


def put_and_wait(latest, ready):
    latest.put(np.full(1000, 3))
    ready.set()
    time.sleep(600)


def test_a_killed_writer_s_last_array_stays_until_the_next_writer_s(context):
    latest, ready = sharedmem.Latest(), sharedmem.Event()
    process = context.Process(target=put_and_wait, args=(latest, ready))
    process.start()
    assert ready.wait(support.TIMEOUT)
    process.kill()
    assert workers.was_killed(*support.join(process))
    sharedmem.collect()
    assert (latest.get(timeout=0)[0] == 3).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert latest.put(np.ones(1)) == 2
    assert leases() == 1
    assert latest.get()[0][0] == 1


def test_a_killed_writer_that_is_a_zombie_is_dead():
    latest, ready = sharedmem.Latest(), sharedmem.Event()
    pid = os.fork()
    if pid == 0:
        put_and_wait(latest, ready)
    assert ready.wait(support.TIMEOUT)
    os.kill(pid, signal.SIGKILL)
    assert support.wait_until(lambda: support.state_of(pid) == "Z")
    assert latest.put(np.ones(1)) == 2
    support.reap(pid)


had = []  # a worker keeps there what it was sent


def keep(latest):
    had.append(latest)


def test_the_last_array_comes_back_also_if_the_last_reader_is_killed():
    with support.Remote() as remote:
        latest = sharedmem.Latest()
        latest.put(np.zeros(1))
        remote.call(keep, latest)
        del latest
        gc.collect()
        assert leases() == 1
        remote.kill()
        sharedmem.collect()
        sharedmem.Latest()
        assert leases() == 0


def write_until_killed(latest):
    while True:
        frame = sharedmem.empty(20_000, "u8")
        frame.fill(numbers(latest) + 1)
        latest.put(frame)
        del frame
        time.sleep(0.0005)


def read_until_killed(latest, wrong, read):
    random.seed(os.getpid())
    last, kept = 0, []
    while True:
        a, number = latest.get(after=last)
        if number <= last or not (a == number).all():
            wrong[0] += 1
        last = number
        kept.append((a, number))
        if len(kept) > 4:
            old, value = kept.pop(random.randrange(4))
            if not (old == value).all():
                wrong[0] += 1
        read[0] += 1


def test_killed_at_any_moment_no_array_is_mixed_and_nothing_leaks():
    """Readers and the writer are killed at random: numbers rise, arrays are whole, others continue."""
    latest, wrong, read = sharedmem.Latest(), sharedmem.zeros(1, int), sharedmem.zeros(1, int)
    context = multiprocessing.get_context(support.QUICKEST)

    def start(target, *args):
        process = context.Process(target=target, args=(latest, *args))
        process.start()
        return process

    writer = start(write_until_killed)
    readers = [start(read_until_killed, wrong, read) for _ in range(3)]
    choose, last = random.Random(3), 0
    # Where there is no fork, a process needs longer until it has begun.
    rounds, longest = (60, 0.02) if support.QUICKEST == "fork" else (20, 2.0)
    for _ in range(rounds):
        time.sleep(choose.random() * longest)
        if choose.random() < 0.5:
            writer.kill()
            writer.join()
            writer.close()
            writer = start(write_until_killed)
            last = latest.get(after=max(last, numbers(latest)), timeout=support.TIMEOUT)[1]
        else:
            victim = choose.randrange(3)
            readers[victim].kill()
            readers[victim].join()
            readers[victim].close()
            readers[victim] = start(read_until_killed, wrong, read)
    count = read[0]
    assert support.wait_until(lambda: read[0] > count)  # readers continue
    for process in (writer, *readers):
        process.kill()
    assert all(map(workers.was_killed, support.join(writer, *readers)))
    assert wrong[0] == 0
    sharedmem.collect(leases=True)  # leases of the dead end now instead of a minute later
    if support.QUICKEST != "fork":
        sharedmem.revoke(0)  # what processes that were killed at their start had not read
    latest.put(np.zeros(1))
    assert leases() == 1
    assert support.wait_until(lambda: sharedmem.collect() or sharedmem.stats()["shared_bytes"] < 1 << 20)
