// Allocating and freeing, in one process and in many at once, beside malloc, mimalloc and
// Boost.Interprocess where they are found; sharing, acquiring and releasing: allocator [SECONDS]
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "allocators.hpp"

namespace {

using steady = std::chrono::steady_clock;
using seconds = std::chrono::duration<double>;

constexpr int runs = 5;
constexpr int places = 64;
constexpr int most_processes = 64;

// Keeps the compiler from dropping an allocation that is not used.
template <class T>
void opaque(T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}

/// Median over `runs` of the nanoseconds one call of `work` takes, each run lasting `duration`.
template <class Work>
double nanoseconds(double duration, Work work) {
  std::vector<double> found;
  for (int run = 0; run < runs; ++run) {
    std::uint64_t calls = 0;
    const auto start = steady::now();
    seconds spent{};
    while (spent.count() < duration / runs) {
      for (int i = 0; i < 64; ++i) work();
      calls += 64;
      spent = steady::now() - start;
    }
    found.push_back(spent.count() * 1e9 / static_cast<double>(calls));
  }
  std::sort(found.begin(), found.end());
  return found[runs / 2];
}

/// Sizes log-uniform from 64 bytes to 64 KiB, the same in each run.
std::vector<std::size_t> mixed_sizes(unsigned seed) {
  std::mt19937 chance(seed);
  std::uniform_real_distribution<double> power(6.0, 16.0);
  std::vector<std::size_t> sizes(1024);
  for (auto& size : sizes) size = static_cast<std::size_t>(std::exp2(power(chance)));
  return sizes;
}

/// Holds `places` blocks and replaces the oldest by a new one at each step.
template <class Allocator>
class ring {
 public:
  ring(Allocator& from, unsigned seed) : from_(from), sizes_(mixed_sizes(seed)) {
    for (auto& block : blocks_) block = from_.get(next_size());
  }
  ~ring() {
    for (auto& block : blocks_) from_.put(block);
  }
  ring(const ring&) = delete;
  ring& operator=(const ring&) = delete;
  void step() {
    auto& block = blocks_[step_ % places];
    from_.put(block);
    block = from_.get(next_size());
    *Allocator::data(block) = std::byte{1};
  }

 private:
  std::size_t next_size() { return sizes_[step_++ % sizes_.size()]; }
  Allocator& from_;
  std::vector<std::size_t> sizes_;
  std::size_t step_ = 0;
  typename Allocator::block blocks_[places]{};
};

/// What the forked processes and their parent share.
struct board {
  std::atomic<int> ready;
  std::atomic<std::int64_t> start;   // of the steady clock; 0: not yet
  std::uint64_t steps[most_processes];
};

board* make_board() {
  void* memory = mmap(nullptr, sizeof(board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("mmap");
    std::exit(1);
  }
  return new (memory) board{};
}

template <class Allocator>
void take_part(Allocator& from, board& b, int number, double duration) {
  ring<Allocator> blocks(from, static_cast<unsigned>(number));
  for (int i = 0; i < 4096; ++i) blocks.step();
  ++b.ready;
  std::int64_t start;
  while ((start = b.start) == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  const steady::time_point begin{steady::duration{start}};
  const auto end = begin + std::chrono::duration_cast<steady::duration>(seconds(duration));
  std::this_thread::sleep_until(begin);
  std::uint64_t steps = 0;
  while (steady::now() < end) {
    for (int i = 0; i < 256; ++i) blocks.step();
    steps += 256;
  }
  b.steps[number] = steps;
}

/// Millions of steps a second that `processes` processes make together.
template <class Allocator>
double together(Allocator& from, int processes, double duration) {
  board& b = *make_board();
  std::vector<pid_t> children;
  for (int number = 0; number < processes; ++number) {
    const pid_t child = fork();
    if (child == 0) {
      take_part(from, b, number, duration);
      _exit(0);
    }
    if (child < 0) {
      std::perror("fork");
      std::exit(1);
    }
    children.push_back(child);
  }
  while (b.ready < processes) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (waitpid(-1, nullptr, WNOHANG) != 0) {
      std::fprintf(stderr, "a process of %s ended early\n", Allocator::name);
      std::exit(1);
    }
  }
  b.start = (steady::now() + std::chrono::milliseconds(20)).time_since_epoch().count();
  for (const pid_t child : children) waitpid(child, nullptr, 0);
  std::uint64_t total = 0;
  for (const auto steps : b.steps) total += steps;
  munmap(&b, sizeof(board));
  return static_cast<double>(total) / duration / 1e6;
}

template <class Allocator>
void compare(double duration) {
  Allocator from;
  if (!from.found()) {
    std::printf("%-20s not found\n", Allocator::name);
    return;
  }
  std::printf("%-20s", Allocator::name);
  for (const std::size_t size :
       {std::size_t{64}, std::size_t{800}, std::size_t{16} << 10, std::size_t{6} << 20}) {
    std::printf(" %8.1f", nanoseconds(duration, [&] {
                  auto block = from.get(size);
                  opaque(block);
                  from.put(block);
                }));
  }
  {
    ring<Allocator> blocks(from, 1);
    std::printf(" %8.1f", nanoseconds(duration, [&] { blocks.step(); }));
  }
  for (int processes = 1; processes <= most_processes; processes *= 4)
    std::printf(" %8.2f", together(from, processes, duration));
  std::printf("\n");
  std::fflush(stdout);
}

/// What only this library has: the steps by which a block reaches another process.
void share_and_acquire(double duration) {
  sharedmem::arena& arena = sharedmem::home();
  sharedmem::allocation kept = arena.allocate(800);
  const sharedmem::claim name = arena.share(kept.ref, false);
  const double share = nanoseconds(duration, [&] {
    sharedmem::claim c = arena.share(kept.ref, false);
    opaque(c);
  });
  const double acquire = nanoseconds(duration, [&] {
    sharedmem::allocation a = arena.acquire(name);
    opaque(a);
    arena.release(a.ref);
  });
  const double leased = nanoseconds(duration, [&] {
    sharedmem::allocation a = arena.acquire(arena.share(kept.ref, true));
    opaque(a);
    arena.release(a.ref);
  });
  const double first = nanoseconds(duration, [&] {
    sharedmem::allocation a = arena.allocate(800);
    sharedmem::claim c = arena.share(a.ref, false);
    opaque(c);
    arena.release(a.ref);
  });
  arena.release(kept.ref);
  std::printf("\nnanoseconds\n");
  std::printf("share again                               %8.1f\n", share);
  std::printf("acquire and release, held already         %8.1f\n", acquire);
  std::printf("share with a lease, acquire and release   %8.1f\n", leased);
  std::printf("allocate, share first, release            %8.1f\n", first);
}

}  // namespace

int main(int argc, char** argv) {
  const double duration = argc > 1 ? std::max(0.01, std::atof(argv[1])) : 0.5;
  std::printf("%-20s %44s %35s\n", "", "allocate and free, ns", "million steps/s, processes");
  std::printf("%-20s %8s %8s %8s %8s %8s %8d %8d %8d %8d\n", "", "64 B", "800 B", "16 KiB", "6 MiB", "mixed",
              1, 4, 16, 64);
  compare<benchmark::own>(duration);
  compare<benchmark::c_library>(duration);
  compare<benchmark::mimalloc>(duration);
#ifdef BENCHMARK_BOOST
  compare<benchmark::boost_interprocess>(duration);
#endif
  share_and_acquire(duration);
}
