#pragma once
/// An atomic word for the protocol's policy: each operation is a step that the scheduler may delay, is
/// written to a trace, and every change is shown to the watcher.
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "shared/protocol.hpp"

#include "schedule.hpp"

namespace schedules {

enum class kind : std::uint8_t {
  other,
  life,
  holders,
  groups,
  lease,
  what,
  clock,
  mark,
  slots,
  ctl,
  owner,
  name,
  field
};

struct event {
  unsigned who;
  const char* operation;
  kind of;
  unsigned index;
  std::uint64_t before, after;
};

class word;

/// What all words of a run report to.
struct watcher {
  scheduler* steps = nullptr;
  std::vector<event> trace;
  std::function<void(const word&, std::uint64_t before, std::uint64_t after)> changed;
};

class word {
 public:
  /// Orders are ignored: steps are sequentially consistent. doc/model/litmus is about orders.
  std::uint64_t load(std::memory_order) const {
    step();
    log("reads", value_, value_);
    return value_;
  }
  void store(std::uint64_t value, std::memory_order) {
    step();
    write("stores", value);
  }
  bool compare_exchange_strong(std::uint64_t& expected, std::uint64_t value, std::memory_order,
                               std::memory_order = std::memory_order_seq_cst) {
    step();
    if (value_ == expected) {
      write("swaps", value);
      return true;
    }
    log("fails to swap", value_, value);
    expected = value_;
    return false;
  }
  bool compare_exchange_weak(std::uint64_t& expected, std::uint64_t value, std::memory_order order,
                             std::memory_order = std::memory_order_seq_cst) {
    if (watch->steps->spurious()) {
      expected = value_;
      return false;
    }
    return compare_exchange_strong(expected, value, order);
  }
  std::uint64_t fetch_or(std::uint64_t bits, std::memory_order) {
    step();
    return write("sets bits", value_ | bits);
  }
  std::uint64_t fetch_and(std::uint64_t bits, std::memory_order) {
    step();
    return write("clears bits", value_ & bits);
  }

  /// Without a step, for the test itself.
  std::uint64_t now() const noexcept { return value_; }
  kind of() const noexcept { return kind_; }
  unsigned index() const noexcept { return index_; }

  /// Back to zero. `quiet`: operations on it are not steps, as no two participants use it at the same time.
  void reset(kind of, unsigned index, bool quiet, std::uint64_t value = 0) noexcept {
    value_ = value;
    kind_ = of;
    index_ = index;
    quiet_ = quiet;
  }

  static inline watcher* watch = nullptr;

 private:
  void step() const {
    if (!quiet_) watch->steps->step();
  }
  void log(const char* operation, std::uint64_t before, std::uint64_t after) const {
    if (!quiet_) watch->trace.push_back({watch->steps->current(), operation, kind_, index_, before, after});
  }
  std::uint64_t write(const char* operation, std::uint64_t value) {
    const std::uint64_t before = value_;
    log(operation, before, value);
    value_ = value;
    if (before != value) watch->changed(*this, before, value);
    return before;
  }

  std::uint64_t value_ = 0;
  unsigned index_ = 0;
  kind kind_ = kind::other;
  bool quiet_ = true;
};

/// The policy that the protocol is compiled with.
struct watched_atomics {
  using word = schedules::word;
  template <sharedmem::point where>
  static void step() noexcept {}
};

inline std::string describe_value(kind of, std::uint64_t bits) {
  using namespace sharedmem;
  if (of == kind::life) {
    static const char* const names[] = {"FREE", "LIVE", "FREEING", "EMPTYING"};
    const auto w = life_word::from(bits);
    return std::string(names[static_cast<int>(w.state)]) + "(" + std::to_string(w.slot) + ", " +
           std::to_string(w.generation) + ")";
  }
  if (of == kind::lease) {
    static const char* const names[] = {"VACANT", "FILLING", "OUT", "LOADING"};
    const auto w = lease_word::from(bits);
    return std::string(names[static_cast<int>(w.state)]) + "(" +
           (w.slot == nobody ? "nobody" : std::to_string(w.slot)) + ", " + std::to_string(w.nonce) + ")";
  }
  if (of == kind::ctl) {
    static const char* const names[] = {"VOID", "ACTIVE", "RESERVED", "REPAIR"};
    const auto w = slot_word::from(bits);
    return std::string(names[static_cast<int>(w.state)]) + "(" + std::to_string(w.who.pid) + ")";
  }
  if (of == kind::name) {
    static const char* const names[] = {"VACANT", "FILLING", "CLAIMING", "BUILDING",
                                        "READY",  "FAILED",  "?",        "?"};
    const auto w = name_word::from(bits);
    return std::string(names[static_cast<int>(w.state)]) + "(" + std::to_string(w.slot) + ", " +
           std::to_string(w.nonce) + ")";
  }
  return std::to_string(bits);
}

inline std::string describe(const event& e) {
  static const char* const names[] = {"other", "life",  "holders", "lease_groups", "lease",
                                      "what",  "clock", "mark",    "slot_mark",    "ctl",
                                      "owner", "name",  "field"};
  std::string who = "test";
  if (e.who != scheduler::none) who.assign(1, 'P').append(std::to_string(e.who));
  std::string text = std::string("  ").append(who) + " " + e.operation + " " + names[static_cast<int>(e.of)] +
                     "[" + std::to_string(e.index) + "] " + describe_value(e.of, e.before);
  if (e.before != e.after) text += " -> " + describe_value(e.of, e.after);
  return text + "\n";
}

}  // namespace schedules
