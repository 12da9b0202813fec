#include <doctest.h>

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "os/memory.hpp"
#include "os/pages.hpp"

#include "child.hpp"

using namespace sharedmem;

namespace {

constexpr std::uint64_t mebibyte = std::uint64_t{1} << 20;

// Where the groups of a version are mounted; empty: nowhere.
std::string mountpoint(bool second) {
  std::ifstream mounts{"/proc/self/mounts"};
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words{line};
    std::string source;
    std::string where;
    std::string type;
    std::string options;
    words >> source >> where >> type >> options;
    if (second ? type == "cgroup2"
               : type == "cgroup" && ("," + options + ",").find(",memory,") != std::string::npos) {
      return where;
    }
  }
  return {};
}

// The estimate of a process that sees files of control groups with contents chosen by the caller.
memory_estimate estimate_with(bool second, const char* limit) {
  channel answers;
  child inside{[&] {
    const std::string where = mountpoint(second);
    if (where.empty() || ::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", where.c_str(), "tmpfs", 0, "size=1m") != 0) {
      answers.put(memory_estimate{});
      return 0;
    }
    const auto write = [&](const char* file, const std::string& text) {
      std::ofstream{where + file} << text << '\n';
    };
    write(second ? "/memory.max" : "/memory.limit_in_bytes", limit);
    write(second ? "/memory.current" : "/memory.usage_in_bytes", std::to_string(60 * mebibyte));
    write("/memory.stat", "anon 1\ninactive_file_x 3\n" +
                              std::string{second ? "" : "inactive_file 5\ntotal_"} + "inactive_file " +
                              std::to_string(10 * mebibyte) + "\nrest 7");
    answers.put(available_memory());
    return 0;
  }};
  return answers.get<memory_estimate>();
}

}  // namespace

TEST_CASE("an estimate is plausible") {
  const memory_estimate now = available_memory();
  CHECK(now.total > 0);
  CHECK(now.available > 0);
  const std::string limit = now.limit;
  CHECK((limit == "RAM" || limit == "cgroup"));
}

TEST_CASE(
    "the limit of a control group counts, less its usage without droppable file pages and a part kept") {
  for (const bool second : {true, false}) {
    CAPTURE(second);
    const memory_estimate limited = estimate_with(second, "104857600");
    if (limited.total == 0) continue;  // not mounted, or not allowed to arrange it
    CHECK(limited.available == 50 * mebibyte - 104857600 / 64);  // what is kept for other needs
    CHECK(limited.total == 100 * mebibyte);
    CHECK(std::string{limited.limit} == "cgroup");
    const memory_estimate exceeded = estimate_with(second, "1048576");
    CHECK(exceeded.available == 0);
    const memory_estimate free = estimate_with(second, second ? "max" : "9223372036854771712");
    CHECK(free.total > 100 * mebibyte);
  }
}

TEST_CASE("the address space that is left follows ulimit -v") {
  child limited{[] {
    rlimit limit{};
    ::getrlimit(RLIMIT_AS, &limit);
    std::uint64_t pages = 0;
    std::ifstream{"/proc/self/statm"} >> pages;
    const std::uint64_t used = pages * os::page_size();
    limit.rlim_cur = used + 512 * mebibyte;
    ::setrlimit(RLIMIT_AS, &limit);
    const std::uint64_t left = address_space_left();
    if (left < 400 * mebibyte || left > 520 * mebibyte) return 1;
    limit.rlim_cur = mebibyte;
    ::setrlimit(RLIMIT_AS, &limit);
    return address_space_left() == 0 ? 0 : 2;
  }};
  CHECK(limited.wait() == 0);
  rlimit limit{};
  ::getrlimit(RLIMIT_AS, &limit);
  if (limit.rlim_cur == RLIM_INFINITY) CHECK(address_space_left() == UINT64_MAX);
}

TEST_CASE("system limits and the page size agree with the system's files") {
  const auto read = [](const char* name) {
    std::uint64_t value = 0;
    std::ifstream{name} >> value;
    return value;
  };
  const std::uint64_t all = read("/proc/sys/kernel/shmall");
  if constexpr (sizeof(void*) == 8) {  // a 32-bit program gets limits that fit its words
    CHECK(shmmax_bytes() == read("/proc/sys/kernel/shmmax"));
    CHECK(shmall_bytes() == (all > UINT64_MAX / os::page_size() ? UINT64_MAX : all * os::page_size()));
  }
  CHECK(os::page_size() == static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)));
}
