#include <sharedmem/home.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "os/identity.hpp"

#include "copy_threads.hpp"
#include "heap/thread_cache.hpp"
#include "os/fork_handlers.hpp"
#include "os/machine.hpp"
#include "os/wiped.hpp"
#include "reading.hpp"
#include "settings.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto acquire_order = std::memory_order_acquire;
constexpr auto release_order = std::memory_order_release;
constexpr auto sc = std::memory_order_seq_cst;

constexpr std::uint32_t most_arenas = attached_arenas::most;

struct entry {
  std::atomic<arena*> visible{nullptr};  // what arena_of looks at
  arena* attached = nullptr;             // owned; null: the entry is free
  bool was_home = false;                 // is it, or was it: never left
};

/// What threads do with the arenas at this moment. These threads do not exist in a forked child, and there all
/// of it is zero.
struct activity {
  std::mutex lock;
  std::atomic<std::uint32_t> readers{0};         // threads in arena_of, looking at foreign arenas
  std::array<std::uint32_t, most_arenas> pins{}; // of each entry: how many `attached_arenas` have it
};

/// The arenas of this process. Everything but atomics is under `now.lock`, which is taken as a registry_lock.
///
/// A foreign arena of which nothing is held is left. First it is hidden: `visible` becomes null, so that
/// arena_of, which takes no lock, does not find it any more. It is deleted as soon as nobody has it pinned and
/// no reader is there who might have found it before. Whoever goes last sees to that: the holder of the lock
/// after he has let it go, or the last reader.
struct registry {
  activity& now = *make_wiped<activity>();
  std::array<entry, most_arenas> arenas{};
  std::atomic<std::uint32_t> count{0};    // entries from there on were never used
  std::atomic<bool> some_hidden{false};   // and not pinned
  std::atomic<arena*> home{nullptr};
  std::vector<std::string> offers;
  bool handlers = false;
};

registry& all() {
  static auto* const r = new registry;  // outlives every thread and every destructor
  return *r;
}

/// The attached arenas, hidden ones too. Lock held.
template <class Use>
void for_each_attached(registry& r, Use&& use) {
  for (std::uint32_t i = 0; i < r.count.load(relaxed); ++i)
    if (r.arenas[i].attached != nullptr) use(r.arenas[i], r.now.pins[i]);
}

/// Hides foreign arenas of which nothing is held: this one, or all. When the last array of one goes, a message may
/// still be on its way that keeps it; hence all are looked at from time to time. Lock held.
void hide_idle(registry& r, const arena* only = nullptr) noexcept {
  for_each_attached(r, [&](entry& e, std::uint32_t pins) {
    if (e.was_home || (only != nullptr && e.attached != only) || !e.attached->idle()) return;
    e.visible.store(nullptr, sc);
    if (pins == 0) r.some_hidden.store(true, sc);
  });
}

/// Deletes the hidden arenas that nobody has pinned. Lock held, no reader is there.
void leave_hidden(registry& r) noexcept {
  r.some_hidden.store(false, sc);
  for_each_attached(r, [](entry& e, std::uint32_t pins) {
    if (e.visible.load(relaxed) != nullptr || pins != 0) return;
    if (e.attached->idle())
      delete std::exchange(e.attached, nullptr);
    else
      e.visible.store(e.attached, release_order);  // whoever had it pinned took something
  });
}

/// Leaves hidden arenas unless somebody is there who will do it: a reader, or the holder of the lock. To be
/// called by both when they have gone. All is seq_cst: a reader counts itself and then looks for arenas, here
/// they were hidden before the count is read.
void leave_what_was_left_undone(registry& r) noexcept {
  for (;;) {
    std::atomic_thread_fence(sc);  // the unlock before it and the reads after it keep their order
    if (!r.some_hidden.load(sc) || r.now.readers.load(sc) != 0 || !r.now.lock.try_lock()) return;
    if (r.now.readers.load(sc) == 0) leave_hidden(r);
    r.now.lock.unlock();
  }
}

class registry_lock {
 public:
  explicit registry_lock(registry& r) : r_(r) { r.now.lock.lock(); }
  ~registry_lock() {
    r_.now.lock.unlock();
    leave_what_was_left_undone(r_);
  }
  registry_lock(const registry_lock&) = delete;
  registry_lock& operator=(const registry_lock&) = delete;

 private:
  registry& r_;
};

arena& enter(std::unique_ptr<arena> a) {
  registry& r = all();
  for (std::uint32_t i = 0; i < most_arenas; ++i) {
    entry& e = r.arenas[i];
    if (e.attached != nullptr) continue;
    e.attached = a.release();
    e.visible.store(e.attached, release_order);
    if (r.count.load(relaxed) <= i) r.count.store(i + 1, release_order);
    return *e.attached;
  }
  throw no_memory("this process has attached " + std::to_string(most_arenas) + " arenas, the limit");
}

void prepare() noexcept {
  registry& r = all();
  r.now.lock.lock();
  hold_caches();
  for_each_attached(r, [](entry& e, std::uint32_t) { e.attached->prepare_fork(); });
}

void back_in_parent() noexcept {
  registry& r = all();
  for_each_attached(r, [](entry& e, std::uint32_t) { e.attached->after_fork_in_parent(); });
  let_caches_go();
  r.now.lock.unlock();
  leave_what_was_left_undone(r);
}

void started_in_child() noexcept {
  registry& r = all();
  r.now.lock.unlock();    // zeroed or not; tools that watch locks believe that it is held
  new (&r.now) activity;  // where the kernel cannot wipe pages
  for_each_attached(r, [](entry& e, std::uint32_t) { e.attached->after_fork_in_child(); });
  renew_caches();
  for_each_attached(r, [&r](entry& e, std::uint32_t) {  // pins of its parent's threads kept it
    if (e.visible.load(relaxed) == nullptr) r.some_hidden.store(true, sc);
  });
  leave_what_was_left_undone(r);
}

/// Lock held.
void handle_forks(registry& r) {
  if (r.handlers) return;
  at_fork(prepare, back_in_parent, started_in_child);
  r.handlers = true;
}

/// Fork handlers of a program that is linked with this library are registered after ours. They run while nothing
/// is locked here, and may make and drop arrays: pthread_atfork(3) has the order.
bool try_at_load() noexcept {
  try {
    handle_forks(all());
  } catch (...) {  // tried again, and told, when there is an arena
  }
  return true;
}

[[maybe_unused]] const bool tried_at_load = try_at_load();

/// The attached arena with this uuid, hidden or not, or nullptr. Lock held.
entry* entry_of(const std::array<std::uint64_t, 2>& uuid) noexcept {
  entry* found = nullptr;
  for_each_attached(all(), [&](entry& e, std::uint32_t) {
    if (e.attached->where().uuid == uuid) found = &e;
  });
  return found;
}

/// The same for whoever takes something in it: it is no longer hidden.
arena* attached_as(const std::array<std::uint64_t, 2>& uuid) noexcept {
  entry* found = entry_of(uuid);
  if (found == nullptr) return nullptr;
  found->visible.store(found->attached, release_order);
  return found->attached;
}

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
  (void)linger_seconds();  // at the end nobody could be told that it means nothing
  arena& a = enter(arena::create(size_setting("SHAREDMEM_ARENA_SIZE").value_or(0)));
  if (cache_limit) a.set_cache_limit(*cache_limit);
  return a;
}

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

/// Decides. Lock held.
arena& decide(registry& r) {
  handle_forks(r);
  arena* found = find_home(r);
  if (found == nullptr) found = &make_new(r);
  settle_on(r, *found);
  return *found;
}

}  // namespace

arena& home() {
  registry& r = all();
  if (arena* a = r.home.load(acquire_order)) [[likely]]
    return *a;
  const registry_lock lock(r);
  if (arena* a = r.home.load(acquire_order)) return *a;
  return decide(r);
}

allocation allocate(std::uint64_t bytes, std::uint64_t alignment, pages how) {
  arena* a = &home();
  allocation made;
  if (a->allocate_cached(bytes, alignment, made)) [[likely]]
    return made;
  if (!a->is_of_this_user()) {
    registry& r = all();
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

arena* home_if_any() noexcept { return all().home.load(acquire_order); }

void make_root() noexcept {
  if (!wants_new() && setting("SHAREDMEM_ARENA") != nullptr) return;
  try {
    home();
  } catch (...) {  // the next call to home() tells
  }
}

void offer(std::string_view text) {
  registry& r = all();
  const registry_lock lock(r);
  if (std::find(r.offers.begin(), r.offers.end(), text) == r.offers.end()) r.offers.emplace_back(text);
}

void start_new_home() {
  registry& r = all();
  const registry_lock lock(r);
  settle_on(r, make_new(r));
}

std::string home_locator() {
  const arena* a = home_if_any();
  return a == nullptr ? std::string() : to_text(a->where());
}

namespace {

/// The arena that `where` names; attached now if it is not. Decides nothing about home: whoever only passes messages
/// on may do so before its configuration has been offered. Lock held.
arena& find_or_attach(registry& r, const locator& where) {
  if (arena* a = attached_as(where.uuid)) return *a;
  handle_forks(r);
  hide_idle(r);
  return enter(arena::attach(where));
}

/// Calls `act(arena)` if the arena that `where` names is attached, and gives what that returns; else `otherwise`. A
/// hidden one stays hidden: what `act` takes shows when it is to be deleted.
template <class Act>
bool if_attached(const locator& where, bool otherwise, Act&& act) noexcept {
  registry& r = all();
  if (arena* a = r.home.load(acquire_order); a != nullptr && a->where().uuid == where.uuid) [[likely]]
    return act(*a);
  const registry_lock lock(r);
  entry* e = entry_of(where.uuid);
  return e == nullptr ? otherwise : act(*e->attached);
}

}  // namespace

bool note_read(const locator& where, const claim& c) noexcept {
  registry& r = all();
  if (arena* a = r.home.load(acquire_order); a != nullptr && a->where().uuid == where.uuid) [[likely]]
    return a->note_read(c);
  try {
    const registry_lock lock(r);
    arena& a = find_or_attach(r, where);
    if (a.note_read(c)) return true;
    hide_idle(r, &a);
    return false;
  } catch (const std::exception&) {  // whoever loads the message is told why
    return false;
  }
}

bool note_written(const locator& where, const claim& c, bool again) noexcept {
  return if_attached(where, false, [&](arena& a) { return a.note_written(c, again); });
}

bool stands_for(const locator& where, const claim& c) noexcept {
  return if_attached(where, false, [&](arena& a) { return a.stands_for(c); });
}

bool give_back_lost(const locator& where, const claim& c) noexcept {
  registry& r = all();
  const registry_lock lock(r);  // nobody else leaves the arena meanwhile
  arena* a = attached_as(where.uuid);
  if (a == nullptr) return false;
  const bool given = a->give_back_lost(c);
  hide_idle(r, a);
  return given;
}

void read_elsewhere(const locator& where, std::uint64_t end) {
  registry& r = all();
  const registry_lock lock(r);
  find_or_attach(r, where).read_elsewhere(end);
}

bool is_read_elsewhere(const locator& where, std::uint64_t end) noexcept {
  return if_attached(where, true, [&](arena& a) { return a.is_read_elsewhere(end); });
}

allocation acquire(const locator& where, const claim& c) {
  registry& r = all();
  if (arena* a = r.home.load(acquire_order); a != nullptr && a->where().uuid == where.uuid) [[likely]]
    return a->acquire(c);
  const registry_lock lock(r);  // a foreign arena is left by whoever drops the last reference
  if (r.home.load(relaxed) == nullptr && !wants_new()) {
    arena* found = find_home(r);
    if (found == nullptr) found = &find_or_attach(r, where);
    settle_on(r, *found);
  }
  arena& a = find_or_attach(r, where);
  try {
    return a.acquire(c);
  } catch (...) {
    hide_idle(r, &a);
    throw;
  }
}

reading::reading() noexcept { all().now.readers.fetch_add(1, sc); }

reading::~reading() {
  registry& r = all();
  if (r.now.readers.fetch_sub(1, sc) == 1 && r.some_hidden.load(sc)) [[unlikely]]
    leave_what_was_left_undone(r);
}

void give_back(const std::array<std::uint64_t, 2>& uuid, const claim& c) noexcept {
  registry& r = all();
  const registry_lock lock(r);  // nobody else leaves the arena meanwhile
  arena* a = attached_as(uuid);
  if (a == nullptr) return;
  a->give_back(c);
  hide_idle(r, a);
}

arena* arena_of(const void* p) noexcept {
  registry& r = all();
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
  registry& r = all();
  if (a == r.home.load(relaxed)) [[likely]]
    return;
  const registry_lock lock(r);
  hide_idle(r, a);
}

attached_arenas::attached_arenas() noexcept : process_(os::pid()) {
  registry& r = all();
  const registry_lock lock(r);
  hide_idle(r);
  for_each_attached(r, [this](entry& e, std::uint32_t& pins) {
    if (e.visible.load(relaxed) == nullptr) return;
    ++pins;
    arenas_[size_++] = e.attached;
  });
}

attached_arenas::~attached_arenas() {
  if (os::pid() != process_) return;
  registry& r = all();
  const registry_lock lock(r);
  std::size_t mine = 0;
  for_each_attached(r, [&](entry& e, std::uint32_t& pins) {
    if (mine == size_ || e.attached != arenas_[mine]) return;
    ++mine;
    if (--pins == 0 && e.visible.load(relaxed) == nullptr) r.some_hidden.store(true, sc);
  });
}

}  // namespace sharedmem
