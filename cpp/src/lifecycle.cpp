/// An arena's beginning and a participant's: making, attaching, leaving.
#include <algorithm>
#include <cerrno>
#include <new>

#include "arena_hooks.hpp"
#include "os/memory.hpp"

#include "os/machine.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

std::uint64_t default_size() noexcept {
  std::uint64_t wish = os::arena_wish();
  if constexpr (sizeof(void*) == 4) wish = std::min(wish, std::uint64_t{512} << 20);
  return std::max(wish, smallest_arena);
}

/// Process slots of a new arena, whole words of holders bits.
std::uint32_t slots_for(unsigned cores) noexcept {
  const std::uint32_t wish = std::clamp<std::uint32_t>(4 * cores, 256, max_slots - 64);
  return (wish + 63) / 64 * 64;
}

/// Makes the primary segment: of the requested size, else smaller and smaller; of the best available kind.
mapping make_primary(std::uint64_t wish, std::uint32_t slots, std::uint64_t tag, geometry_plan& plan) {
  std::string tried;
  int last_errno = ENOMEM;
  for (const backing kind : os::segment_kinds) {
    for (std::uint64_t bytes = wish;; bytes /= 2) {
      plan = geometry_plan::primary(bytes, slots, descriptor_bytes_for(slots));
      try {
        if (plan.bytes > SIZE_MAX / 2) throw error(ENOMEM, "map", size_text(plan.bytes));
        return mapping::create(kind, static_cast<std::size_t>(plan.bytes), tag);
      } catch (const error& refused) {
        last_errno = refused.code().value();
        tried += tried.empty() ? "" : "; ";
        tried += refused.what();
        const bool size_matters = last_errno == EINVAL || last_errno == ENOSPC || last_errno == ENOMEM;
        if (!size_matters || bytes / 2 < smallest_arena) break;
      }
    }
  }
  throw error(last_errno, "make an arena of shared memory",
              "tried: " + tried + "; see SHAREDMEM_ARENA_SIZE" + os::size_knobs());
}

struct expected_arena {
  const locator* where;
  const char* reason = nullptr;
};

bool is_arena(const void* base, std::size_t bytes, void* context) {
  auto& wish = *static_cast<expected_arena*>(context);
  const auto& h = *static_cast<const header*>(base);
  const std::uint32_t version = h.version.load(std::memory_order_acquire);
  if (version == 0) return false;  // not ready, or another's segment
  if (h.magic != arena_magic || h.uuid[0] != wish.where->uuid[0] || h.uuid[1] != wish.where->uuid[1])
    return false;
  if (version != layout_version) {
    wish.reason = "it was made by another version of this library";
    return false;
  }
  const bool sound = makes_sense(h, bytes);
  if (!sound) wish.reason = "its header is corrupted: a stray write has changed it";
  return sound;
}

}  // namespace

std::uint64_t arena_size(std::uint64_t wish) noexcept {
  const std::uint64_t bytes = wish == 0 ? default_size() : std::max(wish, smallest_arena);
  const std::uint64_t left = address_space_left();
  return left == UINT64_MAX ? bytes : std::min(bytes, left / 2);
}

/// What both ways in have in common once `words` is open.
void arena::state::enter() {
  refs.open();
  peers.open();
  identity.open();
  user = effective_user();
  pool.open(identity);
  enter_budget();
  member.join();
}

void arena::state::join_if_forked() {
  member.join_if_forked([this] { look_holds_until = 0; });
}

std::unique_ptr<arena> arena::create(std::uint64_t bytes) {
  sweep_orphans();
  const std::uint64_t wish = arena_size(bytes);
  const std::uint32_t slots = slots_for(core_count());
  std::uint64_t uuid[2];
  random_bytes(uuid, sizeof uuid);

  geometry_plan plan;
  mapping memory = make_primary(wish, slots, uuid[0], plan);
  step<point::birth_segment>();
  const std::uint32_t kind = static_cast<std::uint32_t>(memory.name().kind);
  // No process can take memory that another keeps for its next arrays, so the caches must not fill the arena.
  const std::uint64_t cache_limit = std::min(available_memory().total, plan.bytes) / 4;
  std::unique_ptr<arena> made =
      begin(std::move(memory), plan, {kind, {uuid[0], uuid[1]}, host_id(), -1, slots, 0}, cache_limit);
  step<point::birth_done>();
  return made;
}

std::unique_ptr<arena> arena::begin(mapping&& memory, const geometry_plan& plan, arena_identity of,
                                    std::uint64_t cache_limit) {
  std::unique_ptr<arena> made(new arena(nullptr));
  auto s = std::make_unique<state>(*made);
  try {
    s->peers.attendance = census::create();
  } catch (const error&) {
    // System V memory is refused here. Without a census it cannot be proved that a child was never forked, so a slot
    // which was reserved for one stays in use until the arena's end.
  }
  step<point::birth_census>();
  if (!memory.commit(0, plan.at_descriptors - guard_bytes))
    throw error(ENOMEM, "commit",
                size_text(plan.at_descriptors - guard_bytes) + " for the tables of an arena");
  of.census = s->peers.attendance.id();
  header* h = make_header(memory.data(), plan, of);
  h->cache_limit.store(cache_limit, std::memory_order_relaxed);
  step<point::birth_header>();
  h->version.store(layout_version, std::memory_order_release);
  s->where = {memory.name(), plan.bytes, {of.uuid[0], of.uuid[1]}, h->host};
  s->words.open(std::move(memory));
  s->enter();
  made->s_ = std::move(s);
  return made;
}

std::unique_ptr<arena> arena::attach(const locator& where) {
  if (where.host != host_id())
    throw stale_handle(
        "the handle comes from another host, another boot of this one or another IPC namespace (container): "
        "its memory cannot be reached from here");
  if (where.bytes > SIZE_MAX / 2)
    throw error(ENOMEM, "attach an arena",
                size_text(where.bytes) + ", which does not fit this process's address space");
  std::unique_ptr<arena> made(new arena(nullptr));
  auto s = std::make_unique<state>(*made);
  expected_arena wish{&where};
  mapping memory;
  try {
    memory =
        mapping::attach(where.segment, static_cast<std::size_t>(where.bytes), where.uuid[0], is_arena, &wish);
  } catch (const stale_handle&) {
    if (wish.reason != nullptr) throw corrupted(std::string("the arena cannot be used: ") + wish.reason);
    throw;
  }
  step<point::join_attached>();
  const auto census_id = reinterpret_cast<const header*>(memory.data())->census;
  if (census_id >= 0) s->peers.attendance = census::attach(census_id);
  step<point::join_census>();
  s->where = where;
  s->where.segment = memory.name();
  s->words.open(std::move(memory));
  s->words.sync();
  s->enter();
  s->repairs.look_for_dead(true);
  made->s_ = std::move(s);
  return made;
}

arena::~arena() {
  if (s_ == nullptr || !s_->identity.opened()) return;
  state& s = *s_;
  if (!s.peers.has_slot() || !idle()) return;
  trim();
  // Leaving is repairing one's own slot; allowed only now that nothing is held.
  const std::uint32_t mine = s.peers.slot();
  const std::uint64_t seen = s.words.slot(mine).ctl.load(std::memory_order_seq_cst);
  if (const auto w = slot_word::from(seen); !takes_part(w.state) || w.who != s.peers.me()) return;
  const std::lock_guard lock(s.repairs);
  step<point::leave_claimed>();
  s.repairs.repair_slot(mine, seen);
  step<point::leave_done>();
}

void arena_hooks::prepare_fork(arena& a) noexcept {
  try {
    a.s_->join_if_forked();
  } catch (...) {
    return;  // this process has no slot either: the child gets the error when it joins
  }
  a.s_->member.prepare_fork();
}

void arena_hooks::after_fork_in_parent(arena& a) noexcept { a.s_->member.after_fork_in_parent(); }

void arena_hooks::after_fork_in_child(arena& a) noexcept {
  a.s_->look_holds_until = 0;
  a.s_->member.after_fork_in_child();
}

}  // namespace sharedmem
