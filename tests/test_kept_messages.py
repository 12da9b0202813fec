"""Messages whose bytes a process has, or may have, keep their arrays."""

import multiprocessing
import os
import pickle
import select
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler

import pytest
from lost import DUPLEX, kill, leases, leases_before, ways
from support import TIMEOUT, dumps, join, reap, settle

import sharedmem
from sharedmem import StaleHandleError

pytestmark = pytest.mark.needs_linux  # Windows does not tell what is in a pipe, nor that its reader has died


@pytest.fixture(autouse=True)
def before():
    return leases_before()


@DUPLEX
def test_bytes_read_in_this_process(duplex):
    reader, writer = multiprocessing.Pipe(duplex)
    writer.send(sharedmem.full(1000, 1.0))
    writer.send(sharedmem.full(1000, 2.0))
    data = reader.recv_bytes()
    reader.close()
    sharedmem.collect()
    writer.close()
    sharedmem.collect()
    assert pickle.loads(data).sum() == 1000


@DUPLEX
def test_bytes_that_are_sent_again(duplex):
    """The sender keeps them for the case that their reader dies."""
    reader, writer = multiprocessing.Pipe(duplex)
    data = dumps(sharedmem.full(1000, 3.0))
    writer.send_bytes(data)
    reader.close()
    for _ in range(3):
        sharedmem.collect()
        with pytest.raises(BrokenPipeError):
            writer.send_bytes(data)
    writer.close()
    sharedmem.collect()
    reader, writer = multiprocessing.Pipe(duplex)
    writer.send_bytes(data)
    assert reader.recv().sum() == 3000
    reader.close()
    writer.close()


@DUPLEX
def test_copies_of_one_message(duplex):
    """Sent to two: the first one dies, the other one reads."""
    data = dumps(sharedmem.full(1000, 4.0))
    first, second = multiprocessing.Pipe(duplex), multiprocessing.Pipe(duplex)
    first[1].send_bytes(data)
    second[1].send_bytes(data)
    del data
    first[0].close()
    sharedmem.collect()
    first[1].close()
    assert second[0].recv().sum() == 4000
    for end in second:
        end.close()


def relay_by_library(reader, writer):
    writer.send_bytes(reader.recv_bytes())
    time.sleep(600)


def relay_by_descriptor(reader, writer):
    source, sink = reader.fileno(), writer.fileno()
    size = os.read(source, 4)
    os.write(sink, size + os.read(source, int.from_bytes(size, "big")))
    time.sleep(600)


@DUPLEX
@pytest.mark.parametrize("relay", [relay_by_library, relay_by_descriptor])
def test_a_message_that_a_killed_process_passed_on(context, relay, duplex, before):
    reader, writer = ways(context, duplex)
    source, sink = ways(context, duplex)
    process = context.Process(target=relay, args=(reader, sink), daemon=True)
    process.start()
    reader.close()
    sink.close()
    for i in range(3):
        writer.send(sharedmem.full(1000, float(i + 1)))
    assert source.poll(TIMEOUT)
    kill(process)
    sharedmem.collect()
    writer.close()
    sharedmem.collect()
    assert source.recv().sum() == 1000
    source.close()
    settle()
    if relay is relay_by_library or not duplex:
        sharedmem.collect(leases=True)
        assert leases() == before
    else:
        assert leases() == before + 2  # a socket does not tell that these were not read
        sharedmem.revoke(0)


PROGRAM = """
import os, sys
assert "sharedmem" not in sys.modules
source, sink = map(int, sys.argv[1:])
size = os.read(source, 4)
os.write(sink, size + os.read(source, int.from_bytes(size, "big")))
os.close(sink)
sys.stdin.read()
"""


@DUPLEX
def test_a_message_that_another_program_passed_on(duplex, before):
    reader, writer = multiprocessing.Pipe(duplex)
    source, sink = multiprocessing.Pipe(duplex)
    ends = reader.fileno(), sink.fileno()
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, *map(str, ends)]
    with subprocess.Popen(command, pass_fds=ends, stdin=subprocess.PIPE) as program:
        reader.close()
        sink.close()
        for i in range(3):
            writer.send(sharedmem.full(1000, float(i + 1)))
        assert source.poll(TIMEOUT)
        program.kill()
    sharedmem.collect()
    writer.close()
    sharedmem.collect()
    assert leases() == before + (3 if duplex else 1)
    assert source.recv().sum() == 1000
    source.close()
    sharedmem.revoke(0)


@DUPLEX
def test_a_reader_that_lives_and_does_not_read(context, duplex, before):
    reader, writer = ways(context, duplex)
    told = context.Event()
    process = context.Process(target=answer_when_told, args=(reader, writer, told), daemon=True)
    process.start()
    reader.close()
    writer.send(sharedmem.full(1000, 5.0))
    for _ in range(3):
        sharedmem.collect()
        time.sleep(0.11)
    assert leases() == before + 1
    told.set()
    assert join(process) == [0]
    writer.close()


def answer_when_told(reader, _, told):
    assert told.wait(TIMEOUT)
    assert reader.recv().sum() == 5000


@DUPLEX
def test_the_messages_of_a_parent_are_not_its_childs(duplex, before):
    reader, writer = multiprocessing.Pipe(duplex)
    writer.send(sharedmem.full(1000, 6.0))
    child = os.fork()
    if child == 0:
        reader.close()
        writer.close()
        sharedmem.collect()
        os._exit(0)
    assert reap(child) == 0
    assert leases() == before + 1
    assert reader.recv().sum() == 6000
    reader.close()
    writer.close()


def test_a_reader_on_its_way_to_another_process():
    """Its descriptor is in a message of a socket, and no other process has it open."""
    import socket

    reader, writer = multiprocessing.Pipe(duplex=False)
    writer.send(sharedmem.full(1000, 7.0))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [reader.fileno()])
        reader.close()
        sharedmem.collect()
        _, (descriptor,), _, _ = socket.recv_fds(theirs, 1, 1)
    reader = multiprocessing.connection.Connection(descriptor, writable=False)
    sharedmem.collect()
    assert reader.recv().sum() == 7000
    reader.close()
    writer.close()


def test_a_message_that_is_read_and_not_loaded(before):
    """Its reader is responsible for it, and is dead."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe()
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=read_and_sleep, args=(reader, tell), daemon=True)
    process.start()
    writer.send(sharedmem.ones(1000))
    assert told.recv() == "read"
    assert [p["leases"] for p in sharedmem.participants() if p["pid"] == process.pid] == [1]
    kill(process)
    sharedmem.collect()
    assert leases() == before + 1
    sharedmem.collect(leases=True)
    assert leases() == before
    for end in (reader, writer, told, tell):
        end.close()


def read_and_sleep(reader, tell):
    data = reader.recv_bytes()
    tell.send("read")
    time.sleep(600)
    del data


def test_large_messages(before):
    """Handles among other data."""
    reader, writer = multiprocessing.Pipe()
    arrays = [sharedmem.full(10, i) for i in range(300)]
    writer.send([b"x" * 1000, arrays])
    message = reader.recv_bytes()
    reader.close()
    del arrays
    sharedmem.collect()
    assert [a[0] for a in ForkingPickler.loads(message)[1]] == list(range(300))
    settle()
    sharedmem.collect()
    assert leases() == before
    with pytest.raises(StaleHandleError):
        ForkingPickler.loads(message)
    writer.close()


def test_selectors_and_poll_do_not_count_as_other_readers(before):
    reader, writer = multiprocessing.Pipe()
    assert not reader.poll(0)
    multiprocessing.connection.wait([reader], 0)
    writer.send(sharedmem.ones(10))
    reader.close()
    writer.close()
    assert leases() == before
    reader, writer = multiprocessing.Pipe()
    select.select([reader], [], [], 0)  # may read it, too
    writer.send(sharedmem.ones(10))
    reader.close()
    writer.close()
    assert leases() == before + 1
    sharedmem.revoke(0)
