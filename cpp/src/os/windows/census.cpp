/// Windows: there is no kernel object that tells how many processes have it. A census is not needed either: without fork,
/// every process of an arena has a slot.
#include "os/census.hpp"

#include <cerrno>
#include <utility>

#include <sharedmem/error.hpp>

namespace sharedmem {

census::census(census&& other) noexcept { *this = std::move(other); }
census& census::operator=(census&& other) noexcept {
  base_ = std::exchange(other.base_, nullptr);
  id_ = std::exchange(other.id_, -1);
  return *this;
}
census::~census() = default;

census census::create() {
  throw error(ENOSYS, "make a census", "Windows does not tell how many processes have a section");
}
census census::attach(std::int32_t) {
  throw stale_handle("a census: Windows has none, so that this arena is one of another system");
}
int census::processes() const { return 0; }

}  // namespace sharedmem
