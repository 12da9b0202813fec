/// Windows: runs parts of one call in several threads, and calls functions when a thread ends.
#include "os/threads.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <new>
#include <utility>

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
  DWORD thread;
  thread_ending* before;  // of an earlier call
};

/// Called by the system when a thread ends. A `thread_local` variable with a destructor would not do, because MinGW's C++
/// runtime calls such destructors after it has freed the variables' memory.
/// When the process ends, nothing is done: the system has stopped the other threads wherever they were, and one of them may
/// have held a lock that `act` needs.
/// Nor is anything done when a fiber in which a thread called `at_thread_end` is deleted by another thread, which the system reports
/// in the same way: what `act` gives back may still be in use by the first thread.
void NTAPI end_thread(void* value) noexcept {
  for (auto* ending = static_cast<thread_ending*>(value); ending != nullptr;) {
    if (!::RtlDllShutdownInProgress() && ending->thread == ::GetCurrentThreadId())
      ending->act(ending->context);
    delete std::exchange(ending, ending->before);
  }
}

/// Keeps the library in the process until that ends, even if the program unloads the DLL that contains it: the system calls
/// `end_thread` later.
bool stay_loaded() noexcept {
  HMODULE own = nullptr;
  return ::GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                              reinterpret_cast<const wchar_t*>(&end_thread), &own) != 0;
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

// A thread may call this twice, although it shall not: when a thread ends, MinGW's runtime frees thread-local variables, which
// have their first values if they are used again, before it calls destructors. What such a destructor does therefore seems to the
// caller of this function to be done by a new thread.
bool at_thread_end(void (*act)(void*) noexcept, void* context) noexcept {
  static const DWORD place = ::FlsAlloc(end_thread);
  static const bool stays = stay_loaded();
  if (place == FLS_OUT_OF_INDEXES || !stays) return false;
  auto* const ending = new (std::nothrow)
      thread_ending{act, context, ::GetCurrentThreadId(), static_cast<thread_ending*>(::FlsGetValue(place))};
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
