#pragma once

/// \file
/// The arenas of this process: its home arena, from which it allocates, and foreign ones, attached when a
/// handle of theirs is loaded. Which arena is home is decided as late as possible, once: the locator in the
/// environment (SHAREDMEM_ARENA), else one offered by `offer`, else the arena of the first handle, else a
/// new one. A locator that is dead, foreign or unreadable is passed over.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sharedmem/arena.hpp>

namespace sharedmem {

/// The home arena; made or joined at the first call. Throws what arena::create throws.
SHAREDMEM_API arena& home();
/// The home arena or nullptr; makes none.
SHAREDMEM_API arena* home_if_any() noexcept;
/// Makes the home arena now if this process is the root of a tree: no locator in the environment. Never
/// throws: what went wrong is told by the next `home()`.
SHAREDMEM_API void make_root() noexcept;
/// A locator that came some other way (a process configuration); used by the first decision.
SHAREDMEM_API void offer(std::string_view locator_text);
/// A new home arena, for a tree of its own. The former stays attached until this process ends.
SHAREDMEM_API void start_new_home();
/// Locator of the home arena for children (""): also put into this process's environment at birth.
SHAREDMEM_API std::string home_locator();

/// The block that a handle names, in the home arena, a foreign one or one attached now.
/// Throws what arena::attach and arena::acquire throw, and no_memory where too many arenas are attached.
SHAREDMEM_API allocation acquire(const locator& where, const claim& c);
/// Gives back a lease that was taken in the arena of this uuid for a message that will not be sent. No effect if
/// it was loaded, or if the arena was left meanwhile. Leaves a foreign arena of which nothing else is held.
SHAREDMEM_API void give_back(const std::array<std::uint64_t, 2>& uuid, const claim& c) noexcept;
/// The arena whose data space holds `p`, or nullptr. A few ns; waits for nobody. The result can be used
/// as long as a reference to the block at `p` is held.
SHAREDMEM_API arena* arena_of(const void* p) noexcept;
/// Releases a reference, and leaves a foreign arena with the last one.
SHAREDMEM_API void release(block_ref& ref) noexcept;
/// While one lives, no arena is left: what `attached` returned can be used.
class SHAREDMEM_API visiting {
 public:
  visiting() noexcept;
  ~visiting();
  visiting(const visiting&) = delete;
  visiting& operator=(const visiting&) = delete;
};

/// All arenas attached now. To be used under a `visiting`.
SHAREDMEM_API std::vector<arena*> attached();

/// At an orderly exit: if messages would be lost (this process is the sole participant of its home, or they
/// lie in an extension segment that perhaps nobody else attached), forks a
/// process that keeps the arena until another participant comes, no lease is out, or `seconds` have passed
/// (SHAREDMEM_LINGER, default 10, 0: none). Returns in the caller at once.
SHAREDMEM_API void linger() noexcept;

}  // namespace sharedmem
