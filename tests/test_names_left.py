"""Arenas of names are left with the last thing held in them, once another namespace was used."""

import support
from naming import ended, own_names, program  # noqa: F401

#: What the programs below count: System V segments in their memory map, and those that they made.
COUNTS = """
import gc, threading
GROUP = f"left {os.getpid()}"

def ask_in(group):
    os.environ["SHAREDMEM_NAMESPACE"] = f"{GROUP} {group}"

def mapped():
    with open("/proc/self/maps") as lines:
        return sum("/SYSV" in line for line in lines)

def own_segments():
    with open("/proc/sysvipc/shm") as rows:
        return sum(row.split()[4] == str(os.getpid()) for row in rows)

def counts():
    gc.collect()
    return mapped(), own_segments()

def at_first():
    ask_in("first")
    sharedmem.create("x", 1)
    return counts()

sharedmem.zeros(1)
alone = counts()
before = at_first()

def check_that_all_is_left():
    ask_in("nobody has names there")
    assert sharedmem.names() == []
    assert counts() == alone, (counts(), alone)
    assert at_first() == before, (counts(), before)
"""


def check(code):
    """Runs a program that prints nothing if all is well."""
    with program(COUNTS + code) as process:
        assert ended(process) == ""


def test_hundreds_of_groups_one_after_the_other():
    check("""
for i in range(300):
    ask_in(i)
    a = sharedmem.create("a", 1000)
    a[:] = i
    b = sharedmem.get_or_create("b", lambda: np.full(10, i))
    lock = sharedmem.RLock(name="lock")
    with lock:
        assert sharedmem.attach("a", readonly=True)[-1] == i == b[0]
    assert len(sharedmem.names()) == 3
    try:
        sharedmem.get_or_create("c", lambda: 1 / 0)
    except ZeroDivisionError:
        pass
    del a, b, lock
    assert mapped() <= before[0] + 2, (i, mapped())
check_that_all_is_left()
""")


def test_what_is_held_in_one_group_stays_while_names_of_another_are_used():
    check("""
ask_in("second")
a = sharedmem.create("a", 1000)
kept = [a[5:8], sharedmem.readonly(a)[900:], memoryview(a)[3:]]
for i in range(3):
    ask_in(i)
    b = sharedmem.create("a", 10)
    a[:] = i
    del b
ask_in("first")
assert sharedmem.names() == []
del a
while kept:
    assert counts() != alone
    assert sharedmem.is_shared(np.asarray(kept[-1]))
    kept.pop()
assert counts() == alone, (counts(), alone)
""")


def test_a_function_that_builds_may_use_names_of_another_group():
    check("""
def build():
    made = np.full(1000, 3.0), sharedmem.full(1000, 4.0)
    ask_in("second")
    other = sharedmem.get_or_create("a", lambda: sharedmem.full(1000, 5.0))
    assert other[0] == 5 and sharedmem.is_shared(other)
    more = sharedmem.full(1000, 6.0)
    return made[1] if number % 2 else more

for number in range(50):
    ask_in("third")
    a = sharedmem.get_or_create("a", build)
    assert a[0] == (4 if number % 2 else 6)
    assert sharedmem.names() == []      # of the second group
    ask_in("third")
    assert [each.name for each in sharedmem.names()] == ["a"]
    del a
check_that_all_is_left()
""")


def test_forks_in_the_middle():
    check("""
def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0

def work():
    assert (a == 7).all() and sharedmem.is_shared(a)
    ask_in("third")
    b = sharedmem.create("b", 10)
    ask_in("second")
    assert (sharedmem.attach("a") == 7).all()

def build():
    def returns():
        assert sharedmem.full(3, 8.0)[0] == 8
        ask_in("third")
        assert sharedmem.names() == []
    child(returns)
    return sharedmem.full(1000, 7.0)

ask_in("second")
a = sharedmem.get_or_create("a", build, readonly=False)
child(work)
ask_in("first")
sharedmem.names()
child(work)
del a
assert counts() == alone, (counts(), alone)

def last():
    assert mapped() == alone[0]
    assert at_first()[0] == before[0]

child(last)
""")


def test_a_child_that_returns_from_its_parents_building_after_it_has_left_the_arena():
    check("""
def build():
    ask_in("second")
    sharedmem.names()
    if (pid := os.fork()) != 0:
        assert os.waitpid(pid, 0)[1] == 0
        return np.ones(3)
    ask_in("third")
    sharedmem.create("x", 3)
    return np.zeros(3)

caller = os.getpid()
try:
    a = sharedmem.get_or_create("a", build)
except BaseException as error:
    if os.getpid() == caller:
        raise
    os._exit(0 if isinstance(error, RuntimeError) else 1)
if os.getpid() != caller:
    os._exit(1)
assert a[0] == 1
del a
check_that_all_is_left()
""")


def test_threads_that_look_up_while_another_thread_changes_the_group():
    check("""
ask_in("second")
kept = sharedmem.create("kept", 1000)
kept[:] = 3
ask_in("first")
stop, wrong = threading.Event(), []

def change():
    for i in range(400):
        ask_in(("first", "second", "third")[i % 3])
        sharedmem.names()
    stop.set()

def look():
    while not stop.is_set():
        try:
            a = sharedmem.attach("kept")
            if a[0] != 3 or not sharedmem.is_shared(a):
                wrong.append(a)
            b = sharedmem.get_or_create("built", lambda: sharedmem.full(1000, 5.0))
            if b[0] != 5 or not sharedmem.is_shared(b):
                wrong.append(b)
            sharedmem.create("unlinked", 10)
            sharedmem.unlink("unlinked")
        except (FileNotFoundError, FileExistsError):
            pass

threads = [threading.Thread(target=f) for f in (change, look, look, look)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not wrong
ask_in("second")
assert (sharedmem.attach("kept") == 3).all()
del kept
check_that_all_is_left()
""")


def test_the_namespace_does_not_matter_to_what_is_sent():
    """An array of another group's arena is loaded and dropped like any foreign array."""
    with support.Remote("unrelated") as remote:
        remote.call(hold_named)
        handle = remote.call(handle_of_named)
        check(f"""
import pickle
for i in range(20):
    a = pickle.loads({handle!r})
    assert a[0] == 4
    ask_in(i)
    b = sharedmem.create("x", 3)
    del a, b
check_that_all_is_left()
""")


def hold_named():
    import os

    import sharedmem

    os.environ["SHAREDMEM_NAMESPACE"] = f"of another {os.getpid()}"
    hold_named.array = sharedmem.create("named", 1000)
    hold_named.array[:] = 4


def handle_of_named():
    return support.dumps(hold_named.array)
