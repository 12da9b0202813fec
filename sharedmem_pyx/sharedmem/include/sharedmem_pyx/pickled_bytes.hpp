/// \file
/// Where the bytes objects of a pickle lie, without loading it.
///
/// A handle in a message is either the state of an array, which is loaded with the message, or lies in bytes that the
/// program has in it, such as a pickle within this pickle, which it may pass on unread. Only the first one is a whole
/// bytes object of the pickle. A task that the library has wrapped (`_wrapped` in _transfers/pools.py) is loaded with
/// its message, so it is looked into.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace sharedmem_pyx {

/// Goes through the opcodes of a pickle (pickletools in Python's library lists them).
class pickled_bytes {
 public:
  explicit pickled_bytes(std::span<const std::byte> pickle = {}) noexcept : in_{pickle} {
    if (!enter_wrapped_task()) at_ = 0;
  }

  /// Whether a bytes object ends at this offset. For ascending offsets: it goes on from the one before.
  bool one_ends_at(std::size_t offset) noexcept {
    while (last_ < offset && step()) {
    }
    return last_ == offset;
  }

 private:
  /// To the beginning of the task in a wrapped one: its function's module and name, and the task as one bytes object.
  bool enter_wrapped_task() noexcept {
    static constexpr std::string_view module = "sharedmem.", function = "\x8c\x09open_task\x93\x42";
    std::uint64_t length = 0;
    return starts("\x80\x04\x8c") && read(1, length) && at(module) && skip(length) && starts(function) &&
           skip(4);
  }

  /// Whether the text stands here.
  bool at(std::string_view text) const noexcept {
    return text.size() <= in_.size() - at_ && std::memcmp(in_.data() + at_, text.data(), text.size()) == 0;
  }

  bool starts(std::string_view text) noexcept { return at(text) && skip(text.size()); }

  /// To the next opcode. False: the pickle has ended, or is none.
  bool step() noexcept {
    std::uint64_t length = 0;
    if (at_ >= in_.size()) return false;
    const auto opcode = static_cast<unsigned char>(in_[at_++]);
    switch (opcode) {
      case '.': return false;  // STOP
      case 'K':
      case 'h':
      case 'q':
      case 0x80:
      case 0x82: return skip(1);  // BININT1, BINGET, BINPUT, PROTO, EXT1
      case 'M':
      case 0x83: return skip(2);  // BININT2, EXT2
      case 'J':
      case 'j':
      case 'r':
      case 0x84: return skip(4);  // BININT, LONG_BINGET, LONG_BINPUT, EXT4
      case 'G':
      case 0x95: return skip(8);  // BINFLOAT, FRAME
      case 'F':
      case 'I':
      case 'L':
      case 'S':
      case 'V':
      case 'P':
      case 'p':
      case 'g': return skip_line();
      case 'c':
      case 'i': return skip_line() && skip_line();  // GLOBAL, INST
      case 'U':
      case 0x8c:
      case 0x8a: return read(1, length) && skip(length);  // short strings, LONG1
      case 'T':
      case 'X':
      case 0x8b: return read(4, length) && skip(length);  // strings, LONG4
      case 0x8d: return read(8, length) && skip(length);  // BINUNICODE8
      case 'C': return read(1, length) && skip_bytes(length);  // SHORT_BINBYTES
      case 'B': return read(4, length) && skip_bytes(length);  // BINBYTES
      case 0x8e:
      case 0x96: return read(8, length) && skip_bytes(length);  // BINBYTES8, BYTEARRAY8
      default: return true;  // without an argument
    }
  }

  bool skip(std::uint64_t bytes) noexcept {
    if (bytes > in_.size() - at_) return false;
    at_ += bytes;
    return true;
  }

  bool skip_bytes(std::uint64_t bytes) noexcept {
    if (!skip(bytes)) return false;
    last_ = at_;
    return true;
  }

  bool skip_line() noexcept {
    const void* end = std::memchr(in_.data() + at_, '\n', in_.size() - at_);
    if (end == nullptr) return false;
    at_ = static_cast<std::size_t>(static_cast<const std::byte*>(end) - in_.data()) + 1;
    return true;
  }

  bool read(unsigned size, std::uint64_t& value) noexcept {
    if (size > in_.size() - at_) return false;
    for (unsigned i = 0; i < size; ++i) value |= static_cast<std::uint64_t>(in_[at_ + i]) << 8 * i;
    at_ += size;
    return true;
  }

  std::span<const std::byte> in_;
  std::size_t at_ = 0;
  std::size_t last_ = 0;  // the end of the last bytes object
};

}  // namespace sharedmem_pyx
