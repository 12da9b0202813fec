#pragma once

/// Functions of an arena for the library itself, not for its users: around fork(2), and when the process ends.
#include <sharedmem/arena.hpp>

namespace sharedmem {

struct kept_arenas;

struct arena_hooks {
  /// Before fork(2): takes all locks and a slot for the child, and claims for it all blocks that this process holds.
  static void prepare_fork(arena& a) noexcept;
  static void after_fork_in_parent(arena& a) noexcept;  ///< after it, in the parent, also if it failed
  static void after_fork_in_child(arena& a) noexcept;   ///< after it, in the child: takes the slot over

  /// The first step of an orderly end: marks this process's slot, so that others that end as well no longer
  /// count on this process to keep the arena. It can go on using the arena.
  static void begin_to_end(arena& a) noexcept;
  /// Looks, after `begin_to_end` in all arenas, whether messages are out that could be lost if this process ended
  /// now. If so, adds to `kept` what keeps this arena.
  /// \throws std::bad_alloc
  static void keep_if_needed(arena& a, kept_arenas& kept);
  /// Takes `begin_to_end` back.
  static void go_on(arena& a) noexcept;
};

}  // namespace sharedmem
