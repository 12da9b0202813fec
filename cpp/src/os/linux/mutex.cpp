#include <sharedmem/robust_mutex.hpp>

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <type_traits>

#include <sharedmem/error.hpp>
#include "os/identity.hpp"

namespace sharedmem {
namespace {

/// "smLOCK", a version, and the size of a pointer: programs of another word size have another mutex.
constexpr std::uint64_t magic = 0x0100'4b43'4f4c'6d73 | std::uint64_t{sizeof(void*)} << 48;

timespec from_now(std::chrono::nanoseconds span) noexcept {
  constexpr std::int64_t second = 1'000'000'000;
  timespec end{};
  clock_gettime(CLOCK_REALTIME, &end);
  const std::int64_t left = std::max<std::int64_t>(span.count(), 0);
  const std::int64_t nanoseconds = end.tv_nsec + left % second;
  const std::int64_t seconds = end.tv_sec + left / second + nanoseconds / second;
  end.tv_sec = static_cast<time_t>(std::min<std::int64_t>(seconds, std::numeric_limits<time_t>::max()));
  end.tv_nsec = static_cast<long>(nanoseconds % second);
  return end;
}

void require_aligned(const void* where) {
  if (reinterpret_cast<std::uintptr_t>(where) % robust_mutex::alignment != 0) {
    throw std::invalid_argument("a lock must be aligned to 16 bytes");
  }
}

void check(int result, const char* call) {
  if (result != 0) throw error(result, call, "lock in shared memory");
}

class attributes {
 public:
  attributes() { check(pthread_mutexattr_init(&value_), "pthread_mutexattr_init"); }
  ~attributes() { pthread_mutexattr_destroy(&value_); }
  attributes(const attributes&) = delete;
  attributes& operator=(const attributes&) = delete;
  pthread_mutexattr_t* get() noexcept { return &value_; }

 private:
  pthread_mutexattr_t value_;
};

void make_mutex(pthread_mutex_t* at) {
  attributes wanted;
  check(pthread_mutexattr_setpshared(wanted.get(), PTHREAD_PROCESS_SHARED), "pthread_mutexattr_setpshared");
  check(pthread_mutexattr_setrobust(wanted.get(), PTHREAD_MUTEX_ROBUST), "pthread_mutexattr_setrobust");
  check(pthread_mutexattr_settype(wanted.get(), PTHREAD_MUTEX_ERRORCHECK), "pthread_mutexattr_settype");
  check(pthread_mutex_init(at, wanted.get()), "pthread_mutex_init");
}

constexpr std::size_t nowhere = sizeof(pthread_mutex_t), unknown_place = nowhere + 1;

/// The byte of a mutex at which the word lies that the kernel reads when a thread ends (get_robust_list(2)): it has the
/// id of the thread that holds it. The place depends on the C library; it is found in a mutex that this thread takes.
/// If that fails: `nowhere`.
std::size_t place_of_owner() noexcept {
  try {
    pthread_mutex_t mine;
    make_mutex(&mine);
    constexpr std::size_t count = sizeof mine / sizeof(std::uint32_t);
    std::uint32_t words[3][count];
    std::memcpy(words[0], &mine, count * sizeof(std::uint32_t));
    check(pthread_mutex_lock(&mine), "pthread_mutex_lock");
    std::memcpy(words[1], &mine, count * sizeof(std::uint32_t));
    pthread_mutex_unlock(&mine);
    std::memcpy(words[2], &mine, count * sizeof(std::uint32_t));
    pthread_mutex_destroy(&mine);
    const auto me = static_cast<std::uint32_t>(syscall(SYS_gettid));
    for (std::size_t i = 0; i < count; ++i)
      if (words[0][i] == 0 && words[1][i] == me && words[2][i] == 0) return i * sizeof(std::uint32_t);
  } catch (const error&) {  // `open` has found a lock, but this process can make none
  }
  return nowhere;
}

}  // namespace

struct robust_mutex::record {
  std::uint64_t mark;           // `magic`, once the rest is there
  std::uint32_t pid_namespace;  // 0: unknown
  std::uint32_t reserved;
  pthread_mutex_t mutex;
};

robust_mutex robust_mutex::create(void* where) {
  static_assert(std::is_standard_layout_v<record>);
  static_assert(sizeof(record) <= bytes && alignof(record) <= alignment);
  require_aligned(where);
  auto* at = new (where) record{};
  make_mutex(&at->mutex);
  at->pid_namespace = this_namespaces().pid;
  at->mark = magic;
  return robust_mutex{at};
}

robust_mutex robust_mutex::open(void* where) {
  require_aligned(where);
  auto* at = static_cast<record*>(where);
  if (at->mark != magic) {
    throw std::invalid_argument(
        "there is no lock in this memory, or one of a program with another word size");
  }
  const std::uint32_t here = this_namespaces().pid;
  if (at->pid_namespace != 0 && here != 0 && at->pid_namespace != here) {
    throw std::invalid_argument(
        "it was made in another pid namespace: locks, and queues, which contain locks, work among the "
        "processes of one only, because a lock's owner is known by a thread id");
  }
  return robust_mutex{at};
}

robust_mutex::outcome robust_mutex::outcome_of(int result, const char* call) {
  switch (result) {
    case 0: return outcome::taken;
    case EBUSY:
    case ETIMEDOUT: return outcome::busy;
    case EOWNERDEAD:
      check(pthread_mutex_consistent(&at_->mutex), "pthread_mutex_consistent");
      return outcome::inherited;
    default: throw error(result, call, "lock in shared memory");
  }
}

robust_mutex::outcome robust_mutex::try_lock() {
  return outcome_of(pthread_mutex_trylock(&at_->mutex), "pthread_mutex_trylock");
}

robust_mutex::outcome robust_mutex::try_lock_for(std::chrono::nanoseconds limit) {
  const timespec end = from_now(limit);
  return outcome_of(pthread_mutex_timedlock(&at_->mutex, &end), "pthread_mutex_timedlock");
}

void robust_mutex::unlock() noexcept { pthread_mutex_unlock(&at_->mutex); }

robust_mutex::owner_report robust_mutex::owner() const noexcept {
  // Not a local static with an initialiser: a process may fork while another thread runs that, and every thread finds
  // the same value anyway.
  static std::atomic<std::size_t> known{unknown_place};
  std::size_t place = known.load(std::memory_order_relaxed);
  if (place == unknown_place) known.store(place = place_of_owner(), std::memory_order_relaxed);
  if (place == nowhere) return {};
  using state = owner_report::state;
  auto* word = reinterpret_cast<std::uint32_t*>(reinterpret_cast<std::byte*>(&at_->mutex) + place);
  const std::uint32_t seen = std::atomic_ref(*word).load(std::memory_order_relaxed);
  if ((seen & FUTEX_OWNER_DIED) != 0) return {state::left};
  const std::uint32_t thread = seen & FUTEX_TID_MASK;
  return thread == 0 ? owner_report{state::free} : owner_report{state::held, thread};
}

}  // namespace sharedmem
