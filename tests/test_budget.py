"""Memory that one arena of a process has promised is not promised again by another one."""

from support import check_python, needs_64_bit

TWO_ARENAS = """
import sharedmem
with open("/proc/meminfo") as file:
    available = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable")) << 10
wanted = int(available * 0.6)
def ask():
    try:
        return sharedmem.empty(wanted, "u1", populate=False)
    except MemoryError as error:
        assert "promised" in str(error), error
sharedmem.ones(3)
"""


@needs_64_bit
def test_lazy_arrays_of_two_arenas_share_the_memory_there_is():
    code = TWO_ARENAS + "kept = ask(); sharedmem.new_arena(); print(kept is None, ask() is None)"
    assert check_python(code) == "False True"


@needs_64_bit
def test_what_the_former_arena_gave_back_can_be_promised_again():
    code = (
        TWO_ARENAS
        + "kept = ask(); sharedmem.new_arena(); del kept; sharedmem.cleanup(); print(ask() is None)"
    )
    assert check_python(code) == "False"
