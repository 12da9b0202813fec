/// \file
/// Linux: threads for the length of one call, and how many are worth having.
#include "os/threads.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>

#include "os/linux/cgroup.hpp"
#include "os/machine.hpp"

namespace sharedmem::os {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

struct task {
  void (*work)(void*, unsigned) noexcept;
  void* context;
  unsigned part;
  pthread_t thread;
};

void* run_task(void* argument) noexcept {
  const task& mine = *static_cast<const task*>(argument);
  mine.work(mine.context, mine.part);
  return nullptr;
}

/// What is to be done when the thread ends.
struct thread_ending {
  void (*act)(void*) noexcept = nullptr;
  void* context = nullptr;
  ~thread_ending() {
    if (act != nullptr) act(context);
  }
};

thread_local thread_ending ending;

unsigned cores_by_affinity() noexcept {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<unsigned>(CPU_COUNT(&set));
  return std::thread::hardware_concurrency();  // more than 1024 cores
}

}  // namespace

void run_parts(unsigned parts, void (*work)(void*, unsigned) noexcept, void* context) noexcept {
  task tasks[most_parts];
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP}) ::sigdelset(&all, fault);
  unsigned started = 1;
  // A thread begins with the signal mask of its maker. A signal that comes meanwhile waits, or goes to another thread.
  const bool masked = parts > 1 && ::pthread_sigmask(SIG_SETMASK, &all, &before) == 0;
  while (masked && started < parts) {
    task& next = tasks[started];
    next.work = work;
    next.context = context;
    next.part = started;
    if (::pthread_create(&next.thread, nullptr, run_task, &next) != 0) break;
    ++started;
  }
  if (masked) ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  work(context, 0);
  for (unsigned part = started; part < parts; ++part) work(context, part);
  for (unsigned part = 1; part < started; ++part) ::pthread_join(tasks[part].thread, nullptr);
}

bool at_thread_end(void (*act)(void*) noexcept, void* context) noexcept {
  ending.act = act;
  ending.context = context;
  return true;
}

unsigned usable_cores() noexcept {
  static std::atomic<std::uint64_t> known{
      0};  // when, in units of a second; and the number, in the low 12 bits
  const std::uint64_t now = monotonic_ns() >> 30 << 12;
  const std::uint64_t seen = known.load(relaxed);
  if (seen != 0 && (seen & ~std::uint64_t{0xfff}) == now) return static_cast<unsigned>(seen & 0xfff);
  const unsigned cores = std::clamp(std::min(cores_by_affinity(), cores_by_groups()), 1U, 0xfffU);
  known.store(now | cores, relaxed);
  return cores;
}

}  // namespace sharedmem::os
