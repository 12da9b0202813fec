#include "os/census.hpp"

#include <cerrno>
#include <climits>
#include <cstring>
#include <string>
#include <utility>

#include <sharedmem/error.hpp>

#include "os/linux/sysv.hpp"
#include "os/pages.hpp"

namespace sharedmem {
namespace {

os::sysv_status check(std::int32_t id) {
  const os::sysv_status status = os::check_sysv(id);
  if (status.bytes != os::page_size())
    throw stale_handle("segment " + std::to_string(id) + " is not a census: it has " +
                       std::to_string(status.bytes) + " bytes");
  return status;
}

}  // namespace

census::census(census&& other) noexcept
    : base_{std::exchange(other.base_, nullptr)}, id_{std::exchange(other.id_, -1)} {}

census& census::operator=(census&& other) noexcept {
  if (this != &other) {
    reset();
    base_ = std::exchange(other.base_, nullptr);
    id_ = std::exchange(other.id_, -1);
  }
  return *this;
}

census::~census() { reset(); }

void census::reset() noexcept {
  if (base_ != nullptr) os::sysv_detach(base_);
  base_ = nullptr;
  id_ = -1;
}

census census::create() {
  const std::size_t bytes = os::page_size();
  const int id = os::sysv_create(os::census_keys, bytes);
  void* base = nullptr;
  try {
    base = os::sysv_attach_anywhere(id, bytes);
  } catch (...) {
    os::sysv_remove(id);
    throw;
  }
  census made{base, id};
  // Before the mark for removal that `attach` requires: a process that sees the mark sees the bytes.
  std::memcpy(base, os::census_magic, sizeof os::census_magic);
  if (const int code = os::sysv_remove(id); code != 0) {
    throw error(code, "shmctl(IPC_RMID)", "id " + std::to_string(id));
  }
  return made;
}

census census::attach(std::int32_t id) {
  const std::size_t bytes = os::page_size();
  const os::sysv_status before = check(id);
  void* base = nullptr;
  try {
    base = os::sysv_attach_anywhere(id, bytes);
  } catch (const error&) {
    if (os::sysv_has_gone(id)) throw stale_handle("segment " + std::to_string(id) + " has gone");
    throw;
  }
  census made{base, id};
  const os::sysv_status after = check(id);
  if (!before.same_segment(after) || std::memcmp(base, os::census_magic, sizeof os::census_magic) != 0) {
    throw stale_handle("segment " + std::to_string(id) + " is not a census");
  }
  return made;
}

int census::processes() const {
  if (base_ == nullptr) return 0;
  std::uint64_t attaches = 0;
  if (const int code = os::sysv_count(id_, attaches); code != 0) {
    throw error(code, "shmctl(IPC_STAT)", "id " + std::to_string(id_));
  }
  return attaches < INT_MAX ? static_cast<int>(attaches) : INT_MAX;
}

}  // namespace sharedmem
