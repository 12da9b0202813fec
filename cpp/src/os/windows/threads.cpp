/// Windows: runs parts of one call in several threads, and calls functions when a thread ends.
#include "os/threads.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <new>

#include "os/machine.hpp"
#include "os/windows/system.hpp"

extern "C" BOOLEAN NTAPI RtlDllShutdownInProgress();

namespace sharedmem::os {
namespace {

struct task {
  void (*work)(void*, unsigned) noexcept;
  void* context;
  unsigned part;
  HANDLE thread;
};

DWORD WINAPI run_task(void* argument) noexcept {
  const task& mine = *static_cast<const task*>(argument);
  mine.work(mine.context, mine.part);
  return 0;
}

struct thread_ending {
  void (*act)(void*) noexcept;
  void* context;
};

/// Called by the system when a thread ends. A `thread_local` variable with a destructor would not do, because MinGW's C++
/// runtime calls such destructors after it has freed the variables' memory.
/// When the process ends, nothing is done: the system has stopped the other threads wherever they were, and one of them may
/// have held a lock that `act` needs.
void NTAPI end_thread(void* value) noexcept {
  auto* const ending = static_cast<thread_ending*>(value);
  if (ending == nullptr) return;
  if (!::RtlDllShutdownInProgress()) ending->act(ending->context);
  delete ending;
}

}  // namespace

void run_parts(unsigned parts, void (*work)(void*, unsigned) noexcept, void* context) noexcept {
  task tasks[most_parts];
  unsigned started = 1;
  while (started < parts) {
    task& next = tasks[started];
    next = {work, context, started, nullptr};
    next.thread = ::CreateThread(nullptr, 0, run_task, &next, 0, nullptr);
    if (next.thread == nullptr) break;
    ++started;
  }
  work(context, 0);
  for (unsigned part = started; part < parts; ++part) work(context, part);
  for (unsigned part = 1; part < started; ++part) {
    ::WaitForSingleObject(tasks[part].thread, INFINITE);
    ::CloseHandle(tasks[part].thread);
  }
}

bool at_thread_end(void (*act)(void*) noexcept, void* context) noexcept {
  static const DWORD place = ::FlsAlloc(end_thread);
  if (place == FLS_OUT_OF_INDEXES) return false;
  auto* const ending = new (std::nothrow) thread_ending{act, context};
  if (ending != nullptr && ::FlsSetValue(place, ending)) return true;
  delete ending;
  return false;
}

unsigned usable_cores() noexcept {
  DWORD_PTR mine = 0, all = 0;
  // The mask is 0 for a process whose threads are in several processor groups.
  if (!::GetProcessAffinityMask(::GetCurrentProcess(), &mine, &all) || mine == 0) return core_count();
  return static_cast<unsigned>(std::popcount(static_cast<unsigned long long>(mine)));
}

}  // namespace sharedmem::os
