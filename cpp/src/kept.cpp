#include "kept.hpp"

#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto sc = std::memory_order_seq_cst;

bool is_host_of(const arena& a, std::uint64_t name_space) noexcept {
  const header& h = a.parts().words.head();
  return h.names != 0 && h.name_space == name_space && a.is_of_this_user();
}

/// From now on this arena stays attached, or none; the one requested before is left if it is idle. Lock held.
void asked_for(registry& r, std::uint32_t index) noexcept {
  if (r.names_at.exchange(index, sc) != index) hide_idle(r);
}

}  // namespace

struct host_uses {
  /// The arena of an entry. Lock held: it cannot be hidden before its use is counted.
  static host_use of(registry& r, entry& e) noexcept {
    const std::uint32_t i = index_of(r, e);
    r.now.users[i].fetch_add(1, sc);
    e.visible.store(e.attached, std::memory_order_release);
    return {e.attached, i};
  }

  /// The same, for the arena that is requested now.
  static host_use of_last(registry& r, entry& e) noexcept {
    host_use use = of(r, e);
    asked_for(r, use.index_);
    return use;
  }

  /// The arena that was requested last if `wanted(arena)` is true; without the lock.
  template <class Wanted>
  static host_use try_last(registry& r, Wanted&& wanted) noexcept {
    const std::uint32_t i = r.names_at.load(sc);
    if (i == most_arenas) return {};
    r.now.users[i].fetch_add(1, sc);
    if (r.names_at.load(sc) == i)
      if (arena* a = r.arenas[i].visible.load(std::memory_order_acquire); wanted(*a)) return {a, i};
    host_use::end(i);
    return {};
  }
};

void host_use::end(std::uint32_t index) noexcept {
  registry& r = the_registry();
  if (r.now.users[index].fetch_sub(1, sc) != 1 || r.names_at.load(sc) == index) [[likely]]
    return;
  const registry_lock lock(r);  // another arena was requested meanwhile
  if (const arena* a = r.arenas[index].attached) hide_idle(r, a);
}

std::unique_lock<std::mutex> alone_in_meeting() { return std::unique_lock(the_registry().now.meeting); }

host_use kept_host(std::uint64_t name_space) noexcept {
  registry& r = the_registry();
  const auto wanted = [=](const arena& a) { return is_host_of(a, name_space); };
  if (host_use last = host_uses::try_last(r, wanted)) [[likely]]
    return last;
  const registry_lock lock(r);
  entry* found = nullptr;
  for_each_attached(r, [&](entry& e, std::uint32_t) {
    if (wanted(*e.attached)) found = &e;
  });
  if (found != nullptr) return host_uses::of_last(r, *found);
  asked_for(r, most_arenas);
  return {};
}

host_use attached_host(const std::array<std::uint64_t, 2>& uuid) noexcept {
  registry& r = the_registry();
  if (host_use last = host_uses::try_last(r, [&](const arena& a) { return a.where().uuid == uuid; }))
      [[likely]]
    return last;
  const registry_lock lock(r);
  entry* e = entry_of(uuid);
  return e == nullptr ? host_use{} : host_uses::of(r, *e);
}

host_use keep(std::unique_ptr<arena> host) {
  registry& r = the_registry();
  const registry_lock lock(r);
  handle_forks(r);
  hide_idle(r);
  return host_uses::of_last(r, *entry_of(enter(std::move(host)).where().uuid));
}

host_use keep(const locator& where) {
  registry& r = the_registry();
  const registry_lock lock(r);
  return host_uses::of_last(r, *entry_of(find_or_attach(r, where).where().uuid));
}

}  // namespace sharedmem
