#pragma once

/// \file
/// The life of a block between processes: every operation on the words that several processes write.
///
/// No process ever waits for another. The protocol rests on five rules:
///   1. Set, then confirm: a process that has set a holders bit then reads `life` and turns FREEING back to LIVE.
///   2. Clear, then try_free: a process that has removed a claim then always calls `try_free`.
///   3. Holders before leases: a check for claims reads all holders words first, then the leases. So a claim that
///      moves from bit to lease (sending) or from lease to bit (loading) is never missed.
///   4. Any process may call `try_free` at any time; if two do, the last compare-and-swap of one of them fails.
///   5. A slot becomes VOID last, after every trace of its process is gone.
///
/// | `life`         | publish | confirm(g), bit set              | try_free by s: no claim | s has checked again       | repair of dead x |
/// | -------------- | ------- | -------------------------------- | ----------------------- | ------------------------- | ---------------- |
/// | FREE(g)        | LIVE(g) | stale                            | -                       | lost                      | -                |
/// | LIVE(g)        | -       | valid if equal g, else stale     | FREEING(s,g)            | lost                      | try_free         |
/// | FREEING(x,g)   | -       | equal g: LIVE(g), valid; or stale| FREEING(s,g)            | x=s: LIVE(g) or FREE(g+1), EMPTYING(s,g+1) | try_free |
/// | EMPTYING(x,g)  | -       | stale                            | -                       | x=s, pages gone: FREE(g)  | FREE(g)          |
///
/// The other kind of claim on a block, the lease, has its table and its operations in lease_table.hpp.
///
/// What a death leaves behind: a bit (repair clears it and calls try_free), FREEING of a dead process
/// (any try_free takes it over, any load turns it back to LIVE), EMPTYING (repair: FREE), and leases. The same
/// protocol is model-checked in doc/model, with the same names and steps.
///
/// The template takes its atomics from a policy, so that tests run the same code under a scheduler that
/// orders steps and kills participants. `Tables` says where the words are: those listed in lease_table.hpp, and
///
///     word* block(b)          life, lease_groups, place, bytes, then the holders words
///     word& slot_mark()       slots at or above it are VOID and own no bit
///     void for_each_published(f)
///
/// Threads: calls on one block are serialised by the caller (a lock private to the process).
#include <atomic>
#include <cstdint>

#include "shared/fault.hpp"
#include "shared/lease_table.hpp"
#include "shared/words.hpp"

namespace sharedmem {

template <class Atomics, class Tables>
class protocol {
  using word = typename Atomics::word;
  static constexpr auto sc = std::memory_order_seq_cst;
  static constexpr auto acq_rel = std::memory_order_acq_rel;
  static constexpr auto release = std::memory_order_release;
  static constexpr auto relaxed = std::memory_order_relaxed;

 public:
  explicit protocol(Tables& tables) noexcept : leases(tables), t_(tables) {}

  lease_table<Atomics, Tables> leases;

  /// Adds the first claim on a block that only its owner knew: FREE(g) -> LIVE(g). Returns g.
  /// `place` and `bytes` describe the block to processes that load a handle of it.
  std::uint64_t publish(std::uint32_t b, std::uint32_t s, std::uint64_t place, std::uint64_t bytes) {
    word* d = t_.block(b);
    d[at_place].store(place, relaxed);  // published by LIVE below; read after a confirm
    d[at_bytes].store(bytes, relaxed);
    holders(d, s).fetch_or(bit(s), sc);
    Atomics::template step<point::publish_bit>();
    d[at_lease_groups].store(0, relaxed);
    auto v = life_word::from(d[at_life].load(relaxed));  // FREE, which only the owner may change
    std::uint64_t expected = v.bits();
    const life_word live{life_state::live, 0, v.generation};
    d[at_life].compare_exchange_strong(expected, live.bits(), acq_rel, relaxed);
    Atomics::template step<point::publish_live>();
    return v.generation;
  }

  /// The same for a fork, which adds claims for a child too: plain stores, since no other process can refer to the
  /// block before they are all done, and bits that others left in a FREE block have no effect. Returns g.
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
    // Release: the bits are there before LIVE, for a process that repairs after our death.
    d[at_life].store(life_word{life_state::live, 0, v.generation}.bits(), release);
    Atomics::template step<point::publish_live>();
    return v.generation;
  }

  /// Whether block b has claims in its generation g. Rule 3: holders first, then leases.
  /// Orders: the loads of holders pair with `fetch_or` in `hold`, those of leases with OUT in
  /// `lease_table::send`.
  bool claimed(std::uint32_t b, std::uint64_t g) {
    word* d = t_.block(b);
    const auto words = (static_cast<std::uint32_t>(t_.slot_mark().load(sc)) + 63) / 64;
    for (std::uint32_t w = 0; w < words; ++w)
      if (d[at_holders + w].load(sc) != 0) return true;
    return leases.claims(d[at_lease_groups].load(sc), b, g);
  }

  /// Whether block b has claims in its generation g besides slot s's bit. For reports: others may change it meanwhile.
  bool claimed_by_others(std::uint32_t b, std::uint64_t g, std::uint32_t s) {
    word* d = t_.block(b);
    const auto words = (static_cast<std::uint32_t>(t_.slot_mark().load(sc)) + 63) / 64;
    for (std::uint32_t w = 0; w < words; ++w) {
      const std::uint64_t mine = s / 64 == w ? std::uint64_t{1} << s % 64 : 0;
      if ((d[at_holders + w].load(sc) & ~mine) != 0) return true;
    }
    return leases.claims(d[at_lease_groups].load(sc), b, g);
  }

  /// Frees b if it has no claim. `keep()` says whether its pages may stay warm, `empty(b)` gives them
  /// back to the system. Returns true if this call freed it.
  /// Orders: the compare-and-swap to FREEING and the second check are a store-buffering pair with
  /// `hold` (bit, then life). Both are seq_cst; otherwise a block could be freed that its acquirer sees as LIVE.
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
    if (claimed(b, freeing.generation)) {  // failure: another process has turned it back or taken it over
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
    // Pages are given back in EMPTYING: in FREEING a load could still revive the array, with holes; after FREE its
    // next life may have begun.
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
  /// stale, the bit is cleared again, and the caller has to call `try_free` (rule 2: others saw the bit).
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

  /// Clears slot s's bit on b; the caller has to call `try_free`. The RMW releases the last writes to the
  /// bytes (the freer's load of holders acquires them). It is seq_cst, so that of two processes with bits in different
  /// words, each of which clears its own bit and then reads the other's, at least one sees that both are clear.
  void clear(std::uint32_t b, std::uint32_t s) {
    holders(t_.block(b), s).fetch_and(~bit(s), sc);
    Atomics::template step<point::clear_bit>();
  }

  bool holds(std::uint32_t b, std::uint32_t s) { return (holders(t_.block(b), s).load(sc) & bit(s)) != 0; }

  /// Frees what the dead process of slot d held; `ctl[d]` is REPAIR(caller). Idempotent.
  /// Afterwards leases of d wait as OUT(nobody) until `deadline`. `free(b)` runs `try_free`.
  template <class Orphan, class Free>
  void repair(std::uint32_t d, std::uint64_t deadline, Orphan&& orphan_chunks, Free&& free) {
    t_.for_each_published([&](std::uint32_t b) { clear_dead(b, d); });
    Atomics::template step<point::repair_bits>();
    orphan_chunks(d);
    Atomics::template step<point::repair_chunks>();
    leases.settle(d, deadline);
    Atomics::template step<point::repair_leases>();
    t_.for_each_published(free);  // all: d may have died between clear and try_free
    Atomics::template step<point::repair_swept>();
  }

 private:
  static constexpr std::uint64_t bit(std::uint32_t s) noexcept { return std::uint64_t{1} << (s % 64); }
  static word& holders(word* d, std::uint32_t s) noexcept { return d[at_holders + s / 64]; }

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

  void clear_dead(std::uint32_t b, std::uint32_t d) {
    word* e = t_.block(b);
    if ((holders(e, d).load(sc) & bit(d)) != 0) holders(e, d).fetch_and(~bit(d), sc);
    std::uint64_t seen = e[at_life].load(sc);
    const auto v = life_word::from(seen);
    if (v.state == life_state::emptying && v.slot == d)
      e[at_life].compare_exchange_strong(seen, life_word{life_state::free, 0, v.generation}.bits(), sc,
                                         relaxed);
  }

  Tables& t_;
};

}  // namespace sharedmem
