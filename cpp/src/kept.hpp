#pragma once

/// The arenas of names that this process has attached, and who uses them.
///
/// The arena that was requested last stays attached, since most programs never change SHAREDMEM_NAMESPACE and soon
/// need it again. The others are left like any foreign arena when this process holds nothing in them: no array, no
/// building, no lease, and no running call, each of which has a `host_use`.
///
/// A call for the arena that was requested last takes no lock: it counts itself in `activity::users` of the entry,
/// then checks whether `registry::names_at` still names that entry. A call for another arena changes `names_at`
/// first, then reads the count. All four accesses are seq_cst, so of two calls at the same time at least one sees the
/// other: either the first looks for its arena again, or the arena is left by the last call that used it.
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include <sharedmem/arena.hpp>
#include <sharedmem/handle.hpp>

#include "registry.hpp"

namespace sharedmem {

/// An attached arena of names, which is not left while the object lives; or none.
/// Threads: of one thread. Processes: no thread forks while it has one; the copy in a child is never destroyed.
class host_use {
 public:
  host_use() noexcept = default;
  host_use(host_use&& other) noexcept : arena_(std::exchange(other.arena_, nullptr)), index_(other.index_) {}
  host_use& operator=(host_use&&) = delete;
  ~host_use() {
    if (arena_ != nullptr) end(index_);
  }

  explicit operator bool() const noexcept { return arena_ != nullptr; }
  arena& operator*() const noexcept { return *arena_; }
  arena* operator->() const noexcept { return arena_; }

 private:
  friend struct host_uses;
  host_use(arena* of, std::uint32_t index) noexcept : arena_(of), index_(index) {}
  static void end(std::uint32_t index) noexcept;

  arena* arena_ = nullptr;
  std::uint32_t index_ = most_arenas;
};

/// One thread of a process looks for the arena of names, or makes it, at a time. fork(2) waits for it.
std::unique_lock<std::mutex> alone_in_meeting();

/// The attached arena of names of this user and namespace, or none: it is the one that was requested last. An arena
/// that is attached and open is the only one (doc/model/host.pml).
host_use kept_host(std::uint64_t name_space) noexcept;
/// The attached arena of this uuid, or none. This is no request: which arena stays attached does not change.
host_use attached_host(const std::array<std::uint64_t, 2>& uuid) noexcept;
/// Takes over an arena of names that this process has just made, as the one requested last. Throws no_memory.
host_use keep(std::unique_ptr<arena> host);
/// Attaches the requested arena of names if it is not attached. Throws what arena::attach throws, and no_memory.
host_use keep(const locator& where);

}  // namespace sharedmem
