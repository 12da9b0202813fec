/// What the library does when Windows refuses a call, or ends it early: functions of this program stand in front of the
/// system's.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/error.hpp>
#include <sharedmem/file_view.hpp>
#include <sharedmem/robust_mutex.hpp>

#include "../nothing_left.hpp"
#include "os/os.hpp"
#include "os/windows/system.hpp"

using namespace sharedmem;

namespace {

constexpr std::uint64_t tag = 0x5eed'0000'1234'567b;
constexpr std::size_t bytes = std::size_t{4} << 20;
constexpr int always = std::numeric_limits<int>::max();

/// The thread whose waits end early, if there are any: the runtime waits in others.
std::atomic<DWORD> early_thread{0};

/// How many of the next calls are refused, and how many calls there were.
std::atomic<int> refused_views{0}, refused_commits{0}, refused_flushes{0}, early_waits{0};
std::atomic<int> views{0}, flushes{0};
std::atomic<int> threads_left{always};

/// One call fewer in a count; false: it was 0.
bool take(std::atomic<int>& count) noexcept {
  int seen = count.load();
  while (seen > 0 && seen != always && !count.compare_exchange_weak(seen, seen - 1)) {
  }
  return seen > 0;
}

template <class Function>
Function system_function(const char* name) noexcept {
  return os::find_function<Function>(L"kernel32.dll", name);
}

void* WINAPI map_view(HANDLE section, DWORD access, DWORD high, DWORD low, SIZE_T size, void* at) {
  ++views;
  if (take(refused_views)) {
    ::SetLastError(ERROR_INVALID_ADDRESS);
    return nullptr;
  }
  return system_function<decltype(&::MapViewOfFileEx)>("MapViewOfFileEx")(section, access, high, low, size,
                                                                          at);
}

void* WINAPI allocate(void* at, SIZE_T size, DWORD type, DWORD protection) {
  if (at != nullptr && type == MEM_COMMIT && take(refused_commits)) {
    ::SetLastError(ERROR_COMMITMENT_LIMIT);
    return nullptr;
  }
  return system_function<decltype(&::VirtualAlloc)>("VirtualAlloc")(at, size, type, protection);
}

DWORD WINAPI wait(HANDLE object, DWORD ms) {
  const bool early = ::GetCurrentThreadId() == early_thread && ms != 0 && ms != INFINITE && take(early_waits);
  return system_function<decltype(&::WaitForSingleObject)>("WaitForSingleObject")(object, early ? 0 : ms);
}

HANDLE WINAPI make_thread(SECURITY_ATTRIBUTES* attributes, SIZE_T stack, LPTHREAD_START_ROUTINE start,
                          void* argument, DWORD flags, DWORD* id) {
  if (!take(threads_left)) {
    ::SetLastError(ERROR_NOT_ENOUGH_MEMORY);
    return nullptr;
  }
  return system_function<decltype(&::CreateThread)>("CreateThread")(attributes, stack, start, argument, flags,
                                                                    id);
}

/// If this is not empty, the file of that name is cut short before the next one is mapped.
std::string cut_short;

HANDLE WINAPI make_section(HANDLE file, SECURITY_ATTRIBUTES* attributes, DWORD protection, DWORD high,
                           DWORD low, const wchar_t* name) {
  if (!cut_short.empty()) {
    const os::kernel_handle other{::CreateFileA(cut_short.c_str(), GENERIC_WRITE,
                                                FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                                nullptr, OPEN_EXISTING, 0, nullptr)};
    ::SetFilePointer(other.get(), 10, nullptr, FILE_BEGIN);
    ::SetEndOfFile(other.get());
    cut_short.clear();
  }
  return system_function<decltype(&::CreateFileMappingW)>("CreateFileMappingW")(file, attributes, protection,
                                                                                high, low, name);
}

std::atomic<int> pins{0};

BOOL WINAPI find_module(DWORD flags, const wchar_t* name, HMODULE* found) {
  if ((flags & GET_MODULE_HANDLE_EX_FLAG_PIN) != 0) ++pins;
  return system_function<decltype(&::GetModuleHandleExW)>("GetModuleHandleExW")(flags, name, found);
}

BOOL WINAPI flush(HANDLE file) {
  ++flushes;
  if (take(refused_flushes)) {
    ::SetLastError(ERROR_DISK_FULL);
    return FALSE;
  }
  return system_function<decltype(&::FlushFileBuffers)>("FlushFileBuffers")(file);
}

}  // namespace

// The linker finds these before those of the import libraries, which have the same names.
extern "C" {
decltype(&::MapViewOfFileEx) __imp_MapViewOfFileEx = map_view;
decltype(&::VirtualAlloc) __imp_VirtualAlloc = allocate;
decltype(&::WaitForSingleObject) __imp_WaitForSingleObject = wait;
decltype(&::CreateThread) __imp_CreateThread = make_thread;
decltype(&::CreateFileMappingW) __imp_CreateFileMappingW = make_section;
decltype(&::GetModuleHandleExW) __imp_GetModuleHandleExW = find_module;
decltype(&::FlushFileBuffers) __imp_FlushFileBuffers = flush;
}

TEST_CASE("where other threads take the addresses, a view gets others") {
  views = 0;
  refused_views = 3;
  const os::segment s = os::segment::create(backing::section, bytes, tag);
  CHECK(refused_views == 0);
  CHECK(views == 4);
  CHECK(reinterpret_cast<std::uintptr_t>(s.data()) % os::segment::alignment == 0);
}

TEST_CASE("where no addresses can be had this is an error, and nothing is left") {
  const os::segment s = os::segment::create(backing::section, bytes, tag);
  DWORD before = 0, after = 0;
  ::GetProcessHandleCount(::GetCurrentProcess(), &before);
  refused_views = always;
  for (int i = 0; i < 10; ++i) {
    CHECK_THROWS_AS((void)os::segment::create(backing::section, bytes, tag), error);
    CHECK_THROWS_AS((void)s.attach_read_only(), error);
    CHECK_THROWS_AS((void)s.look([](const void*, std::size_t, void*) { return true; }, nullptr), error);
  }
  refused_views = 0;
  ::GetProcessHandleCount(::GetCurrentProcess(), &after);
  CHECK(after == before);
}

TEST_CASE("when the commit limit is reached memory is refused, and nothing is lost") {
  const auto a = arena::create(std::uint64_t{32} << 20);
  std::vector<allocation> held;
  for (const std::uint64_t size : {std::uint64_t{100}, std::uint64_t{5} << 20}) {
    CAPTURE(size);
    refused_commits = always;
    bool refused = false;
    while (!refused) {  // until what has its memory already is used up
      try {
        held.push_back(a->allocate(size));
      } catch (const no_memory&) {
        refused = true;
      }
    }
    refused_commits = 0;
    held.push_back(a->allocate(size));
    held.back().data[size - 1] = std::byte{1};
    for (allocation& each : held) a->release(each.ref);
    held.clear();
  }
  nothing_left(*a);
}

TEST_CASE("a segment says that its memory was refused") {
  os::segment s = os::segment::create(backing::section, bytes, tag);
  refused_commits = 1;
  CHECK_FALSE(s.commit(0, bytes));
  CHECK(s.commit(0, bytes));
  refused_commits = 1;
  CHECK_FALSE(os::forbid(s.data(), os::page_size()));
}

TEST_CASE("a thread that the system wakes too early goes on waiting for a lock") {
  os::segment s = os::segment::create(backing::section, bytes, tag);
  REQUIRE(s.commit(0, bytes));
  robust_mutex lock = robust_mutex::create(s.data());
  REQUIRE(lock.try_lock() == robust_mutex::outcome::taken);
  constexpr std::chrono::milliseconds limit{50};
  robust_mutex::outcome how{};
  std::chrono::steady_clock::duration waited{};
  // Nothing is checked in the thread: doctest keeps variables of its own there, which MinGW's runtime destroys too late.
  std::thread([&] {
    early_thread = ::GetCurrentThreadId();
    early_waits = 5;
    const auto begin = std::chrono::steady_clock::now();
    how = lock.try_lock_for(limit);
    waited = std::chrono::steady_clock::now() - begin;
  }).join();
  CHECK(early_waits.exchange(0) < 5);
  CHECK(how == robust_mutex::outcome::busy);
  CHECK(waited >= limit);
  lock.unlock();
}

TEST_CASE("parts of work for which there is no thread are done by the caller") {
  for (const int there : {0, 1, 3}) {
    CAPTURE(there);
    constexpr unsigned parts = 6;
    std::atomic<int> done[parts] = {};
    threads_left = there;
    os::run_parts(
        parts, [](void* context, unsigned part) noexcept { ++static_cast<std::atomic<int>*>(context)[part]; },
        done);
    threads_left = always;
    for (const std::atomic<int>& each : done) CHECK(each == 1);
  }
}

TEST_CASE("the library stays loaded from when the system first has to call it at the end of a thread") {
  std::thread([] { (void)os::at_thread_end([](void*) noexcept {}, nullptr); }).join();
  CHECK(pins == 1);
}

TEST_CASE("a file that is cut short while it is opened is refused") {
  const std::string path = std::string(std::getenv("TEMP")) + "\\sharedmem-test-" + std::to_string(os::pid());
  {
    const file_view file = file_view::create(path, 100'000);
  }
  for (const file_mode mode : {file_mode::read, file_mode::read_write}) {
    cut_short = path;
    CHECK_THROWS_AS((void)file_view::open(path, mode), error);
    CHECK(cut_short.empty());
    {
      const file_view file = file_view::create(path, 100'000);
    }
  }
  CHECK(::DeleteFileA(path.c_str()));
}

TEST_CASE("a file that was written is flushed to the disk, and the disk's refusal is an error") {
  const std::string path = std::string(std::getenv("TEMP")) + "\\sharedmem-test-" + std::to_string(os::pid());
  {
    const file_view file = file_view::create(path, 100'000);
    file.data()[0] = std::byte{1};
    flushes = 0;
    file.flush(file.data(), 100'000);
    CHECK(flushes == 1);
    refused_flushes = 1;
    try {
      file.flush(file.data() + 5000, 1);
      FAIL("it was flushed");
    } catch (const error& refused) {
      CHECK(refused.code().value() == ENOSPC);
    }
    const file_view reader = file_view::open(path, file_mode::read);
    CHECK_NOTHROW(reader.flush(reader.data(), 100'000));
  }
  CHECK(::DeleteFileA(path.c_str()));
}
