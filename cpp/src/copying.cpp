#include <sharedmem/copying.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "copy_threads.hpp"
#include "os/threads.hpp"
#include "settings.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

constexpr unsigned most_by_default = 8;
/// Least bytes for each thread. Starting and joining a thread takes 20 to 50 us, in which a core copies some 100 KiB to
/// 500 KiB. On 16 cores, with 2 MiB for each thread, every number of threads took less time than one.
constexpr std::size_t least_share = std::size_t{2} << 20;
constexpr std::size_t granule = 64;

std::atomic<unsigned> threads_set{0};  // 0: there is no setting

/// A call of `in_parts`: the first parts have a granule more than the others.
struct division {
  std::size_t count;
  std::size_t granules;
  unsigned parts;
  void (*work)(void*, std::size_t, std::size_t) noexcept;
  void* context;

  std::size_t begin(unsigned part) const noexcept {
    const std::size_t before = granules / parts * part + std::min<std::size_t>(part, granules % parts);
    return std::min(count, before * granule);
  }
};

void do_part(void* context, unsigned part) noexcept {
  const auto& all = *static_cast<const division*>(context);
  all.work(all.context, all.begin(part), all.begin(part + 1));
}

struct transfer {
  std::byte* to;
  const std::byte* from;
  int value;
};

}  // namespace

void read_copy_threads() {
  threads_set.store(count_setting("SHAREDMEM_COPY_THREADS", os::most_parts), relaxed);
}

unsigned page_threads() noexcept {
  const unsigned set = threads_set.load(relaxed);
  return set != 0 ? set : std::min(os::usable_cores(), most_by_default);
}

unsigned copy_threads() noexcept {
  const unsigned set = threads_set.load(relaxed);
  return set != 0 ? set : std::clamp(os::usable_cores() / 2, 1U, most_by_default);
}

void in_parts(std::size_t count, std::size_t item_bytes,
              void (*work)(void* context, std::size_t begin, std::size_t end) noexcept,
              void* context) noexcept {
  const std::size_t shares = count * item_bytes / least_share;
  const std::size_t granules = count / granule + (count % granule != 0 ? 1 : 0);
  if (shares < 2 || granules < 2) return work(context, 0, count);
  const auto parts = static_cast<unsigned>(
      std::min({shares, granules, std::size_t{os::most_parts}, std::size_t{copy_threads()}}));
  if (parts < 2) return work(context, 0, count);
  division all{count, granules, parts, work, context};
  os::run_parts(parts, do_part, &all);
}

void copy_bytes(void* to, const void* from, std::size_t bytes) noexcept {
  transfer all{static_cast<std::byte*>(to), static_cast<const std::byte*>(from), 0};
  in_parts(
      bytes, 1,
      [](void* context, std::size_t begin, std::size_t end) noexcept {
        const transfer& t = *static_cast<transfer*>(context);
        if (begin != end) std::memcpy(t.to + begin, t.from + begin, end - begin);
      },
      &all);
}

void set_bytes(void* to, int value, std::size_t bytes) noexcept {
  transfer all{static_cast<std::byte*>(to), nullptr, value};
  in_parts(
      bytes, 1,
      [](void* context, std::size_t begin, std::size_t end) noexcept {
        const transfer& t = *static_cast<transfer*>(context);
        if (begin != end) std::memset(t.to + begin, t.value, end - begin);
      },
      &all);
}

}  // namespace sharedmem
