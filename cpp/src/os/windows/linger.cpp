/// Windows: no process can be left behind by fork; who ends waits itself (cpp/src/linger.cpp).
#include "os/lingering.hpp"
#include "os/windows/system.hpp"

namespace sharedmem {

void sleep_ms(unsigned ms) noexcept { ::Sleep(ms); }

void exit_now() noexcept { ::ExitProcess(0); }

}  // namespace sharedmem
