#pragma once

/// \file
/// The life of a block between processes: every operation on the words that several processes write.
///
/// Nobody ever waits for anybody. Five rules carry everything:
///   1. Set, then confirm: who sets a holders bit afterwards looks at `life` and turns FREEING back to LIVE.
///   2. Clear, then try_free: who removes a claim afterwards calls `try_free`. Always.
///   3. Holders before leases: a look for claims reads all holders words first, then the leases. Hence a
///      claim moves safely from bit to lease (sending) and from lease to bit (loading).
///   4. Anybody may call `try_free` at any time; the loser's last compare-and-swap fails.
///   5. A slot becomes VOID last, after every trace of its process is gone.
///
/// | `life`         | publish | confirm(g), bit set              | try_free by s: no claim | s looked again            | repair of dead x |
/// | -------------- | ------- | -------------------------------- | ----------------------- | ------------------------- | ---------------- |
/// | FREE(g)        | LIVE(g) | stale                            | -                       | lost                      | -                |
/// | LIVE(g)        | -       | valid if equal g, else stale     | FREEING(s,g)            | lost                      | try_free         |
/// | FREEING(x,g)   | -       | equal g: LIVE(g), valid; or stale| FREEING(s,g)            | x=s: LIVE(g) or FREE(g+1), EMPTYING(s,g+1) | try_free |
/// | EMPTYING(x,g)  | -       | stale                            | -                       | x=s, pages gone: FREE(g)  | FREE(g)          |
///
/// | lease          | send by s    | load with nonce n by r | r confirmed | repair of dead s           | deadline passed |
/// | -------------- | ------------ | ---------------------- | ----------- | -------------------------- | --------------- |
/// | VACANT(n)      | FILLING(s,n+1)| no lease              | -           | -                          | -               |
/// | FILLING(s,n)   | OUT(s,n)     | -                      | -           | VACANT                     | -               |
/// | OUT(s,n)       | -            | LOADING(r,n)           | -           | OUT(nobody,n), deadline set| -               |
/// | OUT(nobody,n)  | -            | LOADING(r,n)           | -           | -                          | VACANT, try_free|
/// | LOADING(r,n)   | -            | no lease               | VACANT      | r dead: VACANT             | -               |
///
/// What a death leaves behind: a bit (repair clears it and calls try_free), FREEING of a dead process
/// (any try_free takes it over, any load rescues it), EMPTYING (repair: FREE), a lease (loaded, or taken
/// back after its grace), FILLING or LOADING (repair: VACANT). The same protocol is model-checked in
/// doc/model; names and steps here are the model's.
///
/// The template takes its atomics from a policy, so that tests run the same code under a scheduler that
/// orders steps and kills participants. `Tables` says where the words are:
///
///     word* block(b)          life, lease_groups, place, bytes, then the holders words
///     word* lease(i)          word, what, clock, bytes
///     word& lease_mark(g)     version:32, mark:32: entries of group g at or above `mark` are VACANT
///     word& slot_mark()       slots at or above it are VOID and own no bit
///     uint32 lease_group_entries(), uint32 block_count(), void for_each_published(f)
///
/// Threads: calls on one block are serialised by the caller (a lock private to the process).
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <optional>

#include <sharedmem/fault.hpp>
#include <sharedmem/words.hpp>

namespace sharedmem {

inline constexpr std::uint32_t lease_group_count = 64;

/// Words of a block's descriptor before its holders, and their order.
enum : int { at_life = 0, at_lease_groups = 1, at_place = 2, at_bytes = 3, at_holders = 4 };
/// Words of a lease entry.
enum : int { at_word = 0, at_what = 1, at_clock = 2, at_lease_bytes = 3, lease_entry_words = 4 };

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

template <class Atomics, class Tables>
class protocol {
  using word = typename Atomics::word;
  static constexpr auto sc = std::memory_order_seq_cst;
  static constexpr auto acq_rel = std::memory_order_acq_rel;
  static constexpr auto acquire = std::memory_order_acquire;
  static constexpr auto release = std::memory_order_release;
  static constexpr auto relaxed = std::memory_order_relaxed;

 public:
  explicit protocol(Tables& tables) noexcept : t_(tables) {}

  /// Makes the first claim on a block that only its owner knew: FREE(g) -> LIVE(g). Returns g.
  /// `place` and `bytes` describe the block to whoever loads a handle of it.
  std::uint64_t publish(std::uint32_t b, std::uint32_t s, std::uint64_t place, std::uint64_t bytes) {
    word* d = t_.block(b);
    d[at_place].store(place, relaxed);  // published by LIVE below; read after a confirm
    d[at_bytes].store(bytes, relaxed);
    holders(d, s).fetch_or(bit(s), sc);
    Atomics::template step<point::publish_bit>();
    d[at_lease_groups].store(0, relaxed);
    auto v = life_word::from(d[at_life].load(relaxed));  // FREE, and the owner alone may leave FREE
    std::uint64_t expected = v.bits();
    const life_word live{life_state::live, 0, v.generation};
    d[at_life].compare_exchange_strong(expected, live.bits(), acq_rel, relaxed);
    Atomics::template step<point::publish_live>();
    return v.generation;
  }

  /// The same for a fork, which claims for a child too: plain stores, since nobody can name the block
  /// before they are all done, and bits that strangers left in a FREE block mean nothing. Returns g.
  std::uint64_t publish_for_two(std::uint32_t b, std::uint32_t s, std::uint32_t child, std::uint64_t place,
                                std::uint64_t bytes) {
    word* d = t_.block(b);
    d[at_place].store(place, relaxed);
    d[at_bytes].store(bytes, relaxed);
    d[at_lease_groups].store(0, relaxed);
    if (s / 64 == child / 64) {
      holders(d, s).store(bit(s) | bit(child), relaxed);
    } else {
      holders(d, s).store(bit(s), relaxed);
      holders(d, child).store(bit(child), relaxed);
    }
    Atomics::template step<point::publish_bit>();
    const auto v = life_word::from(d[at_life].load(relaxed));
    // Release: the bits are there before LIVE, for whoever repairs after us.
    d[at_life].store(life_word{life_state::live, 0, v.generation}.bits(), release);
    Atomics::template step<point::publish_live>();
    return v.generation;
  }

  /// Whether anything claims block b in its generation g. Rule 3: holders first, then leases.
  /// Orders: the loads of holders pair with `fetch_or` in `hold`, those of leases with OUT in `send`.
  bool claimed(std::uint32_t b, std::uint64_t g) {
    word* d = t_.block(b);
    const auto words = (static_cast<std::uint32_t>(t_.slot_mark().load(sc)) + 63) / 64;
    for (std::uint32_t w = 0; w < words; ++w)
      if (d[at_holders + w].load(sc) != 0) return true;
    for (std::uint64_t groups = d[at_lease_groups].load(sc); groups != 0; groups &= groups - 1)
      if (leased(static_cast<std::uint32_t>(std::countr_zero(groups)), b, g)) return true;
    return false;
  }

  /// Frees b if nothing claims it. `keep()` says whether its pages may stay warm, `empty(b)` gives them
  /// back to the system. Returns true if this call freed it.
  /// Orders: the compare-and-swap to FREEING and the second look are a store-buffering pair with
  /// `hold` (bit, then life); both seq_cst, or the freer frees what the acquirer thinks LIVE.
  template <class Keep, class Empty>
  bool try_free(std::uint32_t b, std::uint32_t s, Keep&& keep, Empty&& empty) {
    word* d = t_.block(b);
    auto v = life_word::from(d[at_life].load(sc));
    if (v.state == life_state::free || v.state == life_state::emptying) return false;
    if (claimed(b, v.generation)) return false;
    std::uint64_t seen = v.bits();
    life_word freeing;
    do {
      v = life_word::from(seen);
      if (v.state == life_state::free || v.state == life_state::emptying) return false;
      freeing = {life_state::freeing, s, v.generation};
    } while (!d[at_life].compare_exchange_weak(seen, freeing.bits(), sc, sc));
    Atomics::template step<point::set_freeing>();
    std::uint64_t mine = freeing.bits();
    if (claimed(b, freeing.generation)) {  // failure: rescued or taken over, theirs now
      const life_word live{life_state::live, 0, freeing.generation};
      d[at_life].compare_exchange_strong(mine, live.bits(), sc, relaxed);
      Atomics::template step<point::back_to_live>();
      return false;
    }
    const std::uint64_t next = (freeing.generation + 1) & generation_mask;
    const life_word free{life_state::free, 0, next};
    if (keep(b)) {
      const bool won = d[at_life].compare_exchange_strong(mine, free.bits(), sc, relaxed);
      Atomics::template step<point::set_free>();
      return won;
    }
    // Pages go in EMPTYING: in FREEING a rescue would revive an array with holes, after FREE its next
    // life may have begun.
    const life_word emptying{life_state::emptying, s, next};
    if (!d[at_life].compare_exchange_strong(mine, emptying.bits(), sc, relaxed)) return false;
    Atomics::template step<point::set_emptying>();
    empty(b);
    Atomics::template step<point::pages_emptied>();
    d[at_life].store(free.bits(), release);
    Atomics::template step<point::set_free>();
    return true;
  }

  /// Sets slot s's bit on b and confirms generation g: true if s now holds it. False: the handle is
  /// stale, the bit is cleared again, and the caller owes `try_free` (rule 2: others saw the bit).
  bool hold(std::uint32_t b, std::uint32_t s, std::uint64_t g) {
    word* d = t_.block(b);
    holders(d, s).fetch_or(bit(s), sc);
    Atomics::template step<point::acquire_bit>();
    if (confirm(d, g)) {
      Atomics::template step<point::acquire_confirmed>();
      return true;
    }
    holders(d, s).fetch_and(~bit(s), sc);
    Atomics::template step<point::acquire_backed_out>();
    return false;
  }

  /// Clears slot s's bit on b; the caller owes `try_free`. The RMW releases the last writes to the
  /// bytes (the freer's load of holders acquires them) and, seq_cst, pairs with another dropper's whose
  /// bit lies in another word: each clears its own, then looks at the other's.
  void clear(std::uint32_t b, std::uint32_t s) {
    holders(t_.block(b), s).fetch_and(~bit(s), sc);
    Atomics::template step<point::clear_bit>();
  }

  bool holds(std::uint32_t b, std::uint32_t s) { return (holders(t_.block(b), s).load(sc) & bit(s)) != 0; }

  /// Takes a lease on b (whose bit of s is set and stays set until this returns). Empty: the table is full.
  std::optional<lease_id> send(std::uint32_t b, std::uint64_t g, std::uint32_t s, std::uint64_t now,
                               std::uint64_t bytes) {
    word* d = t_.block(b);
    // Full groups are not searched again for a while: with most entries out each send would look at all.
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
      e[at_clock].store(
          now, release);  // who reads it sees FILLING: a repairer changes no clock but its own entry's
      e[at_lease_bytes].store(bytes, relaxed);
      Atomics::template step<point::lease_described>();
      d[at_lease_groups].fetch_or(std::uint64_t{1} << group, sc);
      Atomics::template step<point::lease_hinted>();
      // Release: whoever reads s's bit as cleared (acquire) sees this OUT, by rule 3.
      e[at_word].store(lease_word{lease_state::out, s, found->nonce}.bits(), release);
      Atomics::template step<point::lease_out>();
      return found;
    }
    return std::nullopt;
  }

  /// OUT(any, n) -> LOADING(s, n). False: that lease is not out (loaded before, expired, revoked).
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

  /// OUT(any, n) -> VACANT(n) for a message that will never be loaded; the caller owes `try_free`.
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

  /// Takes back what the dead process of slot d held; `ctl[d]` is REPAIR(caller). Safe to run twice.
  /// Afterwards leases of d wait as OUT(nobody) until `deadline`. `freed(b)` runs `try_free`.
  template <class Orphan, class Free>
  void repair(std::uint32_t d, std::uint32_t s, std::uint64_t deadline, Orphan&& orphan_chunks, Free&& free) {
    static_cast<void>(s);
    t_.for_each_published([&](std::uint32_t b) { clear_dead(b, d); });
    Atomics::template step<point::repair_bits>();
    orphan_chunks(d);
    Atomics::template step<point::repair_chunks>();
    settle_leases(d, deadline);
    Atomics::template step<point::repair_leases>();
    t_.for_each_published(free);  // all: d may have died between clear and try_free
    Atomics::template step<point::repair_swept>();
  }

  /// Gives back leases for which `expired(lease_word, clock)` holds, and calls `free(block)` after each.
  template <class Expired, class Free>
  std::uint64_t expire(Expired&& expired, Free&& free) {
    std::uint64_t given = 0;
    each_lease([&](std::uint32_t i, lease_word v, word* e) {
      if (v.state != lease_state::out || !expired(v, e[at_clock].load(relaxed))) return;
      const auto b = static_cast<std::uint32_t>(e[at_what].load(relaxed) >> 32);
      if (!give_back({i, v.nonce})) return;
      ++given;
      if (b < t_.block_count()) free(b);
    });
    return given;
  }

  /// Calls f(entry, lease_word, words) for every lease below its group's mark.
  template <class F>
  void each_lease(F&& f) {
    for (std::uint32_t g = 0; g < lease_group_count; ++g) {
      const std::uint32_t mark = mark_of(t_.lease_mark(g).load(sc));
      for (std::uint32_t k = 0; k < mark; ++k) {
        const std::uint32_t i = g * t_.lease_group_entries() + k;
        word* e = t_.lease(i);
        f(i, lease_word::from(e[at_word].load(sc)), e);
      }
    }
  }

 private:
  static constexpr std::uint64_t bit(std::uint32_t s) noexcept { return std::uint64_t{1} << (s % 64); }
  static word& holders(word* d, std::uint32_t s) noexcept { return d[at_holders + s / 64]; }
  static constexpr std::uint64_t what(std::uint32_t b, std::uint64_t g) noexcept {
    return std::uint64_t{b} << 32 | (g & 0xffffffffu);
  }
  static constexpr std::uint32_t mark_of(std::uint64_t v) noexcept { return static_cast<std::uint32_t>(v); }
  static constexpr std::uint64_t marked(std::uint64_t old, std::uint32_t mark) noexcept {
    return ((old >> 32) + 1) << 32 | mark;
  }

  /// The other half of rule 1: seq_cst load of life after the seq_cst RMW of the bit.
  bool confirm(word* d, std::uint64_t g) {
    std::uint64_t seen = d[at_life].load(sc);
    for (;;) {
      const auto v = life_word::from(seen);
      if (v.generation != g || v.state == life_state::free || v.state == life_state::emptying) return false;
      if (v.state == life_state::live) return true;
      if (d[at_life].compare_exchange_weak(seen, life_word{life_state::live, 0, g}.bits(), sc, sc))
        return true;
    }
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

  /// Runs after FILLING: an entry at the top changes the mark's version, so that whoever read it as
  /// VACANT before cannot lower the mark below it any more.
  void raise_mark(std::uint32_t group, std::uint32_t k) {
    word& m = t_.lease_mark(group);
    std::uint64_t seen = m.load(sc);
    while (mark_of(seen) <= k + 1) {
      const std::uint32_t mark = mark_of(seen) > k + 1 ? mark_of(seen) : k + 1;
      if (m.compare_exchange_weak(seen, marked(seen, mark), sc, sc)) return;
    }
  }

  /// Lowers the mark over VACANT entries at the top, or each drop would pay for the worst moment of
  /// the past. `entry` has just become VACANT.
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

  void clear_dead(std::uint32_t b, std::uint32_t d) {
    word* e = t_.block(b);
    if ((holders(e, d).load(sc) & bit(d)) != 0) holders(e, d).fetch_and(~bit(d), sc);
    std::uint64_t seen = e[at_life].load(sc);
    const auto v = life_word::from(seen);
    if (v.state == life_state::emptying && v.slot == d)
      e[at_life].compare_exchange_strong(seen, life_word{life_state::free, 0, v.generation}.bits(), sc,
                                         relaxed);
  }

  /// Looks above the marks too: an entry may be FILLING there, by a process that died before it raised the
  /// mark again. Entries are used from below, hence a row of never used ones ends a group's used part.
  void settle_leases(std::uint32_t d, std::uint64_t deadline) {
    constexpr std::uint32_t unused_row = 64;
    for (std::uint32_t g = 0; g < lease_group_count; ++g) {
      const std::uint64_t marks = t_.lease_mark(g).load(sc);
      if (marks == 0) continue;  // never raised: no entry was ever taken, and looking would allocate the page
      std::uint32_t unused = 0;
      for (std::uint32_t k = 0; k < t_.lease_group_entries() && unused < unused_row; ++k) {
        const std::uint32_t i = g * t_.lease_group_entries() + k;
        const auto v = lease_word::from(t_.lease(i)[at_word].load(sc));
        unused = k >= mark_of(marks) && v.nonce == 0 && v.state == lease_state::vacant ? unused + 1 : 0;
        if (v.slot == d && v.state != lease_state::vacant) settle_lease(i, v, deadline);
      }
    }
  }

  void settle_lease(std::uint32_t i, lease_word v, std::uint64_t deadline) {
    word* e = t_.lease(i);
    std::uint64_t seen = v.bits();
    if (v.state == lease_state::out) {
      // Before the word says nobody, or it would expire at once; but not once the entry is another
      // sending's, which `revoke` would then not see to be old. The two clocks differ.
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
  std::atomic<std::uint32_t> spill_{0}, sends_{0};  // how far from its own group a process found room last
};

}  // namespace sharedmem
