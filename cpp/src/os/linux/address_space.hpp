/// \file
/// Linux: addresses of this process. Private to this folder.
#pragma once

#include <cstddef>
#include <string>

#include "os/pages.hpp"

namespace sharedmem::os {

enum class access : bool { read, write };

/// Addresses kept free until a segment takes their place: aligned, inaccessible.
class reservation {
 public:
  static constexpr std::size_t alignment = huge_page_size;

  /// \throws std::invalid_argument, sharedmem::error  ENOMEM
  explicit reservation(std::size_t bytes);
  reservation(const reservation&) = delete;
  reservation& operator=(const reservation&) = delete;
  ~reservation();

  [[nodiscard]] std::byte* base() const noexcept { return base_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// A segment lies there now: its own detach gives the addresses back.
  std::byte* taken() noexcept;

  /// For systems that cannot put a segment in the place of a reservation: gives the addresses back, and says where
  /// they begin. Another thread may take them. Exactly one of `hold` and `renew` must follow.
  std::byte* give_back() noexcept;
  /// A segment has been attached where `give_back` said.
  void hold(std::byte* base) noexcept { base_ = base; }
  /// It could not be: reserves as many bytes, anywhere. \throws sharedmem::error  ENOMEM
  void renew();

 private:
  std::byte* base_ = nullptr;
  std::size_t size_ = 0;
};

void unmap(std::byte* base, std::size_t bytes) noexcept;
/// Reading a hole to dump it would allocate it. A kernel without the advice is no error.
/// \throws sharedmem::error  what the kernel refused.
void leave_out_of_dumps(std::byte* base, std::size_t bytes);

/// For messages: "123 bytes".
std::string bytes_text(std::size_t bytes);

}  // namespace sharedmem::os
