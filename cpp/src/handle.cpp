#include <charconv>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <sharedmem/handle.hpp>
#include "os/identity.hpp"
#include "os/traits.hpp"

#include "wire.hpp"

namespace sharedmem {
namespace {

using std::uint32_t;
using std::uint64_t;
using std::uint8_t;
using wire::checksum;
using wire::get_word;
using wire::put_word;

constexpr unsigned magic = 0xa0;  // not the first byte of text, of a pickle or of zlib data
static_assert(handle_version < 16, "the version shares a byte with the magic");

enum flag : unsigned {
  writable = 1,
  c_contiguous = 2,
  f_contiguous = 4,
  with_lease = 8,
  in_memfd = 16,
  read_only_mapping = 32,
  all_flags = 63
};

constexpr std::size_t checksum_bytes = sizeof(uint32_t);
constexpr std::size_t at_host = 2 + 16;
constexpr std::size_t fixed_bytes = at_host + 8;
constexpr std::size_t longest_varint = 10;
constexpr uint64_t most_48_bits = (uint64_t{1} << 48) - 1;
constexpr uint64_t most_signed = static_cast<uint64_t>(std::numeric_limits<std::int64_t>::max());
constexpr uint64_t most_id = static_cast<uint64_t>(std::numeric_limits<std::int32_t>::max());
constexpr uint64_t most_32_bits = std::numeric_limits<uint32_t>::max();

constexpr uint64_t zigzag(std::int64_t value) noexcept {
  return static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63);
}

constexpr std::int64_t unzigzag(uint64_t value) noexcept {
  return static_cast<std::int64_t>(value >> 1 ^ (0 - (value & 1)));
}

constexpr uint64_t magnitude(std::int64_t value) noexcept {
  return value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
}

// Calls visit(axis, stride) for each axis of a contiguous array, innermost first, until it returns
// false. As in NumPy an axis of length 0 counts like one of length 1. False if a stride overflows.
template <class Visit>
bool contiguous_strides(const geometry& g, bool c_order, Visit visit) {
  uint64_t stride = g.itemsize;
  for (int i = 0; i < g.ndim; ++i) {
    const int axis = c_order ? g.ndim - 1 - i : i;
    if (stride > most_signed || !visit(axis, static_cast<std::int64_t>(stride))) return false;
    const auto length = static_cast<uint64_t>(g.shape[axis]);
    if (length > 1 && __builtin_mul_overflow(stride, length, &stride)) stride = most_signed + 1;
  }
  return true;
}

bool is_contiguous(const geometry& g, bool c_order) noexcept {
  return contiguous_strides(g, c_order,
                            [&](int axis, std::int64_t stride) { return g.strides[axis] == stride; });
}

/// What a handle without the flag `in_memfd` means: the first kind of the system that it comes from.
constexpr backing usual_kind = os::segment_kinds[0];

constexpr std::pair<backing, std::string_view> kind_names[] = {
    {backing::sysv, "sysv"}, {backing::memfd, "memfd"}, {backing::section, "section"}};

bool names_a_segment(const segment_name& name) noexcept {
  return (name.kind == usual_kind || name.kind == backing::memfd) && name.id >= 0 && name.pid >= 0;
}

std::string_view text_of(backing kind) noexcept {
  for (const auto& [each, text] : kind_names)
    if (each == kind) return text;
  return {};
}

backing kind_of(std::string_view text) noexcept {
  for (const auto& [kind, each] : kind_names)
    if (each == text) return kind;
  return backing::none;
}

class writer {
 public:
  explicit writer(std::span<std::byte> out) noexcept : at_(out.data()), end_(at_ + out.size()) {}

  std::byte* at() const noexcept { return at_; }

  std::byte* take(std::size_t size) {
    if (static_cast<std::size_t>(end_ - at_) < size)
      throw std::length_error("handle: the buffer to encode it into is too small");
    at_ += size;
    return at_ - size;
  }

  template <class Word>
  void word(Word value) {
    put_word(take(sizeof(Word)), value);
  }

  void varint(uint64_t value) {
    while (value >= 0x80) {
      *take(1) = static_cast<std::byte>(value | 0x80);
      value >>= 7;
    }
    *take(1) = static_cast<std::byte>(value);
  }

 private:
  std::byte* at_;
  std::byte* end_;
};

[[noreturn]] void refuse(const char* why) { throw std::invalid_argument(std::string("handle: ") + why); }

[[noreturn]] void refuse_field(const char* name) {
  throw std::invalid_argument(std::string("handle: its ") + name + " is invalid");
}

class reader {
 public:
  explicit reader(std::span<const std::byte> in) noexcept : at_(in.data()), end_(at_ + in.size()) {}

  const std::byte* take(std::size_t size, const char* field) {
    if (left() < size) refuse_field(field);
    at_ += size;
    return at_ - size;
  }

  std::size_t left() const noexcept { return static_cast<std::size_t>(end_ - at_); }

  uint64_t varint(uint64_t most, const char* field) {
    uint64_t value = 0;
    for (unsigned i = 0; i < longest_varint; ++i) {
      const uint64_t byte = static_cast<uint8_t>(*take(1, field));
      value |= (byte & 0x7f) << (7 * i);
      if (byte < 0x80) {
        const bool past_64_bits = i == longest_varint - 1 && byte > 1;
        const bool not_shortest = i > 0 && byte == 0;
        if (past_64_bits || not_shortest || value > most) break;
        return value;
      }
    }
    refuse_field(field);
  }

 private:
  const std::byte* at_;
  const std::byte* end_;
};

void check(const handle& h) {
  if (!names_a_segment(h.where.segment)) refuse_field("segment");
  if (h.what.generation > most_48_bits) refuse_field("generation");
  if (h.what.nonce > most_48_bits || (h.what.lease == no_lease && h.what.nonce != 0)) refuse_field("nonce");
  if (h.shape.ndim < 0 || h.shape.ndim > max_ndim) refuse_field("number of axes");
  for (int i = 0; i < h.shape.ndim; ++i)
    if (h.shape.shape[i] < 0) refuse_field("shape");
  if (h.shape.read_only_mapping && h.shape.writable) refuse_field("flags");
  if (h.dtype.size() > most_32_bits) refuse_field("dtype");
}

void read_geometry(reader& in, unsigned flags, geometry& g) {
  g.writable = (flags & writable) != 0;
  g.read_only_mapping = (flags & read_only_mapping) != 0;
  g.offset = in.varint(std::numeric_limits<uint64_t>::max(), "offset");
  g.itemsize = static_cast<uint32_t>(in.varint(most_32_bits, "itemsize"));
  g.ndim = static_cast<int>(in.varint(max_ndim, "number of axes"));
  for (int i = 0; i < g.ndim; ++i) g.shape[i] = static_cast<std::int64_t>(in.varint(most_signed, "shape"));
  if ((flags & (c_contiguous | f_contiguous)) == 0) {
    for (int i = 0; i < g.ndim; ++i)
      g.strides[i] = unzigzag(in.varint(std::numeric_limits<uint64_t>::max(), "strides"));
    return;
  }
  const auto store = [&](int axis, std::int64_t stride) {
    g.strides[axis] = stride;
    return true;
  };
  if (!contiguous_strides(g, (flags & c_contiguous) != 0, store)) refuse_field("shape");
}

// The next field of a locator's text, without the colon that ends it; nothing left: empty.
std::string_view next_field(std::string_view& text) noexcept {
  const std::size_t size = text.find(':');
  const std::string_view field = text.substr(0, size);
  text.remove_prefix(size == std::string_view::npos ? text.size() : size + 1);
  return field;
}

template <class Number>
bool parse(std::string_view field, int base, Number& out) noexcept {
  const auto [end, failed] = std::from_chars(field.data(), field.data() + field.size(), out, base);
  return failed == std::errc{} && end == field.data() + field.size();
}

void append(std::string& text, uint64_t number, int base, std::size_t digits = 1) {
  char buffer[20];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number, base).ptr;
  const auto size = static_cast<std::size_t>(end - buffer);
  if (size < digits) text.append(digits - size, '0');
  text.append(buffer, size);
}

uint32_t checksum_of(std::string_view text) noexcept {
  return checksum(reinterpret_cast<const std::byte*>(text.data()), text.size());
}

/// The fields of a handle that begins at `start`; `from` reads what follows the fixed ones.
handle read_fields(const std::byte* start, reader& from) {
  const auto flags = static_cast<unsigned>(start[1]);
  const auto both = [flags](unsigned pair) { return (flags & pair) == pair; };
  if ((flags & ~unsigned{all_flags}) != 0 || both(c_contiguous | f_contiguous) ||
      both(writable | read_only_mapping))
    refuse_field("flags");

  handle h;
  h.where.uuid = {get_word<uint64_t>(start + 2), get_word<uint64_t>(start + 10)};
  h.where.host = get_word<uint64_t>(start + 18);
  h.where.segment.kind = (flags & in_memfd) != 0 ? backing::memfd : usual_kind;
  h.where.segment.id = static_cast<std::int32_t>(from.varint(most_id, "segment"));
  h.where.segment.pid =
      (flags & in_memfd) != 0 ? static_cast<std::int32_t>(from.varint(most_id, "segment")) : 0;
  h.where.bytes = from.varint(std::numeric_limits<uint64_t>::max(), "size of the segment");
  h.what.block = static_cast<uint32_t>(from.varint(most_32_bits, "block"));
  h.what.generation = from.varint(most_48_bits, "generation");
  if ((flags & with_lease) != 0) {
    h.what.lease = static_cast<uint32_t>(from.varint(no_lease - 1, "lease"));
    h.what.nonce = from.varint(most_48_bits, "nonce");
  }
  read_geometry(from, flags, h.shape);
  const auto dtype_bytes = static_cast<std::size_t>(from.varint(most_32_bits, "dtype"));
  h.dtype = {reinterpret_cast<const char*>(from.take(dtype_bytes, "dtype")), dtype_bytes};
  return h;
}

}  // namespace

std::string to_text(const locator& where) {
  if (!names_a_segment(where.segment))
    throw std::invalid_argument("locator: an arena without a segment cannot be located");
  std::string text = "sharedmem-";
  append(text, handle_version, 10);
  text += ':';
  text += text_of(where.segment.kind);
  text += ':';
  append(text, static_cast<uint64_t>(where.segment.id), 10);
  text += ':';
  append(text, where.segment.kind == backing::memfd ? static_cast<uint64_t>(where.segment.pid) : 0, 10);
  text += ':';
  append(text, where.bytes, 10);
  text += ':';
  append(text, where.uuid[0], 16, 16);
  append(text, where.uuid[1], 16, 16);
  text += ':';
  append(text, where.host, 16, 16);
  text += ':';
  append(text, checksum_of(text), 16, 8);
  return text;
}

std::optional<locator> parse_locator(std::string_view text) noexcept {
  const std::string_view whole = text;
  constexpr std::string_view prefix = "sharedmem-";
  if (!text.starts_with(prefix) || text.find_first_of("ABCDEF") != text.npos) return {};
  text.remove_prefix(prefix.size());

  locator where;
  unsigned version = 0;
  uint32_t sum = 0;
  if (!parse(next_field(text), 10, version) || version != handle_version) return {};
  where.segment.kind = kind_of(next_field(text));
  if (!parse(next_field(text), 10, where.segment.id) || !parse(next_field(text), 10, where.segment.pid))
    return {};
  if (!names_a_segment(where.segment) || !parse(next_field(text), 10, where.bytes)) return {};
  const std::string_view uuid = next_field(text);
  if (uuid.size() != 32 || !parse(uuid.substr(0, 16), 16, where.uuid[0]) ||
      !parse(uuid.substr(16), 16, where.uuid[1]))
    return {};
  const std::string_view host = next_field(text);
  if (host.size() != 16 || !parse(host, 16, where.host)) return {};
  if (text.size() != 8 || !parse(text, 16, sum) || sum != checksum_of(whole.substr(0, whole.size() - 8)))
    return {};
  return where;
}

bool fits(const geometry& g, uint64_t block_bytes) noexcept {
  if (g.ndim < 0 || g.ndim > max_ndim) return false;
  bool no_elements = false;
  for (int i = 0; i < g.ndim; ++i) {
    if (g.shape[i] < 0) return false;
    no_elements |= g.shape[i] == 0;
  }
  if (no_elements) return g.offset <= block_bytes;

  uint64_t below = 0;  // bytes from the lowest element to the first one ...
  uint64_t above = 0;  // ... and from that to the highest one's end
  for (int i = 0; i < g.ndim; ++i) {
    uint64_t& side = g.strides[i] < 0 ? below : above;
    uint64_t extent;
    if (__builtin_mul_overflow(static_cast<uint64_t>(g.shape[i] - 1), magnitude(g.strides[i]), &extent) ||
        __builtin_add_overflow(side, extent, &side))
      return false;
  }
  return !__builtin_add_overflow(above, g.itemsize, &above) && g.offset >= below && g.offset <= block_bytes &&
         above <= block_bytes - g.offset;
}

std::size_t encode(const handle& h, std::span<std::byte> out) {
  check(h);
  const geometry& g = h.shape;
  const unsigned order = is_contiguous(g, true) ? c_contiguous : is_contiguous(g, false) ? f_contiguous : 0u;
  const bool memfd = h.where.segment.kind == backing::memfd;
  const bool lease = h.what.lease != no_lease;

  writer to(out);
  to.word(static_cast<uint8_t>(magic | handle_version));
  to.word(static_cast<uint8_t>(order | (g.writable ? writable : 0u) | (lease ? with_lease : 0u) |
                               (memfd ? in_memfd : 0u) | (g.read_only_mapping ? read_only_mapping : 0u)));
  to.word(h.where.uuid[0]);
  to.word(h.where.uuid[1]);
  to.word(h.where.host);
  to.varint(static_cast<uint64_t>(h.where.segment.id));
  if (memfd) to.varint(static_cast<uint64_t>(h.where.segment.pid));
  to.varint(h.where.bytes);
  to.varint(h.what.block);
  to.varint(h.what.generation);
  if (lease) {
    to.varint(h.what.lease);
    to.varint(h.what.nonce);
  }
  to.varint(g.offset);
  to.varint(g.itemsize);
  to.varint(static_cast<uint64_t>(g.ndim));
  for (int i = 0; i < g.ndim; ++i) to.varint(static_cast<uint64_t>(g.shape[i]));
  if (order == 0)
    for (int i = 0; i < g.ndim; ++i) to.varint(zigzag(g.strides[i]));
  to.varint(h.dtype.size());
  if (!h.dtype.empty()) std::memcpy(to.take(h.dtype.size()), h.dtype.data(), h.dtype.size());
  to.word(checksum(out.data(), static_cast<std::size_t>(to.at() - out.data())));
  return static_cast<std::size_t>(to.at() - out.data());
}

handle decode(std::span<const std::byte> in) {
  if (in.empty() || (static_cast<uint8_t>(in[0]) & 0xf0u) != magic) refuse("these bytes are not a handle");
  if ((static_cast<uint8_t>(in[0]) & 0x0fu) != handle_version)
    refuse("it was made by a version of the library that does not fit this one");
  if (in.size() < fixed_bytes + checksum_bytes) refuse("it is truncated");
  const std::size_t size = in.size() - checksum_bytes;
  if (get_word<uint32_t>(in.data() + size) != checksum(in.data(), size))
    refuse("its checksum is wrong: it is truncated or was altered");

  reader from(in.first(size).subspan(fixed_bytes));
  handle h = read_fields(in.data(), from);
  if (from.left() != 0) refuse("it is followed by further bytes");
  return h;
}

std::size_t find_handle(std::span<const std::byte> in, std::size_t from, handle& found) noexcept {
  std::byte host[8];
  put_word(host, host_id());
  const std::string_view wanted(reinterpret_cast<const char*>(host), sizeof host);
  const std::string_view whole(reinterpret_cast<const char*>(in.data()), in.size());
  while (in.size() >= from && in.size() - from >= fixed_bytes + checksum_bytes) {
    const std::size_t at = whole.find(wanted, from + at_host);
    if (at == whole.npos) return 0;
    const std::byte* start = in.data() + at - at_host;
    from = static_cast<std::size_t>(start - in.data()) + 1;
    if (static_cast<uint8_t>(*start) != (magic | handle_version)) continue;
    try {
      reader fields(in.subspan(from - 1).subspan(fixed_bytes));
      found = read_fields(start, fields);
      const std::size_t size = in.size() - (from - 1) - fields.left();
      if (fields.left() < checksum_bytes || get_word<uint32_t>(start + size) != checksum(start, size))
        continue;
      return from - 1 + size + checksum_bytes;
    } catch (const std::exception&) {  // only looks like one
    }
  }
  return 0;
}

}  // namespace sharedmem
