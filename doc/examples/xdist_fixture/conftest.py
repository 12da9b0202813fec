"""A fixture that all workers of pytest-xdist share."""

import pytest

import sharedmem


def read_table():
    """What takes long: once for each run of the tests, not once for each worker."""
    return sharedmem.ones((1000, 50))


@pytest.fixture(scope="session")
def table(request):
    # The same in all workers of one run, another one in another run; without xdist there is none.
    run = getattr(request.config, "workerinput", {}).get("testrunuid", "alone")
    return sharedmem.get_or_create(f"xdist-fixture-table-{run}", read_table)
