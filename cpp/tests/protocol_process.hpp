#pragma once
/// A process of a small arena: the protocol's operations, put together as the library does, with the
/// test's own knowledge (references, bytes, leases spent) brought up to date in the same step.
#include "protocol_world.hpp"

namespace schedules {

inline void process::reset() {
  slot_ = no_slot;
  alive_ = killed_ = false;
  references_.fill(std::nullopt);
  in_use_.fill(false);
  rules_.emplace(w_.tables);
}

inline void process::start_in(std::uint32_t s) {
  using namespace sharedmem;
  slot_ = s;
  alive_ = true;
  w_.tables.ctl(s).reset(kind::ctl, s, false, slot_word{slot_state::active, who()}.bits());
  if (w_.tables.slot_mark().now() <= s) w_.tables.slot_mark().reset(kind::slots, 0, false, s + 1);
}

inline bool process::is_dead(const sharedmem::actor& a) const { return !w_.processes[a.pid - 1]->alive(); }

inline bool process::holds_nothing() const {
  return std::none_of(references_.begin(), references_.end(), [](const auto& r) { return r.has_value(); });
}

inline bool process::join() {
  using namespace sharedmem;
  if (w_.attached() == 0) return false;  // the kernel refuses: the arena was removed
  alive_ = true;
  if (take_slot()) return true;
  pass();  // only repair can help
  alive_ = take_slot();
  return alive_;
}

inline bool process::take_slot() {
  using namespace sharedmem;
  for (const std::uint32_t s : w_.tables.slots()) {
    word& ctl = w_.tables.ctl(s);
    if (ctl.load(std::memory_order_relaxed) != 0) continue;
    word& mark = w_.tables.slot_mark();
    std::uint64_t seen = mark.load(std::memory_order_seq_cst);
    while (seen <= s && !mark.compare_exchange_weak(seen, s + 1, std::memory_order_seq_cst)) {
    }
    std::uint64_t none = 0;
    if (!ctl.compare_exchange_strong(none, slot_word{slot_state::active, who()}.bits(),
                                     std::memory_order_seq_cst))
      continue;
    slot_ = s;
    return true;
  }
  return false;
}

inline void process::leave() {
  using namespace sharedmem;
  if (!holds_nothing()) return;
  std::uint64_t seen = slot_word{slot_state::active, who()}.bits();
  repair(slot_, seen);
  alive_ = false;
}

inline bool process::may_allocate(std::uint32_t b) const {
  using namespace sharedmem;
  const auto owner = owner_word::from(w_.tables.owner().now());
  return owner.state == chunk_state::owned && owner.slot == slot_ && !in_use_[b] && !references_[b] &&
         life_word::from(w_.tables.block(b)[at_life].now()).state == life_state::free;
}

/// The owner's private affair: no step.
inline void process::allocate(std::uint32_t b) {
  using namespace sharedmem;
  const auto life = life_word::from(w_.tables.block(b)[at_life].now());
  for (const process* p : w_.processes)
    check(!p->alive() || !p->refers(b), "a block that is in use was allocated");
  in_use_[b] = true;
  references_[b] = life.generation;
  w_.bytes[b] = ++w_.allocations;
}

inline void process::publish(std::uint32_t b) {
  if (!in_use_[b]) return;
  const std::uint64_t g = rules_->publish(b, slot_, 0, 1);
  check(references_[b] == g, "a block was published in another generation than it was allocated in");
  in_use_[b] = false;
}

inline void process::send(std::uint32_t b) {
  check(references_[b].has_value(), "the test sends a block that is not held");
  publish(b);
  const std::uint64_t now = ++w_.time;
  const auto lease = rules_->leases.send(b, *references_[b], slot_, now, 1);
  if (!lease) return;  // the table is full: an error in the sender
  const auto ticket = static_cast<unsigned>(w_.sent.size());
  w_.sent.push_back({*lease, now});
  w_.pipe.push_back({b, *references_[b], *lease, ticket});
}

inline bool process::try_free(std::uint32_t b, std::uint32_t signer) {
  return rules_->try_free(
      b, signer, [this](std::uint32_t) { return w_.warm; },
      [this, signer](std::uint32_t x) {
        word::watch->steps->step();  // pages may go at any moment of it
        const auto life = sharedmem::life_word::from(w_.tables.block(x)[sharedmem::at_life].now());
        check(life.state == sharedmem::life_state::emptying && life.slot == signer,
              "the pages of a block that others may use were given back");
        w_.bytes[x] = 0;
      });
}

inline bool process::load(const message& m, bool again) {
  sending& ticket = w_.sent[m.ticket];
  const bool mine = rules_->leases.begin_load(m.lease, slot_);
  check(mine || ticket.spent, "a lease was lost");
  if (!again) ticket.in_hand = false;
  bool valid;
  if (references_[m.block]) {
    valid = references_[m.block] == m.generation;
  } else {
    valid = rules_->hold(m.block, slot_, m.generation);
    if (valid) {
      references_[m.block] = m.generation;
      check(w_.bytes[m.block] != 0, "a block without its pages was loaded");
    } else {
      try_free(m.block);
    }
  }
  check(valid || !mine, "a handle with a lease was stale");
  if (mine) rules_->leases.end_load(m.lease);
  return valid;
}

inline void process::drop(std::uint32_t b) {
  if (!references_[b]) return;
  word::watch->steps->step();  // in use up to here
  check(w_.bytes[b] != 0, "a block lost its pages while it was in use");
  references_[b].reset();
  if (in_use_[b]) {
    in_use_[b] = false;  // never shared: no step
    return;
  }
  rules_->clear(b, slot_);
  try_free(b);
}

inline void process::give_back(const message& m) {
  if (rules_->leases.give_back(m.lease)) {
    try_free(m.block);
  } else {
    check(w_.sent[m.ticket].spent, "a lease that is not spent could not be given back");
  }
}

inline void process::expire() {
  using namespace sharedmem;
  rules_->leases.expire([](lease_word v, std::uint64_t) { return v.slot == nobody; },
                        [this](std::uint32_t b) { try_free(b); });
}

inline bool process::keep(const message& m, std::uint32_t keeper) {
  check(references_[keeper].has_value(), "the test keeps a lease in a block that is not held");
  return rules_->leases.keep(m.lease, sharedmem::kept_by(keeper, *references_[keeper]));
}

inline bool process::take(const message& m) {
  sending& ticket = w_.sent[m.ticket];
  const std::uint64_t now = ++w_.time;
  const bool taken = rules_->leases.take_from_keeper(m.lease, slot_, now);
  if (taken) ticket.time = now;
  return taken;
}

inline void process::give_back_kept(const message& m) {
  if (rules_->leases.give_back_kept(m.lease)) try_free(m.block);
}

inline void process::drop_unkept() {
  using namespace sharedmem;
  rules_->leases.expire(
      [this](lease_word v, std::uint64_t clock) {
        if (v.slot != kept || (clock & keeper_mark) == 0) return false;
        const auto b = static_cast<std::uint32_t>((clock & ~keeper_mark) >> 32);
        const auto life = life_word::from(w_.tables.block(b)[at_life].load(std::memory_order_seq_cst));
        const bool gone = life.state == life_state::free || kept_by(b, life.generation) != clock;
        for (const process* p : w_.processes)
          check(!gone || !p->alive() || !p->refers(b, clock & 0xffffffff),
                "a block that a process holds was taken for gone");
        return gone;
      },
      [this](std::uint32_t b) { try_free(b); });
}

inline void process::repair(std::uint32_t dead, std::uint64_t seen) {
  using namespace sharedmem;
  const slot_word mine{slot_state::repair, who()};
  if (!w_.tables.ctl(dead).compare_exchange_strong(seen, mine.bits(), std::memory_order_seq_cst)) return;
  const std::uint32_t signer = slot_ == no_slot ? dead : slot_;
  rules_->repair(
      dead, deadline,
      [this](std::uint32_t d) {
        std::uint64_t owned = owner_word{chunk_state::owned, d, 0}.bits();
        w_.tables.owner().compare_exchange_strong(owned, owner_word{chunk_state::orphan, 0, 0}.bits(),
                                                  std::memory_order_seq_cst);
      },
      [this, signer](std::uint32_t b) { try_free(b, signer); });
  std::uint64_t done = mine.bits();
  w_.tables.ctl(dead).compare_exchange_strong(done, 0, std::memory_order_release);
}

inline void process::pass() {
  using namespace sharedmem;
  const auto mark = static_cast<std::uint32_t>(w_.tables.slot_mark().load(std::memory_order_seq_cst));
  for (std::uint32_t s = 0; s < mark; ++s) {
    const std::uint64_t seen = w_.tables.ctl(s).load(std::memory_order_seq_cst);
    const auto v = slot_word::from(seen);
    if ((v.state == slot_state::active || v.state == slot_state::repair) && is_dead(v.who)) repair(s, seen);
  }
  for (std::uint32_t s = 0; s < mark; ++s) {
    const std::uint64_t seen = w_.tables.ctl(s).load(std::memory_order_seq_cst);
    const auto v = slot_word::from(seen);
    // Not while it forks itself: the caller is back from that.
    if (v.state == slot_state::reserved && (v.who == who() || is_dead(v.who)) && no_child_without_slot())
      repair(s, seen);
  }
}

inline bool process::no_child_without_slot() {
  using namespace sharedmem;
  std::vector<actor> active;
  const auto mark = static_cast<std::uint32_t>(w_.tables.slot_mark().load(std::memory_order_seq_cst));
  for (std::uint32_t s = 0; s < mark; ++s) {
    const auto v = slot_word::from(w_.tables.ctl(s).load(std::memory_order_seq_cst));
    if (v.state == slot_state::active) active.push_back(v.who);
  }
  word::watch->steps->step();
  if (w_.attached() != static_cast<int>(active.size())) return false;
  return std::none_of(active.begin(), active.end(), [this](const actor& a) { return is_dead(a); });
}

inline bool process::adopt() {
  using namespace sharedmem;
  std::uint64_t seen = w_.tables.owner().load(std::memory_order_seq_cst);
  if (owner_word::from(seen).state != chunk_state::orphan) return false;
  return w_.tables.owner().compare_exchange_strong(seen, owner_word{chunk_state::owned, slot_, 0}.bits(),
                                                   std::memory_order_seq_cst);
}

inline bool process::fork_into(process& child, std::uint32_t slot, bool fails) {
  using namespace sharedmem;
  word& mark = w_.tables.slot_mark();
  std::uint64_t seen = mark.load(std::memory_order_seq_cst);
  while (seen <= slot && !mark.compare_exchange_weak(seen, slot + 1, std::memory_order_seq_cst)) {
  }
  std::uint64_t none = 0;
  if (!w_.tables.ctl(slot).compare_exchange_strong(none, slot_word{slot_state::reserved, who()}.bits(),
                                                   std::memory_order_seq_cst))
    return false;
  for (std::uint32_t b = 0; b < block_total; ++b) {
    if (!references_[b]) continue;
    if (in_use_[b]) {
      rules_->publish_for_two(b, slot_, slot, 0, 1);
      in_use_[b] = false;
    } else {
      check(rules_->hold(b, slot, *references_[b]), "a fork could not hand a block to the child");
    }
  }
  word::watch->steps->step();
  if (fails) return false;  // EAGAIN: the next pass repairs the reservation
  child.slot_ = slot;
  child.references_ = references_;
  child.alive_ = true;
  return true;
}

inline void process::adopt_slot(std::uint32_t slot, const process& parent) {
  using namespace sharedmem;
  std::uint64_t seen = slot_word{slot_state::reserved, parent.who()}.bits();
  check(w_.tables.ctl(slot).compare_exchange_strong(seen, slot_word{slot_state::active, who()}.bits(),
                                                    std::memory_order_seq_cst),
        "a child did not find its slot");
}

}  // namespace schedules
