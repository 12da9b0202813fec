#pragma once

/// The arenas that this process has attached: the home arena, former ones and foreign ones.
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <sharedmem/home.hpp>

#include "os/wiped.hpp"

namespace sharedmem {

inline constexpr std::uint32_t most_arenas = attached_arenas::most;

/// One attached arena, or a free entry.
struct entry {
  std::atomic<arena*> visible{nullptr};  // what arena_of reads
  arena* attached = nullptr;             // owned; null: the entry is free
  bool was_home = false;                 // it is or was a home: never left
};

/// The state of threads that use the arenas at this moment. These threads do not exist in a forked child, so there
/// all of it is zero.
struct activity {
  std::mutex lock;
  std::mutex meeting;                            // see kept.hpp; acquired before `lock`
  std::atomic<std::uint32_t> readers{0};         // threads in arena_of, looking at foreign arenas
  std::array<std::uint32_t, most_arenas> pins{}; // of each entry: how many `attached_arenas` have it
  std::array<std::atomic<std::uint32_t>, most_arenas> users{};  // and how many calls for names: see kept.hpp
};

/// The arenas of this process. Everything but atomics is under `now.lock`, which is acquired as a registry_lock.
///
/// A foreign arena of which nothing is held is left. First it is hidden: `visible` becomes null, so that
/// arena_of, which acquires no lock, does not find it any more. It is deleted as soon as it is not pinned and
/// there is no reader that might have found it before. The last one to leave deletes it: the holder of the lock
/// after releasing it, or the last reader.
struct registry {
  activity& now = *make_wiped<activity>();
  std::array<entry, most_arenas> arenas{};
  std::atomic<std::uint32_t> count{0};  // entries from there on were never used
  std::atomic<bool> some_hidden{false};  // and not pinned
  std::atomic<arena*> home{nullptr};
  std::atomic<std::uint32_t> names_at{most_arenas};  // entry of the arena of names that stays: see kept.hpp
  std::vector<std::string> offers;
  bool handlers = false;
};

/// The registry of this process. It is never destroyed, since threads and destructors may use it until the end.
inline registry& the_registry() {
  static auto* const r = new registry;
  return *r;
}

/// Holds the registry's lock, and then deletes the arenas that may be deleted without it.
class registry_lock {
 public:
  explicit registry_lock(registry& r) : r_(r) { r.now.lock.lock(); }
  ~registry_lock();
  registry_lock(const registry_lock&) = delete;
  registry_lock& operator=(const registry_lock&) = delete;

 private:
  registry& r_;
};

/// The attached arenas, including hidden ones. Lock held.
template <class Use>
void for_each_attached(registry& r, Use&& use) {
  for (std::uint32_t i = 0; i < r.count.load(std::memory_order_relaxed); ++i)
    if (r.arenas[i].attached != nullptr) use(r.arenas[i], r.now.pins[i]);
}

inline std::uint32_t index_of(const registry& r, const entry& e) noexcept {
  return static_cast<std::uint32_t>(&e - r.arenas.data());
}

/// Hides foreign arenas of which nothing is held: this one, or all. When the last array of an arena is dropped, a
/// message in flight may still keep it, so all arenas are checked from time to time. Lock held.
void hide_idle(registry& r, const arena* only = nullptr) noexcept;

/// Adds an arena. Lock held. \throws no_memory  too many are attached.
arena& enter(std::unique_ptr<arena> a);

/// Registers the fork handlers unless that has been done. Lock held. \throws error  the system has no memory.
void handle_forks(registry& r);

/// The attached arena with this uuid, hidden or not, or nullptr. Lock held.
entry* entry_of(const std::array<std::uint64_t, 2>& uuid) noexcept;

/// The same for a caller that acquires something in it: it is no longer hidden.
arena* attached_as(const std::array<std::uint64_t, 2>& uuid) noexcept;

/// The arena at `where`; attaches it if necessary. Does not choose a home: a process that only forwards messages
/// may call this before its configuration has been offered. Lock held. Throws what arena::attach throws.
arena& find_or_attach(registry& r, const locator& where);

/// While one lives no arena is deleted that could be found before: for arena_of, which acquires no lock. It must
/// be short, since arenas can only be left at a moment without any. Threads: of one thread.
class reading {
 public:
  reading() noexcept;
  ~reading();
  reading(const reading&) = delete;
  reading& operator=(const reading&) = delete;
};

}  // namespace sharedmem
