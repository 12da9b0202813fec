#include <sharedmem/home.hpp>

#include <algorithm>
#include <optional>

#include "copy_threads.hpp"
#include "os/fork_handlers.hpp"
#include "os/memory.hpp"
#include "placing.hpp"
#include "registry.hpp"
#include "settings.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto acquire_order = std::memory_order_acquire;
constexpr auto release_order = std::memory_order_release;
constexpr auto sc = std::memory_order_seq_cst;

arena* try_join(std::string_view text) noexcept {
  const auto where = parse_locator(text);
  if (!where) return nullptr;
  if (arena* a = attached_as(where->uuid)) return a;
  try {
    return &enter(arena::attach(*where));
  } catch (...) {
    return nullptr;  // dead, foreign, unreadable: as if it had not been given
  }
}

arena& make_new(registry& r) {
  handle_forks(r);
  const auto cache_limit = size_setting("SHAREDMEM_CACHE_LIMIT");
  (void)
      linger_seconds();  // throws now if the setting is invalid, since an error at the end could not be reported
  arena& a = enter(arena::create(size_setting("SHAREDMEM_ARENA_SIZE").value_or(0)));
  if (cache_limit) a.set_cache_limit(*cache_limit);
  return a;
}

/// Makes an attached arena the home of this process, and of children by the environment. Lock held.
void settle_on(registry& r, arena& a) {
  read_copy_threads();
  a.limit_in_flight(size_setting("SHAREDMEM_IN_FLIGHT_LIMIT").value_or(UINT64_MAX));
  for_each_attached(r, [&](entry& e, std::uint32_t) { e.was_home = e.was_home || e.attached == &a; });
  r.home.store(&a, release_order);
  const std::string text = to_text(a.where());
  // Other threads may read the environment meanwhile: what need not change stays as it is.
  if (const char* known = setting("SHAREDMEM_ARENA"); known == nullptr || text != known)
    set_environment("SHAREDMEM_ARENA", text);
}

bool wants_new() noexcept {
  const char* text = setting("SHAREDMEM_ARENA");
  return text != nullptr && std::string_view(text) == "new";
}

/// The arena of our tree, by environment or offers; nullptr: none that can be joined. Lock held.
arena* find_home(registry& r) noexcept {
  if (wants_new()) return nullptr;
  if (const char* text = setting("SHAREDMEM_ARENA"))
    if (arena* a = try_join(text)) return a;
  for (const std::string& text : r.offers)
    if (arena* a = try_join(text)) return a;
  return nullptr;
}

/// Chooses the home arena: one that the environment or an offer names, else a new one. Lock held.
arena& decide(registry& r) {
  handle_forks(r);
  arena* found = find_home(r);
  if (found == nullptr) found = &make_new(r);
  settle_on(r, *found);
  return *found;
}

}  // namespace

arena& home() {
  registry& r = the_registry();
  if (arena* a = r.home.load(acquire_order)) [[likely]]
    return *a;
  const registry_lock lock(r);
  if (arena* a = r.home.load(acquire_order)) return *a;
  return decide(r);
}

allocation allocate(std::uint64_t bytes, std::uint64_t alignment, pages how) {
  if (placed_in != nullptr) [[unlikely]]
    return placed_in->allocate(bytes, alignment, how);
  arena* a = &home();
  allocation made;
  if (a->allocate_cached(bytes, alignment, made)) [[likely]]
    return made;
  if (!a->is_of_this_user()) {
    registry& r = the_registry();
    const registry_lock lock(r);
    a = r.home.load(relaxed);
    if (!a->is_of_this_user()) {
      arena* former = nullptr;
      for_each_attached(r, [&](entry& e, std::uint32_t) {
        if (e.was_home && e.attached->is_of_this_user()) former = e.attached;
      });
      a = former != nullptr ? former : &make_new(r);
      settle_on(r, *a);
    }
  }
  return a->allocate(bytes, alignment, how);
}

arena* home_if_any() noexcept { return the_registry().home.load(acquire_order); }

void make_root() noexcept {
  if (!wants_new() && setting("SHAREDMEM_ARENA") != nullptr) return;
  try {
    home();
  } catch (...) {  // the next call to home() throws it again
  }
}

void offer(std::string_view text) {
  registry& r = the_registry();
  const registry_lock lock(r);
  if (std::find(r.offers.begin(), r.offers.end(), text) == r.offers.end()) r.offers.emplace_back(text);
}

void start_new_home() {
  registry& r = the_registry();
  const registry_lock lock(r);
  settle_on(r, make_new(r));
}

std::string home_locator() {
  const arena* a = home_if_any();
  return a == nullptr ? std::string() : to_text(a->where());
}

namespace {

/// Calls `act(arena)` if the arena that `where` names is attached, and gives what that returns; else `otherwise`. A
/// hidden one stays hidden: what `act` takes shows when it is to be deleted.
template <class Act>
bool if_attached(const locator& where, bool otherwise, Act&& act) noexcept {
  registry& r = the_registry();
  if (arena* a = r.home.load(acquire_order); a != nullptr && a->where().uuid == where.uuid) [[likely]]
    return act(*a);
  const registry_lock lock(r);
  entry* e = entry_of(where.uuid);
  return e == nullptr ? otherwise : act(*e->attached);
}

}  // namespace

bool note_read(const locator& where, const claim& c) noexcept {
  registry& r = the_registry();
  if (arena* a = r.home.load(acquire_order); a != nullptr && a->where().uuid == where.uuid) [[likely]]
    return a->note_read(c);
  try {
    const registry_lock lock(r);
    arena& a = find_or_attach(r, where);
    if (a.note_read(c)) return true;
    hide_idle(r, &a);
    return false;
  } catch (const std::exception&) {  // loading the message will report why
    return false;
  }
}

bool note_written(const locator& where, const claim& c, bool again) noexcept {
  return if_attached(where, false, [&](arena& a) { return a.note_written(c, again); });
}

std::uint64_t memory_total() noexcept { return available_memory().total; }

bool stands_for(const locator& where, const claim& c) noexcept {
  return if_attached(where, false, [&](arena& a) { return a.stands_for(c); });
}

bool give_back_lost(const locator& where, const claim& c) noexcept {
  registry& r = the_registry();
  const registry_lock lock(r);  // so that the arena is not left meanwhile
  arena* a = attached_as(where.uuid);
  if (a == nullptr) return false;
  const bool given = a->give_back_lost(c);
  hide_idle(r, a);
  return given;
}

void read_elsewhere(const locator& where, std::uint64_t end) {
  registry& r = the_registry();
  const registry_lock lock(r);
  find_or_attach(r, where).read_elsewhere(end);
}

bool is_read_elsewhere(const locator& where, std::uint64_t end) noexcept {
  return if_attached(where, true, [&](arena& a) { return a.is_read_elsewhere(end); });
}

allocation acquire(const locator& where, const claim& c) {
  registry& r = the_registry();
  if (arena* a = r.home.load(acquire_order); a != nullptr && a->where().uuid == where.uuid) [[likely]]
    return a->acquire(c);
  const registry_lock lock(r);  // dropping the last reference leaves a foreign arena
  if (r.home.load(relaxed) == nullptr && !wants_new()) {
    handle_forks(r);
    arena* found = find_home(r);
    if (found == nullptr) found = &find_or_attach(r, where);
    if (found->parts().words.head().names == 0) settle_on(r, *found);  // the arena of names is never a home
  }
  arena& a = find_or_attach(r, where);
  try {
    return a.acquire(c);
  } catch (...) {
    hide_idle(r, &a);
    throw;
  }
}

void give_back(const std::array<std::uint64_t, 2>& uuid, const claim& c) noexcept {
  registry& r = the_registry();
  const registry_lock lock(r);  // so that the arena is not left meanwhile
  arena* a = attached_as(uuid);
  if (a == nullptr) return;
  a->give_back(c);
  hide_idle(r, a);
}

bool is_in_flight(const std::array<std::uint64_t, 2>& uuid, const claim& c) noexcept {
  locator where;
  where.uuid = uuid;
  return if_attached(where, false, [&](arena& a) { return a.is_in_flight(c); });
}

arena* arena_of(const void* p) noexcept {
  registry& r = the_registry();
  arena* home = r.home.load(acquire_order);
  if (home != nullptr && home->contains(p)) return home;
  // Before a process has a home it may have foreign arenas.
  if (r.count.load(acquire_order) < (home == nullptr ? 1U : 2U)) return nullptr;
  const reading guard;
  for (std::uint32_t i = 0; i < r.count.load(acquire_order); ++i)
    if (arena* a = r.arenas[i].visible.load(sc); a != nullptr && a->contains(p)) return a;
  return nullptr;
}

void release(block_ref& ref) noexcept {
  arena* a = ref.home;
  if (a == nullptr) return;
  a->release(ref);
  registry& r = the_registry();
  if (a == r.home.load(relaxed)) [[likely]]
    return;
  const registry_lock lock(r);
  hide_idle(r, a);
}

}  // namespace sharedmem
