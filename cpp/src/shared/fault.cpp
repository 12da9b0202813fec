#include "shared/fault.hpp"

#include "os/machine.hpp"

#include <array>

#ifdef SHAREDMEM_FAULT_POINTS
#include <atomic>
#include <cstdlib>
#include <cstring>
#endif

namespace sharedmem {
namespace {

constexpr std::array names = {
#define SHAREDMEM_POINT(name) #name,
    SHAREDMEM_POINTS(SHAREDMEM_POINT)
#undef SHAREDMEM_POINT
};

}  // namespace

const char* point_name(unsigned index) noexcept { return index < names.size() ? names[index] : nullptr; }

#ifdef SHAREDMEM_FAULT_POINTS
void pass(point where) noexcept {
  const char* wish = std::getenv("SHAREDMEM_FAULT");
  if (wish == nullptr) return;
  const char* name = names[static_cast<unsigned>(where)];
  const std::size_t length = std::strlen(name);
  if (std::strncmp(wish, name, length) != 0 || wish[length] != ':') return;
  static std::atomic<long> passed{0};
  if (passed.fetch_add(1) + 1 != std::atol(wish + length + 1)) return;
  if (std::strstr(wish, ":stop") != nullptr)
    os::stop();
  else
    os::die();
}
#endif

}  // namespace sharedmem
