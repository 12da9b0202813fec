/// Windows: a lock in shared memory consists of a named kernel mutex and a word that says which thread holds it.
///
/// The mutex exists only while a thread holds it or waits for it: the holder's process keeps the mutex's handle, whose value
/// is stored in the lock, so that all threads that want the lock meanwhile open the same mutex. When nobody uses the
/// lock, nothing of it is left in the kernel.
///
/// A thread that gets the mutex and finds the word set inherits the lock from a thread that ended while it held the lock. If
/// some other thread had the mutex open at that moment, the kernel reports the same by WAIT_ABANDONED.
#include <sharedmem/robust_mutex.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <new>
#include <stdexcept>
#include <type_traits>

#include "os/identity.hpp"
#include "os/machine.hpp"
#include "os/windows/system.hpp"
#include "os/windows/user.hpp"

namespace sharedmem {
namespace {

/// "smLOCKw" and the size of a pointer. Locks of other systems, and of programs with another word size, have other marks.
constexpr std::uint64_t magic = 0x0077'4b43'4f4c'6d73 | std::uint64_t{sizeof(void*)} << 56;

std::uint64_t this_start() noexcept {
  static const std::uint64_t start = this_process().start;
  return start;
}

std::uint64_t this_thread() noexcept {
  return std::uint64_t{::GetCurrentProcessId()} << 32 | ::GetCurrentThreadId();
}

}  // namespace

struct robust_mutex::record {
  std::uint64_t mark;  // `magic`, stored last
  std::uint64_t name[2];  // random
  std::uint64_t owner;  // the thread that holds it, as process:32, thread:32; 0: nobody
  std::uint64_t start;  // when the owner's process started: ids of processes are used again
  std::uint64_t handle;  // the mutex's handle in the owner's process
};

namespace {

HANDLE handle_of(std::uint64_t word) noexcept {
  return reinterpret_cast<HANDLE>(static_cast<std::uintptr_t>(word));
}

std::wstring name_of(const std::uint64_t (&words)[2]) {
  wchar_t text[64];
  std::swprintf(text, sizeof text / sizeof *text, L"Local\\sharedmem-lock-%016llx%016llx",
                static_cast<unsigned long long>(words[0]), static_cast<unsigned long long>(words[1]));
  return text;
}

}  // namespace

robust_mutex robust_mutex::create(void* where) {
  static_assert(std::is_standard_layout_v<record>);
  static_assert(sizeof(record) <= bytes && alignof(record) <= alignment);
  if (reinterpret_cast<std::uintptr_t>(where) % alignment != 0)
    throw std::invalid_argument("a lock must be aligned to 16 bytes");
  auto* at = new (where) record{};
  random_bytes(at->name, sizeof at->name);
  at->mark = magic;
  return robust_mutex{at};
}

robust_mutex robust_mutex::open(void* where) {
  if (reinterpret_cast<std::uintptr_t>(where) % alignment != 0)
    throw std::invalid_argument("a lock must be aligned to 16 bytes");
  auto* at = static_cast<record*>(where);
  if (at->mark != magic)
    throw std::invalid_argument(
        "there is no lock in this memory, or one of a program with another word size");
  return robust_mutex{at};
}

robust_mutex::outcome robust_mutex::try_lock() { return try_lock_for(std::chrono::nanoseconds{0}); }

robust_mutex::outcome robust_mutex::try_lock_for(std::chrono::nanoseconds limit) {
  constexpr std::uint64_t millisecond = 1'000'000;
  constexpr std::uint64_t longest = 0x7fff'ffff;  // milliseconds that one wait may take
  const std::atomic_ref owner(at_->owner);
  const std::uint64_t me = this_thread();
  const std::wstring name = name_of(at_->name);
  os::for_this_user attributes;
  os::kernel_handle mutex{::CreateMutexW(attributes.get(), FALSE, name.c_str())};
  if (!mutex) throw os::system_error_of(::GetLastError(), "CreateMutex", os::narrow(name));
  const std::uint64_t begin = monotonic_ns();
  const auto span = static_cast<std::uint64_t>(std::max<std::int64_t>(limit.count(), 0));
  DWORD answer = WAIT_TIMEOUT;
  for (;;) {
    const std::uint64_t left = span - std::min(span, monotonic_ns() - begin);
    answer = ::WaitForSingleObject(
        mutex.get(), static_cast<DWORD>(std::min((left + millisecond - 1) / millisecond, longest)));
    // The system's wait may end up to one tick of its clock too early, which is 15.6 ms usually.
    if (answer != WAIT_TIMEOUT || left == 0) break;
  }
  if (answer == WAIT_TIMEOUT) return outcome::busy;
  if (answer == WAIT_FAILED)
    throw os::system_error_of(::GetLastError(), "WaitForSingleObject", os::narrow(name));
  const std::uint64_t last = owner.load(std::memory_order_acquire);
  const std::atomic_ref start(at_->start);
  const bool was_of_this_process =
      last >> 32 == ::GetCurrentProcessId() && start.load(std::memory_order_relaxed) == this_start();
  // A thread may take a kernel mutex several times, but not this lock. The owner's id alone does not tell whether this thread
  // has it: the owner may have ended, and this thread got its id. Then the mutex was abandoned.
  if (answer == WAIT_OBJECT_0 && last == me && was_of_this_process) {
    ::ReleaseMutex(mutex.get());
    throw error(EDEADLK, "WaitForSingleObject", "lock in shared memory");
  }
  if (answer == WAIT_ABANDONED && was_of_this_process) ::CloseHandle(handle_of(at_->handle));
  const bool left_by_owner = last != 0 || answer == WAIT_ABANDONED;
  start.store(this_start(), std::memory_order_relaxed);
  at_->handle = reinterpret_cast<std::uintptr_t>(mutex.release());
  owner.store(me, std::memory_order_release);
  return left_by_owner ? outcome::inherited : outcome::taken;
}

void robust_mutex::unlock() noexcept {
  const std::atomic_ref owner(at_->owner);
  if (owner.load(std::memory_order_relaxed) != this_thread()) return;
  const HANDLE mutex = handle_of(at_->handle);
  owner.store(0, std::memory_order_release);
  ::ReleaseMutex(mutex);
  ::CloseHandle(mutex);
}

robust_mutex::owner_report robust_mutex::owner() const noexcept {
  using state = owner_report::state;
  const std::uint64_t holder = std::atomic_ref(at_->owner).load(std::memory_order_acquire);
  if (holder == 0) return {state::free, 0};
  const process_id process{static_cast<std::uint32_t>(holder >> 32),
                           std::atomic_ref(at_->start).load(std::memory_order_relaxed)};
  const auto thread = static_cast<std::uint32_t>(holder);
  if (look_at(process) == liveness::dead) return {state::left, 0};
  // ERROR_INVALID_PARAMETER means that there is no such thread. Any other error means that it exists.
  const os::kernel_handle found{::OpenThread(SYNCHRONIZE | THREAD_QUERY_LIMITED_INFORMATION, FALSE, thread)};
  if (!found && ::GetLastError() == ERROR_INVALID_PARAMETER) return {state::left, 0};
  // Ids of threads are used again, also by other processes. 0: the system does not tell.
  const DWORD whose = found ? ::GetProcessIdOfThread(found.get()) : 0;
  const bool ended = found && ((whose != 0 && whose != process.pid) ||
                               ::WaitForSingleObject(found.get(), 0) == WAIT_OBJECT_0);
  return ended ? owner_report{state::left, 0} : owner_report{state::held, thread};
}

}  // namespace sharedmem
