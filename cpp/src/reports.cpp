/// Reports on an arena as seen by this process: counts, participants, and whether its tables are valid.
#include <algorithm>

#include "os/machine.hpp"
#include "reports.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto sc = std::memory_order_seq_cst;

}  // namespace

participant_report report_of(std::uint32_t slot, const participant_entry& entry, const slot_word& seen,
                             bool gone) noexcept {
  participant_report p;
  p.slot = slot;
  p.pid = seen.who.pid;
  p.chunks = entry.chunks.load(relaxed);
  p.bytes = p.chunks * chunk_bytes;
  p.what = gone || seen.state == slot_state::repair ? participant_report::state::dead
           : seen.state == slot_state::reserved     ? participant_report::state::reserved
                                                    : participant_report::state::active;
  return p;
}

arena_statistics arena::statistics() {
  state& s = *s_;
  s.join_if_forked();
  s.words.sync();
  arena_statistics a;
  {
    const std::lock_guard lock(s.pool);
    s.pool.each_unshared([&](const slab& x, std::uint32_t) {
      ++a.live_blocks;
      a.live_bytes += x.block_bytes;
    });
    a.cached_bytes = s.pool.cached_everywhere() + s.pool.orphaned_bytes();
  }
  {
    const auto locks = s.refs.all_stripes();
    s.refs.each_held([&](std::uint32_t b, const record&) {
      ++a.live_blocks;
      a.live_bytes += s.words.block(b)[at_bytes].load(relaxed);
    });
  }
  s.words.for_each_published([&](std::uint32_t b) {
    const auto* d = s.words.block(b);
    if (life_word::from(d[at_life].load(sc)).state == life_state::free) return;
    ++a.shared_blocks;
    a.shared_bytes += d[at_bytes].load(relaxed);
  });
  a.resident_bytes = s.resident();
  for (std::uint32_t k = 0; k < s.words.extents(); ++k) a.arena_bytes += s.words.at(k).memory.size();
  // A block that was handed out lazily is counted whole when it comes back, touched or not.
  a.cached_bytes = std::min(a.cached_bytes, a.resident_bytes);
  a.segments = s.words.extents() + (s.peers.attendance ? 1 : 0);
  a.cache_limit = cache_limit();
  const in_flight sent = s.messages();
  a.leases = sent.leases;
  a.bytes_in_flight = sent.bytes;
  a.oldest_in_flight_ns = sent.oldest_ns;
  for (const participant_report& p : participants())
    if (p.what == participant_report::state::active) ++a.participants;
  return a;
}

std::vector<participant_report> arena::participants() {
  state& s = *s_;
  s.join_if_forked();
  std::vector<participant_report> all;
  const auto mark = static_cast<std::uint32_t>(s.words.slot_mark().load(sc));
  for (std::uint32_t k = 0; k < mark && k < s.words.overflow_slot(); ++k) {
    const auto w = slot_word::from(s.words.slot(k).ctl.load(sc));
    if (w.state == slot_state::empty) continue;
    const bool gone = w.state != slot_state::reserved &&
                      (s.peers.look(w.who) == liveness::dead || s.peers.exec_happened(w.who));
    all.push_back(report_of(k, s.words.slot(k), w, gone));
    all.back().self = w.who == s.peers.me();
  }
  const std::uint64_t now = s.repairs.on_arena_clock() ? monotonic_ns() : 0;
  count_messages(s.refs.rules.leases, all, now);
  return all;
}

void arena::check() const {
  const state& s = *s_;
  const header& h = s.words.head();
  if (h.magic != arena_magic || h.version.load(relaxed) != layout_version || h.checksum != header_checksum(h))
    throw corrupted("the arena's header is corrupted: a stray write has changed it");
  const auto fail = [](const char* what, std::uint64_t index) {
    throw corrupted("the arena's tables are corrupted: " + std::string(what) + " " + std::to_string(index));
  };
  const std::uint64_t mark = h.chunk_mark.load(sc);
  if (mark > h.chunk_capacity) fail("chunk mark", mark);
  if (h.slot_mark.load(sc) > h.slots) fail("slot mark", h.slot_mark.load(sc));
  for (std::uint32_t g = 0; g < lease_group_count; ++g)
    if (static_cast<std::uint32_t>(s.words.lease_mark(g).load(sc)) > h.lease_entries)
      fail("the mark of lease group", g);
  for (std::uint32_t k = 0; k < h.slots && k < h.slot_mark.load(sc); ++k)
    if (const std::uint64_t ctl = s.words.slot(k).ctl.load(sc);
        slot_word::from(ctl).state > slot_state::ending)
      fail("the state of process slot", k);
  for (std::uint32_t c = 0; c < mark && c < s.words.chunk_count(); ++c) {
    const chunk_entry& e = s.words.chunk(c);
    const auto w = owner_word::from(e.owner.load(sc));
    if (w.state == chunk_state::owned && w.slot >= h.slots) fail("the owner of chunk", c);
    if (w.state == chunk_state::inner && w.distance > c) fail("the run of chunk", c);
    const std::uint32_t published = e.published.load(sc);
    if (published > e.capacity.load(sc) ||
        (published > 0 && std::uint64_t{e.first.load(sc)} + published > s.words.block_count()))
      fail("the descriptors of chunk", c);
    const extent& x = s.words.extent_of_chunk(c);
    s.words.for_each_published_in(c, [&](std::uint32_t b) {
      auto* d = s.words.block(b);
      if (life_word::from(d[at_life].load(sc)).state != life_state::live) return;
      if (!x.has(d[at_place].load(relaxed), d[at_bytes].load(relaxed))) fail("the descriptor of block", b);
    });
  }
}

bool arena::idle() const noexcept {
  state& s = *s_;
  if (!s.identity.known()) return false;  // forked without handlers: locks may be held
  if (s.refs.holds_any()) return false;
  bool held = false;
  {
    const std::lock_guard lock(s.pool);
    s.pool.each_unshared([&](const slab&, std::uint32_t) { held = true; });
  }
  // In this order: a thread that drops a block which was never shared still holds its stripe's lock when the pool has
  // the block already.
  if (held || !s.refs.none_held()) return false;
  if (s.words.head().names != 0 && s.names.any_of(s.peers.slot())) return false;
  // Messages of any sender count: perhaps no other process keeps the arena until they are read.
  bool sent = false;
  const std::uint64_t now = s.repairs.on_arena_clock() ? monotonic_ns() : 0;
  s.refs.rules.leases.each([&](std::uint32_t, lease_word v, auto* e) {
    const bool over = v.slot == nobody && e[at_clock].load(relaxed) <= now;
    sent = sent || (v.state == lease_state::out && v.slot != kept && !over);
  });
  return !sent;
}

in_flight arena::state::messages() noexcept {
  const std::uint64_t now = repairs.on_arena_clock() ? monotonic_ns() : 0;
  in_flight all;
  refs.rules.leases.each([&](std::uint32_t, lease_word v, auto* e) {
    if (v.state == lease_state::out) all.add(v, e, now);
  });
  return all;
}

std::string arena::state::in_flight_text() {
  const in_flight all = messages();
  if (all.leases == 0) return {};
  return "; " + std::to_string(all.leases) + (all.leases == 1 ? " array" : " arrays") +
         " in messages that have not been loaded keep up to " + size_text(all.bytes) + ", the oldest for " +
         std::to_string(all.oldest_ns / second_ns) +
         " s: sharedmem.participants() counts them by process, sharedmem.revoke(older_than) frees those that "
         "will not be loaded";
}

std::uint64_t arena::state::resident() const noexcept {
  std::uint64_t bytes = 0;
  for (std::uint32_t k = 0; k < words.extents(); ++k) bytes += words.at(k).memory.resident();
  return bytes;
}

}  // namespace sharedmem
