/// Windows: private memory, barriers, clocks, the size of the machine, ending and suspending a process.
#include "os/machine.hpp"

#include <algorithm>

#include "os/windows/system.hpp"

extern "C" NTSTATUS NTAPI NtSuspendProcess(HANDLE);

namespace sharedmem {
namespace {

std::uint64_t hundreds_of_ns(const FILETIME& time) noexcept {
  return std::uint64_t{time.dwHighDateTime} << 32 | time.dwLowDateTime;
}

}  // namespace

void* map_private(std::size_t bytes) noexcept {
  return ::VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

bool wipe_on_fork(void*, std::size_t) noexcept { return true; }  // there is no fork

void unmap_private(void* base, std::size_t) noexcept { ::VirtualFree(base, 0, MEM_RELEASE); }

std::uint64_t monotonic_ns() noexcept {
  constexpr std::uint64_t second = 1'000'000'000;
  LARGE_INTEGER count{}, frequency{};
  ::QueryPerformanceFrequency(&frequency);
  ::QueryPerformanceCounter(&count);
  const auto ticks = static_cast<std::uint64_t>(count.QuadPart);
  const auto rate = static_cast<std::uint64_t>(frequency.QuadPart);
  return ticks / rate * second + ticks % rate * second / rate;
}

std::uint64_t thread_time_ns() noexcept {
  FILETIME created{}, ended{}, kernel{}, user{};
  if (!::GetThreadTimes(::GetCurrentThread(), &created, &ended, &kernel, &user)) return 0;
  return (hundreds_of_ns(kernel) + hundreds_of_ns(user)) * 100;
}

unsigned core_count() noexcept { return std::max<DWORD>(1, ::GetActiveProcessorCount(ALL_PROCESSOR_GROUPS)); }

std::uint64_t physical_memory() noexcept {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  return ::GlobalMemoryStatusEx(&status) ? status.ullTotalPhys : std::uint64_t{1} << 30;
}

void let_others_run(unsigned round) noexcept {
  if (round < 100)
    ::SwitchToThread();
  else
    ::Sleep(1);
}

bool is_first_thread() noexcept { return false; }  // only called in forked children

void os::die() noexcept {
  constexpr UINT as_killed = 137;
  for (;;) ::TerminateProcess(::GetCurrentProcess(), as_killed);
}

void os::stop() noexcept { ::NtSuspendProcess(::GetCurrentProcess()); }

bool has_barrier() noexcept { return true; }

void barrier_all_threads() noexcept { ::FlushProcessWriteBuffers(); }

}  // namespace sharedmem
