/// \file
/// Counts the processes that can touch an arena.
#pragma once

#include <cstdint>

namespace sharedmem {

/// A System V segment of one page that each process attaches exactly once, so that the kernel's
/// count of attaches is the number of processes: fork adds one, exec and death of any kind subtract
/// one. It is never passed to `mprotect` or `madvise`: they can split a mapping and spoil the count.
/// The arena's own segment needs such calls, so its count of attaches cannot be used.
/// Ownership: owns one attach; the kernel frees the segment after the last. Move-only; default-made
/// or moved from it is empty.
/// Threads: const members may run at once.
/// Processes: a forked child's copy is an attach of the child.
class census {
 public:
  census() noexcept = default;
  census(census&& other) noexcept;
  census& operator=(census&& other) noexcept;
  census(const census&) = delete;
  census& operator=(const census&) = delete;
  ~census();

  /// Makes a census and attaches it.
  /// \throws sharedmem::error  ENOSPC (shmmni, shmall), ENOSYS, EPERM, ENOMEM, ...; nothing is left
  ///         behind. Where System V memory is refused there is no census.
  [[nodiscard]] static census create();

  /// Takes part in the census `id`.
  /// \pre    no other `census` object of this process is attached to `id`.
  /// \throws sharedmem::stale_handle  it does not exist any more, or is something else.
  /// \throws sharedmem::error         EPERM or EACCES: another user's; ENOMEM; ...
  [[nodiscard]] static census attach(std::int32_t id);

  /// Where its page is attached; nullptr if empty.
  [[nodiscard]] const void* data() const noexcept { return base_; }

  /// The shmid; -1 if empty.
  [[nodiscard]] std::int32_t id() const noexcept { return id_; }

  /// Processes attached now, this one included; 0 if empty: unknown.
  /// \throws sharedmem::error  the kernel does not answer.
  [[nodiscard]] int processes() const;

  explicit operator bool() const noexcept { return base_ != nullptr; }

 private:
  census(const void* base, std::int32_t id) noexcept : base_{base}, id_{id} {}
  void reset() noexcept;

  const void* base_ = nullptr;
  std::int32_t id_ = -1;
};

}  // namespace sharedmem
