#pragma once

/// What the allocator needs of the machine itself. Threads: any.
#include <cstddef>
#include <cstdint>

namespace sharedmem {

/// Pages of this process alone, zeroed; nullptr if the system refuses. `bytes` is rounded up to whole pages.
void* map_private(std::size_t bytes) noexcept;
/// Lets a forked child find zeros there. False: the kernel cannot.
bool wipe_on_fork(void* base, std::size_t bytes) noexcept;
void unmap_private(void* base, std::size_t bytes) noexcept;

/// CLOCK_MONOTONIC in nanoseconds; differs between time namespaces (time_namespaces(7)).
std::uint64_t monotonic_ns() noexcept;
/// Nanoseconds of processor time that this thread has used. It does not rise while others run.
std::uint64_t thread_time_ns() noexcept;
unsigned core_count() noexcept;
/// Bytes of RAM.
std::uint64_t physical_memory() noexcept;
/// For a loop that waits for another thread, with the number of its round: lets others run. Only yielding does
/// not let threads of lower priority run (sched_yield(2)), which may be the one that is waited for.
void let_others_run(unsigned round) noexcept;
/// Whether this thread is the process's first one: in a forked child the one that forked.
bool is_first_thread() noexcept;

namespace os {
/// Ends this process at once, as SIGKILL does: none of its code runs any more.
[[noreturn]] void die() noexcept;
/// Stops this process, as SIGSTOP does, until it receives SIGCONT.
void stop() noexcept;
}  // namespace os

/// Whether the kernel has the barrier below (membarrier(2), since Linux 4.14).
bool has_barrier() noexcept;
/// A full memory barrier on every running thread of this process; it pairs with plain stores and a compiler
/// barrier there. The first call of a process with several threads takes milliseconds: the kernel waits for an
/// RCU grace period when a process registers (kernel/sched/membarrier.c, sync_runqueues_membarrier_state).
/// \pre has_barrier().
void barrier_all_threads() noexcept;

}  // namespace sharedmem
