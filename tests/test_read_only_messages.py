"""Plain views of read-only shared arrays in objects that are shared, and in messages of one's own."""

import pickle

import numpy as np
import pytest
from support import dumps

import sharedmem


def sent(obj):
    return sharedmem.loads(sharedmem.dumps(obj))


@pytest.mark.parametrize("passed_on", [sharedmem.share, sent])
@pytest.mark.parametrize("part", [slice(None), slice(3, 9), slice(None, None, -2)])
def test_plain_views_of_a_read_only_array_are_shared_and_stay_read_only(passed_on, part):
    a = sharedmem.array(np.arange(1000.0))
    plain = np.asarray(sharedmem.readonly(a))[part]
    got = passed_on({"view": plain, "private": np.ones(4)})
    view = got["view"]
    np.testing.assert_array_equal(view, plain)
    np.testing.assert_array_equal(got["private"], np.ones(4))
    assert type(view) is np.ndarray
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    a += 1
    np.testing.assert_array_equal(view, a[part])  # the same memory


def test_views_of_both_mappings_of_a_block_keep_what_each_allows():
    a = sharedmem.array(np.arange(100.0))
    got = sent([np.asarray(a), np.asarray(sharedmem.readonly(a))])
    got[0][5] = -1.0
    assert a[5] == got[1][5] == -1.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        got[1].flags.writeable = True


def test_a_shared_object_over_a_read_only_array_travels_by_multiprocessing():
    a = sharedmem.array(np.arange(100.0))
    shared = sharedmem.share([np.asarray(sharedmem.readonly(a))])
    got = pickle.loads(dumps(shared))[0]
    np.testing.assert_array_equal(got, a)
    assert not got.flags.writeable
