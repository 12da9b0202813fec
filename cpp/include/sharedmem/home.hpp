#pragma once

/// \file
/// The arenas of this process: its home arena, from which it allocates, and foreign ones, attached when a
/// handle of theirs is loaded. The home arena is chosen as late as possible, and only once: the locator in the
/// environment (SHAREDMEM_ARENA), else one passed to `offer`, else the arena of the first handle, else a
/// new one. A locator that is dead, foreign or unreadable is ignored.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <sharedmem/arena.hpp>

namespace sharedmem {

/// The home arena; made or joined by the first call. Throws what arena::create throws.
/// Threads: any, but the first call may add a variable to the environment. In a program where other threads read
/// that (getenv(3)), make the call before they start.
SHAREDMEM_API arena& home();
/// Allocates a block of the home arena. If the effective user of this process is no longer the one that made or joined
/// that arena (setuid(2)), no process of this user could attach it: from then on home is an arena of this user, a
/// former home or a new one. The previous one stays attached, and its blocks can be used as before. The change is
/// noticed when the thread's cache has no suitable block. Throws what `home` and arena::allocate throw.
SHAREDMEM_API allocation allocate(std::uint64_t bytes, std::uint64_t alignment = 64,
                                  pages how = pages::as_needed);
/// Total bytes of memory for new blocks: the smaller of what the kernel calls available and what the memory cgroups
/// of this process leave, minus what its arenas have allocated and was not written yet. An estimate, which is out of
/// date as soon as it is made. Reads about ten small files of the system: about 0.1 ms.
SHAREDMEM_API std::uint64_t available_bytes() noexcept;
/// Bytes that this machine and its cgroups allow a process to have: the smallest of these limits, whatever is in use.
SHAREDMEM_API std::uint64_t memory_total() noexcept;
/// The home arena or nullptr; makes none.
SHAREDMEM_API arena* home_if_any() noexcept;
/// Makes the home arena now if this process is the root of a tree: no locator in the environment. Never
/// throws: the next `home()` reports what went wrong.
SHAREDMEM_API void make_root() noexcept;
/// Offers a locator that came another way (a process configuration); used when the home is chosen.
SHAREDMEM_API void offer(std::string_view locator_text);
/// Makes a new home arena, for a new process tree. The previous one stays attached until this process ends.
SHAREDMEM_API void start_new_home();
/// Locator of the home arena for children (""): also put into this process's environment when the arena is made.
SHAREDMEM_API std::string home_locator();

/// Acquires the block of a handle, in the home arena, a foreign one or one attached now.
/// Throws what arena::attach and arena::acquire throw, and no_memory if too many arenas are attached.
SHAREDMEM_API allocation acquire(const locator& where, const claim& c);
/// Gives back a lease that was acquired in the arena of this uuid for a message that will not be sent. No effect if
/// it was loaded, or if the arena was left meanwhile. Leaves a foreign arena of which nothing else is held.
SHAREDMEM_API void give_back(const std::array<std::uint64_t, 2>& uuid, const claim& c) noexcept;
/// `arena::is_in_flight` in the attached arena of this uuid. False also if it is not attached.
SHAREDMEM_API bool is_in_flight(const std::array<std::uint64_t, 2>& uuid, const claim& c) noexcept;
/// The arena whose data space contains `p`, or nullptr. Takes a few ns and never waits. The result can be used
/// as long as a reference to the block at `p` is held.
SHAREDMEM_API arena* arena_of(const void* p) noexcept;
/// `arena::note_read` in the arena at `where`; attaches it if necessary. False also if it cannot be attached.
SHAREDMEM_API bool note_read(const locator& where, const claim& c) noexcept;
/// The functions of `arena` of these names, in an attached arena; false also if it is not attached.
SHAREDMEM_API bool note_written(const locator& where, const claim& c, bool again) noexcept;
SHAREDMEM_API bool stands_for(const locator& where, const claim& c) noexcept;
SHAREDMEM_API bool give_back_lost(const locator& where, const claim& c) noexcept;
/// `arena::read_elsewhere` in the arena at `where`; attaches it if necessary.
/// Throws what arena::attach throws, and no_memory if too many arenas are attached.
SHAREDMEM_API void read_elsewhere(const locator& where, std::uint64_t end);
/// True also if the arena is not attached.
SHAREDMEM_API bool is_read_elsewhere(const locator& where, std::uint64_t end) noexcept;
/// Releases a reference, and leaves a foreign arena with the last one.
SHAREDMEM_API void release(block_ref& ref) noexcept;
/// The arenas that this process has attached, including its home and former homes, in no order. While the
/// object lives none of them is left, even if the last array in it is dropped.
/// Threads: of one thread. Processes: the copy of such an object in a forked child protects nothing.
class SHAREDMEM_API attached_arenas {
 public:
  static constexpr std::uint32_t most = 128;  ///< 127 attaches of 1 TiB fit one address space

  attached_arenas() noexcept;
  ~attached_arenas();
  attached_arenas(const attached_arenas&) = delete;
  attached_arenas& operator=(const attached_arenas&) = delete;

  std::size_t size() const noexcept { return size_; }
  arena& operator[](std::size_t i) const noexcept { return *arenas_[i]; }  ///< \pre `i < size()`
  arena* const* begin() const noexcept { return arenas_.data(); }
  arena* const* end() const noexcept { return arenas_.data() + size_; }

 private:
  std::array<arena*, most> arenas_;  // the first `size_`
  std::size_t size_ = 0;
  std::uint32_t process_;  // its pid
};

/// At an orderly exit: marks this process as ending in all its arenas. If messages of any sender would be lost with
/// it (because all other processes have begun to end, or this process sent them from an extension segment
/// that perhaps no other has attached), it forks one small process that keeps these arenas. That process waits for the
/// end of this one, or until it has become another program (exec(3): call this before it), and then until another
/// participant comes, no lease is in use, or some seconds have passed (SHAREDMEM_LINGER, default 10, 0: none).
/// Returns in the caller at once; the process can go on, and call again.
/// Threads: one at a time.
SHAREDMEM_API void linger() noexcept;
/// After `linger`, if this process does not end after all (exec(3) failed): others rely on it again. The lingering
/// process ends. Threads: as `linger`.
SHAREDMEM_API void go_on() noexcept;
/// Makes exit(3) call `linger`, after the handlers that are registered from now on.
SHAREDMEM_API void linger_at_exit() noexcept;

}  // namespace sharedmem
