#pragma once

// The allocators that allocator.cpp compares, each behind `get` and `put`.
#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <stdexcept>

#include <dlfcn.h>

#include <sharedmem/home.hpp>

#if __has_include(<boost/interprocess/managed_external_buffer.hpp>)
#include <boost/interprocess/managed_external_buffer.hpp>
#define BENCHMARK_BOOST 1
#endif

namespace benchmark {

/// This library: blocks of the process's home arena.
class own {
 public:
  static constexpr const char* name = "sharedmem";
  using block = sharedmem::allocation;
  bool found() const noexcept { return true; }
  block get(std::size_t bytes) { return arena_->allocate(bytes); }
  void put(block& b) noexcept { arena_->release(b.ref); }
  static std::byte* data(const block& b) noexcept { return b.data; }

 private:
  sharedmem::arena* arena_ = &sharedmem::home();
};

/// The C library's, in private memory.
class c_library {
 public:
  static constexpr const char* name = "malloc";
  using block = void*;
  bool found() const noexcept { return true; }
  block get(std::size_t bytes) { return std::malloc(bytes); }
  void put(block& b) noexcept { std::free(b); }
  static std::byte* data(block b) noexcept { return static_cast<std::byte*>(b); }
};

/// mimalloc, in private memory. Loaded at run time: linked, it would take the place of malloc.
class mimalloc {
 public:
  static constexpr const char* name = "mimalloc";
  using block = void*;
  mimalloc() noexcept {
    for (const char* file : {"libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so.2.0", "libmimalloc.so"})
      if (void* library = dlopen(file, RTLD_NOW | RTLD_LOCAL)) {
        malloc_ = reinterpret_cast<void* (*)(std::size_t)>(dlsym(library, "mi_malloc"));
        free_ = reinterpret_cast<void (*)(void*)>(dlsym(library, "mi_free"));
        return;
      }
  }
  bool found() const noexcept { return malloc_ && free_; }
  block get(std::size_t bytes) { return malloc_(bytes); }
  void put(block& b) noexcept { free_(b); }
  static std::byte* data(block b) noexcept { return static_cast<std::byte*>(b); }

 private:
  void* (*malloc_)(std::size_t) = nullptr;
  void (*free_)(void*) = nullptr;
};

#ifdef BENCHMARK_BOOST
/// Boost.Interprocess's best-fit allocator under its process-shared mutex, in anonymous shared memory, so
/// that no name is left behind.
class boost_interprocess {
 public:
  static constexpr const char* name = "Boost.Interprocess";
  static constexpr std::size_t bytes = std::size_t{1} << 32;
  // managed_external_buffer itself has no lock.
  using manager = boost::interprocess::basic_managed_external_buffer<
      char, boost::interprocess::rbtree_best_fit<boost::interprocess::mutex_family>,
      boost::interprocess::iset_index>;
  using block = void*;
  boost_interprocess()
      : memory_(
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::runtime_error("mmap");
    managed_ = manager(boost::interprocess::create_only, memory_, bytes);
  }
  ~boost_interprocess() { munmap(memory_, bytes); }
  boost_interprocess(const boost_interprocess&) = delete;
  boost_interprocess& operator=(const boost_interprocess&) = delete;
  bool found() const noexcept { return true; }
  block get(std::size_t size) { return managed_.allocate(size); }
  void put(block& b) { managed_.deallocate(b); }
  static std::byte* data(block b) noexcept { return static_cast<std::byte*>(b); }

 private:
  void* memory_;
  manager managed_;
};
#endif

}  // namespace benchmark
