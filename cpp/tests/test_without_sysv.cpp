/// Where System V memory is refused arenas are memfd segments. Programs on Android are ended by a signal if they call
/// it, so a library that is built for Android, or with -DSHAREDMEM_NO_SYSV, does not call it: then the filter of these
/// tests does as Android's does. Otherwise it refuses by ENOSYS, as the kernels of some containers do.
#include <doctest.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/handle.hpp>
#include <sharedmem/home.hpp>
#include <sharedmem/names.hpp>
#include "os/census.hpp"
#include "os/linux/sysv.hpp"
#include "os/memory.hpp"
#include "os/segment.hpp"

#include "arena_tools.hpp"
#include "mapping_tools.hpp"

namespace {

constexpr long calls[] = {
    SYS_shmget, SYS_shmat, SYS_shmctl, SYS_shmdt,
#ifdef SYS_ipc
    SYS_ipc,  // all of them in one, on older systems of 32 bit, PowerPC and s390
#endif
};

/// From now on these calls are refused in this process and its children.
bool refuse_sysv() {
  constexpr std::uint32_t refusal = os::has_sysv ? SECCOMP_RET_ERRNO | ENOSYS : SECCOMP_RET_KILL_PROCESS;
  std::vector<sock_filter> rules = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0)};  // the number of the call
  for (const long call : calls) {
    rules.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call), 0, 1));
    rules.push_back(BPF_STMT(BPF_RET | BPF_K, refusal));
  }
  rules.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog program{static_cast<unsigned short>(rules.size()), rules.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace

TEST_CASE("the filter of these tests does what they are about") {
  child asks{[] {
    if (!refuse_sysv()) return 1;
    return ::syscall(SYS_shmget, IPC_PRIVATE, 4096, 0600) == -1 && errno == ENOSYS ? 0 : 2;
  }};
  CHECK(asks.wait() == (os::has_sysv ? 0 : -SIGSYS));
}

TEST_CASE("a build without System V memory does not list it among its kinds, and reads handles alike") {
  for (const backing kind : os::segment_kinds) CHECK((os::has_sysv || kind != backing::sysv));
  CHECK(os::usual_kind == backing::sysv);
}

TEST_CASE("without System V memory an arena is a memfd, in which arrays are allocated and sent") {
  child alone{[] {
    MUST(refuse_sysv());
    const auto a = arena::create(tiny);
    MUST(a->where().segment.kind == backing::memfd);
    allocation first = make(*a, mib, 1);
    child other{[&] {
      const auto same = arena::attach(a->where());
      MUST(same->statistics().participants == 2);
      MUST(filled(first.data, mib, 1));
      return 0;
    }};
    MUST(other.wait() == 0);
    a->release(first.ref);
    a->check();
    MUST(sweep_orphans() == 0);
    return 0;
  }};
  CHECK(alone.wait() == 0);
}

TEST_CASE("functions that need System V memory fail with ENOSYS without it") {
  child alone{[] {
    MUST(refuse_sysv());
    MUST(code_of([] { (void)make(backing::sysv); }) == ENOSYS);
    MUST(code_of([] { (void)census::create(); }) == ENOSYS);
    MUST(code_of([] { (void)os::segment::open({backing::sysv, 1, 0}, tag); }) == ENOSYS);
    MUST(code_of([] {
           os::segment object;
           (void)os::segment::create_under_key(1, os::huge_page_size, 1, object);
         }) == ENOSYS);
    MUST(shmmax_bytes() == UINT64_MAX);
    MUST(shmall_bytes() == UINT64_MAX);
    ::setenv("SHAREDMEM_NAMESPACE", "without", 1);
    name_ticket mine;
    MUST(code_of([&] { (void)claim_name("prices", mine); }) == ENOSYS);
    return 0;
  }};
  CHECK(alone.wait() == 0);
}
