#pragma once
/// Runs programs of several participants one step at a time, in every order that a bound allows or in
/// random ones, and kills participants between two steps. A run is determined by its choices, so every
/// run can be repeated.
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "fiber.hpp"

namespace schedules {

/// Thrown inside a participant that was killed: nothing of it runs any more.
struct killed {};

/// Thrown by a check that failed; ends the run.
struct violation {
  std::string what;
};

/// Where the choices of a run come from.
class choices {
 public:
  virtual ~choices() = default;
  /// At a step: 0 continues, 1..others is a switch to another participant, others + 1 a death.
  virtual unsigned at_step(unsigned others, bool may_die) = 0;
  /// Nobody is running: one of `count` participants is next.
  virtual unsigned next(unsigned count) = 0;
  /// True once `at_step` would always return "continue".
  virtual bool straight_on() const { return false; }
  /// Whether a weak compare-and-swap fails for no reason.
  virtual bool spurious() = 0;
};

/// Every run with at most so many switches away from a participant that could have continued and at most
/// so many deaths, depth first.
class all_choices : public choices {
 public:
  all_choices(unsigned preemptions, unsigned deaths) : preemptions_(preemptions), deaths_(deaths) {}

  unsigned at_step(unsigned others, bool may_die) override {
    const unsigned switches = preempted_ < preemptions_ ? others : 0;
    const unsigned deaths = may_die && died_ < deaths_ ? 1 : 0;
    const unsigned taken = pick(1 + switches + deaths);
    if (taken == 0) return 0;
    if (taken <= switches) {
      ++preempted_;
      return taken;
    }
    ++died_;
    return others + 1;
  }
  unsigned next(unsigned count) override { return pick(count); }
  bool straight_on() const override { return preempted_ == preemptions_ && died_ == deaths_; }
  bool spurious() override { return false; }

  /// Goes to the next run; false: that was the last one.
  bool advance() {
    at_ = preempted_ = died_ = 0;
    while (!path_.empty() && path_.back().taken + 1 == path_.back().options) path_.pop_back();
    if (path_.empty()) return false;
    ++path_.back().taken;
    return true;
  }

 private:
  struct choice {
    unsigned taken, options;
  };

  unsigned pick(unsigned options) {
    if (options == 1) return 0;
    if (at_ == path_.size()) path_.push_back({0, options});
    return path_[at_++].taken;
  }

  unsigned preemptions_, deaths_;
  unsigned preempted_ = 0, died_ = 0;
  std::size_t at_ = 0;
  std::vector<choice> path_;
};

/// Random runs; each seed is another one, and seeds differ in how often they switch and kill.
class random_choices : public choices {
 public:
  random_choices(std::uint64_t seed, unsigned deaths) : random_(seed), deaths_(deaths) {
    switches_one_in_ = 2u << below(6);
    dies_one_in_ = 16u << below(5);
  }

  unsigned at_step(unsigned others, bool may_die) override {
    if (may_die && deaths_ > 0 && below(dies_one_in_) == 0) {
      --deaths_;
      return others + 1;
    }
    return others > 0 && below(switches_one_in_) == 0 ? 1 + below(others) : 0;
  }
  unsigned next(unsigned count) override { return below(count); }
  bool spurious() override { return below(16) == 0; }

  unsigned below(unsigned bound) { return static_cast<unsigned>(random_() % bound); }

 private:
  std::mt19937_64 random_;
  unsigned deaths_, switches_one_in_, dies_one_in_;
};

/// Runs participants, each on a fiber of its own. Exactly one of them runs at any time.
class scheduler {
 public:
  using program = std::function<void()>;

  /// `died(i)` is called when participant i is killed, before another one runs.
  scheduler(std::vector<program> programs, std::function<void(unsigned)> died) : died_(std::move(died)) {
    for (unsigned i = 0; i < programs.size(); ++i) {
      auto p = std::make_unique<participant>();
      p->body = std::make_unique<fiber>([this, i, work = std::move(programs[i])] { live(i, work); });
      all_.push_back(std::move(p));
    }
  }

  /// One run of all programs to their ends. The violation, if there was one, else nothing.
  std::string run(choices& from) {
    from_ = &from;
    failure_.clear();
    steps_ = 0;
    over_ = false;
    for (auto& p : all_) {
      p->done = p->unwind = false;
      p->waits_for = nullptr;
    }
    std::vector<unsigned> ready;
    for (;;) {
      if (next_ == none) {
        runnable(none, ready);
        if (ready.empty() && !over_) {  // those that wait now wait in vain
          over_ = true;
          runnable(none, ready);
        }
        if (ready.empty()) break;
        next_ = ready[from.next(static_cast<unsigned>(ready.size()))];
      }
      current_ = next_;
      next_ = none;
      all_[current_]->body->resume();
      current_ = none;
      if (!failure_.empty()) break;
    }
    for (auto& p : all_)
      while (p->body->inside()) {
        p->unwind = true;
        p->body->resume();
      }
    next_ = none;
    return failure_;
  }

  /// Called before each step on shared memory; other participants may run before it returns.
  /// \throws killed  the caller is dead from here on.
  /// \throws violation  there were too many: no participant may be kept waiting for ever.
  void step() {
    if (current_ == none) return;  // what the test itself does is not scheduled
    if (++steps_ > most_steps) throw violation{"a run does not end"};
    if (from_->straight_on()) return;
    participant& me = *all_[current_];
    runnable(current_, others_);
    const auto count = static_cast<unsigned>(others_.size());
    const unsigned taken = from_->at_step(count, me.mortal);
    if (taken == 0) return;
    if (taken <= count) {
      next_ = others_[taken - 1];
      yield(me);
      return;
    }
    died_(current_);
    throw killed{};
  }

  bool spurious() { return current_ != none && from_->spurious(); }

  /// Waits until `ready()`; false: it can never be, for everybody else has ended or waits as well.
  bool wait(const std::function<bool()>& ready) {
    participant& me = *all_[current_];
    while (!ready()) {
      if (over_) return false;
      me.waits_for = &ready;
      yield(me);
      me.waits_for = nullptr;
    }
    return true;
  }

  /// Participant i may not be killed, or may.
  void set_mortal(unsigned i, bool mortal) { all_[i]->mortal = mortal; }

  /// The participant that runs, or `none`.
  static constexpr unsigned none = ~0u;
  unsigned current() const noexcept { return current_; }

 private:
  struct participant {
    std::unique_ptr<fiber> body;
    const std::function<bool()>* waits_for = nullptr;
    bool mortal = true;
    bool done = false;
    bool unwind = false;
  };

  void live(unsigned i, const program& work) {
    try {
      if (!all_[i]->unwind) work();
    } catch (const killed&) {
    } catch (const violation& v) {
      failure_ = v.what;
    }
    all_[i]->done = true;
  }

  void yield(participant& me) {
    me.body->pause();
    if (me.unwind) throw killed{};
  }

  void runnable(unsigned except, std::vector<unsigned>& out) {
    out.clear();
    for (unsigned i = 0; i < all_.size(); ++i) {
      const participant& p = *all_[i];
      if (i == except || p.done) continue;
      if (p.waits_for == nullptr || over_ || (*p.waits_for)()) out.push_back(i);
    }
  }

  std::vector<std::unique_ptr<participant>> all_;
  std::function<void(unsigned)> died_;
  choices* from_ = nullptr;
  std::string failure_;
  std::vector<unsigned> others_;
  unsigned current_ = none, next_ = none;
  bool over_ = false;
  unsigned steps_ = 0;
  static constexpr unsigned most_steps = 20000;  // ordinary runs have hundreds
};

}  // namespace schedules
