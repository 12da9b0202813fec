/// References, repair and joining without an arena: several participants in one process, over shared tables of
/// their own.
#include <doctest.h>

#include <cstdint>
#include <mutex>

#include <sharedmem/error.hpp>
#include <sharedmem/handle.hpp>

#include "child.hpp"
#include "heap_tools.hpp"
#include "members/membership.hpp"
#include "members/participants.hpp"
#include "members/repair.hpp"
#include "os/machine.hpp"
#include "references/references.hpp"

using namespace sharedmem;

namespace {

/// A participant: what a process has of each layer below the arena.
struct participant : owner {
  participant(bare_tables& t, std::uint32_t number)
      : owner(t, number),
        words(t.words),
        refs(words, held, heap, slot),
        peers(words, slot),
        repairs(words, refs, peers),
        member(words, slot, heap, refs, peers, repairs) {
    peers.open();
    peers.identify();
    words.slot(number).ctl.store(slot_word{slot_state::active, peers.me()}.bits());
  }

  /// Shares a block of its own, with a lease.
  claim share(const heap::taken& block) {
    claim c{block.owner->first + block.index};
    const std::lock_guard lock(refs.stripe(c.block));
    c.generation = refs.publish(c.block, block.owner);
    REQUIRE(refs.send(c, block.owner->block_bytes));
    return c;
  }

  tables& words;
  references refs;
  participant_table peers;
  repairer repairs;
  membership member;
};

/// From now on the slot is that of a process that has ended.
void die(participant& who) {
  child ended([] { return 0; });
  const auto pid = static_cast<std::uint32_t>(ended.pid());
  REQUIRE(ended.wait() == 0);
  const slot_word dead{slot_state::active, {pid, 1, who.peers.me().space}};
  who.words.slot(who.peers.slot()).ctl.store(dead.bits());
}

life_state life_of(const bare_tables& t, std::uint32_t block) {
  return life_word::from(t.words.block(block)[at_life].load()).state;
}

}  // namespace

TEST_CASE("the last of two participants that drops a block frees it, and its owner is notified") {
  bare_tables t;
  participant a(t, 0), b(t, 1);
  const heap::taken block = a.take(class_of(5000));
  const claim c = a.share(block);
  const references::located got = b.refs.acquire(c);
  CHECK(got.data == block.owner->block(block.index));
  CHECK(got.bytes == block.owner->block_bytes);
  a.refs.release(c.block, block.owner);
  CHECK(a.refs.none_held());
  CHECK(a.refs.find(got.data).data == nullptr);
  CHECK(b.refs.find(got.data).block == c.block);
  CHECK(life_of(t, c.block) == life_state::live);
  b.refs.acquire_again(c.block);
  b.refs.release(c.block, nullptr);
  CHECK(!b.refs.none_held());
  b.refs.release(c.block, nullptr);
  CHECK(b.refs.none_held());
  CHECK(life_of(t, c.block) == life_state::free);
  CHECK(t.words.slot(0).returns.load() != 0);
  CHECK_THROWS_AS(b.refs.acquire(c), stale_handle);
}

TEST_CASE("a lease keeps a block without holders, until it is given back") {
  bare_tables t;
  participant a(t, 0);
  const heap::taken block = a.take(class_of(5000));
  const claim c = a.share(block);
  a.refs.release(c.block, block.owner);
  CHECK(life_of(t, c.block) == life_state::live);
  CHECK(a.refs.stands_for(c));
  a.refs.give_back(c);
  CHECK(life_of(t, c.block) == life_state::free);
  CHECK(!a.refs.stands_for(c));
}

TEST_CASE("references copied into a child that was not announced are forgotten, and its epoch is another") {
  bare_tables t;
  participant a(t, 0);
  const heap::taken block = a.take(class_of(5000));
  (void)a.share(block);
  const std::uint32_t before = a.refs.epoch();
  a.refs.forget();
  CHECK(a.refs.epoch() != before);
  CHECK(a.refs.none_held());
  CHECK(a.refs.find(block.owner->block(block.index)).data == nullptr);
}

TEST_CASE("what a dead process held is taken back: references, messages, chunks, its slot") {
  bare_tables t;
  participant a(t, 0), b(t, 1);
  const heap::taken of_a = a.take(class_of(5000)), of_b = b.take(class_of(5000));
  const claim held = a.share(of_a), sent = b.share(of_b);
  (void)b.refs.acquire(held);
  a.refs.release(held.block, of_a.owner);
  CHECK(!a.repairs.look_for_dead(true));
  die(b);
  CHECK(a.repairs.look_for_dead(true));
  CHECK(t.words.slot(1).ctl.load() == 0);
  CHECK(t.words.head().repairs.load() == 1);
  CHECK(life_of(t, held.block) == life_state::free);
  CHECK(life_of(t, sent.block) == life_state::live);  // its message may still be read
  CHECK(a.repairs.expire(false) == 0);
  CHECK(a.repairs.expire(true) == 1);
  CHECK(life_of(t, sent.block) == life_state::free);
  const std::lock_guard lock(a.heap);
  CHECK(a.heap.adopt_all_orphans());
}

TEST_CASE("a search for the dead that is not needed is not repeated at once") {
  bare_tables t;
  participant a(t, 0), b(t, 1);
  const std::uint64_t before = monotonic_ns();
  CHECK(!a.repairs.look_for_dead(true));
  die(b);
  const bool found = a.repairs.look_for_dead(false);
  if (monotonic_ns() - before < look_interval_ns) CHECK(!found);
  CHECK(a.repairs.look_for_dead(true) == !found);
}

TEST_CASE("a joining process takes a free slot, or one of a dead process if there is none") {
  bare_tables t;
  participant a(t, 0), b(t, 1), joining(t, 2);
  t.words.slot(2).ctl.store(0);
  joining.member.join();
  CHECK(joining.peers.slot() == 2);
  for (std::uint32_t s = 2; s < t.words.overflow_slot(); ++s)
    t.words.slot(s).ctl.store(slot_word{slot_state::active, a.peers.me()}.bits());
  CHECK_THROWS_AS(joining.member.join(), no_memory);
  die(b);
  joining.member.join();
  CHECK(joining.peers.slot() == 1);
}

TEST_CASE("before a fork the child has a slot and a claim on what its parent holds") {
  bare_tables t;
  participant a(t, 0);
  const heap::taken unshared = a.take(class_of(5000)), shared = a.take(class_of(5000));
  const claim c = a.share(shared);
  a.member.prepare_fork();
  a.member.after_fork_in_parent();
  CHECK(slot_word::from(t.words.slot(1).ctl.load()).state == slot_state::reserved);
  for (const std::uint32_t b : {c.block, unshared.owner->first + unshared.index}) {
    CHECK(life_of(t, b) == life_state::live);
    CHECK(a.refs.rules.holds(b, 0));
    CHECK(a.refs.rules.holds(b, 1));
  }
}
