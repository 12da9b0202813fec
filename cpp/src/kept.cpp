#include "kept.hpp"

#include <utility>

#include "registry.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

/// Lock held.
arena& keep(registry& r, arena& a) {
  for_each_attached(r, [&](entry& e, std::uint32_t) { e.kept = e.kept || e.attached == &a; });
  return a;
}

}  // namespace

std::unique_lock<std::mutex> alone_in_meeting() { return std::unique_lock(the_registry().now.meeting); }

arena* kept_host(std::uint64_t name_space) noexcept {
  registry& r = the_registry();
  const registry_lock lock(r);
  arena* found = nullptr;
  for_each_attached(r, [&](entry& e, std::uint32_t) {
    const header& h = e.attached->parts().words.head();
    if (h.names == 0 || h.name_space != name_space || !e.attached->is_of_this_user()) return;
    e.kept = true;
    e.visible.store(e.attached, std::memory_order_release);
    found = e.attached;
  });
  return found;
}

arena& keep(std::unique_ptr<arena> host) {
  registry& r = the_registry();
  const registry_lock lock(r);
  handle_forks(r);
  hide_idle(r);
  return keep(r, enter(std::move(host)));
}

arena& keep(const locator& where) {
  registry& r = the_registry();
  const registry_lock lock(r);
  return keep(r, find_or_attach(r, where));
}

}  // namespace sharedmem
