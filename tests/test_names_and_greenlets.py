"""Names and greenlets, which take turns within one thread: one of them cannot wait for another."""

import numpy as np
import pytest
from naming import own_names  # noqa: F401

import sharedmem


def test_a_greenlet_that_would_wait_for_another_one_of_its_thread():
    """It would never run again: the thread sleeps as a whole."""
    greenlet = pytest.importorskip("greenlet")
    main = greenlet.getcurrent()

    def build():
        main.switch()
        return np.ones(3)

    builder = greenlet.greenlet(lambda: sharedmem.get_or_create("of greenlets", build))
    builder.switch()
    with pytest.raises(RuntimeError, match="another greenlet"):
        sharedmem.get_or_create("of greenlets", lambda: np.zeros(3), timeout=60)
    assert [info.state for info in sharedmem.names()] == ["building"]
    assert builder.switch().sum() == 3


def test_greenlets_that_have_each_a_threading_local_of_their_own(python):
    """As gevent's patches give them."""
    pytest.importorskip("gevent")
    code = """
    from gevent import monkey
    monkey.patch_all()
    import gevent, sharedmem

    def build():
        gevent.sleep(0.1)
        return [1.0]

    def ask():
        try:
            return str(sharedmem.get_or_create("of gevent", build, timeout=60))
        except RuntimeError:
            return "refused"

    print([each.get() for each in [gevent.spawn(ask), gevent.spawn(ask)]])
    """
    assert python(code) == "['[1.]', 'refused']"
