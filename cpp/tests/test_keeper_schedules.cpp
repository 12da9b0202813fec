// Leases that a block keeps in place of a process, as a queue keeps those of its messages: the code itself, in
// every order of steps that a bound allows and in random orders, with deaths between steps. After each run a
// survivor repairs, drops the block, and everything must have come back. The settings are those of
// test_protocol_schedules.cpp.
#include <doctest.h>

#include <optional>

#include "protocol_scenario.hpp"

using namespace schedules;

namespace {

constexpr unsigned data = 0, keeper = 1;  // the blocks

std::optional<message> receive(world& w) {
  if (!word::watch->steps->wait([&w] { return !w.pipe.empty(); })) return std::nullopt;
  const message m = w.pipe.front();
  w.pipe.pop_front();
  w.sent[m.ticket].in_hand = true;
  return m;
}

/// Makes the keeper, and sends it to `receivers` others.
void open_queue(process& p, unsigned receivers) {
  p.allocate(keeper);
  for (unsigned i = 0; i < receivers; ++i) p.send(keeper);
}

/// A message that the keeper holds when others can see it first.
void put(world& w, process& p) {
  p.allocate(data);
  const auto before = w.pipe.size();
  p.send(data);
  if (w.pipe.size() == before) {  // the table of leases is full
    p.drop(data);
    return;
  }
  const message m = w.pipe.back();
  w.pipe.pop_back();
  check(p.keep(m, keeper), "a lease that is out could not be kept");
  w.pipe.push_back(m);  // the commit
  p.drop(data);
}

/// Takes the next message: its lease is this process's from then on.
void get(world& w, process& p) {
  const auto m = receive(w);
  if (!m) return;
  check(p.take(*m), "a kept lease was lost while its keeper lived");
  if (p.load(*m)) p.drop(m->block);
}

void join_queue(world& w, process& p) {
  if (const auto m = receive(w)) p.load(*m);
}

void sender(world& w, process& p) {
  open_queue(p, 1);
  // Not before the other has the keeper: one that is killed before it loads what it read loses it.
  if (!word::watch->steps->wait([&w] { return w.sent[0].spent; })) return;
  put(w, p);
  p.drop(keeper);
}

void receiver(world& w, process& p) {
  join_queue(w, p);
  if (!p.refers(keeper)) return;
  get(w, p);
  p.drop(keeper);
}

void repair(world& w, process& p) {
  for (int passes = 0; passes < 4; ++passes) {
    if (!word::watch->steps->wait([&w] { return w.anybody_to_repair(); })) return;
    p.pass();
    p.expire();
    p.drop_unkept();
  }
}

}  // namespace

TEST_CASE("a message is put and kept, taken and loaded, by processes that may die") {
  scenario s("put | get", {{0, sender}, {64, receiver}}, {0, 64});
  s.every_order({2, 0});
  s.every_order({1, 1});
  s.every_order({0, 2});
  s.random_orders(10000, 2);
}

TEST_CASE("a third one repairs and gives back what no block keeps any more") {
  scenario s("put | get | repair", {{0, sender}, {64, receiver}, {1, repair, false}}, {0, 64, 1});
  s.every_order({1, 1});
  s.random_orders(10000, 2);
}

TEST_CASE("the death of its sender does not end a lease that is kept") {
  const auto put_and_wait = [](world& w, process& p) {
    sender(w, p);
    word::watch->steps->wait([] { return false; });  // to be killed after it is done, too
  };
  const auto get_late = [](world& w, process& p) {
    join_queue(w, p);
    if (!p.refers(keeper)) return;
    word::watch->steps->wait([&w] { return w.anybody_to_repair(); });
    p.pass();
    p.expire();
    if (!w.pipe.empty()) get(w, p);
    p.drop(keeper);
  };
  scenario s("put, die | repair, get", {{0, put_and_wait}, {64, get_late, false}}, {0, 64});
  s.every_order({1, 1});
  s.random_orders(10000, 1);
}

TEST_CASE("a message is given back by one, as after a death, while another takes it") {
  const auto give_back = [](world& w, process& p) {
    join_queue(w, p);
    if (!p.refers(keeper)) return;
    if (!word::watch->steps->wait([&w] { return w.sent.size() > 2 && !w.pipe.empty(); })) return;
    const message m = w.pipe.front();  // seen, not removed: who has the queue's lock does so, and dies
    p.give_back_kept(m);
    p.drop(keeper);
  };
  const auto take_if_there = [](world& w, process& p) {
    join_queue(w, p);
    if (!p.refers(keeper)) return;
    if (const auto m = receive(w); m && p.take(*m)) {
      if (p.load(*m)) p.drop(m->block);
    }
    p.drop(keeper);
  };
  const auto send_to_two = [](world& w, process& p) {
    open_queue(p, 2);
    if (!word::watch->steps->wait([&w] { return w.sent[0].spent && w.sent[1].spent; })) return;
    put(w, p);
    p.drop(keeper);
  };
  scenario s("put | give back | take", {{0, send_to_two}, {64, give_back}, {1, take_if_there}}, {0, 64, 1});
  s.every_order({1, 0});
  s.every_order({0, 1});
  s.random_orders(10000, 2);
}

TEST_CASE("the keeper is dropped while another process looks for what it kept") {
  const auto drop_and_look = [](world& w, process& p) {
    open_queue(p, 1);
    put(w, p);
    p.drop(keeper);
    p.drop_unkept();
  };
  const auto look = [](world& w, process& p) {
    join_queue(w, p);
    p.drop(keeper);
    p.drop_unkept();
  };
  scenario s("put, drop, look | drop, look", {{0, drop_and_look}, {64, look}}, {0, 64});
  s.every_order({2, 0});
  s.every_order({1, 1});
  s.random_orders(10000, 2);
}

TEST_CASE("what is not out is not kept, and what is not kept is neither taken nor given back") {
  const auto mistake = [](world& w, process& p) {
    p.allocate(keeper);
    p.allocate(data);
    p.send(data);
    const message old = w.pipe.front();
    w.pipe.pop_front();
    check(!p.take(old), "a lease that was not kept was taken");
    p.give_back_kept(old);
    check(!w.sent[old.ticket].spent, "a lease that was not kept was given back");
    p.give_back(old);
    check(!p.keep(old, keeper), "a lease that was given back was kept");
    for (unsigned i = 0; i < entries_per_group; ++i) p.send(data);  // in the same entry, too
    check(!p.keep(old, keeper), "the lease of another message was kept");
    while (!w.pipe.empty()) {
      p.give_back(w.pipe.front());
      w.pipe.pop_front();
    }
    p.drop(data);
    p.drop(keeper);
  };
  scenario s("mistakes", {{0, mistake, false}, {64, repair, false}}, {0, 64});
  s.random_orders(100, 0);
}

TEST_CASE("a lease is revoked while its block is about to keep it") {
  const auto put_if_out = [](world& w, process& p) {
    p.allocate(keeper);
    p.allocate(data);
    p.send(data);
    const message m = w.pipe.front();
    w.pipe.pop_front();
    if (p.keep(m, keeper)) p.give_back_kept(m);
    p.drop(data);
    p.drop(keeper);
  };
  const auto revoke = [](world& w, process& p) {
    if (!word::watch->steps->wait([&w] { return !w.sent.empty(); })) return;
    p.give_back({data, 0, w.sent[0].lease, 0});
  };
  scenario s("send, keep, give back | revoke", {{0, put_if_out, false}, {64, revoke, false}}, {0, 64});
  s.every_order({3, 0});
}

TEST_CASE("a process that takes a message without loading it becomes responsible for it") {
  const auto take_only = [](world& w, process& p) {
    join_queue(w, p);
    if (!p.refers(keeper)) return;
    if (const auto m = receive(w)) check(p.take(*m), "a kept lease was lost while its keeper lived");
    p.drop(keeper);
  };
  scenario s("put | take", {{0, sender, false}, {64, take_only, false}}, {0, 64});
  s.every_order({1, 0});
}
