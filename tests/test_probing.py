"""Probes, by which both ends of a connection find out whether they can use each other's memory."""

import gc
import pickle
import signal
from multiprocessing.reduction import ForkingPickler

import pytest
from parcel_tools import LARGE, leases, no_lease_is_left  # noqa: F401
from support import check_python, in_fork

import sharedmem
from sharedmem._transfers import probing

ANSWER = """
import pickle, sys
from sharedmem._transfers.probing import load_probe
print(load_probe(pickle.loads(bytes.fromhex(sys.argv[1]))) is not None)
"""


def probe_as_text(**changes):
    return pickle.dumps({**probing.make_probe(), **changes}).hex()


@pytest.mark.parametrize("related", [True, False])
def test_a_probe_can_be_loaded_by_processes_in_the_same_place(related):
    assert check_python(ANSWER, probe_as_text(), related=related) == "True"


def test_a_probe_is_not_loaded_in_another_place():
    assert check_python(ANSWER, probe_as_text(place="elsewhere")) == "False"


def test_a_probe_with_other_contents_is_refused():
    with pytest.raises(ValueError, match="does not contain what was written"):
        probing.load_probe({**probing.make_probe(), "content": bytes(64)})


def test_a_probe_whose_memory_cannot_be_attached_is_refused():
    probe = probing.make_probe()
    with pytest.raises(ValueError):
        probing.load_probe({**probe, "handle": probe["handle"][:-20]})


def test_a_probe_of_a_forked_child_is_its_own():
    mine = probing.make_probe()

    def child():
        signal.alarm(30)
        assert probing.make_probe()["content"] != mine["content"]

    assert in_fork(child) == 0
    assert probing.make_probe() == mine
    with probing._lock:  # as another thread may have it
        assert in_fork(child) == 0
    assert sharedmem.is_shared(probing.load_probe(mine))  # and keeps the arena attached


def test_a_probe_that_is_made_while_something_is_pickled_is_a_handle(monkeypatch):
    # Dask may shake hands at any point of the program.
    for around in (sharedmem.pickle_by_value(), pytest.MonkeyPatch.context()):
        monkeypatch.setattr(probing, "_known", None)
        with around:
            assert probing.load_probe(probing.make_probe()) is not None

    class Asking:
        def __reduce__(self):
            return dict, (), None, None, iter(probing.make_probe().items())

    monkeypatch.setattr(probing, "_known", None)
    with sharedmem.pickle_by_value():
        probing.make_probe()
        assert len(pickle.dumps(sharedmem.ones(LARGE, "u1"))) > LARGE  # the setting outside is unchanged

    before = leases()
    monkeypatch.setattr(probing, "_known", None)
    message = ForkingPickler.dumps([Asking(), sharedmem.ones(10)])
    assert leases() == before + 1  # that of the array, which is kept by its message
    probe, array = pickle.loads(message)
    assert array.sum() == 10
    assert probing.load_probe(probe) is not None
    assert probing.load_probe(probe) is not None  # any number of times: its lease belongs to no message
    assert leases() <= before  # those of earlier tests may end meanwhile


def test_in_another_place_another_probe_is_made(monkeypatch):
    mine = probing.make_probe()
    monkeypatch.setattr(sharedmem, "place", lambda: "elsewhere")
    other = probing.make_probe()
    assert (other["place"], probing.make_probe()) == ("elsewhere", other)
    assert other["content"] != mine["content"]
    monkeypatch.undo()
    assert probing.load_probe(other) is None
    gc.collect()
    assert probing.load_probe(probing.make_probe()) is not None


def test_probes_take_no_leases():
    before = leases()
    for _ in range(3):
        assert probing.load_probe(probing.make_probe()) is not None
    assert leases() <= before  # those of earlier tests may end meanwhile
