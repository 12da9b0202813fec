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
#include "thread_cache.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto acquire_order = std::memory_order_acquire;
constexpr auto release_order = std::memory_order_release;

/// The arenas of this process. Readers of `arenas` take no lock: entries are set before `count` grows and
/// an entry of an arena that was left stays null until another takes its place.
struct registry {
  static constexpr std::uint32_t most = 128;  // 127 attaches of 1 TiB fit one address space
  std::mutex lock;
  std::array<std::atomic<arena*>, most> arenas{};
  std::atomic<std::uint32_t> count{0};
  std::atomic<arena*> home{nullptr};
  std::vector<arena*> homes;               // present and former: never left
  std::atomic<std::uint32_t> readers{0};   // threads in arena_of, looking at foreign arenas
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

/// A size from the environment; nothing if there is none.
std::optional<std::uint64_t> size_setting(const char* name) {
  const char* text = environment(name);
  const auto size = parse_size(text);
  if (text != nullptr && !size)
    throw std::invalid_argument(std::string(name) + " is '" + text +
                                "', which is no size: a number of bytes below 8 EiB, also as 8GiB");
  return size;
}

constexpr double default_linger = 10;

/// Seconds in "10", "0.5"; nothing if it is none of these.
std::optional<double> parse_seconds(const char* text) noexcept {
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (end == text || *end != '\0' || !(seconds >= 0)) return std::nullopt;
  return seconds;
}

/// Tells of a setting that would be passed over in silence at the end, when nobody can be told.
void check_linger() {
  const char* text = environment("SHAREDMEM_LINGER");
  if (text != nullptr && !parse_seconds(text))
    throw std::invalid_argument(std::string("SHAREDMEM_LINGER is '") + text +
                                "', which is no number of seconds, 0 or more");
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
  hold_caches();
  for (std::uint32_t i = 0; i < r.count.load(relaxed); ++i)
    if (arena* a = r.arenas[i].load(relaxed)) a->prepare_fork();
}

void back_in_parent() noexcept {
  registry& r = all();
  for (std::uint32_t i = 0; i < r.count.load(relaxed); ++i)
    if (arena* a = r.arenas[i].load(relaxed)) a->after_fork_in_parent();
  let_caches_go();
  r.lock.unlock();
}

void started_in_child() noexcept {
  registry& r = all();
  r.readers.store(0, relaxed);  // other threads' do not exist here
  for (std::uint32_t i = 0; i < r.count.load(relaxed); ++i)
    if (arena* a = r.arenas[i].load(relaxed)) a->after_fork_in_child();
  let_caches_go();
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
  for (std::uint32_t i = 0; i < r.count.load(acquire_order); ++i)
    if (arena* a = r.arenas[i].load(acquire_order); a != nullptr && a->where().uuid == uuid) return a;
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
  const auto cache_limit = size_setting("SHAREDMEM_CACHE_LIMIT");
  check_linger();
  arena& a = enter(arena::create(size_setting("SHAREDMEM_ARENA_SIZE").value_or(0)));
  if (cache_limit) a.set_cache_limit(*cache_limit);
  return a;
}

/// Leaves a foreign arena of which nothing is held. Lock held.
void leave_if_idle(registry& r, arena& a) noexcept {
  if (std::find(r.homes.begin(), r.homes.end(), &a) != r.homes.end()) return;
  for (std::uint32_t i = 0; i < r.count.load(relaxed); ++i) {
    if (r.arenas[i].load(relaxed) != &a) continue;
    if (!a.idle()) return;
    r.arenas[i].store(nullptr, std::memory_order_seq_cst);
    if (r.readers.load(std::memory_order_seq_cst) != 0) {  // somebody looks: the next release tries again
      r.arenas[i].store(&a, release_order);
      return;
    }
    delete &a;
    return;
  }
}

void settle_on(registry& r, arena& a) {
  r.homes.push_back(&a);
  r.home.store(&a, release_order);
  set_environment("SHAREDMEM_ARENA", to_text(a.where()));
}

bool wants_new() noexcept {
  const char* text = environment("SHAREDMEM_ARENA");
  return text != nullptr && std::string_view(text) == "new";
}

/// The arena of our tree, by environment or offers; nullptr: none that can be joined. Lock held.
arena* find_home(registry& r) noexcept {
  if (wants_new()) return nullptr;
  if (const char* text = environment("SHAREDMEM_ARENA"))
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
  const std::lock_guard lock(r.lock);
  if (arena* a = r.home.load(acquire_order)) return *a;
  return decide(r);
}

arena* home_if_any() noexcept { return all().home.load(acquire_order); }

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

allocation acquire(const locator& where, const claim& c) {
  registry& r = all();
  if (arena* a = r.home.load(acquire_order); a != nullptr && a->where().uuid == where.uuid) [[likely]]
    return a->acquire(c);
  const std::lock_guard lock(r.lock);  // a foreign arena is left by whoever drops the last reference
  if (arena* a = attached_as(where.uuid)) return a->acquire(c);
  handle_forks(r);
  if (r.home.load(relaxed) == nullptr && !wants_new()) {
    arena* found = find_home(r);
    if (found == nullptr) found = &enter(arena::attach(where));
    settle_on(r, *found);
    if (found->where().uuid == where.uuid) return found->acquire(c);
  }
  arena& foreign = enter(arena::attach(where));
  try {
    return foreign.acquire(c);
  } catch (...) {
    leave_if_idle(r, foreign);
    throw;
  }
}

void give_back(const std::array<std::uint64_t, 2>& uuid, const claim& c) noexcept {
  registry& r = all();
  const std::lock_guard lock(r.lock);  // nobody else leaves the arena meanwhile
  arena* a = attached_as(uuid);
  if (a == nullptr) return;
  a->give_back(c);
  leave_if_idle(r, *a);
}

arena* arena_of(const void* p) noexcept {
  registry& r = all();
  arena* home = r.home.load(acquire_order);
  if (home != nullptr && home->contains(p)) return home;
  if (r.count.load(acquire_order) < 2) return nullptr;
  const visiting guard;
  for (std::uint32_t i = 0; i < r.count.load(acquire_order); ++i)
    if (arena* a = r.arenas[i].load(std::memory_order_seq_cst); a != nullptr && a->contains(p)) return a;
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
  leave_if_idle(r, *a);
}

// Both sides are seq_cst: the visitor counts itself, then reads an entry; leave_if_idle clears the entry, then
// reads the count.
visiting::visiting() noexcept { all().readers.fetch_add(1, std::memory_order_seq_cst); }
visiting::~visiting() { all().readers.fetch_sub(1, release_order); }

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
  if (a == nullptr || !a->must_linger()) return;
  double seconds = default_linger;
  if (const char* text = environment("SHAREDMEM_LINGER"))
    seconds = parse_seconds(text).value_or(default_linger);
  if (!(seconds > 0)) return;
  std::vector<int> kept;
  try {
    kept = a->descriptors();
  } catch (const std::bad_alloc&) {
    return;
  }
  if (!fork_to_linger(kept)) return;
  // The child: async-signal-safe calls only from here on.
  a->take_over_slot();
  const std::uint64_t end = monotonic_ns() + static_cast<std::uint64_t>(std::min(seconds, 3600.0) * 1e9);
  while (monotonic_ns() < end && a->must_linger()) sleep_ms(20);
  exit_now();
}

}  // namespace sharedmem
