// The protocol between processes, the code itself, in every order of steps that a bound allows and in
// random orders, with deaths between steps. After each run a survivor repairs, and everything must have
// come back. SHAREDMEM_SCHEDULE_SEED and SHAREDMEM_SCHEDULE_RUNS choose other, or more, random runs;
// SHAREDMEM_SCHEDULE_EXTRA=1 allows one switch more in each exhaustive search, which takes minutes.
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

// Repairs all that have died. Not for ever: the slot of a forked child is left to the child.
void repair(world& w, process& p) {
  for (int passes = 0; passes < 4; ++passes) {
    if (!word::watch->steps->wait([&w] { return w.anybody_to_repair(); })) return;
    p.pass();
    p.expire();
  }
}

}  // namespace

TEST_CASE("send and drop against load and drop") {
  scenario s("send | load", {{0, produce}, {64, consume}}, {0, 64});
  s.every_order({4, 0});
  s.every_order({2, 1});
  s.every_order({1, 2});
  s.random_orders(10000, 2);
}

TEST_CASE("another process repairs meanwhile") {
  scenario s("send | load | repair", {{0, produce}, {64, consume}, {1, repair, false}}, {0, 64, 1});
  s.every_order({1, 1});
  s.random_orders(10000, 2);
}

TEST_CASE("an entry of a dead sender is used again while it is repaired") {
  const auto pass_on_unread = [](world& w, process& p) {
    const auto m = receive(w);
    if (!m || !p.load(*m)) return;
    p.send(m->block);
    w.sent[w.pipe.front().ticket].in_hand = true;  // read by a process that died before it loaded it
    w.pipe.pop_front();
    p.drop(m->block);
  };
  scenario s("send | load, send | repair", {{0, produce}, {64, pass_on_unread, false}, {1, repair, false}},
             {0, 64, 1});
  s.every_order({1, 1});
  s.random_orders(10000, 1);
}

TEST_CASE("a repairer dies, and another repairs what it left") {
  scenario s("send | load | repair | repair", {{0, produce}, {64, consume}, {1, repair}, {65, repair, false}},
             {0, 64, 1, 65});
  s.every_order({0, 2});
  s.random_orders(10000, 3);
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
  s.random_orders(10000, 1);
}

TEST_CASE("a handle is loaded again, when its lease is spent") {
  scenario s("send | load twice", {{0, produce}, {64, consume_twice}}, {0, 64});
  s.every_order({4, 0});
  s.every_order({2, 1});
  s.random_orders(10000, 2);
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
  s.random_orders(10000, 2);
}

TEST_CASE("a claim that moves from bit to lease is never overlooked") {
  const auto look = [](world& w, process& p) {
    const auto live = [&w] { return w.tables.block(0)[sharedmem::at_life].now() != 0; };
    if (word::watch->steps->wait(live)) check(p.sees_claim(0, 0), "a look overlooked a claim");
  };
  scenario s("send | look", {{0, produce, false}, {64, look}}, {0, 64});
  s.every_order({4, 0});
}

TEST_CASE("a claim moves between bit and lease while another process tries to free") {
  const auto move_about = [](world& w, process& p) {
    p.allocate(0);
    for (int round = 0; round < 3 && p.refers(0); ++round) {
      p.send(0);
      p.drop(0);
      if (const auto m = receive(w)) p.load(*m);
    }
    p.drop(0);
  };
  const auto try_to_free = [](world&, process& p) {
    for (int round = 0; round < 2; ++round) p.try_free(0);
  };
  scenario s("move | free", {{0, move_about}, {64, try_to_free}}, {0, 64});
  s.every_order({3, 0});
  s.every_order({1, 1});
  s.random_orders(10000, 1);
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
  s.every_order({3, 0});
  s.every_order({2, 1});
  s.random_orders(10000, 2);
}

TEST_CASE("the marks of a lease group rise and sink") {
  // Slots 0 and 64 take their entries from one group, which has two.
  const auto load_then_send = [](world& w, process& p) {
    const auto m = receive(w);
    if (!m || !p.load(*m)) return;
    p.send(m->block);
    p.send(m->block);
    p.drop(m->block);
  };
  scenario s("send | load, send | load", {{0, produce}, {64, load_then_send}, {1, consume}}, {0, 64, 1});
  s.every_order({2, 0});
  s.every_order({1, 1});
  s.random_orders(10000, 1);

  const auto send_twice = [](world&, process& p) {
    p.allocate(0);
    p.send(0);
    p.send(0);
    p.drop(0);
  };
  scenario both("send, send | load", {{0, send_twice}, {64, consume}}, {0, 64});
  both.every_order({3, 0});
  both.every_order({2, 1});
}

TEST_CASE("two blocks meet in one lease group") {
  const auto send_both = [](world&, process& p) {
    for (unsigned b = 0; b < block_total; ++b) {
      p.allocate(b);
      p.send(b);
      p.drop(b);
    }
  };
  const auto load_both = [](world& w, process& p) {
    for (unsigned b = 0; b < block_total; ++b) consume(w, p);
  };
  scenario s("send both | load both", {{0, send_both}, {64, load_both}}, {0, 64});
  s.every_order({2, 0});
  s.every_order({1, 1});
  s.random_orders(10000, 2);
}

TEST_CASE("a process joins in the slot of a dead one") {
  const auto join_and_consume = [](world& w, process& p) {
    if (!word::watch->steps->wait([&w] { return w.anybody_to_repair(); })) return;
    if (!p.join()) return;
    p.pass();
    consume(w, p);
  };
  scenario s("send | load | join, load", {{0, produce}, {64, consume}, {-1, join_and_consume, false}},
             {0, 64});
  s.every_order({1, 1});
  s.random_orders(10000, 1);

  const auto join_later = [](world& w, process& p) {
    if (!word::watch->steps->wait([&w] { return w.tables.ctl(0).now() == 0 || w.tables.ctl(64).now() == 0; }))
      return;
    if (p.join()) consume(w, p);
  };
  scenario reuse("send | load | repair | join, load",
                 {{0, produce}, {64, consume}, {1, repair, false}, {-1, join_later}}, {0, 64, 1});
  reuse.every_order({0, 1});
  reuse.random_orders(10000, 2);
}

TEST_CASE("processes leave in order") {
  const auto and_leave = [](auto program) {
    return [program](world& w, process& p) {
      program(w, p);
      p.leave();
    };
  };
  scenario s("send, leave | load, leave", {{0, and_leave(produce)}, {64, and_leave(consume)}}, {0, 64});
  s.every_order({2, 0});
  s.every_order({1, 1});
  s.random_orders(10000, 2);
}

TEST_CASE("an orphaned chunk is adopted and used") {
  const auto adopt_and_produce = [](world& w, process& p) {
    consume(w, p);
    if (!word::watch->steps->wait([&w] { return w.anybody_to_repair(); })) return;
    p.pass();
    p.adopt();
    if (!p.may_allocate(0)) return;
    produce(w, p);
    consume(w, p);
  };
  scenario s("send | load, repair, adopt, send", {{0, produce}, {64, adopt_and_produce, false}}, {0, 64});
  s.every_order({2, 1});
  s.random_orders(10000, 1);
}

TEST_CASE("an expired lease against its late load") {
  const auto late = [](world& w, process& p) {
    if (!word::watch->steps->wait([&w] { return w.anybody_to_repair(); })) return;
    consume(w, p);
  };
  const auto produce_only = [](world& w, process& p) {
    produce(w, p);
    word::watch->steps->wait([] { return false; });
  };
  scenario s("send, die | load late | repair, expire",
             {{0, produce_only}, {64, late, false}, {1, repair, false}}, {0, 64, 1});
  s.every_order({1, 1});
  s.random_orders(10000, 1);
}

TEST_CASE("a fork while its parent and another process load, drop and repair") {
  for (const bool fails : {false, true}) {
    const auto fork_and_drop = [fails](world& w, process& p) {
      p.allocate(0);
      p.allocate(1);
      p.send(0);
      p.fork_into(*w.processes[1], 1, fails);
      p.pass();
      p.drop(0);
      p.drop(1);
    };
    const auto be_child = [](world& w, process& p) {
      if (!word::watch->steps->wait([&p] { return p.alive(); })) return;
      p.adopt_slot(1, *w.processes[0]);
      p.drop(0);
      p.drop(1);
    };
    scenario s(fails ? "failing fork | load | repair" : "fork | child | load | repair",
               {{0, fork_and_drop}, {-1, be_child}, {64, consume}, {65, repair, false}}, {0, 64, 1, 65});
    s.every_order({1, 0});
    s.every_order({0, 1});
    s.random_orders(10000, 2);
  }
}

TEST_CASE("everything at once") {
  scenario* self = nullptr;
  const auto any_work = [&](world& w, process& p) {
    if (!p.alive() && !p.join()) return;
    std::optional<message> old;
    for (unsigned todo = 4 + self->random->below(8); todo != 0; --todo) {
      const unsigned b = self->random->below(block_total);
      switch (self->random->below(10)) {
        case 0:
        case 1:
          if (p.may_allocate(b)) p.allocate(b);
          break;
        case 2:
        case 3:
          if (p.refers(b)) p.send(b);
          break;
        case 4:
        case 5:
          if (!w.pipe.empty()) {
            old = receive(w);
            p.load(*old);
          }
          break;
        case 6: p.drop(b); break;
        case 7:
          if (old) p.load(*old, true);
          break;
        case 8:
          p.pass();
          p.adopt();
          break;
        default: p.expire(); break;
      }
    }
    if (self->random->below(2) == 0) {
      for (unsigned b = 0; b < block_total; ++b) p.drop(b);
      p.leave();
    }
  };
  scenario s("everything", {{0, any_work}, {64, any_work}, {1, any_work}, {-1, any_work}, {-1, any_work}},
             {0, 64, 1, 65});
  self = &s;
  s.random_orders(100000, 3);
}
