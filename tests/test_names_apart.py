"""Who sees a name: other users, namespaces of the system, and processes without System V memory."""

import support
from naming import own_names  # noqa: F401
from support import needs_root
from test_users import BECOME

import sharedmem

LOOK = "import sharedmem; print([info.name for info in sharedmem.names()])"


@needs_root
def test_another_user_sees_no_name():
    a = sharedmem.create("mine", 3)
    code = (
        "import sharedmem; sharedmem.create, sharedmem.names\n"
        + BECOME
        + """
print([info.name for info in sharedmem.names()])
a = sharedmem.create("mine", 5)
print([info.shape for info in sharedmem.names()])
"""
    )
    assert support.check_python(code).splitlines() == ["[]", "[(5,)]"]
    assert [info.shape for info in sharedmem.names()] == [a.shape]


@needs_root
def test_a_process_that_becomes_another_user_has_that_users_names():
    code = (
        """
import os, sharedmem
a = sharedmem.create("of the first", 3)
b = sharedmem.get_or_create("of both", lambda: 1)
"""
        + BECOME.replace("import numpy, sharedmem\n", "import numpy\n")
        + """
print([info.name for info in sharedmem.names()])
c = sharedmem.create("of the first", 4)
a[0] = 7
print(a[0], [info.shape for info in sharedmem.names()])
"""
    )
    assert support.check_python(code).splitlines() == ["[]", "7.0 [(4,)]"]


def test_an_ipc_namespace_has_names_of_its_own():
    support.needs_namespaces("--ipc")
    a = sharedmem.create("outside", 3)
    assert support.check_python(LOOK, prefix=("unshare", "--ipc")) == "[]"
    del a


def test_a_pid_namespace_has_the_same_names():
    support.needs_namespaces("--pid", "--fork", "--mount-proc")
    a = sharedmem.create("everywhere", 3)
    code = "import sharedmem; a = sharedmem.attach('everywhere'); a[:] = 4"
    assert support.check_python(code, prefix=("unshare", "--pid", "--fork", "--mount-proc")) == ""
    assert (a == 4).all()


@needs_root
def test_without_system_v_memory_the_error_gives_that_reason():
    support.needs_namespaces("--ipc")
    # No segment may be made there, as in a sandbox that forbids them.
    code = """
import sharedmem
try:
    sharedmem.create("x", 3)
except OSError as error:
    print("kernel.shmmni" in str(error) or "names" in str(error))
print(sharedmem.zeros(3).sum())
"""
    shell = "echo 0 > /proc/sys/kernel/shmmni"
    printed = support.check_python(code, prefix=("unshare", "--ipc"), shell=shell)
    assert printed.splitlines() == ["True", "0.0"]
