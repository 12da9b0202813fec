#pragma once

/// A private table with an entry for everything that an arena may come to hold, all zero at first. Pages of a
/// large one cost nothing until they are written, so it is never to be walked from end to end.
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace sharedmem {

/// `T` is a type whose zero bytes are its zero value.
template <class T>
class zero_table {
 public:
  void reserve(std::size_t entries) {
    entries_.reset(static_cast<T*>(std::calloc(entries, sizeof(T))));
    if (!entries_) throw std::bad_alloc();
    size_ = entries;
  }
  std::size_t size() const noexcept { return size_; }
  T& operator[](std::size_t i) const noexcept { return entries_[i]; }

 private:
  struct freed {
    void operator()(T* p) const noexcept { std::free(static_cast<void*>(p)); }
  };
  std::unique_ptr<T[], freed> entries_;
  std::size_t size_ = 0;
};

}  // namespace sharedmem
