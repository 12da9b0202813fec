/// Windows: without fork, no process can stay behind to keep an arena. The process that ends waits itself
/// (cpp/src/linger.cpp).
#include "os/lingering.hpp"
#include "os/windows/system.hpp"

namespace sharedmem {

void sleep_ms(unsigned ms) noexcept { ::Sleep(ms); }

void exit_now() noexcept { ::ExitProcess(0); }

}  // namespace sharedmem
