/// \file
/// The words that the processes of an arena share, for tests that look at them or put them into a rare state.
#pragma once

#include <sys/shm.h>

#include <cstddef>
#include <cstdint>
#include <exception>

#include <sharedmem/arena.hpp>
#include "shared/layout.hpp"

/// The tables of an arena in System V memory, attached once more.
class arena_words {
 public:
  explicit arena_words(const sharedmem::arena& a)
      : base_(static_cast<std::byte*>(::shmat(a.where().segment.id, nullptr, 0))) {
    if (base_ == reinterpret_cast<std::byte*>(-1)) std::terminate();
  }
  arena_words(const arena_words&) = delete;
  arena_words& operator=(const arena_words&) = delete;
  ~arena_words() { ::shmdt(base_); }

  [[nodiscard]] sharedmem::header& head() const { return *reinterpret_cast<sharedmem::header*>(base_); }
  [[nodiscard]] sharedmem::participant_entry& slot(std::uint32_t s) const {
    return reinterpret_cast<sharedmem::participant_entry*>(base_ + head().at_participants)[s];
  }
  /// Of a block in the first segment.
  [[nodiscard]] sharedmem::word64* descriptor(std::uint32_t b) const {
    return reinterpret_cast<sharedmem::word64*>(base_ + head().at_descriptors +
                                                std::size_t{b} * head().descriptor_bytes);
  }

 private:
  std::byte* base_;
};
