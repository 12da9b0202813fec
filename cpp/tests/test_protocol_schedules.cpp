// The protocol between processes, the code itself, in every order of steps that a bound allows and in
// random orders, with deaths between steps. After each run a survivor repairs, and everything must have
// come back. SHAREDMEM_SCHEDULE_SEED and SHAREDMEM_SCHEDULE_RUNS choose other, or more, random runs.
#include <doctest.h>

#include <optional>

#include "protocol_scenario.hpp"

using namespace schedules;

namespace {

/// The next message, or nothing if none will come any more.
std::optional<message> receive(world& w) {
  if (!word::watch->steps->wait([&w] { return !w.pipe.empty(); })) return std::nullopt;
  const message m = w.pipe.front();
  w.pipe.pop_front();
  w.sent[m.ticket].in_hand = true;
  return m;
}

// Allocates a block, sends it and drops it.
void produce(world&, process& p) {
  p.allocate(0);
  p.send(0);
  p.drop(0);
}

// Loads the next message, uses the block and drops it.
void consume(world& w, process& p) {
  if (const auto m = receive(w); m && p.load(*m)) p.drop(m->block);
}

// Loads the next message twice: the second time its lease is spent.
void consume_twice(world& w, process& p) {
  const auto m = receive(w);
  if (!m) return;
  if (p.load(*m)) p.drop(m->block);
  if (p.load(*m, true)) p.drop(m->block);
}

// Repairs whoever has died, until nobody else can die.
void repair(world& w, process& p) {
  while (word::watch->steps->wait([&w] { return w.anybody_to_repair(); })) {
    p.pass();
    p.expire();
  }
}

}  // namespace

TEST_CASE("send and drop against load and drop") {
  scenario s("send | load", {{0, produce}, {64, consume}}, {0, 64});
  s.every_order({4, 0});
  s.every_order({2, 1});
  s.every_order({2, 2});
  s.random_orders(20000, 2);
}

TEST_CASE("somebody repairs meanwhile") {
  scenario s("send | load | repair", {{0, produce}, {64, consume}, {1, repair, false}}, {0, 64, 1});
  s.every_order({2, 1});
  s.random_orders(20000, 2);
}

TEST_CASE("a repairer dies, and another repairs what it left") {
  scenario s("send | load | repair | repair", {{0, produce}, {64, consume}, {1, repair}, {65, repair, false}},
             {0, 64, 1, 65});
  s.every_order({0, 2});
  s.random_orders(20000, 3);
}

TEST_CASE("holders in two words drop at once") {
  const auto hold_and_drop = [](world& w, process& p) {
    const auto m = receive(w);
    if (m && p.load(*m)) p.drop(m->block);
  };
  const auto share = [](world& w, process& p) {
    p.allocate(0);
    p.send(0);
    p.send(0);
    word::watch->steps->wait([&w] { return w.pipe.empty(); });
    p.drop(0);
  };
  scenario s("drop | drop | drop", {{0, share}, {64, hold_and_drop}, {1, hold_and_drop}}, {0, 64, 1});
  s.every_order({2, 0});
  s.every_order({1, 1});
  s.random_orders(20000, 1);
}

TEST_CASE("a handle is loaded again, when its lease is spent") {
  scenario s("send | load twice", {{0, produce}, {64, consume_twice}}, {0, 64});
  s.every_order({3, 0});
  s.every_order({2, 1});
  s.random_orders(20000, 2);
}

TEST_CASE("a stale handle of a former life against the next life") {
  const auto two_lives = [](world& w, process& p) {
    for (int life = 0; life < 2; ++life) {
      if (!word::watch->steps->wait([&] { return p.may_allocate(0); })) return;
      p.allocate(0);
      p.send(0);
      p.drop(0);
    }
    static_cast<void>(w);
  };
  const auto again = [](world& w, process& p) {
    std::optional<message> first;
    while (const auto m = receive(w)) {
      const bool held = p.load(*m);
      if (!first) first = m;
      if (held) p.drop(m->block);
      if (p.load(*first, true)) p.drop(first->block);
    }
  };
  scenario s("two lives | load all again", {{0, two_lives}, {64, again}}, {0, 64});
  s.every_order({2, 0});
  s.every_order({1, 1});
  s.random_orders(20000, 2);
}

TEST_CASE("a lease is given back against its load") {
  const auto change_mind = [](world& w, process& p) {
    p.allocate(0);
    p.send(0);
    if (w.sent.empty()) return;
    p.give_back({0, 0, w.sent[0].lease, 0});
    p.drop(0);
  };
  const auto try_load = [](world& w, process& p) {
    if (const auto m = receive(w); m && p.load(*m)) p.drop(m->block);
  };
  scenario s("send, give back | load", {{0, change_mind}, {64, try_load}}, {0, 64});
  s.every_order({4, 0});
  s.every_order({2, 1});
  s.random_orders(20000, 2);
}

TEST_CASE("the marks of a lease group rise and sink") {
  const auto load_then_busy = [](world& w, process& p) {
    const auto m = receive(w);
    if (!m || !p.load(*m)) return;
    for (int i = 0; i < 2; ++i) p.send(0);
    p.drop(0);
  };
  scenario s("marks", {{0, produce}, {64, load_then_busy}, {1, consume}}, {0, 64, 1});
  s.every_order({2, 0});
  s.every_order({1, 1});
  s.random_orders(20000, 1);
}
