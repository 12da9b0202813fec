#pragma once

/// How a process comes to take part in an arena: it joins, or its parent prepares its fork.
///
/// Locks: `joining`, for leaving an overflow slot; it is acquired before the lock of `repairer`. Fork takes all
/// locks of the layers up to this one, from here downwards.
#include <cstdint>
#include <mutex>
#include <new>

#include "heap/heap.hpp"
#include "members/participants.hpp"
#include "members/repair.hpp"
#include "references/references.hpp"
#include "shared/own_slot.hpp"
#include "shared/tables.hpp"

namespace sharedmem {

class membership {
 public:
  membership(tables& words, own_slot& self, heap& pool, references& refs, participant_table& peers,
             repairer& repairs) noexcept
      : words(words), identity(self), pool(pool), refs(refs), peers(peers), repairs(repairs) {}
  membership(const membership&) = delete;
  membership& operator=(const membership&) = delete;

  /// Takes a slot. Called once, when all that it knows is open. \throws no_memory  all are taken.
  void join() { identity.become(take_slot()); }
  /// Called at every entry. In a child that was made without fork handlers: takes a slot, and forgets all that was
  /// copied into it; `forget()` does so for the layers above, while no other thread gets past this function.
  /// \throws no_memory  all slots are taken.
  template <class Forget>
  void join_if_forked(Forget&& forget) {
    if (identity.known()) [[likely]]
      return;
    const own_slot::turn alone(identity);
    if (identity.known()) return;
    start_anew();
    forget();
    join();
  }
  /// From an overflow slot to one of its own. \throws no_memory  all are taken.
  void leave_overflow();

  /// Before fork(2): takes all locks, a slot for the child, and claims for it on all blocks that are held.
  /// \pre  The own slot is known.
  void prepare_fork() noexcept;
  void after_fork_in_parent() noexcept;  ///< after it, in the parent, also if it failed
  void after_fork_in_child() noexcept;   ///< after it, in the child: takes the slot over

 private:
  // participants.cpp
  std::uint32_t take_slot(slot_state as = slot_state::active);
  void repair_earlier_programs();
  void start_anew() noexcept;

  // fork.cpp
  std::uint32_t reserve_slot() noexcept;
  bool reserve_slot_is_hopeless() const noexcept;
  std::uint32_t enter_overflow() noexcept;
  void claim_for(std::uint32_t child) noexcept;
  void populate_descriptors(const slab& s) noexcept;
  void let_go_after_fork() noexcept;

  tables& words;
  own_slot& identity;
  heap& pool;
  references& refs;
  participant_table& peers;
  repairer& repairs;
  std::mutex joining;
  std::uint32_t child_slot = ~std::uint32_t{0};  // reserved by prepare_fork
  bool child_overflows = false;
  bool fork_prepared = false;
};

}  // namespace sharedmem
