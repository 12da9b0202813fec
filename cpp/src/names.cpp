#include <sharedmem/names.hpp>

#include <algorithm>
#include <chrono>
#include <optional>
#include <stdexcept>

#include <sharedmem/futex.hpp>

#include "host.hpp"
#include "name_reports.hpp"
#include "os/lingering.hpp"
#include "os/machine.hpp"
#include "placing.hpp"
#include "state.hpp"

namespace sharedmem {

static_assert(max_name_bytes == longest_name && max_description_bytes == longest_text);

#if defined(__GLIBC__)
[[gnu::tls_model("initial-exec")]]  // 8 bytes of glibc's static TLS reserve; no call per access
#endif
constinit thread_local arena* placed_in = nullptr;

namespace {

constexpr std::uint64_t slice_ns = 100'000'000;  // after which a waiter checks whether the builder is alive

using table = name_table<native_atomics, tables>;

named entry_of(const name_ticket& at) noexcept { return {at.entry, name_word::from(at.word)}; }

name_ticket ticket_of(const arena& host, const named& n) noexcept {
  return {host.where().uuid, n.entry, n.word.bits()};
}

/// Nanoseconds on the arena's clock; 0: this process has another.
std::uint64_t clock_of(const arena::state& s) noexcept {
  return s.repairs.on_arena_clock() ? monotonic_ns() : 0;
}

/// Before anything that signs with this process's slot.
void come_in(arena::state& s) {
  s.join_if_forked();
  if (s.peers.in_overflow()) s.member.leave_overflow();  // its slot is shared
}

/// Whether the caller has made the claim: a forked child has another slot.
bool is_mine(const host_use& host, const name_ticket& mine) noexcept {
  if (!host) return false;  // a building keeps its arena attached where it was begun
  const arena::state& s = host->parts();
  return s.identity.known() && s.peers.slot() == name_word::from(mine.word).slot;
}

/// Whether the array that the entry names was freed.
bool is_stale(arena::state& s, const name_content& c) {
  const auto b = static_cast<std::uint32_t>(c.block);
  if (!s.words.has_block(b)) {
    if (b < s.words.block_count()) return true;  // its segment was removed with the last process that had it
    return false;  // in a segment that is not attached here
  }
  const auto life = life_word::from(s.words.block(b)[at_life].load(std::memory_order_seq_cst));
  return life.generation != c.generation || life.state == life_state::free ||
         life.state == life_state::emptying;
}

/// When all entries are in use, vacates those whose array was freed.
void vacate_stale(arena::state& s) {
  s.words.try_sync();
  s.names.each([&](const named& n) {
    if (n.word.state == name_state::building) return;
    const auto c = s.names.content(n);
    if (c && (n.word.state == name_state::failed || is_stale(s, *c))) (void)s.names.vacate(n);
  });
}

/// A reference to the block of an entry that is READY; nothing: the block was freed.
std::optional<allocation> hold(arena& host, const name_content& c) {
  try {
    return host.acquire({static_cast<std::uint32_t>(c.block), c.generation, no_lease, 0});
  } catch (const stale_handle&) {
    return std::nullopt;
  }
}

}  // namespace

name_found find_name(std::string_view name, name_space among) {
  const host_use host = find_host_arena(among);
  if (!host) return {};
  arena::state& s = host->parts();
  come_in(s);
  while (const auto at = s.names.find(name)) {
    auto c = s.names.content(*at);
    if (!c) continue;
    name_found found{status_of(at->word.state),
                     ticket_of(*host, *at),
                     {},
                     std::move(c->text),
                     static_cast<std::uint32_t>(c->claimer),
                     age_of(c->since, clock_of(s))};
    if (found.what != name_status::ready) return found;
    if (auto held = hold(*host, *c)) {
      found.block = *held;
      return found;
    }
    (void)s.names.vacate(*at);
  }
  return {};
}

bool claim_name(std::string_view name, name_ticket& mine, name_space among) {
  const host_use host = host_arena(among);
  arena::state& s = host->parts();
  come_in(s);
  for (bool again = false;; again = true) {
    const auto got = s.names.claim(name, s.peers.slot(), s.peers.me().pid, clock_of(s), [] { sleep_ms(1); });
    if (got.how == table::outcome::claimed) mine = ticket_of(*host, got.mine);
    if (got.how != table::outcome::full) return got.how == table::outcome::claimed;
    if (again)
      throw no_memory(
          "all " + std::to_string(host_names) +
          " names of this user are in use: sharedmem.names() lists them; SHAREDMEM_NAMESPACE gives "
          "groups of processes names of their own");
    s.repairs.look_for_dead(true);
    vacate_stale(s);
  }
}

void bind_name(const name_ticket& mine, const block_ref& ref, std::string_view description) {
  const host_use host = attached_host(mine.host);
  if (!is_mine(host, mine)) throw std::logic_error("a forked child does not end what its parent builds");
  if (description.size() > max_description_bytes)
    throw std::length_error("the description of a named block is too long");
  arena::state& s = host->parts();
  const claim c = host->share(ref, false);
  (void)s.names.bind(entry_of(mine), c.block, c.generation, description, clock_of(s));
  s.words.ring_names_bell();
}

void fail_name(const name_ticket& mine, std::string_view text) noexcept {
  const host_use host = attached_host(mine.host);
  if (!is_mine(host, mine)) return;
  arena::state& s = host->parts();
  (void)s.names.fail(entry_of(mine), text, clock_of(s));
  s.words.ring_names_bell();
}

void give_up_name(const name_ticket& mine) noexcept {
  const host_use host = attached_host(mine.host);
  if (!is_mine(host, mine)) return;
  arena::state& s = host->parts();
  s.names.give_up(entry_of(mine));
  s.words.ring_names_bell();
}

bool vacate_name(const name_ticket& at) noexcept {
  const host_use host = attached_host(at.host);
  return host && host->parts().names.vacate(entry_of(at));
}

bool wait_for_name(const name_ticket& at, unsigned round, std::uint64_t ns) {
  const host_use host = attached_host(at.host);
  if (!host) return true;  // left meanwhile, for another namespace: the caller looks again
  arena::state& s = host->parts();
  const named building = entry_of(at);
  header& h = s.words.head();
  const std::uint32_t rung = h.names_bell.load(std::memory_order_acquire);
  if (!s.names.is_still(building)) return true;
  (void)wait_on(futex_word(h.names_bell), rung, std::chrono::nanoseconds(std::min(ns, slice_ns)));
  if (!s.names.is_still(building)) return true;
  // Of one process this is one line of /proc; the others are looked at once in a second, for what shows only there:
  // a program that has become another, or processes of other pid namespaces.
  const auto builder = slot_word::from(s.words.slot(building.word.slot).ctl.load(std::memory_order_seq_cst));
  come_in(s);
  if (s.peers.look(builder.who) == liveness::dead || round % 10 == 9) (void)s.repairs.look_for_dead(true);
  return !s.names.is_still(building);
}

void wait_for_names(std::uint64_t ns, name_space among) {
  const std::uint64_t slice = std::min(ns, slice_ns);
  if (const host_use host = find_host_arena(among)) {
    header& h = host->parts().words.head();
    (void)wait_on(futex_word(h.names_bell), h.names_bell.load(std::memory_order_acquire),
                  std::chrono::nanoseconds(slice));
  } else {
    sleep_ms(static_cast<unsigned>(std::min<std::uint64_t>(slice / 1'000'000, 20)) + 1);
  }
}

arena& name_arena(name_space among) { return *host_arena(among); }

arena* name_arena(const name_ticket& mine) noexcept {
  const host_use host = attached_host(mine.host);
  return is_mine(host, mine) ? &*host : nullptr;
}

placing::placing(arena* there) noexcept : before_(place_in(there)) {}

placing::~placing() { placed_in = before_; }

arena* place_in(arena* there) noexcept {
  arena* before = placed_in;
  placed_in = there;
  return before;
}

std::vector<name_report> all_names(name_space among) {
  const host_use host = find_host_arena(among);
  if (!host) return {};
  arena::state& s = host->parts();
  come_in(s);
  s.repairs.look_for_dead(true);
  s.words.try_sync();
  return report_names(
      s.words, static_cast<std::uint32_t>(std::min<std::uint64_t>(s.words.slot_mark(), s.words.slots())),
      [&](std::uint32_t b) { return s.words.has_block(b) ? s.words.block(b) : nullptr; },
      [&](std::uint32_t slot) { return slot_word::from(s.words.slot(slot).ctl.load()).who.pid; },
      clock_of(s));
}

}  // namespace sharedmem
