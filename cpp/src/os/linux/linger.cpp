/// The process that lingers, as Linux makes it: forked without handlers, and small.
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <csignal>
#include <ctime>
#include <string_view>

#include "os/lingering.hpp"
#include "os/linux/proc.hpp"
#include "os/pages.hpp"

namespace sharedmem {
namespace {

/// Room below and above a frame, and around a thread's control block, whose size the C library does not tell.
constexpr std::uintptr_t window = std::uintptr_t{64} << 10;

/// Handlers must not run: the child is to have no slot in any arena.
long fork_without_handlers() noexcept {
#ifdef SYS_fork
  return ::syscall(SYS_fork);
#else  // newer architectures; on older ones the order of clone's parameters differs (clone(2), NOTES)
  return ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
#endif
}

/// Closes the descriptors from `first` to `last`.
void close_all(unsigned first, unsigned last) noexcept {
#ifdef SYS_close_range
  if (::syscall(SYS_close_range, first, last, 0u) == 0) return;
#endif
  const long end = std::min<long>(last, ::sysconf(_SC_OPEN_MAX) - 1);
  for (long fd = first; fd <= end; ++fd) ::close(static_cast<int>(fd));
}

void close_all_but(std::span<const int> kept) noexcept {
  unsigned next = 0;
  for (const int fd : kept) {
    const auto number = static_cast<unsigned>(fd);
    if (number > next) close_all(next, number - 1);
    next = number + 1;
  }
  close_all(next, INT_MAX);
}

void reset_handlers() noexcept {
  struct sigaction usual{};
  usual.sa_handler = SIG_DFL;
  for (int number = 1; number <= SIGRTMAX; ++number) ::sigaction(number, &usual, nullptr);
}

struct wanted_objects {
  std::array<std::uintptr_t, 3> addresses;  // one in each object
  std::vector<kept_range>& memory;
};

/// For dl_iterate_phdr: adds an object, with its variables, that has one of the addresses in it.
int add_object(dl_phdr_info* object, std::size_t, void* context) {
  auto& wanted = *static_cast<wanted_objects*>(context);
  std::uintptr_t begin = UINTPTR_MAX, end = 0;
  for (unsigned i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr) & part = object->dlpi_phdr[i];
    if (part.p_type != PT_LOAD) continue;
    begin = std::min<std::uintptr_t>(begin, object->dlpi_addr + part.p_vaddr);
    end = std::max<std::uintptr_t>(end, object->dlpi_addr + part.p_vaddr + part.p_memsz);
  }
  if (std::any_of(wanted.addresses.begin(), wanted.addresses.end(),
                  [&](std::uintptr_t address) { return begin <= address && address < end; }))
    wanted.memory.push_back({begin, end, true});
  return 0;
}

std::uintptr_t page_floor(std::uintptr_t address) noexcept { return address & ~(os::page_size() - 1); }
std::uintptr_t page_ceiling(std::uintptr_t address) noexcept {
  return page_floor(address + os::page_size() - 1);
}

void unmap(std::uintptr_t begin, std::uintptr_t end) noexcept {
  if (begin < end) ::munmap(reinterpret_cast<void*>(begin), end - begin);
}

/// Unmaps what no range names of [begin, end).
void unmap_gaps(std::uintptr_t begin, std::uintptr_t end, bool is_file,
                std::span<const kept_range> kept) noexcept {
  for (const kept_range& each : kept) {
    if (is_file && !each.files_too) continue;
    const std::uintptr_t from = page_floor(each.begin), to = page_ceiling(each.end);
    if (to <= begin || from >= end) continue;
    unmap(begin, from);
    begin = std::max(begin, to);
  }
  unmap(begin, end);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool may_unmap = false;  // their code needs memory of theirs
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool may_unmap = false;
#else
constexpr bool may_unmap = true;
#endif
#else
constexpr bool may_unmap = true;
#endif

/// Where /proc does not tell what is mapped, all of it stays.
void unmap_all_but(std::span<const kept_range> kept) noexcept {
  if (!may_unmap) return;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  os::lines maps{"/proc/self/maps"};
  std::string_view line;
  while (maps.next(line)) {  // begin-end rights offset device inode path
    std::uintptr_t begin = 0, end = 0;
    const char* const first = line.data();
    const char* const last = first + line.size();
    const char* at = std::from_chars(first, last, begin, 16).ptr;
    if (at == last || *at != '-') continue;
    std::from_chars(at + 1, last, end, 16);
    if (line.ends_with(']') && line.find("[v") != line.npos) continue;  // [vdso] and what belongs to it
    // The first thread's stack has the arguments and the environment at its upper end, which ps shows.
    if (line.ends_with("[stack]") && begin <= here && here < end) end = page_floor(here - window);
    const std::size_t slash = line.find('/');
    unmap_gaps(begin, end, slash != line.npos && !line.ends_with(']'), kept);
  }
}

}  // namespace

void keep_what_runs(const void* frame, std::vector<kept_range>& memory) {
  wanted_objects wanted{{reinterpret_cast<std::uintptr_t>(&keep_what_runs),
                         reinterpret_cast<std::uintptr_t>(&::syscall), ::getauxval(AT_BASE)},
                        memory};
  ::dl_iterate_phdr(add_object, &wanted);
  const auto thread = std::uintptr_t{::pthread_self()};
  for (const std::uintptr_t each :
       {reinterpret_cast<std::uintptr_t>(frame), reinterpret_cast<std::uintptr_t>(&errno), thread})
    memory.push_back({each - window, each + window, false});
  // The kernel writes there whenever it lets the thread run (rseq(2), glibc's sys/rseq.h).
  if (const void* offset = ::dlsym(RTLD_DEFAULT, "__rseq_offset"); offset != nullptr)
    memory.push_back(
        kept_range::of(reinterpret_cast<const void*>(
                           thread + static_cast<std::uintptr_t>(*static_cast<const std::ptrdiff_t*>(offset))),
                       64, false));
}

bool fork_to_linger() noexcept {
  // No handler of this process may run in the child.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const long middle = fork_without_handlers();
  if (middle != 0) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    while (middle > 0 && ::waitpid(static_cast<pid_t>(middle), nullptr, 0) < 0 && errno == EINTR) {
    }
    return false;
  }
  ::setsid();
  if (fork_without_handlers() != 0) ::_exit(0);
  return true;
}

void keep_only(std::span<const kept_range> memory, std::span<const int> descriptors) noexcept {
  reset_handlers();
  if (::chdir("/") != 0) {  // stays where it is
  }
  close_all_but(descriptors);
  unmap_all_but(memory);
  sigset_t none;
  ::sigemptyset(&none);
  ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
}

void sleep_ms(unsigned ms) noexcept {
  const timespec t{static_cast<time_t>(ms / 1000), static_cast<long>(ms % 1000) * 1'000'000};
  ::nanosleep(&t, nullptr);
}

void exit_now() noexcept { ::_exit(0); }

}  // namespace sharedmem
