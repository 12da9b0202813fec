// Time to encode and to decode a handle, by shape and dtype: handle [ROUNDS]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <sharedmem/handle.hpp>

namespace {

using namespace sharedmem;

// Keeps the compiler from seeing that a value is not used, or does not change.
template <class T>
void opaque(T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}

// Best of ten runs, so that what else the machine does counts least.
template <class Work>
double nanoseconds(int rounds, Work work) {
  double best = 1e300;
  for (int run = 0; run < 10; ++run) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < rounds; ++i) work();
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
    best = std::min(best, spent.count() / rounds);
  }
  return best;
}

void measure(const char* title, int ndim, bool contiguous, std::string_view dtype, int rounds) {
  handle h;
  h.where = {{backing::sysv, 1234567, 0},
             std::uint64_t{1} << 40,
             {0x1122334455667788, 0x99aabbccddeeff00},
             0x123456789abcdef0};
  h.what = {123456, 1000, 17, 4321};
  h.dtype = dtype;
  h.shape.itemsize = 8;
  h.shape.ndim = ndim;
  std::int64_t stride = contiguous ? 8 : 16;
  for (int i = ndim - 1; i >= 0; --i) {
    h.shape.shape[i] = ndim <= 3 ? 200 : 2;
    h.shape.strides[i] = ndim <= 8 ? stride : 0;
    stride *= h.shape.shape[i];
  }
  std::byte wire[max_handle_bytes + 512];
  const std::size_t size = encode(h, wire);
  const double encoding = nanoseconds(rounds, [&] {
    opaque(h);
    encode(h, wire);
    opaque(wire);
  });
  const double decoding = nanoseconds(rounds, [&] {
    opaque(wire);
    handle back = decode({wire, size});
    opaque(back);
  });
  const double fitting = nanoseconds(rounds, [&] {
    opaque(h);
    bool answer = fits(h.shape, std::uint64_t{1} << 40);
    opaque(answer);
  });
  std::printf("%-34s %6zu %10.1f %10.1f %10.1f\n", title, size, encoding, decoding, fitting);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 200000;
  const std::string structured(300, 'x');
  std::printf("%-34s %6s %10s %10s %10s\n", "array", "bytes", "encode ns", "decode ns", "fits ns");
  measure("1 axis, contiguous, <f8", 1, true, "<f8", rounds);
  measure("2 axes, contiguous, <f8", 2, true, "<f8", rounds);
  measure("2 axes, strided, <f8", 2, false, "<f8", rounds);
  measure("3 axes, contiguous, <f8", 3, true, "<f8", rounds);
  measure("2 axes, contiguous, 300 byte dtype", 2, true, structured, rounds);
  measure("64 axes, strided, <f8", 64, false, "<f8", rounds);
}
