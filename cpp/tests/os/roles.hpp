/// \file
/// Other processes for tests of the seam: the same program, started again, so that nothing is inherited and a
/// system without fork runs the very same tests.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "os/segment.hpp"
#include "spawned.hpp"

namespace roles {

using arguments = std::vector<std::string>;
using role = std::function<int(const arguments&)>;

inline std::map<std::string, role>& all() {
  static std::map<std::string, role> known;
  return known;
}

/// Declares what a process of this name does; its value is the exit status.
struct declared {
  declared(const char* name, role work) { all().emplace(name, std::move(work)); }
};

/// Called by `main` first: runs the role that this process was started for, if it was.
inline bool play(int count, char** values, int& status) {
  crash_quietly();
  if (count < 3 || std::string(values[1]) != "--role") return false;
  try {
    status = all().at(values[2])(arguments(values + 3, values + count));
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "in role %s: %s\n", values[2], failure.what());
    status = 99;
  }
  return true;
}

/// Tells the process that started this one that it has got as far as it was to get, and waits until it may
/// go on.
inline void say_ready_and_wait() {
  char byte = 1;
  if (!write_output(&byte, 1)) std::abort();
  while (read_input(&byte, 1)) {
  }
}

/// A process that plays a role; it has certainly ended at the end of the scope.
class process : public spawned {
 public:
  process(const char* name, const arguments& words) : spawned(command(name, words)) {}

  /// False: it ended before it was ready.
  bool wait_until_ready() {
    char byte = 0;
    return read(&byte, 1);
  }
  void go_on() { close_input(); }

 private:
  static arguments command(const char* name, const arguments& words) {
    arguments all{"--role", name};
    all.insert(all.end(), words.begin(), words.end());
    return all;
  }
};

/// A segment's name and tag as words for a role.
inline arguments words_of(const sharedmem::os::segment& s, std::uint64_t tag) {
  const sharedmem::segment_name name = s.name();
  return {std::to_string(static_cast<int>(name.kind)), std::to_string(name.id), std::to_string(name.pid),
          std::to_string(tag)};
}

inline sharedmem::os::segment open_from(const arguments& words) {
  const sharedmem::segment_name name{static_cast<sharedmem::backing>(std::stoi(words.at(0))),
                                     std::stoi(words.at(1)), std::stoi(words.at(2))};
  return sharedmem::os::segment::open(name, std::stoull(words.at(3)));
}

}  // namespace roles
