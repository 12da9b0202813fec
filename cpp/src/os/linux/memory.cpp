#include "os/memory.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string_view>

#include "os/linux/proc.hpp"
#include "os/linux/sysv.hpp"
#include "os/pages.hpp"

namespace sharedmem {
namespace {

std::uint64_t saturating_product(std::uint64_t a, std::uint64_t b) noexcept {
  std::uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

std::uint64_t less_or_0(std::uint64_t a, std::uint64_t b) noexcept { return a > b ? a - b : 0; }

std::string_view next_word(std::string_view& text, char end_of_word = ' ') noexcept {
  text.remove_prefix(std::min(text.find_first_not_of(end_of_word), text.size()));
  const std::string_view word = text.substr(0, text.find(end_of_word));
  text.remove_prefix(word.size());
  return word;
}

// \return  false: no number there, "max" for one.
bool parse(std::string_view text, std::uint64_t& value) noexcept {
  const std::size_t begin = text.find_first_not_of(' ');
  if (begin == std::string_view::npos) return false;
  text.remove_prefix(begin);
  return std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc{};
}

bool read_number(const char* path, std::uint64_t& value) noexcept {
  char room[64];
  return parse(os::read_file(path, room, sizeof room), value);
}

// The number behind `key` in a file of "key number" lines; 0: not there.
std::uint64_t read_value(const char* path, std::string_view key) noexcept {
  os::lines file{path};
  std::string_view line;
  std::uint64_t value = 0;
  while (file.next(line)) {
    if (!line.starts_with(key)) continue;
    parse(line.substr(key.size()), value);
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
      return line.starts_with(key) && parse(line.substr(key.size()), kibibytes);
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

/// A path of any length that the kernel accepts, put together without allocating.
class long_path {
 public:
  bool append(std::string_view text) noexcept {
    if (text.size() >= sizeof text_ - size_) return false;
    std::memcpy(text_ + size_, text.data(), text.size());
    cut(size_ + text.size());
    return true;
  }
  void cut(std::size_t size) noexcept {
    size_ = size;
    text_[size] = '\0';
  }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::string_view view() const noexcept { return {text_, size_}; }
  [[nodiscard]] const char* c_str() const noexcept { return text_; }

 private:
  char text_[4096] = {};
  std::size_t size_ = 0;
};

/// Names of the files of one version of control groups.
struct hierarchy {
  const char* limit;
  const char* usage;
  const char* dropped_first;  // key in memory.stat
};
constexpr hierarchy version_2{"/memory.max", "/memory.current", "inactive_file "};
constexpr hierarchy version_1{"/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file "};

// Whether a comma-separated list has the word "memory".
bool has_memory(std::string_view list) noexcept {
  while (!list.empty()) {
    if (next_word(list, ',') == "memory") return true;
  }
  return false;
}

// The mount of a hierarchy, from one line of /proc/self/mountinfo:
// id parent device root mountpoint options [tags...] - type source options
bool is_mount(std::string_view line, bool second, std::string_view& root,
              std::string_view& mountpoint) noexcept {
  const std::size_t dash = line.find(" - ");
  if (dash == std::string_view::npos) return false;
  std::string_view tail = line.substr(dash + 3);
  const std::string_view type = next_word(tail);
  next_word(tail);
  if (second ? type != "cgroup2" : type != "cgroup" || !has_memory(next_word(tail))) return false;
  for (int field = 0; field < 3; ++field) next_word(line);
  root = next_word(line);
  mountpoint = next_word(line);
  return true;
}

// The path of this process's group, from one line of /proc/self/cgroup: number:controllers:path
bool is_group(std::string_view line, bool second, std::string_view& path) noexcept {
  const std::size_t first_colon = line.find(':');
  const std::size_t second_colon = line.find(':', first_colon + 1);
  if (second_colon == std::string_view::npos) return false;
  const std::string_view list = line.substr(first_colon + 1, second_colon - first_colon - 1);
  if (second ? !list.empty() : !has_memory(list)) return false;
  path = line.substr(second_colon + 1);
  return true;
}

// The folder of this process's group; `top` is how much of it is the mountpoint.
bool find_group(bool second, long_path& folder, std::size_t& top) noexcept {
  std::string_view line;
  std::string_view root;
  std::string_view mountpoint;
  os::lines mounts{"/proc/self/mountinfo"};
  bool found = false;
  while (!found && mounts.next(line)) found = is_mount(line, second, root, mountpoint);
  if (!found || !folder.append(mountpoint)) return false;
  top = folder.size();
  os::lines groups{"/proc/self/cgroup"};
  std::string_view path;
  found = false;
  while (!found && groups.next(line)) found = is_group(line, second, path);
  // A container without a namespace of groups sees paths of the host, and a mount of a part of them.
  if (!found) return true;
  if (root != "/" && path.starts_with(root)) path.remove_prefix(root.size());
  // Else (empty, or outside of what is mounted) the mountpoint is all there is to see.
  const bool below = path.starts_with('/') && !path.starts_with("/..");
  if (path != "/" && below && !folder.append(path)) folder.cut(top);
  return true;
}

void apply_group(const hierarchy& files, long_path& folder, const machine& ram,
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

void apply_groups(bool second, const machine& ram, memory_estimate& least) noexcept {
  long_path folder;
  std::size_t top = 0;
  if (!find_group(second, folder, top)) return;
  for (;;) {
    apply_group(second ? version_2 : version_1, folder, ram, least);
    if (folder.size() <= top) return;
    folder.cut(std::max(top, folder.view().rfind('/')));
  }
}

}  // namespace

memory_estimate available_memory() noexcept {
  const machine ram = read_machine();
  memory_estimate least{.available = ram.available, .total = ram.total, .limit = "RAM"};
  apply_groups(true, ram, least);
  apply_groups(false, ram, least);
  return least;
}

std::uint64_t address_space_left() noexcept {
  const std::uint64_t limit = os::address_space_limit();
  if (limit == UINT64_MAX) return limit;
  char room[128];
  std::uint64_t pages = 0;
  parse(os::read_file("/proc/self/statm", room, sizeof room), pages);
  return less_or_0(limit, saturating_product(pages, os::page_size()));
}

std::uint64_t shmall_bytes() noexcept {
  return saturating_product(os::sysv_get_limits().all, os::page_size());
}

std::uint64_t shmmax_bytes() noexcept { return os::sysv_get_limits().segment; }

}  // namespace sharedmem
