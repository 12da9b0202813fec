/// What the conformance tests cannot ask for in words that every system understands.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest.h>

#include <cstdint>
#include <cstring>
#include <cwchar>
#include <string>
#include <thread>

#include <sharedmem/robust_mutex.hpp>

#include "os/os.hpp"
#include "os/windows/system.hpp"
#include "roles.hpp"

#include <aclapi.h>

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

}  // namespace

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
  PSECURITY_DESCRIPTOR descriptor = nullptr;
  REQUIRE(::GetSecurityInfo(section.get(), SE_KERNEL_OBJECT, DACL_SECURITY_INFORMATION, nullptr, nullptr,
                            &list, nullptr, &descriptor) == ERROR_SUCCESS);
  REQUIRE(list != nullptr);
  CHECK(list->AceCount == 1);
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

int main(int count, char** values) {
  int status = 0;
  if (roles::play(count, values, status)) return status;
  doctest::Context context(count, values);
  return context.run();
}
