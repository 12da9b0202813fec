/// Work that is divided among threads: every byte once, nothing beyond, and what happens without threads.
#include <doctest.h>

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <sharedmem/copying.hpp>

#include "copy_threads.hpp"
#include "os/linux/cgroup.hpp"
#include "os/threads.hpp"

using namespace sharedmem;

namespace {

constexpr std::size_t mebibyte = std::size_t{1} << 20;

void set_threads(const char* value) {
  if (value == nullptr)
    ::unsetenv("SHAREDMEM_COPY_THREADS");
  else
    ::setenv("SHAREDMEM_COPY_THREADS", value, 1);
  read_copy_threads();
}

struct range {
  std::size_t begin;
  std::size_t end;
};

/// The ranges of one call, in order, and by how many threads.
struct record {
  std::vector<range> ranges;
  std::set<pthread_t> threads;
};

record ranges_of(std::size_t count, std::size_t item_bytes) {
  record result;
  std::mutex lock;
  std::pair<record*, std::mutex*> all{&result, &lock};
  in_parts(
      count, item_bytes,
      [](void* context, std::size_t begin, std::size_t end) noexcept {
        const auto& [into, lock] = *static_cast<std::pair<record*, std::mutex*>*>(context);
        const std::lock_guard held(*lock);
        into->ranges.push_back({begin, end});
        into->threads.insert(::pthread_self());
      },
      &all);
  std::sort(result.ranges.begin(), result.ranges.end(),
            [](const range& a, const range& b) { return a.begin < b.begin; });
  return result;
}

std::size_t threads_now() {
  std::size_t found = 0;
  DIR* folder = ::opendir("/proc/self/task");
  REQUIRE(folder != nullptr);
  while (const dirent* entry = ::readdir(folder)) found += entry->d_name[0] != '.' ? 1 : 0;
  ::closedir(folder);
  return found;
}

/// Whether there are soon no more threads than that: the kernel counts a joined thread for a moment longer.
bool only(std::size_t threads) {
  for (int round = 0; round < 10'000; ++round) {
    if (threads_now() <= threads) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

}  // namespace

TEST_CASE("ranges cover all items once and begin at multiples of 64") {
  for (const char* threads : {"1", "2", "3", "64"}) {
    set_threads(threads);
    for (const std::size_t item : {std::size_t{1}, std::size_t{3}, std::size_t{8}, std::size_t{4096}}) {
      for (const std::size_t bytes :
           {std::size_t{0}, std::size_t{1}, 3 * mebibyte, 5 * mebibyte, 100 * mebibyte,
            std::size_t{104'857'601}, std::size_t{2000} * mebibyte}) {
        CAPTURE(threads);
        CAPTURE(item);
        CAPTURE(bytes);
        const std::size_t count = bytes / item;
        const record r = ranges_of(count, item);
        std::size_t at = 0;
        for (const range& each : r.ranges) {
          CHECK(each.begin == at);
          CHECK(each.begin % 64 == 0);
          at = each.end;
        }
        CHECK(at == count);
        const std::size_t most = std::strtoul(threads, nullptr, 10);
        const std::size_t wanted = std::max<std::size_t>(1, std::min(most, count * item / (2 * mebibyte)));
        CHECK(r.ranges.size() == wanted);
      }
    }
  }
  set_threads(nullptr);
}

TEST_CASE("few items, however large, make few parts") {
  set_threads("8");
  CHECK(ranges_of(64, mebibyte).ranges.size() == 1);
  CHECK(ranges_of(65, mebibyte).ranges.size() == 2);
  set_threads(nullptr);
}

TEST_CASE("bytes are copied and set, those around them are not") {
  set_threads("3");
  const std::size_t size = 64 * mebibyte + 77;
  std::vector<unsigned char> from(size + 128);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<unsigned char>(i * 2654435761U >> 13);
  std::vector<unsigned char> to(size + 128, 9);
  copy_bytes(to.data() + 64, from.data() + 5, size);
  CHECK(std::equal(to.begin() + 64, to.begin() + 64 + static_cast<std::ptrdiff_t>(size), from.begin() + 5));
  CHECK(std::all_of(to.begin(), to.begin() + 64, [](unsigned char c) { return c == 9; }));
  CHECK(std::all_of(to.end() - 64, to.end(), [](unsigned char c) { return c == 9; }));
  set_bytes(to.data() + 64, 7, size);
  CHECK(std::all_of(to.begin() + 64, to.end() - 64, [](unsigned char c) { return c == 7; }));
  CHECK(to[63] == 9);
  CHECK(to[size + 64] == 9);
  copy_bytes(nullptr, nullptr, 0);
  set_bytes(nullptr, 0, 0);
  set_threads(nullptr);
}

TEST_CASE("each part has its own thread, which is joined afterwards and handles no signals") {
  struct task {
    std::mutex lock;
    std::set<pthread_t> threads;
    std::atomic<unsigned> begun{0};
    std::atomic<unsigned> blocked{0};
  } all;
  const std::size_t threads_before = threads_now();  // a sanitizer has one of its own
  os::run_parts(
      5,
      [](void* context, unsigned part) noexcept {
        auto& t = *static_cast<task*>(context);
        sigset_t mask;
        ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
        if (part != 0 && ::sigismember(&mask, SIGINT) == 1 && ::sigismember(&mask, SIGSEGV) == 0) ++t.blocked;
        ++t.begun;
        while (t.begun != 5) std::this_thread::yield();  // all at once
        const std::lock_guard lock(t.lock);
        t.threads.insert(::pthread_self());
      },
      &all);
  CHECK(all.threads.size() == 5);
  CHECK(all.blocked == 4);
  CHECK(only(threads_before));
  sigset_t after;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
  CHECK(::sigismember(&after, SIGINT) == 0);
}

TEST_CASE("a setting that is not a number of threads is refused") {
  for (const char* text : {"0", "-1", "65", "1.5", "two", "2 3", "1e99"}) {
    CAPTURE(text);
    ::setenv("SHAREDMEM_COPY_THREADS", text, 1);
    CHECK_THROWS_AS(read_copy_threads(), std::invalid_argument);
  }
  set_threads("");
  CHECK(page_threads() >= copy_threads());
  CHECK(copy_threads() >= 1);
  CHECK(page_threads() <= 8);
  set_threads("5");
  CHECK(page_threads() == 5);
  CHECK(copy_threads() == 5);
  set_threads(nullptr);
}

TEST_CASE("a control group's share of time counts as cores") {
  const bool second = std::filesystem::exists("/sys/fs/cgroup/cpu.max") ||
                      std::filesystem::exists("/sys/fs/cgroup/cgroup.controllers");
  os::long_path own;
  std::size_t top = 0;
  if (!os::find_group(second ? os::cgroups::second : os::cgroups::first, "cpu", own, top)) return;
  const std::filesystem::path group =
      std::filesystem::path(own.view()) / ("sharedmem-" + std::to_string(::getpid()));
  std::error_code failure;
  if (!std::filesystem::create_directory(group, failure)) {
    MESSAGE("no group of our own: ", failure.message());
    return;
  }
  const auto write = [&group](const char* file, const std::string& text) {
    std::ofstream out(group / file);
    out << text << std::flush;
    return out.good();
  };
  const bool limited = second ? write("cpu.max", "110000 100000")
                              : write("cpu.cfs_period_us", "100000") && write("cpu.cfs_quota_us", "110000");
  if (limited) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (!write("cgroup.procs", std::to_string(::getpid()))) ::_exit(3);
      ::_exit(os::cores_by_groups() == 2 ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK((WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3));
  }
  while (!std::filesystem::remove(group, failure)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

/// Whether the calling thread does all the work if no other can be started. This process can start none from then on.
static bool does_all_alone() {
  const rlimit none{1, 1};
  if (::geteuid() == 0 && ::setuid(65534) != 0) return true;  // root has no limit of processes
  if (::setrlimit(RLIMIT_NPROC, &none) != 0) return false;
  unsigned done[7] = {};
  os::run_parts(
      7, [](void* context, unsigned part) noexcept { ++static_cast<unsigned*>(context)[part]; }, done);
  for (const unsigned times : done)
    if (times != 1) return false;
  set_threads("4");
  const record r = ranges_of(256 * mebibyte, 1);
  return r.ranges.size() == 4 && r.threads.size() == 1;
}

TEST_CASE("if no thread can be started the calling one does all the work") {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(does_all_alone() ? 0 : 1);
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
