// The table of names, the code itself, in every order of steps that a bound allows and in random orders, with deaths
// between steps. What must hold is what doc/model/names.pml asserts. Settings: see test_protocol_schedules.cpp.
#include <doctest.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shared/name_table.hpp"

#include "watched_word.hpp"

using namespace schedules;
using namespace sharedmem;

namespace {

constexpr unsigned entries = 3, most_arrays = 16;

void check(bool holds, const std::string& what) {
  if (!holds) throw violation{what};
}

/// What the table of names calls `Tables`.
struct name_tables {
  std::array<word, entries> words, hashes;
  std::array<std::array<word, name_field_words>, entries> fields;
  word mark;

  word& name(std::uint32_t i) { return words[i]; }
  word& name_hash(std::uint32_t i) { return hashes[i]; }
  word* name_fields_of(std::uint32_t i) { return fields[i].data(); }
  word& names_mark() { return mark; }
  std::uint32_t name_count() const { return entries; }

  void reset() {
    for (unsigned i = 0; i < entries; ++i) {
      words[i].reset(kind::name, i, false);
      hashes[i].reset(kind::field, i, false);
      for (unsigned f = 0; f < name_field_words; ++f) {
        const bool quiet = f == at_since || f == at_claimer || f == at_text_length || f == at_name_length;
        fields[i][f].reset(kind::field, i, quiet);
      }
    }
    mark.reset(kind::other, 0, false);
  }
};

using table = name_table<watched_atomics, name_tables>;

class world;

/// A process, whose slot is its index.
struct process {
  process(world& shared, unsigned index) : w(shared), index(index) {}

  world& w;
  unsigned index;
  bool alive = true, repaired = false;
  std::array<bool, most_arrays> refs{};  // a local reference and its bit: kept after a death until the repair
  unsigned built = 0, failures_seen = 0;

  enum class builds : std::uint8_t { an_array, a_failure, nothing };
  /// One call of get_or_create.
  void get_or_create(const std::string& name, builds how = builds::an_array);
  void unlink(const std::string& name);
  void drop() { refs.fill(false); }
  void repair(unsigned dead);
};

class world {
 public:
  name_tables tables;
  std::vector<process*> processes;
  unsigned arrays = 0;
  bool one_name = true;

  void reset() {
    tables.reset();
    arrays = 0;
  }
  bool array_lives(std::uint64_t o) const {
    for (const process* p : processes)
      if (p->refs[o]) return true;
    return false;
  }
  void changed(const word& of, std::uint64_t before, std::uint64_t after) const {
    const unsigned me = word::watch->steps->current();
    if (of.of() == kind::field && me != scheduler::none) {
      const auto w = name_word::from(tables.words[of.index()].now());
      check((w.state == name_state::filling || w.state == name_state::building) && w.slot == me,
            "fields were written of an entry that is another's");
    }
    if (of.of() != kind::name) return;
    const auto from = name_word::from(before), to = name_word::from(after);
    const bool same = from.nonce == to.nonce,
               vacated = to.state == name_state::vacant && to.nonce == from.nonce + 1;
    bool legal = false;
    switch (from.state) {
      case name_state::vacant: legal = same && to.state == name_state::filling; break;
      case name_state::filling: legal = vacated || (same && to.state == name_state::claiming); break;
      case name_state::claiming: legal = vacated || (same && to.state == name_state::building); break;
      case name_state::building:
        legal = vacated || (same && (to.state == name_state::ready || to.state == name_state::failed));
        break;
      case name_state::ready:
      case name_state::failed: legal = vacated; break;
    }
    check(legal, "an entry went a way that does not exist");
    if (one_name)
      check(settled() <= 1, "two entries of one name are being built, or bound to arrays that live");
  }
  unsigned settled() const {
    unsigned n = 0;
    for (unsigned i = 0; i < entries; ++i) {
      const auto w = name_word::from(tables.words[i].now());
      n += w.state == name_state::building ||
           (w.state == name_state::ready && array_lives(tables.fields[i][at_named_block].now()));
    }
    return n;
  }
};

void process::repair(unsigned dead) {
  table names(w.tables);
  (void)names.settle(dead);
  w.processes[dead]->refs.fill(false);
  w.processes[dead]->repaired = true;
}

void process::get_or_create(const std::string& name, builds how) {
  table names(w.tables);
  std::optional<named> waited_for;
  for (;;) {
    if (const auto found = names.find(name)) {
      if (found->word.state == name_state::building) {
        waited_for = found;
        const unsigned builder = found->word.slot;
        const auto over = [&] {
          return w.tables.words[found->entry].now() != found->word.bits() || !w.processes[builder]->alive;
        };
        if (!word::watch->steps->wait(over)) throw violation{"somebody waits for ever"};
        if (!w.processes[builder]->alive) repair(builder);
      } else if (found->word.state == name_state::ready) {
        const auto c = names.content(*found);
        if (!c) continue;
        check(c->name == name && c->text == "described", "the fields of a bound name are not there");
        check(c->block != 0, "a name was bound before its array was known");
        if (w.array_lives(c->block)) {
          refs[c->block] = true;
          return;
        }
        (void)names.vacate(*found);
      } else {
        if (waited_for && waited_for->entry == found->entry && waited_for->word.nonce == found->word.nonce) {
          ++failures_seen;
          return;
        }
        (void)names.vacate(*found);
      }
      continue;
    }
    const auto got = names.claim(name, index, 100 + index, 7, [] {});
    if (got.how == table::outcome::full) return;
    if (got.how == table::outcome::lost) continue;
    ++built;
    if (how == builds::nothing) {
      names.give_up(got.mine);
    } else if (how == builds::a_failure) {
      (void)names.fail(got.mine, "described", 8);
    } else {
      const unsigned o = ++w.arrays;
      if (o >= most_arrays) throw violation{"a run makes arrays for ever"};
      refs[o] = true;
      (void)names.bind(got.mine, o, 0, "described", 8);
    }
    return;
  }
}

void process::unlink(const std::string& name) {
  table names(w.tables);
  const auto found = names.find(name);
  if (found && found->word.state >= name_state::ready) (void)names.vacate(*found);
}

struct participant {
  std::function<void(process&)> program;
  bool mortal = true;
};

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

class scenario {
 public:
  scenario(std::string name, std::vector<participant> parts)
      : name_(std::move(name)), parts_(std::move(parts)) {
    std::vector<scheduler::program> programs;
    for (unsigned i = 0; i <= parts_.size(); ++i) owned_.push_back(std::make_unique<process>(world_, i));
    for (unsigned i = 0; i < parts_.size(); ++i)
      programs.push_back([this, i] { parts_[i].program(*owned_[i]); });
    for (auto& p : owned_) world_.processes.push_back(p.get());
    steps_ =
        std::make_unique<scheduler>(std::move(programs), [this](unsigned i) { owned_[i]->alive = false; });
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

  world& shared() { return world_; }

  void every_order(unsigned preemptions, unsigned deaths) {
    preemptions += static_cast<unsigned>(setting("SHAREDMEM_SCHEDULE_EXTRA", 0));
    all_choices choices(preemptions, deaths);
    std::uint64_t runs = 0;
    do {
      ++runs;
      if (!one_run(choices, "run " + std::to_string(runs) + " of every order")) return;
      if (fiber::is_slow && runs == 2000) break;
    } while (choices.advance());
    CHECK(runs > 1);
    MESSAGE(name_ << ": " << runs << " runs");
  }
  void random_orders(unsigned runs, unsigned deaths) {
    const std::uint64_t first = setting("SHAREDMEM_SCHEDULE_SEED", 1);
    const std::uint64_t count = setting("SHAREDMEM_SCHEDULE_RUNS", fiber::is_slow ? runs / 10 : runs);
    for (std::uint64_t seed = first; seed < first + count; ++seed) {
      random_choices choices(seed, deaths);
      if (!one_run(choices, "seed " + std::to_string(seed))) return;
    }
  }

  /// What the test checks after each run, when the dead have been repaired.
  std::function<void(world&)> afterwards = [](world&) {};

 private:
  bool one_run(choices& from, const std::string& which) {
    watch_.trace.clear();
    world_.reset();
    for (auto& p : owned_) {
      p->alive = true;
      p->repaired = false;
      p->built = p->failures_seen = 0;
      p->drop();
    }
    std::string failure = steps_->run(from);
    if (failure.empty()) {
      try {
        settle();
      } catch (const violation& v) {
        failure = v.what;
      }
    }
    if (failure.empty()) return true;
    std::string text = name_ + ", " + which + ": " + failure + "\n";
    for (const event& e : watch_.trace) text += describe(e);
    FAIL_CHECK(text);
    return false;
  }

  /// A survivor repairs: then no entry is half-done.
  void settle() {
    process& survivor = *owned_.back();
    for (unsigned i = 0; i < parts_.size(); ++i)
      if (!owned_[i]->alive) survivor.repair(i);
    for (unsigned i = 0; i < entries; ++i) {
      const auto w = name_word::from(world_.tables.words[i].now());
      check(w.state == name_state::vacant || w.state >= name_state::ready, "an entry was left half-done");
      check(w.slot == 0, "an entry that nobody builds names a slot");
    }
    afterwards(world_);
  }

  std::string name_;
  std::vector<participant> parts_;
  world world_;
  std::vector<std::unique_ptr<process>> owned_;
  std::unique_ptr<scheduler> steps_;
  watcher watch_;
};

const std::string x = "x";

void get(process& p) { p.get_or_create(x); }

}  // namespace

TEST_CASE("two and three processes need one name") {
  scenario two("get | get", {{get}, {get}});
  two.afterwards = [](world& w) {
    const bool all_live = w.processes[0]->alive && w.processes[1]->alive;
    check(!all_live || w.processes[0]->built + w.processes[1]->built == 1, "not exactly one built");
  };
  two.every_order(3, 0);
  two.every_order(2, 1);
  two.every_order(1, 2);
  two.random_orders(20000, 2);
  scenario three("get | get | get", {{get}, {get}, {get}});
  three.every_order(2, 0);
  three.random_orders(20000, 2);
}

TEST_CASE("an array goes while others find its name") {
  const auto get_and_drop = [](process& p) {
    p.get_or_create(x);
    p.drop();
    p.get_or_create(x);
  };
  scenario s("get, drop, get | get, drop, get", {{get_and_drop}, {get_and_drop}});
  s.every_order(2, 0);
  s.every_order(1, 1);
  s.random_orders(20000, 2);
}

TEST_CASE("a failure reaches the processes that waited, and no others") {
  const auto fails = [](process& p) { p.get_or_create(x, process::builds::a_failure); };
  scenario s("fail | get | get", {{fails, false}, {get, false}, {get, false}});
  s.afterwards = [](world& w) {
    for (unsigned i : {1U, 2U}) {
      bool holds = false;
      for (const bool r : w.processes[i]->refs) holds = holds || r;
      check(holds != (w.processes[i]->failures_seen == 1), "a call came to nothing, or to two things");
    }
  };
  s.every_order(2, 0);
  s.random_orders(20000, 0);
}

TEST_CASE("a builder that is interrupted leaves the building to others") {
  const auto interrupted = [](process& p) { p.get_or_create(x, process::builds::nothing); };
  scenario s("interrupted | get", {{interrupted}, {get, false}});
  s.afterwards = [](world& w) { check(w.settled() == 1, "nobody built"); };
  s.every_order(3, 0);
  s.every_order(2, 1);
  s.random_orders(20000, 1);
}

TEST_CASE("unlink meanwhile") {
  const auto unlink = [](process& p) { p.unlink(x); };
  // What is unlinked may live on and have a successor: the assertion is of one name's entries only.
  scenario s("get | get | unlink", {{get}, {get}, {unlink}});
  s.every_order(2, 0);
  s.every_order(1, 1);
  s.random_orders(20000, 1);
}

TEST_CASE("entries go from name to name") {
  const auto either = [](process& p) {
    p.get_or_create("x");
    p.drop();
    p.get_or_create("y");
    p.drop();
  };
  const auto other = [](process& p) {
    p.get_or_create("y");
    p.drop();
    p.get_or_create("x");
    p.drop();
  };
  scenario s("x, y | y, x", {{either}, {other}});
  s.shared().one_name = false;
  s.every_order(2, 0);
  s.every_order(1, 1);
  s.random_orders(20000, 2);
}

TEST_CASE("a claim in a full table is refused") {
  const auto many = [](process& p) {
    for (const char* name : {"a", "b", "c", "d"}) p.get_or_create(name);
  };
  scenario s("a, b, c, d | a", {{many}, {[](process& p) { p.get_or_create("a"); }}});
  s.shared().one_name = false;
  s.afterwards = [](world& w) {
    check(!w.processes[0]->alive || w.processes[0]->built <= entries,
          "more were built than there is room for");
  };
  s.every_order(1, 1);
}
