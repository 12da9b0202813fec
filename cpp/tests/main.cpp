// The framework's own code and main(), compiled once for all tests.
#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>

#include "needs.hpp"

#ifdef __SANITIZE_THREAD__
/// Children are forked while threads run: they may start threads, and have none of their parent's to join.
extern "C" const char* __tsan_default_options() { return "die_after_fork=0:report_thread_leaks=0"; }
#endif

int main(int count, char** words) {
  const int failed = doctest::Context(count, words).run();
  if (failed != 0 || skipped_cases == 0) return failed;
  std::printf("%d test cases were skipped for want of what they need\n", skipped_cases);
  return not_allowed;
}
