#include "host.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "os/identity.hpp"
#include "os/lingering.hpp"
#include "os/machine.hpp"
#include "os/memory.hpp"
#include "os/segment.hpp"
#include "settings.hpp"
#include "shared/layout.hpp"
#include "shared/name_table.hpp"
#include "state.hpp"

namespace sharedmem {
namespace {

constexpr auto sc = std::memory_order_seq_cst;

constexpr std::uint32_t host_slots = 1024;  // a server has hundreds of workers
constexpr std::uint32_t keys = 8;
/// A candidate that has not opened after this time has a creator that is stopped or dead; by the clock of the waiting process.
constexpr std::uint64_t patience_ns = second_ns;

struct open_host {
  std::uint64_t name_space;
  locator where;
};

bool is_open_host(const void* base, std::size_t bytes, void* context) {
  auto& wish = *static_cast<open_host*>(context);
  const auto& h = *static_cast<const header*>(base);
  if (bytes < sizeof h || h.version.load(std::memory_order_acquire) != layout_version ||
      h.magic != arena_magic || h.names == 0 || h.name_space != wish.name_space ||
      h.state.load(sc) != static_cast<std::uint32_t>(birth::open))
    return false;
  wish.where = {wish.where.segment, bytes, {h.uuid[0], h.uuid[1]}, h.host};
  return true;
}

/// Finds the arena by the kernel's own list. If a look fails for another reason than that a segment was removed, this
/// is an error; it never counts as "there is none".
std::optional<locator> look(std::uint64_t name_space) {
  std::array<std::uint32_t, keys> numbers;
  for (std::uint32_t k = 0; k < keys; ++k) numbers[k] = host_key_number(name_space, k);
  for (const segment_name& name : os::segment::list(host_tag(name_space), numbers)) {
    open_host wish{name_space, {.segment = name}};
    try {
      if (os::segment::open(name, 0).look(is_open_host, &wish)) return wish.where;
    } catch (const stale_handle&) {
    }
  }
  return std::nullopt;
}

}  // namespace

name_space name_space::now() noexcept {
  const char* text = setting("SHAREDMEM_NAMESPACE");
  return {text == nullptr ? 0 : hash_name(text)};
}

std::uint32_t host_key_number(std::uint64_t name_space, std::uint32_t attempt) noexcept {
  std::uint64_t h = hash_name("sharedmem");
  for (const std::uint64_t v :
       {std::uint64_t{effective_user()}, std::uint64_t{layout_version}, name_space, std::uint64_t{attempt}}) {
    h = (h ^ v) * 0xbf58476d1ce4e5b9U;  // a step of splitmix64 (Steele, Lea, Flood 2014)
    h ^= h >> 31;
  }
  return static_cast<std::uint32_t>(h >> 32);
}

std::uint32_t host_tag(std::uint64_t name_space) noexcept {
  return host_key_number(name_space, keys) % os::segment::tags;  // no attempt has that number
}

/// One process's attempts to make the arena.
class host_maker {
 public:
  explicit host_maker(std::uint64_t name_space)
      : space_(name_space), bytes_(arena_size(size_setting("SHAREDMEM_ARENA_SIZE").value_or(0))) {}

  /// nullptr: another process makes it, or has made it: look again.
  std::unique_ptr<arena> attempt() {
    const auto plan =
        geometry_plan::primary(bytes_, host_slots, descriptor_bytes_for(host_slots), host_names);
    os::segment object;
    step<point::host_looked>();
    switch (meet(plan.bytes, object)) {
      case os::meeting::made: return open(std::move(object), plan);
      case os::meeting::found: help(object); break;
      case os::meeting::gone: break;
      case os::meeting::taken:
        if (waited_long_for(-1)) key_ = (key_ + 1) % keys;
        break;
    }
    sleep_ms(1);
    return nullptr;
  }

 private:
  os::meeting meet(std::uint64_t bytes, os::segment& object) {
    try {
      if (bytes > SIZE_MAX / 2) throw error(ENOMEM, "map", size_text(bytes));
      return os::segment::create_under_key(host_key_number(space_, key_), static_cast<std::size_t>(bytes),
                                           host_tag(space_), object);
    } catch (const error& refused) {
      refuse(refused);
      return os::meeting::gone;  // with a smaller one next time
    }
  }

  static error no_memory_for_header() { return {ENOMEM, "commit", "the header of the arena of names"}; }

  /// Makes the next attempt smaller, or throws.
  void refuse(const error& refused) {
    const int code = refused.code().value();
    tried_ += tried_.empty() ? "" : "; ";
    tried_ += refused.what();
    const bool size_matters = code == EINVAL || code == ENOSPC || code == ENOMEM;
    if (!size_matters || bytes_ / 2 < smallest_arena)
      throw error(code, "make the arena of names",
                  "tried: " + tried_ + "; see SHAREDMEM_ARENA_SIZE" + os::size_knobs());
    bytes_ /= 2;
  }

  /// Whether this process has met nothing but the candidate of that id, under this key, for a second.
  bool waited_long_for(std::int32_t id) noexcept {
    const std::uint64_t now = monotonic_ns();
    if (std::exchange(waits_for_, id) != id || !waits_) {
      waits_ = true;
      since_ = now;
    }
    if (now - since_ < patience_ns) return false;
    waits_ = false;
    return true;
  }

  /// Another's candidate: its maker may be dead, at any step.
  void help(os::segment& object) {
    try {
      object.attach();
    } catch (const stale_handle&) {
      return;
    }
    if (!object.commit(0, 2 * page_bytes)) return refuse(no_memory_for_header());
    word32& state = reinterpret_cast<header*>(object.data())->state;
    auto seen = state.load(sc);
    if (seen == static_cast<std::uint32_t>(birth::unborn)) {
      if (!waited_long_for(object.name().id) ||
          !state.compare_exchange_strong(seen, static_cast<std::uint32_t>(birth::condemned), sc))
        return;
      step<point::host_condemned>();
    } else if (!os::keys_can_be_let_go && seen == static_cast<std::uint32_t>(birth::condemned)) {
      // A process still has it open, perhaps its creator, which is stopped: the next key is free.
      if (waited_long_for(object.name().id)) key_ = (key_ + 1) % keys;
    }
    os::segment::let_key_go(object.name());
  }

  /// Our candidate. nullptr: another process was first, or has condemned it.
  std::unique_ptr<arena> open(os::segment&& object, const geometry_plan& plan) {
    const segment_name name = object.name();
    step<point::host_made>();
    try {
      try {
        object.attach();
        if (!object.commit(0, 2 * page_bytes)) throw no_memory_for_header();
      } catch (const stale_handle&) {
        return nullptr;
      } catch (const error& refused) {
        os::segment::let_key_go(name);
        refuse(refused);
        return nullptr;
      }
      step<point::host_attached>();
      word32& state = reinterpret_cast<header*>(object.data())->state;
      auto unborn = static_cast<std::uint32_t>(birth::unborn);
      // No other process can make one while the key is ours; but one may have been opened before that.
      if (look(space_)) {
        state.compare_exchange_strong(unborn, static_cast<std::uint32_t>(birth::condemned), sc);
        step<point::host_condemned>();
        os::segment::let_key_go(name);
        return nullptr;
      }
      std::uint64_t uuid[2];
      random_bytes(uuid, sizeof uuid);
      // Warm memory here would be of no use, since others allocate from their own arenas.
      std::unique_ptr<arena> made = arena::begin(
          mapping::of(std::move(object)), plan,
          {static_cast<std::uint32_t>(backing::sysv), {uuid[0], uuid[1]}, host_id(), -1, host_slots, space_},
          0);
      step<point::host_begun>();
      const bool opened = state.compare_exchange_strong(unborn, static_cast<std::uint32_t>(birth::open), sc);
      if (opened) step<point::host_open>();
      // Marked for removal after it is open, unlike other segments: a scan only sees open ones, and before this
      // step no process can make another.
      os::segment::let_key_go(name);
      step<point::host_published>();
      return opened ? std::move(made) : nullptr;
    } catch (...) {
      os::segment::let_key_go(name);
      throw;
    }
  }

  std::uint64_t space_, bytes_;
  std::uint32_t key_ = 0;
  std::string tried_;
  bool waits_ = false;
  std::int32_t waits_for_ = -1;
  std::uint64_t since_ = 0;
};

host_use find_host_arena(name_space of) {
  const std::uint64_t space = of.hash;
  if (host_use host = kept_host(space)) return host;
  const auto alone = alone_in_meeting();
  if (host_use host = kept_host(space)) return host;
  while (const auto where = look(space)) {
    try {
      return keep(*where);
    } catch (const stale_handle&) {  // it went with its last user
    }
  }
  return {};
}

host_use host_arena(name_space of) {
  if (host_use host = find_host_arena(of)) return host;
  const std::uint64_t space = of.hash;
  const auto alone = alone_in_meeting();
  std::optional<host_maker> maker;
  for (;;) {
    if (host_use host = kept_host(space)) return host;
    if (const auto where = look(space)) {
      try {
        return keep(*where);
      } catch (const stale_handle&) {
        continue;
      }
    }
    if (!maker) {
      (void)sweep_orphans();
      maker.emplace(space);
    }
    if (auto made = maker->attempt()) return keep(std::move(made));
  }
}

}  // namespace sharedmem
