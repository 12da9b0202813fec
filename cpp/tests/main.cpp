// The framework's own code and main(), compiled once for all tests.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest.h>

#ifdef __SANITIZE_THREAD__
/// Children are forked while threads run: they may start threads, and have none of their parent's to join.
extern "C" const char* __tsan_default_options() { return "die_after_fork=0:report_thread_leaks=0"; }
#endif
