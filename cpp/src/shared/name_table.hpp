#pragma once

/// \file
/// The table of names: which process builds the array of a name, and which array it then refers to.
/// doc/model/names.pml is the same protocol for SPIN, with the same names of steps.
///
/// | word             | who may write the entry's fields | who may change the word                              |
/// | ---------------- | -------------------------------- | ---------------------------------------------------- |
/// | VACANT(n)        | none                             | any -> FILLING(s,n)                                  |
/// | FILLING(s,n)     | s: the name                      | s -> CLAIMING; repair of dead s                      |
/// | CLAIMING(s,n)    | none                             | s -> BUILDING; any that wants the same name -> VACANT; repair |
/// | BUILDING(s,n)    | s: array, description or text    | only s -> READY, FAILED, VACANT; repair              |
/// | READY(n)         | none                             | any -> VACANT: the array is gone, or `unlink`        |
/// | FAILED(n)        | none                             | any -> VACANT, except those that waited for n        |
///
/// VACANT as a target is VACANT(n+1): a compare-and-swap succeeds only on the word that was read.
///
/// Two processes that claim one name both store CLAIMING before either examines all other entries. At least one of them
/// sees the other, and revokes the other's claim or gives up its own: never do two build. Both may lose, and
/// start again. A claimer that is stopped delays no other.
///
/// A name is weak: READY is not a claim on the block. A process that finds it acquires the block in its generation, and
/// vacates the entry if that is stale.
///
/// `Tables` says where the words are:
///
///     word& name(i), name_hash(i)      of entry i
///     word* name_fields_of(i)          words.hpp: at_name_length and so on
///     word& names_mark()               entries at or above it were never used
///     uint32 name_count()
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "shared/fault.hpp"
#include "shared/lease_table.hpp"
#include "shared/words.hpp"

namespace sharedmem {

/// An entry as it was read; a later change compares it with the current word.
struct named {
  std::uint32_t entry = 0;
  name_word word;

  friend bool operator==(const named& a, const named& b) noexcept {
    return a.entry == b.entry && a.word.bits() == b.word.bits();
  }
};

/// The fields of an entry.
struct name_content {
  std::string name, text;
  std::uint64_t since = 0, claimer = 0, block = 0, generation = 0;
};

/// FNV-1a (Fowler, Noll, Vo).
constexpr std::uint64_t hash_name(std::string_view name) noexcept {
  std::uint64_t h = 0xcbf29ce484222325U;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return h;
}

/// Threads: any, at any time. Processes: any; each entry changes hands by compare-and-swap.
template <class Atomics, class Tables>
class name_table {
  using word = typename Atomics::word;
  static constexpr auto sc = std::memory_order_seq_cst;
  static constexpr auto acquire = std::memory_order_acquire;
  static constexpr auto release = std::memory_order_release;
  static constexpr auto relaxed = std::memory_order_relaxed;

 public:
  explicit name_table(Tables& tables) noexcept : t_(tables) {}

  /// Finds the entry of that name if it is being built, bound, or failed.
  std::optional<named> find(std::string_view name) {
    const std::uint64_t hash = hash_name(name);
    const std::uint32_t mark = this->mark();
    for (std::uint32_t i = 0; i < mark; ++i)
      if (const name_word w = read(i, name, hash); w.state >= name_state::building) return named{i, w};
    return std::nullopt;
  }

  /// The contents of an entry; nothing if it has changed since it was read.
  std::optional<name_content> content(const named& of) {
    word* f = t_.name_fields_of(of.entry);
    name_content c;
    c.name = bytes(f + at_name_bytes, f[at_name_length].load(acquire), longest_name);
    c.text = bytes(f + at_text_bytes, f[at_text_length].load(acquire), longest_text);
    c.since = f[at_since].load(acquire);
    c.claimer = f[at_claimer].load(acquire);
    c.block = f[at_named_block].load(acquire);
    c.generation = f[at_named_generation].load(acquire);
    if (!is_still(of)) return std::nullopt;
    return c;
  }

  /// Whether the entry's word is the one that was read.
  bool is_still(const named& of) { return t_.name(of.entry).load(acquire) == of.word.bits(); }

  enum class outcome : std::uint8_t { claimed, lost, full };
  struct claim_result {
    outcome how = outcome::lost;
    named mine;  ///< BUILDING, if claimed
  };

  /// Claims a name that `find` did not find, for the process `claimer` of slot s. Lost: another one was there; call
  /// `find` again. `pause()` is called at most once, and lets others run for a millisecond.
  template <class Pause>
  claim_result claim(std::string_view name, std::uint32_t s, std::uint64_t claimer, std::uint64_t now,
                     Pause&& pause) {
    const std::uint64_t hash = hash_name(name);
    const auto filling = fill(s);
    if (!filling) return {outcome::full, {}};
    const std::uint32_t i = filling->entry;
    write(i, name, hash, claimer, now);
    Atomics::template step<point::name_written>();
    const name_word claiming{name_state::claiming, s, filling->word.nonce};
    // Set, then read all others, both seq_cst: of two that do so at least one sees the other (litmus claim_claim).
    t_.name(i).store(claiming.bits(), sc);
    Atomics::template step<point::name_claiming>();
    if (!others_yield(i, name, hash, claiming, pause)) return {outcome::lost, {}};
    const name_word building{name_state::building, s, claiming.nonce};
    std::uint64_t expected = claiming.bits();  // failure: the claim was revoked
    if (!t_.name(i).compare_exchange_strong(expected, building.bits(), sc, sc)) return {outcome::lost, {}};
    Atomics::template step<point::name_building>();
    return {outcome::claimed, {i, building}};
  }

  /// BUILDING(s,n) -> READY(n). The caller holds the block. \pre `text` has at most longest_text bytes.
  named bind(const named& mine, std::uint64_t block, std::uint64_t generation, std::string_view text,
             std::uint64_t now) {
    word* f = t_.name_fields_of(mine.entry);
    f[at_named_block].store(block, release);
    f[at_named_generation].store(generation, release);
    return finish(mine, name_state::ready, text, now);
  }

  /// BUILDING(s,n) -> FAILED(n).
  named fail(const named& mine, std::string_view text, std::uint64_t now) {
    return finish(mine, name_state::failed, text, now);
  }

  /// BUILDING(s,n) -> VACANT(n+1): another process may build.
  void give_up(const named& mine) {
    t_.name(mine.entry).store(mine.word.vacated(), release);
    Atomics::template step<point::name_vacated>();
  }

  /// READY(n) or FAILED(n) -> VACANT(n+1). False: the entry has changed since it was read.
  bool vacate(const named& of) {
    std::uint64_t expected = of.word.bits();
    if (!t_.name(of.entry).compare_exchange_strong(expected, of.word.vacated(), sc, relaxed)) return false;
    Atomics::template step<point::name_vacated>();
    return true;
  }

  /// Repairs the entry of the dead process of slot d. True: others may have waited for it. Idempotent.
  bool settle(std::uint32_t d) {
    bool any = false;
    const std::uint32_t mark = this->mark();
    for (std::uint32_t i = 0; i < mark; ++i) {
      std::uint64_t seen = t_.name(i).load(sc);
      const auto w = name_word::from(seen);
      if (w.slot != d || w.state < name_state::filling || w.state > name_state::building) continue;
      any = t_.name(i).compare_exchange_strong(seen, w.vacated(), sc, relaxed) || any;
    }
    return any;
  }

  /// Whether the process of slot s is at one of the entries: it claims a name or builds.
  bool any_of(std::uint32_t s) {
    const std::uint32_t mark = this->mark();
    for (std::uint32_t i = 0; i < mark; ++i)
      if (const auto w = name_word::from(t_.name(i).load(sc));
          w.slot == s && w.state >= name_state::filling && w.state <= name_state::building)
        return true;
    return false;
  }

  /// Calls f(named) for each entry that is being built, bound, or failed.
  template <class F>
  void each(F&& f) {
    const std::uint32_t mark = this->mark();
    for (std::uint32_t i = 0; i < mark; ++i)
      if (const auto w = name_word::from(t_.name(i).load(sc)); w.state >= name_state::building)
        f(named{i, w});
  }

 private:
  /// The mark, limited to the table's size in case a stray write has changed it.
  std::uint32_t mark() {
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(t_.names_mark().load(sc), t_.name_count()));
  }

  /// The word of an entry if it has that name, else VACANT. CLAIMING and later only: before, the name is incomplete.
  name_word read(std::uint32_t i, std::string_view name, std::uint64_t hash) {
    for (;;) {
      const std::uint64_t seen = t_.name(i).load(sc);
      const auto w = name_word::from(seen);
      if (w.state < name_state::claiming) return {};
      const bool same = has_name(i, name, hash);
      // If the word is still there, the fields belong to it: they are only written after the word was changed.
      if (t_.name(i).load(acquire) != seen) continue;
      return same ? w : name_word{};
    }
  }

  bool has_name(std::uint32_t i, std::string_view name, std::uint64_t hash) {
    if (t_.name_hash(i).load(acquire) != hash) return false;
    word* f = t_.name_fields_of(i);
    if (f[at_name_length].load(acquire) != name.size()) return false;
    for (std::size_t at = 0; at < name.size(); at += 8)
      if (f[at_name_bytes + at / 8].load(acquire) != packed(name, at)) return false;
    return true;
  }

  static std::uint64_t packed(std::string_view text, std::size_t at) noexcept {
    std::uint64_t w = 0;
    std::memcpy(&w, text.data() + at, std::min<std::size_t>(8, text.size() - at));
    return w;
  }

  static std::string bytes(word* from, std::uint64_t length, std::size_t most) {
    std::string text(static_cast<std::size_t>(std::min<std::uint64_t>(length, most)), '\0');
    for (std::size_t at = 0; at < text.size(); at += 8) {
      const std::uint64_t w = from[at / 8].load(acquire);
      std::memcpy(text.data() + at, &w, std::min<std::size_t>(8, text.size() - at));
    }
    return text;
  }

  /// Each store is a release: a process that reads one of them also sees the word that allowed writing it.
  static void put(word* to, std::string_view text) {
    for (std::size_t at = 0; at < text.size(); at += 8) to[at / 8].store(packed(text, at), release);
  }

  /// VACANT(n) -> FILLING(s,n), of the first entry that is.
  std::optional<named> fill(std::uint32_t s) {
    for (std::uint32_t i = 0; i < t_.name_count(); ++i) {
      raise_mark(i + 1);  // before the word: repair must find FILLING
      std::uint64_t seen = t_.name(i).load(sc);
      const auto v = name_word::from(seen);
      if (v.state != name_state::vacant) continue;
      const name_word filling{name_state::filling, s, v.nonce};
      if (!t_.name(i).compare_exchange_strong(seen, filling.bits(), sc, relaxed)) continue;
      Atomics::template step<point::name_filling>();
      return named{i, filling};
    }
    return std::nullopt;
  }

  void raise_mark(std::uint64_t to) {
    std::uint64_t seen = t_.names_mark().load(sc);
    while (seen < to && !t_.names_mark().compare_exchange_weak(seen, to, sc, sc)) {
    }
  }

  void write(std::uint32_t i, std::string_view name, std::uint64_t hash, std::uint64_t claimer,
             std::uint64_t now) {
    word* f = t_.name_fields_of(i);
    t_.name_hash(i).store(hash, release);
    f[at_name_length].store(name.size(), release);
    f[at_text_length].store(0, release);
    f[at_since].store(now, release);
    f[at_claimer].store(claimer, release);
    put(f + at_name_bytes, name);
  }

  /// Whether no other entry has the name any more. False: this claim was given up.
  template <class Pause>
  bool others_yield(std::uint32_t mine, std::string_view name, std::uint64_t hash, const name_word& claiming,
                    Pause&& pause) {
    bool paused = false;
    const std::uint32_t mark = this->mark();
    for (std::uint32_t k = 0; k < mark; ++k) {
      if (k == mine) continue;
      name_word w = read(k, name, hash);
      if (w.state == name_state::claiming && k < mine &&
          !paused) {  // the first one here need not lose as well
        paused = true;
        pause();
        w = read(k, name, hash);
      }
      if (w.state == name_state::claiming) {
        std::uint64_t seen = w.bits();
        if (t_.name(k).compare_exchange_strong(seen, w.vacated(), sc, sc))
          Atomics::template step<point::name_taken_away>();
        --k;  // check again: if it was not revoked it is being built now, or has another name
      } else if (w.state >= name_state::building) {
        std::uint64_t expected = claiming.bits();
        t_.name(mine).compare_exchange_strong(expected, claiming.vacated(), sc, relaxed);
        return false;
      }
    }
    return true;
  }

  named finish(const named& mine, name_state as, std::string_view text, std::uint64_t now) {
    word* f = t_.name_fields_of(mine.entry);
    text = text.substr(0, longest_text);
    put(f + at_text_bytes, text);
    f[at_text_length].store(text.size(), release);
    f[at_since].store(now, release);
    Atomics::template step<point::name_described>();
    const name_word done{as, 0, mine.word.nonce};
    t_.name(mine.entry).store(done.bits(), release);  // litmus bind_attach
    if (as == name_state::ready)
      Atomics::template step<point::name_ready>();
    else
      Atomics::template step<point::name_failed>();
    return {mine.entry, done};
  }

  Tables& t_;
};

}  // namespace sharedmem
