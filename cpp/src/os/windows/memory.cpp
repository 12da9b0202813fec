/// Windows: how much memory there is to be promised.
#include "os/memory.hpp"

#include <algorithm>

#include "os/windows/system.hpp"

namespace sharedmem {
namespace {

MEMORYSTATUSEX ask() noexcept {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  ::GlobalMemoryStatusEx(&status);
  return status;
}

}  // namespace

// What the system may still promise to this process: RAM and paging files, less what is promised, and no more than a
// job object allows.
memory_estimate available_memory() noexcept {
  const MEMORYSTATUSEX status = ask();
  return {.available = std::min(status.ullAvailPageFile, status.ullTotalPageFile),
          .total = status.ullTotalPageFile,
          .limit = "the commit limit"};
}

std::uint64_t address_space_left() noexcept {
  const MEMORYSTATUSEX status = ask();
  return sizeof(void*) == 4 ? status.ullAvailVirtual : UINT64_MAX;
}

std::uint64_t shmall_bytes() noexcept { return UINT64_MAX; }
std::uint64_t shmmax_bytes() noexcept { return UINT64_MAX; }

// A whole view takes 8 bytes of the kernel's paged pool for each page of the section, used or not: 1/512 of its size.
std::uint64_t os::arena_wish() noexcept {
  constexpr std::uint64_t gib = std::uint64_t{1} << 30;
  const MEMORYSTATUSEX status = ask();
  return std::clamp(std::min<std::uint64_t>(status.ullTotalPhys, status.ullTotalPageFile), gib, 64 * gib);
}

const char* os::size_knobs() noexcept { return ", the size of the paging file"; }

}  // namespace sharedmem
