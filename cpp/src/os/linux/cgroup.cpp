/// \file
/// Linux: the control groups that this process is in.
#include "os/linux/cgroup.hpp"

#include <charconv>
#include <limits>

#include "os/linux/proc.hpp"

namespace sharedmem::os {
namespace {

// Whether a comma-separated list has a word.
bool has_word(std::string_view list, std::string_view word) noexcept {
  while (!list.empty()) {
    if (next_word(list, ',') == word) return true;
  }
  return false;
}

// The mount of a hierarchy, from one line of /proc/self/mountinfo:
// id parent device root mountpoint options [tags...] - type source options
bool is_mount(std::string_view line, cgroups version, std::string_view controller, std::string_view& root,
              std::string_view& mountpoint) noexcept {
  const std::size_t dash = line.find(" - ");
  if (dash == std::string_view::npos) return false;
  std::string_view tail = line.substr(dash + 3);
  const std::string_view type = next_word(tail);
  next_word(tail);
  if (version == cgroups::second ? type != "cgroup2"
                                 : type != "cgroup" || !has_word(next_word(tail), controller))
    return false;
  for (int field = 0; field < 3; ++field) next_word(line);
  root = next_word(line);
  mountpoint = next_word(line);
  return true;
}

// The path of this process's group, from one line of /proc/self/cgroup: number:controllers:path
bool is_group(std::string_view line, cgroups version, std::string_view controller,
              std::string_view& path) noexcept {
  const std::size_t first_colon = line.find(':');
  const std::size_t second_colon = line.find(':', first_colon + 1);
  if (second_colon == std::string_view::npos) return false;
  const std::string_view list = line.substr(first_colon + 1, second_colon - first_colon - 1);
  if (version == cgroups::second ? !list.empty() : !has_word(list, controller)) return false;
  path = line.substr(second_colon + 1);
  return true;
}

std::string_view read_in(long_path& folder, std::string_view file, char* room, std::size_t bytes) noexcept {
  const std::size_t end = folder.size();
  const std::string_view text = folder.append(file) ? read_file(folder.c_str(), room, bytes) : "";
  folder.cut(end);
  return text;
}

void apply_quota(std::uint64_t quota, std::uint64_t period, std::uint64_t& least) noexcept {
  if (quota != 0 && period != 0) least = std::min(least, quota / period + (quota % period != 0 ? 1 : 0));
}

}  // namespace

std::string_view next_word(std::string_view& text, char end_of_word) noexcept {
  text.remove_prefix(std::min(text.find_first_not_of(end_of_word), text.size()));
  const std::string_view word = text.substr(0, text.find(end_of_word));
  text.remove_prefix(word.size());
  return word;
}

bool parse(std::string_view text, std::uint64_t& value) noexcept {
  const std::size_t begin = text.find_first_not_of(' ');
  if (begin == std::string_view::npos) return false;
  text.remove_prefix(begin);
  return std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc{};
}

bool find_group(cgroups version, std::string_view controller, long_path& folder, std::size_t& top) noexcept {
  std::string_view line;
  std::string_view root;
  std::string_view mountpoint;
  lines mounts{"/proc/self/mountinfo"};
  bool found = false;
  while (!found && mounts.next(line)) found = is_mount(line, version, controller, root, mountpoint);
  if (!found || !folder.append(mountpoint)) return false;
  top = folder.size();
  lines groups{"/proc/self/cgroup"};
  std::string_view path;
  found = false;
  while (!found && groups.next(line)) found = is_group(line, version, controller, path);
  // A container without a namespace of groups sees paths of the host, and a mount of a part of them.
  if (!found) return true;
  if (root != "/" && path.starts_with(root)) path.remove_prefix(root.size());
  // Otherwise (empty, or outside of what is mounted) only the mountpoint is visible.
  const bool below = path.starts_with('/') && !path.starts_with("/..");
  if (path != "/" && below && !folder.append(path)) folder.cut(top);
  return true;
}

unsigned cores_by_groups() noexcept {
  std::uint64_t least = std::numeric_limits<unsigned>::max();
  char room[64];
  each_group(cgroups::second, "cpu", [&](long_path& folder) {
    std::string_view text = read_in(folder, "/cpu.max", room, sizeof room);
    std::uint64_t quota = 0;
    std::uint64_t period = 0;
    if (parse(next_word(text), quota) && parse(text, period)) apply_quota(quota, period, least);
  });
  each_group(cgroups::first, "cpu", [&](long_path& folder) {
    std::uint64_t quota = 0;  // -1 is none
    std::uint64_t period = 0;
    if (parse(read_in(folder, "/cpu.cfs_quota_us", room, sizeof room), quota) &&
        parse(read_in(folder, "/cpu.cfs_period_us", room, sizeof room), period))
      apply_quota(quota, period, least);
  });
  return static_cast<unsigned>(least);
}

}  // namespace sharedmem::os
