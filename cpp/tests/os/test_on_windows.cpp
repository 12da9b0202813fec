/// What the conformance tests cannot ask for in words that every system understands.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <span>
#include <string>
#include <thread>

#include <sharedmem/error.hpp>
#include <sharedmem/robust_mutex.hpp>

#include "os/fork_handlers.hpp"
#include "os/os.hpp"
#include "os/windows/system.hpp"
#include "roles.hpp"

#include <aclapi.h>
#include <sddl.h>
#include <tlhelp32.h>

using namespace sharedmem;
using roles::process;

namespace {

constexpr std::uint64_t tag = 0x5eed'0000'1234'567a;
constexpr std::size_t bytes = std::size_t{4} << 20;

bool is_free(const void* at) {
  MEMORY_BASIC_INFORMATION there;
  REQUIRE(::VirtualQuery(at, &there, sizeof there) == sizeof there);
  return there.State == MEM_FREE;
}

const roles::declared waits("wait", [](const roles::arguments&) {
  roles::say_ready_and_wait();
  return 0;
});

/// Denies everything to everybody: nobody can open it any more.
const roles::declared hides("hide", [](const roles::arguments&) {
  ACL nothing;
  if (!::InitializeAcl(&nothing, sizeof nothing, ACL_REVISION)) return 1;
  if (::SetSecurityInfo(::GetCurrentProcess(), SE_KERNEL_OBJECT,
                        DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION, nullptr, nullptr,
                        &nothing, nullptr) != ERROR_SUCCESS)
    return 2;
  roles::say_ready_and_wait();
  return 0;
});

/// Makes a section as a segment would, but with these security attributes (in the language of SDDL).
os::kernel_handle section_with(const std::string& name, const char* security) {
  SECURITY_ATTRIBUTES attributes{sizeof attributes, nullptr, FALSE};
  REQUIRE(::ConvertStringSecurityDescriptorToSecurityDescriptorA(security, SDDL_REVISION_1,
                                                                 &attributes.lpSecurityDescriptor, nullptr));
  os::kernel_handle made{::CreateFileMappingA(INVALID_HANDLE_VALUE, &attributes, PAGE_READWRITE | SEC_RESERVE,
                                              0, bytes, name.c_str())};
  ::LocalFree(attributes.lpSecurityDescriptor);
  return made;
}

/// A segment's name that is free.
segment_name unused_name(std::string& text) {
  const os::segment gone = os::segment::create(backing::section, bytes, tag);
  text = gone.text();
  return gone.name();
}

constexpr std::uint32_t meeting_number = 0x12'3456;

}  // namespace

TEST_CASE("a segment may be larger than 4 GiB") {
  constexpr std::size_t large = (std::size_t{5} << 30) + 65536;
  os::segment s = os::segment::create(backing::section, large, tag);
  os::segment found = os::segment::open(s.name(), tag);
  CHECK(found.bytes() == large);
  found.attach();
  REQUIRE(s.commit(large - os::page_size(), os::page_size()));
  s.data()[large - 1] = std::byte{7};
  CHECK(found.data()[large - 1] == std::byte{7});
}

TEST_CASE("an object of another kind that has a segment's name is not taken for one") {
  std::string text;
  const segment_name name = unused_name(text);
  const os::kernel_handle event{::CreateEventA(nullptr, FALSE, FALSE, text.c_str())};
  REQUIRE(event);
  CHECK_THROWS_AS((void)os::segment::open(name, tag), stale_handle);
}

TEST_CASE("a section of another owner is not attached, listed or met") {
  std::string text;
  const segment_name name = unused_name(text);
  constexpr char of_administrators[] = "O:BAD:(A;;GA;;;WD)";
  const os::kernel_handle section = section_with(text, of_administrators);
  char meeting[64];
  std::snprintf(meeting, sizeof meeting, "Local\\sharedmem-meeting-%08x", meeting_number);
  const os::kernel_handle met = section_with(meeting, of_administrators);
  if (!section) {
    MESSAGE("skipped: this user may not make objects that others own");
    return;
  }
  REQUIRE(met);
  try {
    (void)os::segment::open(name, tag);
    FAIL("it was opened");
  } catch (const error& refused) {
    CHECK(refused.code().value() == EPERM);
  }
  os::segment found;
  CHECK(os::segment::create_under_key(meeting_number, bytes, 0, found) == os::meeting::taken);
  CHECK(os::segment::list(0, std::span(&meeting_number, 1)).empty());
}

TEST_CASE("processes meet in one section, which another kind of object can prevent") {
  const std::uint32_t number = meeting_number + 1;
  const std::span one(&number, 1);
  CHECK(os::segment::list(0, one).empty());
  {
    os::segment first, second;
    CHECK(os::segment::create_under_key(number, bytes, 0, first) == os::meeting::made);
    CHECK(os::segment::create_under_key(number, 2 * bytes, 0, second) == os::meeting::found);
    CHECK(second.bytes() == bytes);
    CHECK(os::segment::list(0, one).size() == 1);
    first = os::segment{};
    CHECK(os::segment::list(0, one).size() == 1);
  }
  CHECK(os::segment::list(0, one).empty());
  char name[64];
  std::snprintf(name, sizeof name, "Local\\sharedmem-meeting-%08x", number);
  const os::kernel_handle event{::CreateEventA(nullptr, FALSE, FALSE, name)};
  REQUIRE(event);
  os::segment none;
  CHECK(os::segment::create_under_key(number, bytes, 0, none) == os::meeting::taken);
  CHECK(os::segment::list(0, one).empty());
}

TEST_CASE("addresses are free again when a segment, a second view or a look has ended") {
  const void *first = nullptr, *second = nullptr;
  const void* looked_at = nullptr;
  {
    os::segment s = os::segment::create(backing::section, bytes, tag);
    REQUIRE(s.commit(0, bytes));
    const os::segment again = s.attach_read_only();
    first = s.data();
    second = again.data();
    CHECK(s.look(
        [](const void* base, std::size_t, void* context) {
          *static_cast<const void**>(context) = base;
          return true;
        },
        &looked_at));
    CHECK_FALSE(is_free(first));
    CHECK_FALSE(is_free(second));
    CHECK(is_free(looked_at));
  }
  CHECK(is_free(first));
  CHECK(is_free(second));
}

TEST_CASE("a process that has ended is dead, although somebody has a handle of it") {
  process other("wait", {});
  REQUIRE(other.wait_until_ready());
  const os::kernel_handle kept{
      ::OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION | SYNCHRONIZE, FALSE, other.pid())};
  REQUIRE(kept);
  const process_id who{other.pid(), 0};
  CHECK(look_at(who) == liveness::unknown);  // without its start it may be another one
  other.kill();
  CHECK(look_at(who) == liveness::dead);
}

TEST_CASE("a process that does not exist is dead") {
  CHECK(look_at({0x7fff'fffc, this_process().start}) ==
        liveness::dead);  // the system gives no ids that are so large
}

TEST_CASE("a process that this one may not open is not taken for dead") {
  process other("hide", {});
  REQUIRE(other.wait_until_ready());
  const os::kernel_handle opened{::OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, FALSE, other.pid())};
  REQUIRE_FALSE(opened);
  REQUIRE(::GetLastError() == ERROR_ACCESS_DENIED);
  CHECK(look_at({other.pid(), this_process().start}) == liveness::unknown);
}

TEST_CASE("a lock of a thread that ended is inherited by a thread that got the same id") {
  os::segment s = os::segment::create(backing::section, bytes, tag);
  REQUIRE(s.commit(0, bytes));
  robust_mutex lock = robust_mutex::create(s.data());
  DWORD owner = 0;
  std::thread([&] {
    owner = ::GetCurrentThreadId();
    (void)lock.try_lock();
  }).join();
  bool found = false;
  for (int i = 0; i < 20'000 && !found; ++i) {
    std::thread([&] {
      if (::GetCurrentThreadId() != owner) return;
      found = true;
      robust_mutex::outcome how{};
      CHECK_NOTHROW(how = lock.try_lock());
      CHECK(how == robust_mutex::outcome::inherited);
      lock.unlock();
    }).join();
  }
  if (!found) MESSAGE("skipped: the system gave that id to no other thread");
}

TEST_CASE("a lock of a thread that ended is left, although a thread of another process got the same id") {
  os::segment s = os::segment::create(backing::section, bytes, tag);
  REQUIRE(s.commit(0, bytes));
  robust_mutex lock = robust_mutex::create(s.data());
  REQUIRE(lock.try_lock() == robust_mutex::outcome::taken);
  CHECK(lock.owner().what == robust_mutex::owner_report::state::held);
  process other("wait", {});
  REQUIRE(other.wait_until_ready());
  THREADENTRY32 entry{};
  entry.dwSize = sizeof entry;
  const os::kernel_handle all{::CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0)};
  REQUIRE(::Thread32First(all.get(), &entry));
  while (entry.th32OwnerProcessID != other.pid()) REQUIRE(::Thread32Next(all.get(), &entry));
  std::uint64_t owner = 0;  // the process and its thread, behind a mark and a name of 24 bytes in all
  std::memcpy(&owner, s.data() + 24, sizeof owner);
  REQUIRE(owner == (std::uint64_t{::GetCurrentProcessId()} << 32 | ::GetCurrentThreadId()));
  const std::uint64_t of_other = std::uint64_t{::GetCurrentProcessId()} << 32 | entry.th32ThreadID;
  std::memcpy(s.data() + 24, &of_other, sizeof of_other);
  CHECK(lock.owner().what == robust_mutex::owner_report::state::left);
  std::memcpy(s.data() + 24, &owner, sizeof owner);
  lock.unlock();
}

TEST_CASE("nothing of a lock is left in the kernel when it is free, also if threads ended that held it") {
  os::segment s = os::segment::create(backing::section, bytes, tag);
  REQUIRE(s.commit(0, bytes));
  robust_mutex lock = robust_mutex::create(s.data());
  std::uint64_t words[2];  // behind a mark of 8 bytes
  std::memcpy(words, s.data() + 8, sizeof words);
  wchar_t name[64];
  std::swprintf(name, sizeof name / sizeof *name, L"Local\\sharedmem-lock-%016llx%016llx",
                static_cast<unsigned long long>(words[0]), static_cast<unsigned long long>(words[1]));
  const auto is_there = [&] {
    return static_cast<bool>(os::kernel_handle{::OpenMutexW(SYNCHRONIZE, FALSE, name)});
  };
  CHECK_FALSE(is_there());
  for (int i = 0; i < 3; ++i) std::thread([&] { (void)lock.try_lock(); }).join();
  CHECK(is_there());
  CHECK(lock.try_lock() == robust_mutex::outcome::inherited);
  lock.unlock();
  CHECK_FALSE(is_there());
}

TEST_CASE("a section is its user's alone, and child processes do not inherit it") {
  const os::segment s = os::segment::create(backing::section, bytes, tag);
  const os::kernel_handle section{::OpenFileMappingW(READ_CONTROL, FALSE, os::wide(s.text()).c_str())};
  REQUIRE(section);
  PACL list = nullptr;
  PSID owner = nullptr;
  PSECURITY_DESCRIPTOR descriptor = nullptr;
  REQUIRE(::GetSecurityInfo(section.get(), SE_KERNEL_OBJECT,
                            OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION, &owner, nullptr, &list,
                            nullptr, &descriptor) == ERROR_SUCCESS);
  REQUIRE(list != nullptr);
  REQUIRE(list->AceCount == 1);
  void* entry = nullptr;
  REQUIRE(::GetAce(list, 0, &entry));
  auto* const allowed = static_cast<ACCESS_ALLOWED_ACE*>(entry);
  CHECK(allowed->Header.AceType == ACCESS_ALLOWED_ACE_TYPE);
  CHECK(::EqualSid(&allowed->SidStart, owner));
  ::LocalFree(descriptor);
  const segment_name name = s.name();
  process other("wait", {});
  REQUIRE(other.wait_until_ready());
  {
    os::segment gone = os::segment::create(backing::section, bytes, tag + 1);
    process later("wait", {});
    REQUIRE(later.wait_until_ready());
    const segment_name of_gone = gone.name();
    gone = os::segment{};
    CHECK_THROWS_AS((void)os::segment::open(of_gone, tag + 1), stale_handle);  // `later` would keep it
  }
  CHECK_NOTHROW((void)os::segment::open(name, tag));
}

TEST_CASE("variables of the environment may have any length and any characters") {
  for (const std::size_t length : {1, 100, 254, 255, 256, 257, 1000, 30'000}) {
    CAPTURE(length);
    std::string value(length, 'v');
    value.back() = 'w';
    set_environment("SHAREDMEM_TEST", value);
    const char* const found = secure_environment("SHAREDMEM_TEST");
    REQUIRE(found != nullptr);
    CHECK(found == value);
  }
  const std::string foreign =
      "gr\xc3\xb6\xc3\x9f"
      "er \xe6\x95\xb0";
  set_environment("SHAREDMEM_TEST", foreign);
  const char* const found = secure_environment("SHAREDMEM_TEST");
  REQUIRE(found != nullptr);
  CHECK(found == foreign);
  set_environment("SHAREDMEM_TEST", "");
  CHECK(secure_environment("SHAREDMEM_TEST") == nullptr);
}

TEST_CASE("the clock is that of the system, however long that has run") {
  LARGE_INTEGER count, rate;
  ::QueryPerformanceFrequency(&rate);
  ::QueryPerformanceCounter(&count);
  const double seconds = static_cast<double>(count.QuadPart) / static_cast<double>(rate.QuadPart);
  CHECK(static_cast<double>(monotonic_ns()) / 1e9 >= seconds - 1);
}

TEST_CASE(
    "what is to be done at the end of a thread is done, although one of its last destructors adds to it") {
  static std::atomic<int> ended{0};
  constexpr auto add = [](void* context) noexcept { ended += *static_cast<const int*>(context); };
  static constexpr int one = 1, ten = 10;
  std::thread([&] {
    CHECK(os::at_thread_end(add, const_cast<int*>(&one)));
    CHECK(os::at_thread_end(add, const_cast<int*>(&ten)));
    CHECK(ended == 0);
  }).join();
  CHECK(ended == 11);
}

TEST_CASE("when a fiber is deleted by another thread, the thread that used it goes on undisturbed") {
  static std::atomic<int> ended{0};
  void* fiber = nullptr;
  bool known = false;
  std::thread([&] {
    void* const own = ::ConvertThreadToFiber(nullptr);
    REQUIRE(own != nullptr);
    struct words {
      void* back;
      bool* known;
    } context{own, &known};
    fiber = ::CreateFiber(
        0,
        [](void* argument) {
          const auto& given = *static_cast<words*>(argument);
          *given.known = os::at_thread_end([](void*) noexcept { ++ended; }, nullptr);
          ::SwitchToFiber(given.back);
        },
        &context);
    REQUIRE(fiber != nullptr);
    ::SwitchToFiber(fiber);
    CHECK(known);
    std::thread([&] { ::DeleteFiber(fiber); }).join();
    CHECK(ended == 0);
  }).join();
}

int main(int count, char** values) {
  int status = 0;
  if (roles::play(count, values, status)) return status;
  doctest::Context context(count, values);
  return context.run();
}
