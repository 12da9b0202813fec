#include "os/memory.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string_view>

#include "os/linux/cgroup.hpp"
#include "os/linux/proc.hpp"
#include "os/linux/sysv.hpp"
#include "os/machine.hpp"
#include "os/pages.hpp"

namespace sharedmem {
namespace {

std::uint64_t saturating_product(std::uint64_t a, std::uint64_t b) noexcept {
  std::uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

std::uint64_t less_or_0(std::uint64_t a, std::uint64_t b) noexcept { return a > b ? a - b : 0; }

bool read_number(const char* path, std::uint64_t& value) noexcept {
  char room[64];
  return os::parse(os::read_file(path, room, sizeof room), value);
}

// The number behind `key` in a file of "key number" lines; 0: not there.
std::uint64_t read_value(const char* path, std::string_view key) noexcept {
  os::lines file{path};
  std::string_view line;
  std::uint64_t value = 0;
  while (file.next(line)) {
    if (!line.starts_with(key)) continue;
    os::parse(line.substr(key.size()), value);
    break;
  }
  return value;
}

struct machine {
  std::uint64_t available = 0;
  std::uint64_t total = 0;
  std::uint64_t total_with_swap = 0;
};

machine read_machine() noexcept {
  std::uint64_t total = 0;
  std::uint64_t available = 0;
  std::uint64_t swap_free = 0;
  std::uint64_t swap_total = 0;
  bool knows_available = false;  // Linux 3.14
  os::lines file{"/proc/meminfo"};
  std::string_view line;
  while (file.next(line)) {
    const auto take = [&line](std::string_view key, std::uint64_t& kibibytes) {
      return line.starts_with(key) && os::parse(line.substr(key.size()), kibibytes);
    };
    if (take("MemAvailable:", available)) knows_available = true;
    take("MemTotal:", total);
    take("SwapFree:", swap_free);
    take("SwapTotal:", swap_total);
  }
  if (total == 0 || !knows_available) {
    const os::system_memory asked = os::ask_sysinfo();
    return {.available = asked.available, .total = asked.total, .total_with_swap = UINT64_MAX};
  }
  return {.available = (available + swap_free) * 1024,
          .total = total * 1024,
          .total_with_swap = (total + swap_total) * 1024};
}

// ---- control groups -----------------------------------------------------------------------------

/// The part of a group's limit that is left to what its processes need besides: at the limit itself any page,
/// of a stack or a page table, is one too many. MemAvailable leaves the kernel's own watermarks alike.
constexpr std::uint64_t kept_part = 64;

/// Names of the files of one version of control groups.
struct hierarchy {
  const char* limit;
  const char* usage;
  const char* dropped_first;  // key in memory.stat
};
constexpr hierarchy version_2{"/memory.max", "/memory.current", "inactive_file "};
constexpr hierarchy version_1{"/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file "};

void apply_group(const hierarchy& files, os::long_path& folder, const machine& ram,
                 memory_estimate& least) noexcept {
  const std::size_t end = folder.size();
  const auto in_folder = [&folder, end](const char* file) {
    folder.cut(end);
    return folder.append(file) ? folder.c_str() : "";
  };
  std::uint64_t limit = 0;
  std::uint64_t usage = 0;
  // A limit above all memory limits nothing; "none" is a number of that kind in version 1.
  if (read_number(in_folder(files.limit), limit) && limit < ram.total_with_swap &&
      read_number(in_folder(files.usage), usage)) {
    usage = less_or_0(usage, read_value(in_folder("/memory.stat"), files.dropped_first));
    least.total = std::min(least.total, limit);
    if (const std::uint64_t left = less_or_0(limit - limit / kept_part, usage); left < least.available) {
      least.available = left;
      least.limit = "cgroup";
    }
  }
  folder.cut(end);
}

}  // namespace

memory_estimate available_memory() noexcept {
  const machine ram = read_machine();
  memory_estimate least{.available = ram.available, .total = ram.total, .limit = "RAM"};
  os::each_group(os::cgroups::second, "memory",
                 [&](os::long_path& folder) { apply_group(version_2, folder, ram, least); });
  os::each_group(os::cgroups::first, "memory",
                 [&](os::long_path& folder) { apply_group(version_1, folder, ram, least); });
  return least;
}

std::uint64_t address_space_left() noexcept {
  const std::uint64_t limit = os::address_space_limit();
  if (limit == UINT64_MAX) return limit;
  char room[128];
  std::uint64_t pages = 0;
  os::parse(os::read_file("/proc/self/statm", room, sizeof room), pages);
  return less_or_0(limit, saturating_product(pages, os::page_size()));
}

std::uint64_t shmall_bytes() noexcept {
  return saturating_product(os::sysv_get_limits().all, os::page_size());
}

std::uint64_t shmmax_bytes() noexcept { return os::sysv_get_limits().segment; }

std::uint64_t os::arena_wish() noexcept {
  constexpr std::uint64_t gib = std::uint64_t{1} << 30;
  const std::uint64_t wish = std::clamp(4 * physical_memory(), 64 * gib, 16384 * gib);
  const std::uint64_t all = shmall_bytes();
  return all < UINT64_MAX / 2 ? std::min(wish, all / 16) : wish;
}

const char* os::size_knobs() noexcept { return ", kernel.shmmax, kernel.shmall, ulimit -v"; }

}  // namespace sharedmem
