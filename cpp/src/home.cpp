#include <sharedmem/home.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>

#include <sharedmem/identity.hpp>

#include "fork_handlers.hpp"
#include "machine.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto acquire = std::memory_order_acquire;
constexpr auto release_order = std::memory_order_release;

/// The arenas of this process. Readers of `arenas` take no lock: entries are set before `count` grows and
/// an entry of an arena that was left stays null until another takes its place.
struct registry {
  static constexpr std::uint32_t most = 128;  // 127 attaches of 1 TiB fit one address space
  std::mutex lock;
  std::array<std::atomic<arena*>, most> arenas{};
  std::atomic<std::uint32_t> count{0};
  std::atomic<arena*> home{nullptr};
  std::vector<std::string> offers;
  bool handlers = false;
};

registry& all() {
  static auto* const r = new registry;  // outlives every thread and every destructor
  return *r;
}

const char* environment(const char* name) noexcept {
  const char* text = secure_environment(name);
  return text == nullptr || *text == '\0' ? nullptr : text;
}

/// Bytes in "8GiB", "512M", "1e9", "123456"; nothing if it is none of these.
std::optional<std::uint64_t> parse_size(const char* text) {
  if (text == nullptr) return std::nullopt;
  char* end = nullptr;
  const double number = std::strtod(text, &end);
  if (end == text || !(number >= 0)) return std::nullopt;
  while (std::isspace(static_cast<unsigned char>(*end)) != 0) ++end;
  double unit = 1;
  constexpr std::string_view units = "KMGT";
  if (const auto k = units.find(static_cast<char>(std::toupper(static_cast<unsigned char>(*end))));
      *end != '\0' && k != std::string_view::npos) {
    for (std::size_t i = 0; i <= k; ++i) unit *= 1024;
    ++end;
    if (*end == 'i') ++end;
  }
  if (*end == 'B' || *end == 'b') ++end;
  if (*end != '\0' || number * unit >= 9e18) return std::nullopt;
  return static_cast<std::uint64_t>(number * unit);
}

/// The size that is asked of a new arena, from the environment.
std::uint64_t wished_size() {
  const char* text = environment("SHAREDMEM_ARENA_SIZE");
  if (text == nullptr) return 0;
  const auto size = parse_size(text);
  if (!size) throw std::invalid_argument(std::string("SHAREDMEM_ARENA_SIZE is no size in bytes: ") + text);
  return *size;
}

arena& enter(std::unique_ptr<arena> a) {
  registry& r = all();
  for (std::uint32_t i = 0; i < registry::most; ++i) {
    if (r.arenas[i].load(relaxed) != nullptr) continue;
    r.arenas[i].store(a.get(), release_order);
    if (r.count.load(relaxed) <= i) r.count.store(i + 1, release_order);
    return *a.release();
  }
  throw no_memory("this process has attached " + std::to_string(registry::most) + " arenas, the limit");
}

void prepare() noexcept {
  registry& r = all();
  r.lock.lock();
  for (std::uint32_t i = 0; i < r.count.load(relaxed); ++i)
    if (arena* a = r.arenas[i].load(relaxed)) a->prepare_fork();
}

void back_in_parent() noexcept {
  registry& r = all();
  for (std::uint32_t i = 0; i < r.count.load(relaxed); ++i)
    if (arena* a = r.arenas[i].load(relaxed)) a->after_fork_in_parent();
  r.lock.unlock();
}

void started_in_child() noexcept {
  registry& r = all();
  for (std::uint32_t i = 0; i < r.count.load(relaxed); ++i)
    if (arena* a = r.arenas[i].load(relaxed)) a->after_fork_in_child();
  r.lock.unlock();
}

/// Registered with the first arena: from then on a fork has something to say. Lock held.
void handle_forks(registry& r) {
  if (r.handlers) return;
  at_fork(prepare, back_in_parent, started_in_child);
  r.handlers = true;
}

/// The attached arena with this uuid, or nullptr. Lock held, or the caller holds a reference into it.
arena* attached_as(const std::array<std::uint64_t, 2>& uuid) noexcept {
  registry& r = all();
  for (std::uint32_t i = 0; i < r.count.load(acquire); ++i)
    if (arena* a = r.arenas[i].load(acquire); a != nullptr && a->where().uuid == uuid) return a;
  return nullptr;
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
  arena& a = enter(arena::create(wished_size()));
  if (const auto limit = parse_size(environment("SHAREDMEM_CACHE_LIMIT"))) a.set_cache_limit(*limit);
  return a;
}

void settle_on(registry& r, arena& a) {
  r.home.store(&a, release_order);
  set_environment("SHAREDMEM_ARENA", to_text(a.where()));
}

bool wants_new() noexcept {
  const char* text = environment("SHAREDMEM_ARENA");
  return text != nullptr && std::string_view(text) == "new";
}

/// Decides. Lock held.
arena& decide(registry& r) {
  handle_forks(r);
  arena* found = nullptr;
  if (!wants_new()) {
    if (const char* text = environment("SHAREDMEM_ARENA")) found = try_join(text);
    for (auto o = r.offers.begin(); found == nullptr && o != r.offers.end(); ++o) found = try_join(*o);
  }
  if (found == nullptr) found = &make_new(r);
  settle_on(r, *found);
  return *found;
}

}  // namespace

arena& home() {
  registry& r = all();
  if (arena* a = r.home.load(acquire)) [[likely]]
    return *a;
  const std::lock_guard lock(r.lock);
  if (arena* a = r.home.load(acquire)) return *a;
  return decide(r);
}

arena* home_if_any() noexcept { return all().home.load(acquire); }

void make_root() noexcept {
  if (!wants_new() && environment("SHAREDMEM_ARENA") != nullptr) return;
  try {
    home();
  } catch (...) {  // the next call to home() tells
  }
}

void offer(std::string_view text) {
  registry& r = all();
  const std::lock_guard lock(r.lock);
  r.offers.emplace_back(text);
}

void start_new_home() {
  registry& r = all();
  const std::lock_guard lock(r.lock);
  settle_on(r, make_new(r));
}

std::string home_locator() {
  const arena* a = home_if_any();
  return a == nullptr ? std::string() : to_text(a->where());
}

arena& arena_at(const locator& where) {
  registry& r = all();
  if (arena* a = r.home.load(acquire); a != nullptr && a->where().uuid == where.uuid) [[likely]]
    return *a;
  const std::lock_guard lock(r.lock);
  if (arena* a = attached_as(where.uuid)) return *a;
  handle_forks(r);
  if (r.home.load(relaxed) == nullptr && !wants_new()) {
    // Undecided: the environment first, then offers, then the arena of this handle.
    arena* found = nullptr;
    if (const char* text = environment("SHAREDMEM_ARENA")) found = try_join(text);
    for (auto o = r.offers.begin(); found == nullptr && o != r.offers.end(); ++o) found = try_join(*o);
    if (found == nullptr) found = &enter(arena::attach(where));
    settle_on(r, *found);
    if (found->where().uuid == where.uuid) return *found;
  }
  return enter(arena::attach(where));
}

arena* arena_of(const void* p) noexcept {
  const registry& r = all();
  for (std::uint32_t i = 0; i < r.count.load(acquire); ++i)
    if (arena* a = r.arenas[i].load(acquire); a != nullptr && a->contains(p)) return a;
  return nullptr;
}

void release(block_ref& ref) noexcept {
  arena* a = ref.home;
  if (a == nullptr) return;
  a->release(ref);
  registry& r = all();
  if (a == r.home.load(relaxed)) [[likely]]
    return;
  const std::lock_guard lock(r.lock);
  for (std::uint32_t i = 0; i < r.count.load(relaxed); ++i) {
    if (r.arenas[i].load(relaxed) != a) continue;
    if (!a->idle() || a->leases_out()) return;
    r.arenas[i].store(nullptr, release_order);
    delete a;
    return;
  }
}

std::vector<arena*> attached() {
  registry& r = all();
  const std::lock_guard lock(r.lock);
  std::vector<arena*> found;
  for (std::uint32_t i = 0; i < r.count.load(relaxed); ++i)
    if (arena* a = r.arenas[i].load(relaxed)) found.push_back(a);
  return found;
}

void linger() noexcept {
  arena* a = home_if_any();
  if (a == nullptr || !a->alone_with_leases()) return;
  double seconds = 10;
  if (const char* text = environment("SHAREDMEM_LINGER")) seconds = std::strtod(text, nullptr);
  if (!(seconds > 0)) return;
  if (!fork_to_linger()) return;
  // The child: async-signal-safe calls only from here on.
  a->take_over_slot();
  const std::uint64_t end = monotonic_ns() + static_cast<std::uint64_t>(std::min(seconds, 3600.0) * 1e9);
  while (monotonic_ns() < end && a->leases_out() && !a->others_present()) sleep_ms(20);
  exit_now();
}

}  // namespace sharedmem
