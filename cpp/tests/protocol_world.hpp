#pragma once
/// A small arena without memory: the protocol's tables, processes that use them, and what must hold.
#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "shared/protocol.hpp"

#include "watched_word.hpp"

namespace schedules {

inline constexpr unsigned block_total = 2;
inline constexpr unsigned slot_total = 128;  // two words of holders
inline constexpr unsigned entries_per_group = 2;
inline constexpr std::uint64_t deadline = 1000;  // of leases of the dead; later than any sending

inline void check(bool holds, const std::string& what) {
  if (!holds) throw violation{what};
}

/// What the protocol calls `Tables`.
class small_tables {
 public:
  word* block(std::uint32_t b) { return blocks_[b].data(); }
  word* lease(std::uint32_t i) { return leases_[i].data(); }
  const word* lease(std::uint32_t i) const { return leases_[i].data(); }
  word& lease_mark(std::uint32_t g) { return marks_[g]; }
  word& slot_mark() { return slot_mark_; }
  std::uint32_t lease_group_entries() const { return entries_per_group; }
  std::uint32_t block_count() const { return block_total; }
  template <class F>
  void for_each_published(F&& f) {
    for (std::uint32_t b = 0; b < block_total; ++b) f(b);
  }

  word& ctl(std::uint32_t s) { return ctl_[s]; }
  const word& ctl(std::uint32_t s) const { return ctl_[s]; }
  word& owner() { return owner_; }  // of the one chunk that has all blocks
  std::uint32_t lease_total() const { return sharedmem::lease_group_count * entries_per_group; }

  /// All words at rest. `used`: slots that processes of this run may have.
  void reset(const std::vector<unsigned>& used);
  const std::vector<unsigned>& slots() const { return used_; }

 private:
  std::vector<unsigned> used_;
  std::array<std::array<word, sharedmem::at_holders + slot_total / 64>, block_total> blocks_;
  std::array<std::array<word, sharedmem::lease_entry_words>, sharedmem::lease_group_count * entries_per_group>
      leases_;
  std::array<word, sharedmem::lease_group_count> marks_;
  std::array<word, slot_total> ctl_;
  word slot_mark_, owner_;
};

inline void small_tables::reset(const std::vector<unsigned>& used) {
  using namespace sharedmem;
  used_ = used;
  for (unsigned b = 0; b < block_total; ++b) {
    word* d = blocks_[b].data();
    d[at_life].reset(kind::life, b, false);
    d[at_lease_groups].reset(kind::groups, b, false);
    d[at_place].reset(kind::other, b, true);
    d[at_bytes].reset(kind::other, b, true);
    for (unsigned w = 0; w < slot_total / 64; ++w) d[at_holders + w].reset(kind::holders, b * 10 + w, false);
  }
  const auto in_use = [&](unsigned group) {
    return std::any_of(used.begin(), used.end(), [&](unsigned s) { return s % lease_group_count == group; });
  };
  for (unsigned i = 0; i < lease_total(); ++i) {
    const bool quiet = !in_use(i / entries_per_group);
    leases_[i][at_word].reset(kind::lease, i, quiet);
    leases_[i][at_what].reset(kind::what, i, quiet);
    leases_[i][at_clock].reset(kind::clock, i, quiet);
    leases_[i][at_lease_bytes].reset(kind::other, i, true);
  }
  for (unsigned g = 0; g < lease_group_count; ++g) marks_[g].reset(kind::mark, g, !in_use(g));
  for (unsigned s = 0; s < slot_total; ++s)
    ctl_[s].reset(kind::ctl, s, std::find(used.begin(), used.end(), s) == used.end());
  slot_mark_.reset(kind::slots, 0, false);
  owner_.reset(kind::owner, 0, false);
}

/// What is written into a pipe. `ticket`: which sending it was; the test's own knowledge.
struct message {
  std::uint32_t block;
  std::uint64_t generation;
  sharedmem::lease_id lease;
  unsigned ticket;
};

/// The test's own knowledge of a lease.
struct sending {
  sharedmem::lease_id lease;
  std::uint64_t time = 0;
  bool spent = false;    // loaded, expired or given back
  bool in_hand = false;  // read from the pipe by a process that has not begun to load it
};

class process;

/// All that processes share, and what the test knows about them.
class world {
 public:
  small_tables tables;
  std::vector<process*> processes;
  std::deque<message> pipe;
  std::vector<sending> sent;
  std::array<std::uint64_t, block_total> bytes{};  // the blocks' contents: 0 when the pages were given back
  std::uint64_t allocations = 0;
  std::uint64_t time = 0;
  bool warm = true;  // freed blocks keep their pages

  /// As it is at the start of a run; the process in slot `owner` owns the blocks.
  void reset(const std::vector<unsigned>& used, std::uint32_t owner);
  /// Called for each change of a word; throws a violation.
  void changed(const word& w, std::uint64_t before, std::uint64_t after);
  int attached() const;  // what the census counts
  /// A slot names a process that was killed.
  bool anybody_to_repair() const;
  std::uint32_t block_of(sharedmem::lease_id lease) const {
    return static_cast<std::uint32_t>(tables.lease(lease.entry)[sharedmem::at_what].now() >> 32);
  }

 private:
  void check_life(unsigned b, sharedmem::life_word from, sharedmem::life_word to) const;
  void check_unused(unsigned b, std::uint64_t generation) const;
  void check_lease(unsigned i, sharedmem::lease_word from, sharedmem::lease_word to);
  void check_slot_is_void(unsigned s);
};

/// A process: private memory, and operations in terms of the protocol, as the library composes them.
class process {
 public:
  process(world& shared, unsigned index) : w_(shared), index_(index) {}

  /// As it is at the start of a run: not in the arena, nothing held.
  void reset();
  /// In slot s from the start, without steps.
  void start_in(std::uint32_t s);

  bool join();
  void leave();
  void allocate(std::uint32_t b);
  void send(std::uint32_t b);
  /// Loads a message; true if the block is now held. `again`: its bytes were loaded before.
  bool load(const message& m, bool again = false);
  void drop(std::uint32_t b);
  void give_back(const message& m);
  void expire();
  /// The block `keeper`, which this process holds, keeps the message's lease instead of a process.
  bool keep(const message& m, std::uint32_t keeper);
  /// This process stands for a kept lease from now on.
  bool take(const message& m);
  void give_back_kept(const message& m);
  /// Gives back what freed blocks kept.
  void drop_unkept();
  /// Repairs what dead processes left.
  void pass();
  /// Takes over an orphaned chunk.
  bool adopt();
  bool fork_into(process& child, std::uint32_t slot, bool fails);
  void adopt_slot(std::uint32_t slot, const process& parent);

  bool may_allocate(std::uint32_t b) const;
  bool refers(std::uint32_t b) const { return references_[b].has_value(); }
  bool refers(std::uint32_t b, std::uint64_t g) const { return references_[b] == g; }
  bool holds_nothing() const;
  void die() {
    alive_ = false;
    killed_ = true;
  }
  bool alive() const { return alive_; }
  bool was_killed() const { return killed_; }
  sharedmem::actor who() const { return {index_ + 1, 1, 0}; }
  std::uint32_t slot() const { return slot_; }

  /// What any process may do at any time.
  bool try_free(std::uint32_t b) { return try_free(b, slot_); }
  bool sees_claim(std::uint32_t b, std::uint64_t g) { return rules_->claimed(b, g); }

 private:
  void publish(std::uint32_t b);
  bool try_free(std::uint32_t b, std::uint32_t signer);
  bool take_slot();
  void repair(std::uint32_t dead, std::uint64_t seen);
  bool no_child_without_slot();
  bool is_dead(const sharedmem::actor& a) const;

  world& w_;
  unsigned index_;
  static constexpr std::uint32_t no_slot = ~std::uint32_t{0};

  std::uint32_t slot_ = no_slot;
  bool alive_ = false, killed_ = false;
  std::array<std::optional<std::uint64_t>, block_total> references_;
  std::array<bool, block_total> in_use_{};  // mine, and never shared
  std::optional<sharedmem::protocol<watched_atomics, small_tables>> rules_;
};

inline void world::reset(const std::vector<unsigned>& used, std::uint32_t owner) {
  using namespace sharedmem;
  tables.reset(used);
  tables.owner().reset(kind::owner, 0, false, owner_word{chunk_state::owned, owner, 0}.bits());
  pipe.clear();
  sent.clear();
  time = 0;
  bytes.fill(0);
  allocations = 0;
}

inline int world::attached() const {
  return static_cast<int>(
      std::count_if(processes.begin(), processes.end(), [](const process* p) { return p->alive(); }));
}

inline bool world::anybody_to_repair() const {
  return std::any_of(tables.slots().begin(), tables.slots().end(), [this](unsigned s) {
    const auto v = sharedmem::slot_word::from(tables.ctl(s).now());
    return v.state != sharedmem::slot_state::empty && processes[v.who.pid - 1]->was_killed();
  });
}

inline void world::changed(const word& w, std::uint64_t before, std::uint64_t after) {
  using namespace sharedmem;
  if (w.of() == kind::life) check_life(w.index(), life_word::from(before), life_word::from(after));
  if (w.of() == kind::lease) check_lease(w.index(), lease_word::from(before), lease_word::from(after));
  if (w.of() == kind::ctl && after == 0) check_slot_is_void(w.index());
}

/// The table at the top of protocol.hpp; that of lease_table.hpp is check_lease.
inline void world::check_life(unsigned b, sharedmem::life_word from, sharedmem::life_word to) const {
  using sharedmem::life_state;
  const bool same = to.generation == from.generation;
  const bool next = to.generation == from.generation + 1;
  bool legal = false;
  switch (from.state) {
    case life_state::free: legal = same && to.state == life_state::live; break;
    case life_state::live: legal = same && to.state == life_state::freeing; break;
    case life_state::freeing:
      legal = (same && (to.state == life_state::freeing || to.state == life_state::live)) ||
              (next && (to.state == life_state::free || to.state == life_state::emptying));
      break;
    case life_state::emptying: legal = same && to.state == life_state::free; break;
  }
  check(legal, "life of block " + std::to_string(b) + " went a way that does not exist");
  if (next) check_unused(b, from.generation);
}

/// Block b in that generation is about to be free.
inline void world::check_unused(unsigned b, std::uint64_t generation) const {
  using namespace sharedmem;
  for (const process* p : processes)
    check(!p->alive() || !p->refers(b), "block " + std::to_string(b) + " was freed while a process used it");
  for (unsigned i = 0; i < tables.lease_total(); ++i) {
    const word* e = tables.lease(i);
    const auto state = lease_word::from(e[at_word].now()).state;
    const bool names_it = e[at_what].now() == (std::uint64_t{b} << 32 | generation);
    check(!names_it || (state != lease_state::out && state != lease_state::loading),
          "block " + std::to_string(b) + " was freed while a lease on it was out");
  }
}

inline void world::check_lease(unsigned i, sharedmem::lease_word from, sharedmem::lease_word to) {
  using namespace sharedmem;
  const bool same = to.nonce == from.nonce;
  bool legal = false;
  switch (from.state) {
    case lease_state::vacant: legal = to.nonce == from.nonce + 1 && to.state == lease_state::filling; break;
    case lease_state::filling:
      legal = same && (to.state == lease_state::out || to.state == lease_state::vacant);
      break;
    case lease_state::out: legal = same && to.state != lease_state::filling; break;
    case lease_state::loading: legal = same && to.state == lease_state::vacant; break;
  }
  check(legal, "lease " + std::to_string(i) + " went a way that does not exist");
  check(to.state != lease_state::out || to.slot != nobody || tables.lease(i)[at_clock].now() == deadline,
        "a lease of the dead has no deadline");
  if (from.state == lease_state::out && to.state != lease_state::out)
    for (sending& s : sent)
      if (s.lease.entry == i && s.lease.nonce == from.nonce) s.spent = true;
}

/// Rule 5: no trace of a slot's process is left when the slot becomes VOID.
inline void world::check_slot_is_void(unsigned s) {
  using namespace sharedmem;
  const std::string text = " of slot " + std::to_string(s) + " was left when it became VOID";
  for (unsigned b = 0; b < block_total; ++b) {
    word* d = tables.block(b);
    check((d[at_holders + s / 64].now() >> (s % 64) & 1) == 0, "a holders bit" + text);
    const auto life = life_word::from(d[at_life].now());
    check(life.state != life_state::emptying || life.slot != s, "EMPTYING" + text);
  }
  for (unsigned i = 0; i < tables.lease_total(); ++i) {
    const auto lease = lease_word::from(tables.lease(i)[at_word].now());
    check(lease.state == lease_state::vacant || lease.slot != s, "a lease" + text);
  }
}

}  // namespace schedules
