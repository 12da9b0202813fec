#pragma once

/// \file
/// Leases: references in flight. The sender of a block acquires one, and loading the message consumes it. As long as
/// it is OUT the block is claimed, whatever happens to its sender.
///
/// | lease          | send by s    | load with nonce n by r | r confirmed | repair of dead s           | deadline passed |
/// | -------------- | ------------ | ---------------------- | ----------- | -------------------------- | --------------- |
/// | VACANT(n)      | FILLING(s,n+1)| no lease              | -           | -                          | -               |
/// | FILLING(s,n)   | OUT(s,n)     | -                      | -           | VACANT                     | -               |
/// | OUT(s,n)       | -            | LOADING(r,n)           | -           | OUT(nobody,n), deadline set| -               |
/// | OUT(nobody,n)  | -            | LOADING(r,n)           | -           | -                          | VACANT, try_free|
/// | LOADING(r,n)   | -            | no lease               | VACANT      | r dead: VACANT             | -               |
///
/// A lease may be kept by a block (a queue's) instead of a process: `keep` turns OUT(any,n) into OUT(kept,n), with the
/// block in its clock; `take_from_keeper` turns it into OUT(r,n) for the process r that takes the message out. No death
/// changes a kept lease. It becomes VACANT, with `try_free`, by the next `expire` after its block was freed.
///
/// Two more steps change a lease that is OUT, whichever process is responsible for it. A process r that reads the bytes
/// of its message without loading them, or writes them somewhere, becomes responsible: OUT(r,n). A process that knows
/// that the bytes are lost gives it back, VACANT(n), and calls `try_free`.
///
/// What a death leaves behind: OUT (loaded, or taken back after its grace), FILLING or LOADING (repair:
/// VACANT). The rules that make a lease a claim are those of protocol.hpp.
///
/// `Tables` says where the words are:
///
///     word* block(b)          only `lease_groups` of a block's words is used here
///     word* lease(i)          word, what, clock, bytes
///     word& lease_mark(g)     version:32, mark:32: entries of group g at or above `mark` are VACANT
///     uint32 lease_group_entries(), uint32 block_count()
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <optional>

#include "shared/fault.hpp"
#include "shared/words.hpp"

namespace sharedmem {

/// How long a lease is kept for its message after its sender was found dead.
inline constexpr std::uint64_t lease_grace_ns = 60'000'000'000;

/// The policy that the library is compiled with; tests have another.
struct native_atomics {
  using word = std::atomic<std::uint64_t>;
  template <point where>
  static void step() noexcept {
    sharedmem::step<where>();
  }
};

/// A reference in flight: which entry, and the nonce that makes its consumption exact.
struct lease_id {
  std::uint32_t entry = 0;
  std::uint64_t nonce = 0;
};

/// Which process was responsible for a lease before.
enum class taken_over : std::uint8_t { not_out, own, another_process };

/// The entries that all processes share, and where this process last found a free one.
/// Threads: any, at any time. Processes: any; each entry changes hands by compare-and-swap.
template <class Atomics, class Tables>
class lease_table {
  using word = typename Atomics::word;
  static constexpr auto sc = std::memory_order_seq_cst;
  static constexpr auto acquire = std::memory_order_acquire;
  static constexpr auto release = std::memory_order_release;
  static constexpr auto relaxed = std::memory_order_relaxed;

 public:
  explicit lease_table(Tables& tables) noexcept : t_(tables) {}

  /// The word `what` of an entry for generation g of block b.
  static constexpr std::uint64_t what(std::uint32_t b, std::uint64_t g) noexcept {
    return std::uint64_t{b} << 32 | (g & 0xffffffffu);
  }

  /// Acquires a lease on b (whose bit of s is set and stays set until this returns). Empty: the table is full.
  std::optional<lease_id> send(std::uint32_t b, std::uint64_t g, std::uint32_t s, std::uint64_t now,
                               std::uint64_t bytes) {
    word* d = t_.block(b);
    // Full groups are not searched again for a while: with most entries in use each send would search them all.
    constexpr std::uint32_t rest = 256;
    const std::uint32_t first = sends_.fetch_add(1, relaxed) % rest == 0 ? 0 : spill_.load(relaxed);
    for (std::uint32_t k = 0; k < lease_group_count; ++k) {
      const std::uint32_t away = (first + k) % lease_group_count;
      const std::uint32_t group = (s + away) % lease_group_count;
      const auto found = fill(group, s);
      if (!found) continue;
      spill_.store(away, relaxed);
      Atomics::template step<point::lease_filling>();
      word* e = t_.lease(found->entry);
      e[at_what].store(what(b, g), relaxed);  // published by OUT
      // Release: a process that reads it sees FILLING; a repairer only changes the clock of the lease that it repairs.
      e[at_clock].store(now, release);
      e[at_lease_bytes].store(bytes, relaxed);
      Atomics::template step<point::lease_described>();
      d[at_lease_groups].fetch_or(std::uint64_t{1} << group, sc);
      Atomics::template step<point::lease_hinted>();
      // Release: a process that reads s's bit as cleared (acquire; `protocol::claimed`) sees this OUT, by rule 3.
      e[at_word].store(lease_word{lease_state::out, s, found->nonce}.bits(), release);
      Atomics::template step<point::lease_out>();
      return found;
    }
    return std::nullopt;
  }

  /// OUT(any, n) -> LOADING(s, n). False: that lease is not OUT (loaded before, expired, revoked).
  bool begin_load(lease_id id, std::uint32_t s) {
    word& w = t_.lease(id.entry)[at_word];
    std::uint64_t seen = w.load(sc);
    for (;;) {
      const auto v = lease_word::from(seen);
      if (v.state != lease_state::out || v.nonce != id.nonce) return false;
      if (w.compare_exchange_weak(seen, lease_word{lease_state::loading, s, id.nonce}.bits(), sc, sc)) {
        Atomics::template step<point::lease_loading>();
        return true;
      }
    }
  }

  /// LOADING(s, n) -> VACANT(n), after the loader's bit was confirmed (rule 3).
  void end_load(lease_id id) {
    t_.lease(id.entry)[at_word].store(lease_word{lease_state::vacant, 0, id.nonce}.bits(), release);
    Atomics::template step<point::lease_vacant>();
    lower_mark(id.entry);
  }

  /// OUT(any, n) -> VACANT(n) for a message that will never be loaded; the caller has to call `try_free`.
  bool give_back(lease_id id) {
    word& w = t_.lease(id.entry)[at_word];
    std::uint64_t seen = w.load(sc);
    for (;;) {
      const auto v = lease_word::from(seen);
      if (v.state != lease_state::out || v.nonce != id.nonce) return false;
      if (w.compare_exchange_weak(seen, lease_word{lease_state::vacant, 0, id.nonce}.bits(), sc, sc)) break;
    }
    Atomics::template step<point::lease_returned>();
    lower_mark(id.entry);
    return true;
  }

  /// OUT(any, n) -> OUT(s, n): the process of slot s has the bytes of the message, and is responsible from now on.
  taken_over take_over(lease_id id, std::uint32_t s) {
    word& w = t_.lease(id.entry)[at_word];
    std::uint64_t seen = w.load(sc);
    for (;;) {
      const auto v = lease_word::from(seen);
      if (v.state != lease_state::out || v.nonce != id.nonce) return taken_over::not_out;
      if (v.slot == s) return taken_over::own;
      if (w.compare_exchange_weak(seen, lease_word{lease_state::out, s, id.nonce}.bits(), sc, sc)) {
        Atomics::template step<point::lease_taken_over>();
        return taken_over::another_process;
      }
    }
  }

  /// OUT(any, n) -> OUT(kept, n) by the block in `keeper` (`kept_by`). False: the lease is not OUT.
  bool keep(lease_id id, std::uint64_t keeper) {
    word* e = t_.lease(id.entry);
    std::uint64_t seen = e[at_word].load(sc);
    for (;;) {
      const auto v = lease_word::from(seen);
      if (v.state != lease_state::out || v.nonce != id.nonce) return false;
      // Before the word: a kept lease without a block would look like one whose block was freed.
      e[at_clock].store(keeper, sc);
      Atomics::template step<point::lease_keeper_named>();
      if (e[at_word].compare_exchange_weak(seen, lease_word{lease_state::out, kept, id.nonce}.bits(), sc,
                                           sc)) {
        Atomics::template step<point::lease_kept>();
        return true;
      }
    }
  }

  /// OUT(kept, n) -> OUT(s, n), as of `now`. False: it is not kept.
  bool take_from_keeper(lease_id id, std::uint32_t s, std::uint64_t now) {
    word* e = t_.lease(id.entry);
    std::uint64_t seen = lease_word{lease_state::out, kept, id.nonce}.bits();
    const std::uint64_t mine = lease_word{lease_state::out, s, id.nonce}.bits();
    if (!e[at_word].compare_exchange_strong(seen, mine, sc, sc)) return false;
    Atomics::template step<point::lease_taken_over>();
    e[at_clock].store(now, relaxed);
    return true;
  }

  /// OUT(kept, n) -> VACANT(n); the caller has to call `try_free`. False: it is not kept.
  bool give_back_kept(lease_id id) {
    std::uint64_t seen = lease_word{lease_state::out, kept, id.nonce}.bits();
    if (!t_.lease(id.entry)[at_word].compare_exchange_strong(
            seen, lease_word{lease_state::vacant, 0, id.nonce}.bits(), sc, sc))
      return false;
    Atomics::template step<point::lease_returned>();
    lower_mark(id.entry);
    return true;
  }

  /// Records that there may be several copies of the message. If this message was loaded meanwhile and the lease
  /// belongs to another one, this does no harm: that one is kept until it is loaded.
  void note_copies(lease_id id) { t_.lease(id.entry)[at_lease_bytes].fetch_or(copied_message, sc); }

  /// Whether that lease is OUT, and the process of slot s is responsible for it.
  bool is_out(lease_id id, std::uint32_t s) {
    return t_.lease(id.entry)[at_word].load(sc) == lease_word{lease_state::out, s, id.nonce}.bits();
  }

  /// Whether that lease still claims its block: it is OUT, whichever process is responsible, or being loaded.
  bool claims_block(lease_id id) {
    const auto v = lease_word::from(t_.lease(id.entry)[at_word].load(sc));
    return v.nonce == id.nonce && (v.state == lease_state::out || v.state == lease_state::loading);
  }

  /// OUT(s, n) -> VACANT(n): the only copy of its message is lost, and s was responsible for it.
  /// One step: a process that took the message over meanwhile keeps it. The caller has to call `try_free`.
  bool give_back_lost(lease_id id, std::uint32_t s) {
    if ((t_.lease(id.entry)[at_lease_bytes].load(sc) & copied_message) != 0) return false;
    std::uint64_t mine = lease_word{lease_state::out, s, id.nonce}.bits();
    if (!t_.lease(id.entry)[at_word].compare_exchange_strong(
            mine, lease_word{lease_state::vacant, 0, id.nonce}.bits(), sc, sc))
      return false;
    Atomics::template step<point::lease_returned>();
    lower_mark(id.entry);
    return true;
  }

  /// Gives back leases for which `expired(lease_word, clock)` holds, and calls `free(block)` after each. A lease on
  /// a block that `Tables` does not reach is left alone: its block could not be freed.
  template <class Expired, class Free>
  std::uint64_t expire(Expired&& expired, Free&& free) {
    std::uint64_t given = 0;
    each([&](std::uint32_t i, lease_word v, word* e) {
      if (v.state != lease_state::out || !expired(v, e[at_clock].load(relaxed))) return;
      const auto b = static_cast<std::uint32_t>(e[at_what].load(relaxed) >> 32);
      if (b >= t_.block_count() || !give_back({i, v.nonce})) return;
      ++given;
      free(b);
    });
    return given;
  }

  /// Calls f(entry, lease_word, words) for every lease below its group's mark, even if a stray write has changed that.
  template <class F>
  void each(F&& f) {
    for (std::uint32_t g = 0; g < lease_group_count; ++g) {
      const std::uint32_t mark = std::min(mark_of(t_.lease_mark(g).load(sc)), t_.lease_group_entries());
      for (std::uint32_t k = 0; k < mark; ++k) {
        const std::uint32_t i = g * t_.lease_group_entries() + k;
        word* e = t_.lease(i);
        f(i, lease_word::from(e[at_word].load(sc)), e);
      }
    }
  }

  /// Whether a lease in one of `groups` (bits) claims block b in its generation g: it is OUT or being loaded.
  bool claims(std::uint64_t groups, std::uint32_t b, std::uint64_t g) {
    for (; groups != 0; groups &= groups - 1)
      if (leased(static_cast<std::uint32_t>(std::countr_zero(groups)), b, g)) return true;
    return false;
  }

  /// Repairs what the dead process of slot d left: FILLING and LOADING become VACANT, OUT waits as OUT(nobody)
  /// until `deadline`. Idempotent.
  /// It looks above the marks, too, where an entry may be FILLING by a process that died before it raised the
  /// mark again. Entries are used from the lowest on, so a row of never used ones ends the used part of a group.
  void settle(std::uint32_t d, std::uint64_t deadline) {
    constexpr std::uint32_t unused_row = 64;
    for (std::uint32_t g = 0; g < lease_group_count; ++g) {
      const std::uint64_t marks = t_.lease_mark(g).load(sc);
      if (marks == 0) continue;  // never raised: no entry was ever used, and reading would allocate the page
      std::uint32_t unused = 0;
      for (std::uint32_t k = 0; k < t_.lease_group_entries() && unused < unused_row; ++k) {
        const std::uint32_t i = g * t_.lease_group_entries() + k;
        const auto v = lease_word::from(t_.lease(i)[at_word].load(sc));
        unused = k >= mark_of(marks) && v.nonce == 0 && v.state == lease_state::vacant ? unused + 1 : 0;
        if (v.slot == d && v.state != lease_state::vacant) settle_lease(i, v, deadline);
      }
    }
  }

 private:
  static constexpr std::uint32_t mark_of(std::uint64_t v) noexcept { return static_cast<std::uint32_t>(v); }
  static constexpr std::uint64_t marked(std::uint64_t old, std::uint32_t mark) noexcept {
    return ((old >> 32) + 1) << 32 | mark;
  }

  bool leased(std::uint32_t group, std::uint32_t b, std::uint64_t g) {
    const std::uint32_t mark = mark_of(t_.lease_mark(group).load(sc));
    for (std::uint32_t k = 0; k < mark; ++k) {
      word* e = t_.lease(group * t_.lease_group_entries() + k);
      const auto v = lease_word::from(e[at_word].load(sc));
      if ((v.state == lease_state::out || v.state == lease_state::loading) &&
          e[at_what].load(relaxed) == what(b, g))
        return true;
    }
    return false;
  }

  std::optional<lease_id> fill(std::uint32_t group, std::uint32_t s) {
    const std::uint32_t entries = t_.lease_group_entries();
    const std::uint32_t mark = mark_of(t_.lease_mark(group).load(sc));
    constexpr std::uint32_t few = 16;
    const std::uint32_t start = mark == 0 ? 0 : cursor_[group].load(relaxed) % mark;
    for (std::uint32_t k = 0; k < (mark < few ? mark : few); ++k)
      if (auto id = claim(group, (start + k) % mark, s)) return id;
    for (std::uint32_t k = mark; k < entries; ++k)
      if (auto id = claim(group, k, s)) return id;
    for (std::uint32_t k = 0; k < mark; ++k)
      if (auto id = claim(group, k, s)) return id;
    return std::nullopt;
  }

  std::optional<lease_id> claim(std::uint32_t group, std::uint32_t k, std::uint32_t s) {
    const std::uint32_t i = group * t_.lease_group_entries() + k;
    word& w = t_.lease(i)[at_word];
    std::uint64_t seen = w.load(relaxed);
    const auto v = lease_word::from(seen);
    if (v.state != lease_state::vacant) return std::nullopt;
    const std::uint64_t nonce = (v.nonce + 1) & generation_mask;
    if (k >= mark_of(t_.lease_mark(group).load(sc))) raise_mark(group, k);  // repair must find FILLING
    if (!w.compare_exchange_strong(seen, lease_word{lease_state::filling, s, nonce}.bits(), sc, relaxed))
      return std::nullopt;
    raise_mark(group, k);
    cursor_[group].store(k + 1, relaxed);
    return lease_id{i, nonce};
  }

  /// Runs after FILLING: for an entry at the top it changes the mark's version, so that a process that read it as
  /// VACANT before can no longer lower the mark below it.
  void raise_mark(std::uint32_t group, std::uint32_t k) {
    word& m = t_.lease_mark(group);
    std::uint64_t seen = m.load(sc);
    while (mark_of(seen) <= k + 1) {
      const std::uint32_t mark = mark_of(seen) > k + 1 ? mark_of(seen) : k + 1;
      if (m.compare_exchange_weak(seen, marked(seen, mark), sc, sc)) return;
    }
  }

  /// Lowers the mark over VACANT entries at the top; otherwise each later walk would take as long as after the
  /// greatest number of leases ever. `entry` has just become VACANT.
  void lower_mark(std::uint32_t entry) {
    const std::uint32_t entries = t_.lease_group_entries();
    const std::uint32_t group = entry / entries;
    word& m = t_.lease_mark(group);
    std::uint64_t seen = m.load(sc);
    if (mark_of(seen) > entry % entries + 1) return;
    while (mark_of(seen) != 0) {
      const std::uint32_t top = group * entries + mark_of(seen) - 1;
      if (lease_word::from(t_.lease(top)[at_word].load(sc)).state != lease_state::vacant) return;
      const std::uint64_t lower = marked(seen, mark_of(seen) - 1);
      if (!m.compare_exchange_strong(seen, lower, sc, sc)) return;
      seen = lower;
    }
  }

  void settle_lease(std::uint32_t i, lease_word v, std::uint64_t deadline) {
    word* e = t_.lease(i);
    std::uint64_t seen = v.bits();
    if (v.state == lease_state::out) {
      // Before the word says nobody, or the lease would expire at once; but not if the entry belongs to another
      // message by now, whose age `revoke` would then not see. The two clocks differ.
      std::uint64_t sent = e[at_clock].load(acquire);
      if (e[at_word].load(sc) != seen) return;
      e[at_clock].compare_exchange_strong(sent, deadline, relaxed, relaxed);
      e[at_word].compare_exchange_strong(seen, lease_word{lease_state::out, nobody, v.nonce}.bits(), sc,
                                         relaxed);
    } else if (e[at_word].compare_exchange_strong(seen, lease_word{lease_state::vacant, 0, v.nonce}.bits(),
                                                  sc, relaxed)) {
      lower_mark(i);
    }
  }

  Tables& t_;
  std::array<std::atomic<std::uint32_t>, lease_group_count> cursor_{};
  std::atomic<std::uint32_t> spill_{0}, sends_{0};  // distance from its own group to the last free entry
};

}  // namespace sharedmem
