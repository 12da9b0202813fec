#pragma once
/// Participants in a small arena, runs of their programs in many orders, and what must hold after each.
#include <doctest.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "protocol_process.hpp"

namespace schedules {

inline constexpr unsigned survivor_slot = 3;

inline std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

struct participant {
  int slot;  // -1: outside at the start
  std::function<void(world&, process&)> program;
  bool mortal = true;
};

struct bounds {
  unsigned preemptions = 2;
  unsigned deaths = 1;
};

/// Participants, and the runs of them that a test requests.
class scenario {
 public:
  scenario(std::string name, std::vector<participant> parts, std::vector<unsigned> slots)
      : name_(std::move(name)), parts_(std::move(parts)), slots_(std::move(slots)) {
    std::vector<scheduler::program> programs;
    for (unsigned i = 0; i <= parts_.size(); ++i) owned_.push_back(std::make_unique<process>(world_, i));
    for (unsigned i = 0; i < parts_.size(); ++i)
      programs.push_back([this, i] { parts_[i].program(world_, *owned_[i]); });
    for (auto& p : owned_) world_.processes.push_back(p.get());
    steps_ = std::make_unique<scheduler>(std::move(programs), [this](unsigned i) { owned_[i]->die(); });
    for (unsigned i = 0; i < parts_.size(); ++i) steps_->set_mortal(i, parts_[i].mortal);
    watch_.steps = steps_.get();
    watch_.changed = [this](const word& w, std::uint64_t before, std::uint64_t after) {
      world_.changed(w, before, after);
    };
    word::watch = &watch_;
  }
  ~scenario() { word::watch = nullptr; }
  scenario(const scenario&) = delete;
  scenario& operator=(const scenario&) = delete;

  /// Every order within the bounds, with freed pages kept and with freed pages given back. Where fibers
  /// are slow only the first of them: there it is for the sanitizers.
  void every_order(bounds b) {
    b.preemptions += static_cast<unsigned>(setting("SHAREDMEM_SCHEDULE_EXTRA", 0));
    for (const bool warm : {true, false}) {
      world_.warm = warm;
      all_choices choices(b.preemptions, b.deaths);
      std::uint64_t runs = 0;
      do {
        ++runs;
        if (!one_run(choices, "run " + std::to_string(runs) + " of every order")) return;
        if (fiber::is_slow && runs == 2000) break;
      } while (choices.advance());
      CHECK(runs > 1);
      const std::string text =
          name_ + (warm ? ", warm: " : ", given back: ") + std::to_string(runs) + " runs";
      MESSAGE(text);
    }
  }

  void random_orders(unsigned runs, unsigned deaths) {
    const std::uint64_t first = setting("SHAREDMEM_SCHEDULE_SEED", 1);
    const std::uint64_t count = setting("SHAREDMEM_SCHEDULE_RUNS", fiber::is_slow ? runs / 10 : runs);
    for (std::uint64_t seed = first; seed < first + count; ++seed) {
      world_.warm = seed % 2 == 0;
      random_choices choices(seed, deaths);
      random = &choices;
      const bool good = one_run(choices, "seed " + std::to_string(seed));
      random = nullptr;
      if (!good) return;  // one_run has said why
    }
    const std::string text =
        name_ + ": seeds " + std::to_string(first) + " to " + std::to_string(first + count - 1);
    MESSAGE(text);
  }

  /// In a random run, for programs that want random choices of their own.
  random_choices* random = nullptr;

 private:
  bool one_run(choices& from, const std::string& which) {
    watch_.trace.clear();
    const int owner = parts_[0].slot;
    world_.reset(slots_, static_cast<std::uint32_t>(owner));
    for (auto& p : owned_) p->reset();
    for (unsigned i = 0; i < parts_.size(); ++i)
      if (parts_[i].slot >= 0) owned_[i]->start_in(static_cast<std::uint32_t>(parts_[i].slot));
    std::string failure = steps_->run(from);
    if (failure.empty()) {
      try {
        settle();
      } catch (const violation& v) {
        failure = v.what;
      }
    }
    if (failure.empty()) return true;
    std::string text = name_ + ", " + which + (world_.warm ? ", warm: " : ", given back: ") + failure + "\n";
    for (const event& e : watch_.trace) text += describe(e);
    FAIL_CHECK(text);
    return false;
  }

  /// A survivor repairs, loads what is left in the pipe, everybody drops everything: all is at rest then.
  void settle() {
    using namespace sharedmem;
    process& survivor = *owned_.back();
    survivor.start_in(survivor_slot);
    for (process* p : world_.processes)
      if (p->alive()) p->pass();
    while (!world_.pipe.empty()) {
      const message m = world_.pipe.front();
      world_.pipe.pop_front();
      survivor.load(m);
      survivor.drop(m.block);
    }
    for (process* p : world_.processes)
      for (unsigned b = 0; p->alive() && b < block_total; ++b) p->drop(b);
    survivor.drop_unkept();
    survivor.expire();
    for (unsigned i = 0; i < world_.tables.lease_total(); ++i)
      check(lease_word::from(world_.tables.lease(i)[at_word].now()).slot != kept,
            "a lease is kept by a block that has gone");
    for (const sending& s : world_.sent) {
      check(s.spent || s.in_hand, "a lease is out that nobody will ever load");
      const word* e = world_.tables.lease(s.lease.entry);
      check(s.spent || lease_word::from(e[at_word].now()).slot == nobody || e[at_clock].now() == s.time,
            "the time of a sending was lost");
      if (!s.spent)
        survivor.give_back(
            {world_.block_of(s.lease), 0, s.lease, static_cast<unsigned>(&s - world_.sent.data())});
    }
    for (unsigned b = 0; b < block_total; ++b) {
      word* d = world_.tables.block(b);
      check(life_word::from(d[at_life].now()).state == life_state::free, "a block leaked");
      for (unsigned w = 0; w < slot_total / 64; ++w)
        check(d[at_holders + w].now() == 0, "a holders bit leaked");
    }
    for (unsigned i = 0; i < world_.tables.lease_total(); ++i)
      check(lease_word::from(world_.tables.lease(i)[at_word].now()).state == lease_state::vacant,
            "a lease leaked");
    for (unsigned s = 0; s < slot_total; ++s) {
      const auto v = slot_word::from(world_.tables.ctl(s).now());
      check(v.state == slot_state::empty ||
                (v.state == slot_state::active && world_.processes[v.who.pid - 1]->alive()),
            "a slot leaked");
    }
  }

  std::string name_;
  std::vector<participant> parts_;
  std::vector<unsigned> slots_;
  world world_;
  std::vector<std::unique_ptr<process>> owned_;
  std::unique_ptr<scheduler> steps_;
  watcher watch_;
};

}  // namespace schedules
