"""Messages that can no longer be read are given back."""

import multiprocessing
import os
import subprocess
import sys

import pytest
from lost import DUPLEX, kill, leases, leases_before, stopped_reader, ways
from support import TESTS, TIMEOUT, check_python, dumps, needs_64_bit, segments, settle, wait_until

import sharedmem

pytestmark = pytest.mark.needs_linux  # Windows does not tell what is in a pipe, nor that its reader has died


@pytest.fixture(autouse=True)
def before():
    return leases_before()


@DUPLEX
def test_unread_messages_of_a_killed_reader(context, duplex, before):
    reader, writer = ways(context, duplex)
    process = stopped_reader(context, reader)
    reader.close()
    a = sharedmem.ones(1000)
    for i in range(20):
        writer.send([a[i:], a[:i], sharedmem.full(100, i)])
    assert leases() >= before + 20
    kill(process)
    sharedmem.collect()
    assert leases() == before
    writer.close()
    assert (a == 1).all()


@DUPLEX
def test_closing_looks_as_well(context, duplex, before):
    reader, writer = ways(context, duplex)
    process = stopped_reader(context, reader)
    reader.close()
    writer.send(sharedmem.ones(1000))
    kill(process)
    writer.close()
    assert leases() == before


@DUPLEX
def test_the_next_send_looks_as_well(duplex, before):
    context = multiprocessing.get_context("fork")
    reader, writer = ways(context, duplex)
    process = stopped_reader(context, reader)
    reader.close()
    writer.send(sharedmem.ones(1000))
    kill(process)
    ours, theirs = multiprocessing.Pipe()

    def gone():
        theirs.send(sharedmem.ones(10))
        ours.recv()
        return leases() == before

    assert wait_until(gone)
    for end in (writer, ours, theirs):
        end.close()


@needs_64_bit
def test_a_failing_allocation_looks_for_them_as_well(before):
    reader, writer = multiprocessing.Pipe(duplex=False)
    writer.send(sharedmem.ones(1000))
    reader.close()
    with pytest.raises(MemoryError) as error:
        sharedmem.empty(2**62, "u1")
    assert "revoke" not in str(error.value)
    assert leases() == before
    writer.close()


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_queues_that_are_dropped(kind, before):
    context = multiprocessing.get_context("fork")
    queue = getattr(context, kind)()
    for i in range(20):
        queue.put(sharedmem.full(1000, i))
    if kind == "Queue":
        assert wait_until(lambda: leases() == before + 20)
    assert queue.get()[0] == 0
    queue.close()
    if kind == "Queue":
        queue.join_thread()
    del queue
    settle()
    sharedmem.collect()
    assert leases() == before


def test_a_queue_whose_readers_have_other_queues_too(before):
    """Workers inherit ends of queues that they never read: the last one that ends settles the messages."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    first = stopped_reader(context)
    second = stopped_reader(context)
    for i in range(20):
        queue.put(sharedmem.full(1000, i))
    queue.close()
    kill(first)
    sharedmem.collect()
    assert leases() == before + 20
    kill(second)
    sharedmem.collect()
    assert leases() == before


@DUPLEX
def test_a_send_without_a_reader(duplex, before):
    reader, writer = multiprocessing.Pipe(duplex)
    reader.close()
    for _ in range(3):
        with pytest.raises(BrokenPipeError):
            writer.send(sharedmem.ones(1000))
    sharedmem.collect()
    assert leases() == before
    writer.close()


@DUPLEX
def test_bytes_that_were_passed_on(context, duplex, before):
    """The parent does not load them; what it wrote to a reader that died is lost all the same."""
    source, sink = multiprocessing.Pipe(duplex=False)
    reader, writer = ways(context, duplex)
    process = stopped_reader(context, reader)
    reader.close()
    for i in range(5):
        sink.send(sharedmem.full(1000, i))
        writer.send_bytes(source.recv_bytes())
    assert leases() == before + 5
    kill(process)
    sharedmem.collect()
    assert leases() == before
    for end in (source, sink, writer):
        end.close()


@DUPLEX
def test_bytes_that_were_sent_again_and_lost_again(duplex, before):
    for _ in range(3):
        data = dumps(sharedmem.full(1000, 3.0))
        for _ in range(2):
            reader, writer = multiprocessing.Pipe(duplex)
            writer.send_bytes(data)
            reader.close()
            writer.close()
        del data
        sharedmem.collect()
    assert leases() == before


def test_no_process_lingers_for_messages_that_cannot_be_read():
    code = """
    import multiprocessing, os
    import sharedmem
    reader, writer = multiprocessing.Pipe()
    writer.send(sharedmem.ones(1000))
    reader.close()
    print(os.getpid())
    """
    pid = int(check_python(code, SHAREDMEM_LINGER=3 * TIMEOUT))
    assert wait_until(lambda: not segments(pid))


def test_the_limit_of_what_messages_keep():
    code = """
    import sharedmem
    from multiprocessing.reduction import ForkingPickler
    sent = [ForkingPickler.dumps(sharedmem.ones(2**20, "u1")) for _ in range(4)]
    try:
        ForkingPickler.dumps(sharedmem.ones(10))
    except MemoryError as error:
        print(error)
    for message in sent:
        ForkingPickler.loads(message)
    ForkingPickler.dumps(sharedmem.ones(10))
    """
    said = check_python(code, SHAREDMEM_IN_FLIGHT_LIMIT="4MiB")
    assert "SHAREDMEM_IN_FLIGHT_LIMIT" in said
    assert "4 arrays in messages" in said


@pytest.mark.parametrize("mode", ["pipe", "duplex", "queue", "pool", "executor"])
def test_chaos(mode):
    command = [sys.executable, "-m", "tests.chaos_messages", "--minutes=0.05", "--seed=1", f"--mode={mode}"]
    done = subprocess.run(
        command, cwd=os.path.dirname(TESTS), capture_output=True, text=True, timeout=2 * TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("1 passed, 0 failed\n")
