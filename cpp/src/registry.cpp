#include "registry.hpp"

#include <utility>

#include <sharedmem/error.hpp>

#include "arena_hooks.hpp"
#include "heap/thread_cache.hpp"
#include "os/fork_handlers.hpp"
#include "os/identity.hpp"
#include "placing.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto release_order = std::memory_order_release;
constexpr auto sc = std::memory_order_seq_cst;

/// Deletes the hidden arenas that are not pinned. Lock held, no reader is active.
void leave_hidden(registry& r) noexcept {
  r.some_hidden.store(false, sc);
  for_each_attached(r, [](entry& e, std::uint32_t pins) {
    if (e.visible.load(relaxed) != nullptr || pins != 0) return;
    if (e.attached->idle())
      delete std::exchange(e.attached, nullptr);
    else
      e.visible.store(e.attached, release_order);  // something in it was acquired while it was pinned
  });
}

/// Leaves hidden arenas, unless a reader or the holder of the lock is active: each of them calls this when it is done.
/// All accesses are seq_cst: a reader counts itself and then looks for arenas, and here they were hidden before the
/// count is read.
void leave_what_was_left_undone(registry& r) noexcept {
  for (;;) {
    std::atomic_thread_fence(sc);  // the unlock before it and the reads after it keep their order
    if (!r.some_hidden.load(sc) || r.now.readers.load(sc) != 0 || !r.now.lock.try_lock()) return;
    if (r.now.readers.load(sc) == 0) leave_hidden(r);
    r.now.lock.unlock();
  }
}

}  // namespace

registry_lock::~registry_lock() {
  r_.now.lock.unlock();
  leave_what_was_left_undone(r_);
}

void hide_idle(registry& r, const arena* only) noexcept {
  for_each_attached(r, [&](entry& e, std::uint32_t pins) {
    const std::uint32_t i = index_of(r, e);
    if (e.was_home || i == r.names_at.load(sc) || r.now.users[i].load(sc) != 0 ||
        (only != nullptr && e.attached != only) || !e.attached->idle())
      return;
    e.visible.store(nullptr, sc);
    if (pins == 0) r.some_hidden.store(true, sc);
  });
}

arena& enter(std::unique_ptr<arena> a) {
  registry& r = the_registry();
  for (std::uint32_t i = 0; i < most_arenas; ++i) {
    entry& e = r.arenas[i];
    if (e.attached != nullptr) continue;
    e.attached = a.release();
    e.visible.store(e.attached, release_order);
    if (r.count.load(relaxed) <= i) r.count.store(i + 1, release_order);
    return *e.attached;
  }
  throw no_memory(
      "this process has attached " + std::to_string(most_arenas) +
      " arenas, the limit. It detaches those of other processes, and of names, with the last array "
      "that it has in them, but those in which it has created arrays itself (new_arena) never");
}

namespace {

void prepare() noexcept {
  registry& r = the_registry();
  r.now.meeting.lock();
  r.now.lock.lock();
  hold_caches();
  for_each_attached(r, [](entry& e, std::uint32_t) { arena_hooks::prepare_fork(*e.attached); });
}

void back_in_parent() noexcept {
  registry& r = the_registry();
  for_each_attached(r, [](entry& e, std::uint32_t) { arena_hooks::after_fork_in_parent(*e.attached); });
  let_caches_go();
  r.now.lock.unlock();
  r.now.meeting.unlock();
  leave_what_was_left_undone(r);
}

void started_in_child() noexcept {
  registry& r = the_registry();
  placed_in = nullptr;
  r.now.meeting.unlock();
  r.now.lock.unlock();    // zeroed or not; tools that watch locks believe that it is held
  new (&r.now) activity;  // where the kernel cannot wipe pages
  for_each_attached(r, [](entry& e, std::uint32_t) { arena_hooks::after_fork_in_child(*e.attached); });
  renew_caches();
  hide_idle(r);  // what only calls of its parent's threads used
  for_each_attached(r, [&r](entry& e, std::uint32_t) {  // pins of its parent's threads kept it
    if (e.visible.load(relaxed) == nullptr) r.some_hidden.store(true, sc);
  });
  leave_what_was_left_undone(r);
}

}  // namespace

void handle_forks(registry& r) {
  if (r.handlers) return;
  at_fork(prepare, back_in_parent, started_in_child);
  r.handlers = true;
}

namespace {

/// Fork handlers of a program that is linked with this library are registered after ours. They run while nothing
/// is locked here, and may make and drop arrays: pthread_atfork(3) has the order.
bool try_at_load() noexcept {
  try {
    handle_forks(the_registry());
  } catch (...) {  // tried again when there is an arena, and the error is thrown then
  }
  return true;
}

[[maybe_unused]] const bool tried_at_load = try_at_load();

}  // namespace

entry* entry_of(const std::array<std::uint64_t, 2>& uuid) noexcept {
  entry* found = nullptr;
  for_each_attached(the_registry(), [&](entry& e, std::uint32_t) {
    if (e.attached->where().uuid == uuid) found = &e;
  });
  return found;
}

arena* attached_as(const std::array<std::uint64_t, 2>& uuid) noexcept {
  entry* found = entry_of(uuid);
  if (found == nullptr) return nullptr;
  found->visible.store(found->attached, release_order);
  return found->attached;
}

arena& find_or_attach(registry& r, const locator& where) {
  if (arena* a = attached_as(where.uuid)) return *a;
  handle_forks(r);
  hide_idle(r);
  return enter(arena::attach(where));
}

reading::reading() noexcept { the_registry().now.readers.fetch_add(1, sc); }

reading::~reading() {
  registry& r = the_registry();
  if (r.now.readers.fetch_sub(1, sc) == 1 && r.some_hidden.load(sc)) [[unlikely]]
    leave_what_was_left_undone(r);
}

attached_arenas::attached_arenas() noexcept : process_(os::pid()) {
  registry& r = the_registry();
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
  registry& r = the_registry();
  const registry_lock lock(r);
  std::size_t mine = 0;
  for_each_attached(r, [&](entry& e, std::uint32_t& pins) {
    if (mine == size_ || e.attached != arenas_[mine]) return;
    ++mine;
    if (--pins == 0 && e.visible.load(relaxed) == nullptr) r.some_hidden.store(true, sc);
  });
}

}  // namespace sharedmem
