#include <sharedmem/segment.hpp>

#include "os/os.hpp"

namespace sharedmem {

std::size_t sweep_orphans() noexcept { return os::sysv_sweep(); }

}  // namespace sharedmem
