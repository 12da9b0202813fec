/// \file
/// Which way makes fresh pages of a segment present soonest: milliseconds for each size.
/// Prints the best of several rounds for writing to untouched pages, touching a byte of each,
/// MADV_POPULATE_WRITE, touch and MADV_COLLAPSE, and `mapping::populate` with 1 thread and with a thread for each core;
/// then what a pass of writes over the populated pages costs. Needs 2 GiB of memory.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "os/threads.hpp"
#include "segment/mapping.hpp"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace {

using sharedmem::mapping;

constexpr std::size_t mebibyte = std::size_t{1} << 20;

double milliseconds(auto&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

void write_all(mapping& segment, std::size_t bytes) { std::memset(segment.data(), 1, bytes); }

void touch_each(mapping& segment, std::size_t bytes, std::size_t step) {
  auto* at = reinterpret_cast<volatile unsigned char*>(segment.data());
  for (std::size_t offset = 0; offset < bytes; offset += step) at[offset] = 1;
}

void populate_write(mapping& segment, std::size_t bytes) {
  if (::madvise(segment.data(), bytes, MADV_POPULATE_WRITE) != 0) std::perror("MADV_POPULATE_WRITE");
}

void touch_and_collapse(mapping& segment, std::size_t bytes) {
  touch_each(segment, bytes, sharedmem::huge_page_size);
  if (::madvise(segment.data(), bytes, MADV_COLLAPSE) != 0) std::perror("MADV_COLLAPSE");
}

struct way {
  const char* name;
  void (*run)(mapping&, std::size_t);
};
constexpr way ways[] = {
    {"write", write_all},
    {"touch", [](mapping& s, std::size_t n) { touch_each(s, n, 4096); }},
    {"populate_write", populate_write},
    {"touch+collapse", touch_and_collapse},
    {"populate", [](mapping& s, std::size_t n) { s.populate(0, n); }},
    {"populate, all cores",
     [](mapping& s, std::size_t n) { s.populate(0, n, sharedmem::os::usable_cores()); }},
};

void measure(std::size_t bytes, int rounds) {
  std::printf("%6zu MiB", bytes / mebibyte);
  for (const way& one : ways) {
    double best = 1e9;
    double best_pass = 1e9;
    for (int round = 0; round < rounds; ++round) {
      // A virtual machine may have given free pages back to its host: have as many at hand first.
      mapping warm = mapping::create(sharedmem::backing::sysv, bytes, 0);
      write_all(warm, bytes);
      warm = mapping{};
      mapping segment = mapping::create(sharedmem::backing::sysv, bytes, 0);
      best = std::min(best, milliseconds([&] { one.run(segment, bytes); }));
      best_pass = std::min(best_pass, milliseconds([&] { write_all(segment, bytes); }));
    }
    std::printf("  %9.3f +%8.3f", best, best_pass);
  }
  std::printf("\n");
}

}  // namespace

int main() {
  std::printf("%10s", "ms");
  for (const way& one : ways) std::printf("  %19s", one.name);
  std::printf("\n");
  for (const std::size_t size : {2, 4, 8, 32, 64, 256, 1024}) {
    measure(size * mebibyte, size >= 256 ? 3 : 9);
  }
}
