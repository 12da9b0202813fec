/// \file
/// Linux: the control groups that this process is in, and the numbers in their files. Private to this folder.
/// cgroups(7); the kernel's Control Group v2.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace sharedmem::os {

/// Takes the next word off the front of a text; empty: there is none.
std::string_view next_word(std::string_view& text, char end_of_word = ' ') noexcept;
/// Reads the number that a text begins with. False: there is none; "max" is none.
bool parse(std::string_view text, std::uint64_t& value) noexcept;

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

/// The versions of control groups; a machine may have both at once.
enum class cgroups : bool { first, second };

/// The folder of this process's group for a controller; `top` is how much of it is the mountpoint. False: there is
/// none to see.
bool find_group(cgroups version, std::string_view controller, long_path& folder, std::size_t& top) noexcept;

/// Calls use(folder) for that group and each one above it that is visible; `use` leaves the folder as it was.
template <class Use>
void each_group(cgroups version, std::string_view controller, Use&& use) {
  long_path folder;
  std::size_t top = 0;
  if (!find_group(version, controller, folder, top)) return;
  for (;;) {
    use(folder);
    if (folder.size() <= top) return;
    folder.cut(std::max(top, folder.view().rfind('/')));
  }
}

/// Cores' worth of time that the groups leave this process, rounded up (cpu.max; cpu.cfs_quota_us); UINT_MAX: no
/// limit.
unsigned cores_by_groups() noexcept;

}  // namespace sharedmem::os
