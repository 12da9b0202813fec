/// Memory of this process alone that a forked child does not inherit, barriers over its threads, its
/// clock and its size.
#include <linux/membarrier.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <ctime>

#include "os/machine.hpp"

namespace sharedmem {
namespace {

std::size_t whole_pages(std::size_t bytes) noexcept {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

std::uint64_t nanoseconds_of(clockid_t clock) noexcept {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(t.tv_nsec);
}

long membarrier(int command) noexcept { return ::syscall(SYS_membarrier, command, 0, 0); }

}  // namespace

void* map_private(std::size_t bytes) noexcept {
  void* p = ::mmap(nullptr, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

bool wipe_on_fork(void* base, std::size_t bytes) noexcept {  // Linux 4.14
  return ::madvise(base, whole_pages(bytes), MADV_WIPEONFORK) == 0;
}

void unmap_private(void* base, std::size_t bytes) noexcept { ::munmap(base, whole_pages(bytes)); }

bool has_barrier() noexcept {
  const long commands = membarrier(MEMBARRIER_CMD_QUERY);
  return commands > 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0;
}

void barrier_all_threads() noexcept {
  if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) return;
  // EPERM: this process has not registered yet.
  if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0 &&
      membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0)
    return;
  membarrier(MEMBARRIER_CMD_GLOBAL);
}

std::uint64_t monotonic_ns() noexcept { return nanoseconds_of(CLOCK_MONOTONIC); }

std::uint64_t thread_time_ns() noexcept { return nanoseconds_of(CLOCK_THREAD_CPUTIME_ID); }

unsigned core_count() noexcept {
  return static_cast<unsigned>(std::max(1L, ::sysconf(_SC_NPROCESSORS_CONF)));
}

std::uint64_t physical_memory() noexcept {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  return pages <= 0 ? std::uint64_t{1} << 30
                    : static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

void let_others_run(unsigned round) noexcept {
  if (round < 100) {
    ::sched_yield();
    return;
  }
  constexpr timespec moment{0, 50'000};
  ::nanosleep(&moment, nullptr);
}

bool is_first_thread() noexcept { return ::syscall(SYS_gettid) == ::getpid(); }

void os::die() noexcept {
  for (;;) ::kill(::getpid(), SIGKILL);
}

void os::stop() noexcept { ::kill(::getpid(), SIGSTOP); }

}  // namespace sharedmem
