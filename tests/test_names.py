"""Arrays by name: created, attached and unlinked by unrelated processes."""

import errno
import multiprocessing
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest
import support
from naming import ended, killed, own_names, program, said  # noqa: F401

import sharedmem

HOLD = "a = sharedmem.create(sys.argv[1], 1000); a[:] = 7; print('made', flush=True); sys.stdin.read()"


@pytest.mark.parametrize(
    "dtype",
    ["f8", ">i4", "S5", "U3", "?", "c16", "M8[us]", "V3", [("a", "<i4"), ("b", ">f8", (2,)), ("s", "S3")]],
    ids=str,
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_stranger_finds_the_same_array(dtype, order):
    a = sharedmem.create("seen by others", (3, 4), dtype, order)
    a[1, 2] = np.ones(1, a.dtype)[0]
    code = (
        "import pickle\n"
        "a = sharedmem.attach('seen by others')\n"
        "print(pickle.dumps((a.dtype, a.shape, a.strides, a.tobytes(), sharedmem.is_shared(a))).hex())"
    )
    with program(code) as other:
        dtype_there, shape, strides, data, shared = pickle.loads(bytes.fromhex(ended(other)))
    assert dtype_there == a.dtype
    assert (shape, strides, data, shared) == (a.shape, a.strides, a.tobytes(), True)


def test_writes_are_seen_both_ways_at_once():
    a = sharedmem.create("both ways", 3)
    with program(
        "b = sharedmem.attach('both ways'); b[0] = 1; print('there', flush=True)\n"
        "sys.stdin.readline(); print(b[1])"
    ) as other:
        said(other)
        assert a[0] == 1
        a[1] = 5
        assert ended_after_line(other) == "5.0"


def ended_after_line(process):
    output, errors = process.communicate("\n", timeout=60)
    assert process.returncode == 0, errors
    return output.strip()


def test_a_name_disappears_with_the_last_holder_of_its_array():
    with program(HOLD, "goes") as maker:
        said(maker)
        a = sharedmem.attach("goes")
        killed(maker)
    assert (a == 7).all()
    assert (sharedmem.attach("goes") == 7).all()
    del a
    assert sharedmem.names() == []
    with pytest.raises(FileNotFoundError):
        sharedmem.attach("goes")
    assert len(sharedmem.create("goes", 5)) == 5


def test_everybody_is_killed_and_nothing_is_left():
    namespace = {"SHAREDMEM_NAMESPACE": f"all are killed {os.getpid()}"}
    before = segment_count()
    programs = [
        program(HOLD, "a"),
        program("a = sharedmem.attach('a', timeout=60); print('x', flush=True); sys.stdin.read()"),
    ]
    old = os.environ["SHAREDMEM_NAMESPACE"]
    kept = sharedmem.create("keeps the arena of the other tests attached", 1)
    os.environ.update(namespace)
    try:
        with programs[0] as maker, programs[1] as other:
            said(maker)
            said(other)
            killed(maker)
            killed(other)
        support.wait_until(lambda: segment_count() <= before)
        assert sharedmem.names() == []
    finally:
        os.environ["SHAREDMEM_NAMESPACE"] = old
    assert len(sharedmem.names()) == len(kept)


def segment_count():
    with open("/proc/sysvipc/shm") as table:
        return len(table.readlines())


def test_a_message_in_flight_keeps_the_name():
    a = sharedmem.create("in flight", 3)
    a[:] = 4
    message = support.dumps(a)
    del a
    assert (sharedmem.attach("in flight") == 4).all()
    pickle.loads(message)
    assert sharedmem.names() == []


def test_what_is_named_can_be_sent_like_any_other_array():
    a = sharedmem.create("sent", 100)
    with support.Remote("spawn") as other:
        other.call(support_fill, a, 3)
    assert (a == 3).all()


def support_fill(a, value):
    a[:] = value


def test_one_of_many_that_create_a_name_at_once_succeeds():
    code = (
        "sys.stdin.readline()\n"
        "for i in range(30):\n"
        "    try:\n"
        "        a = sharedmem.create(f'race {i}', 10); a[:] = os.getpid()\n"
        "        keep = globals().setdefault('keep', []); keep.append(a); print('won', i, flush=True)\n"
        "    except FileExistsError:\n"
        "        print('lost', i, flush=True)\n"
        "print('done', flush=True); sys.stdin.read()"
    )
    opened = [program(code) for _ in range(4)]
    all_of_them = [each.__enter__() for each in opened]
    try:
        for each in all_of_them:
            each.stdin.write("\n")
            each.stdin.flush()
        won = dict.fromkeys(range(30), 0)
        for each in all_of_them:
            while (line := said(each)) != "done":
                won[int(line.split()[1])] += line.startswith("won")
        assert set(won.values()) == {1}
        assert len(sharedmem.names()) == 30
    finally:
        for each in opened:
            each.__exit__(None, None, None)
    support.wait_until(lambda: sharedmem.names() == [])


def test_processes_that_have_the_array_keep_it_after_unlink():
    a = sharedmem.create("unlinked", 3)
    b = sharedmem.attach("unlinked")
    sharedmem.unlink("unlinked")
    c = sharedmem.create("unlinked", 4)
    a[0] = 5
    assert b[0] == 5
    assert (c == 0).all()
    sharedmem.unlink("unlinked")
    with pytest.raises(FileNotFoundError, match="no array of that name: 'unlinked'"):
        sharedmem.unlink("unlinked")
    assert sharedmem.unlink("unlinked", missing_ok=True) is None


def test_a_name_that_is_bound_is_refused_with_what_it_stands_for():
    a = sharedmem.create("bound", (3, 4), "i2")
    with pytest.raises(FileExistsError, match=r"bound to int16 \(3, 4\) since \d+\.\d s: 'bound'") as refused:
        sharedmem.create("bound", 3)
    assert refused.value.errno == errno.EEXIST
    assert refused.value.filename == "bound"
    assert len(sharedmem.names()) == 1
    del a


def test_attach_waits_for_a_name():
    made = []

    def make():
        time.sleep(0.2)
        made.append(sharedmem.create("later", 3))

    thread = threading.Thread(target=make)
    thread.start()
    try:
        assert len(sharedmem.attach("later", timeout=60)) == 3
        assert len(sharedmem.attach("later", timeout=None)) == 3
    finally:
        thread.join()


def test_attach_waits_no_longer_than_its_timeout():
    began = time.monotonic()
    with pytest.raises(FileNotFoundError) as refused:
        sharedmem.attach("never", timeout=0.25)
    assert time.monotonic() - began >= 0.25
    assert refused.value.errno == errno.ENOENT


def test_attach_hears_control_c():
    code = """
import threading, workers
threading.Timer(0.3, workers.interrupt).start()
sharedmem.attach('never', timeout=None)
"""
    with program(code) as other:
        assert "KeyboardInterrupt" in other.communicate(timeout=60)[1]


@pytest.mark.parametrize("name", [None, 5, b"bytes"])
def test_names_that_are_not_str(name):
    for call in (
        lambda: sharedmem.create(name, 3),
        lambda: sharedmem.attach(name),
        lambda: sharedmem.unlink(name),
    ):
        with pytest.raises(TypeError, match="a name is a str"):
            call()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("é" * 128, "255 bytes of UTF-8, this one has 256"),
        ("a\0b", "null"),
        ("a\udcff", r"a name must be text.*character 1 of 'a\\udcff' is none"),
    ],
)
def test_a_name_that_means_nothing(name, why):
    for call in (
        lambda: sharedmem.create(name, 3),
        lambda: sharedmem.attach(name),
        lambda: sharedmem.unlink(name),
    ):
        with pytest.raises(ValueError, match=why):
            call()


def test_names_of_all_lengths_and_characters():
    given = ["x" * length for length in (1, 7, 8, 9, 254, 255)] + ["shop/prices-v3", "é" * 127, " ", "日本"]
    kept = [sharedmem.create(name, i + 1) for i, name in enumerate(given)]
    assert [len(sharedmem.attach(name)) for name in given] == [len(a) for a in kept]
    assert sorted(info.name for info in sharedmem.names()) == sorted(given)


def test_what_is_refused_leaves_no_name():
    with pytest.raises(TypeError, match="pointers"):
        sharedmem.create("objects", 3, object)
    with pytest.raises(ValueError, match="negative"):
        sharedmem.create("negative", -1)
    with pytest.raises(MemoryError):
        sharedmem.create("too large", 1 << 55)
    with pytest.raises(ValueError, match=r"description of the dtype has \d+ bytes"):
        sharedmem.create("fields", 3, [(f"field {i}", "f8") for i in range(200)])
    for timeout in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            sharedmem.attach("x", timeout=timeout)
    assert sharedmem.names() == []


def test_arrays_without_bytes_have_names():
    a = sharedmem.create("empty", (0, 3), "i2")
    b = sharedmem.attach("empty")
    assert (b.shape, b.dtype) == (a.shape, a.dtype)


def test_what_names_reports():
    a = sharedmem.create("told", (2, 3), "f4")
    with program("b = sharedmem.attach('told'); print('x', flush=True); sys.stdin.read()") as other:
        said(other)
        (info,) = sharedmem.names()
        assert (info.name, info.state, info.shape, info.dtype, info.nbytes) == (
            "told",
            "ready",
            (2, 3),
            a.dtype,
            24,
        )
        assert info.pid == os.getpid()
        assert info.seconds >= 0
        assert sorted(info.processes) == sorted([os.getpid(), other.pid])
        with pytest.raises(AttributeError):
            info.name = "other"


def test_namespaces_have_names_of_their_own():
    a = sharedmem.create("in two", 3)
    code = (
        "before = len(sharedmem.names()); a = sharedmem.create('in two', 4)\n"
        "print(before, sharedmem.names()[0].shape)"
    )
    with program(code, SHAREDMEM_NAMESPACE=f"another {os.getpid()}") as other:
        assert ended(other).strip() == "0 (4,)"
    assert [info.shape for info in sharedmem.names()] == [a.shape]


def test_a_forked_child_has_names():
    a = sharedmem.create("forked", 3)

    def child():
        b = sharedmem.attach("forked")
        b[:] = 6
        sharedmem.create("of the child", 2)
        return 0

    support.in_fork(child)
    assert (a == 6).all()
    assert [info.name for info in sharedmem.names()] == ["forked"]


def test_the_first_array_that_a_process_gets_by_name_does_not_decide_its_home():
    a = sharedmem.create("no home", 3)
    code = (
        "a = sharedmem.attach('no home'); b = sharedmem.zeros(3)\n"
        "print(sharedmem.stats()['attached_arenas'])\n"
    )
    with program(code) as other:
        assert ended(other).strip() == "2"
    del a


def test_threads_create_and_attach_at_once():
    wrong = []

    def work(number):
        for i in range(100):
            name = f"thread {number % 2} {i}"
            try:
                a = sharedmem.create(name, 8)
            except FileExistsError:
                try:
                    a = sharedmem.attach(name)
                except FileNotFoundError:
                    continue
            if a.shape != (8,):
                wrong.append(a.shape)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sharedmem.names() == []


def test_a_read_only_array_cannot_be_written():
    a = sharedmem.create("read only", 3)
    b = sharedmem.attach("read only", readonly=True)
    with pytest.raises(ValueError, match="read-only"):
        b[0] = 1
    a[0] = 2
    assert b[0] == 2


def test_the_kernel_keeps_a_read_only_array_from_being_written():
    a = sharedmem.create("protected", 3)
    code = (
        "import ctypes\n"
        "b = sharedmem.attach('protected', readonly=True)\n"
        "for how in ('b[0] = 1', 'b.flags.writeable = True', 'b.setflags(write=True)'):\n"
        "    try: exec(how)\n"
        "    except ValueError: pass\n"
        "    else: sys.exit(how)\n"
        "print('not written', flush=True)\n"
        "ctypes.memset(b.ctypes.data, 1, 8)\n"
    )
    with program(code) as other:
        assert said(other) == "not written"
        assert other.wait(60) == -signal.SIGSEGV
    assert (a == 0).all()


def build_for_ever(conn):
    def build():
        conn.send(None)
        time.sleep(support.TIMEOUT)

    sharedmem.get_or_create("killed", build)


@pytest.mark.parametrize("what", ["create", "attach", "unlink"])
def test_a_builder_that_was_killed_is_not_in_the_way(what):
    context = multiprocessing.get_context(support.QUICKEST)
    ours, theirs = context.Pipe()
    keeper = sharedmem.create("keeper", 3)  # the arena of names outlives the builder
    process = context.Process(target=build_for_ever, args=(theirs,), daemon=True)
    process.start()
    ours.recv()
    process.kill()
    process.join()
    if what == "create":
        assert sharedmem.create("killed", 3).sum() == 0
    else:
        with pytest.raises(FileNotFoundError, match="there is no array of that name"):
            getattr(sharedmem, what)("killed")
    assert keeper.sum() == 0
