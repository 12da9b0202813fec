#include <sharedmem/file_view.hpp>

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "os/files.hpp"
#include "os/fork_handlers.hpp"

namespace sharedmem {

/// A mapping. The table below knows it as long as there is a reference to it.
struct file_view::mapped : std::enable_shared_from_this<file_view::mapped> {
  mapped(std::string path, file_mode mode, const os::file_bytes& made) noexcept
      : path(std::move(path)),
        mode(mode),
        data(made.data),
        bytes(made.facts.bytes),
        identity{made.facts.device, made.facts.inode, made.facts.birth} {}
  mapped(const mapped&) = delete;
  mapped& operator=(const mapped&) = delete;
  ~mapped();

  [[nodiscard]] bool has(const void* p) const noexcept {
    return reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(data) < bytes;
  }

  const std::string path;
  const file_mode mode;
  std::byte* const data;
  const std::uint64_t bytes;
  const file_identity identity;
};

namespace {

using mapped = file_view::mapped;

/// The mappings of this process. The lock is held for a few instructions, never during a system call. A mapping whose
/// last reference was dropped removes itself from here, before its addresses are given back. Until then a thread that
/// finds it here has to check whether it still has a reference.
struct table {
  std::mutex lock;
  std::map<std::uintptr_t, mapped*> by_address;  // of the first byte
  std::multimap<std::uint64_t, mapped*> by_inode;
};

/// How many mappings there are. Apart from the table, so that a look at it needs no lock, and no table.
std::atomic<std::size_t> count{0};

table& all() {
  static auto* const t = [] {
    at_fork([] { all().lock.lock(); }, [] { all().lock.unlock(); }, [] { all().lock.unlock(); });
    return new table;  // outlives every thread and every destructor
  }();
  return *t;
}

void check(const os::file_facts& facts, const std::string& path, const file_identity& expected,
           std::uint64_t bytes) {
  if (file_identity{facts.device, facts.inode, facts.birth} != expected)
    throw stale_handle(path + " is a different file now: the file that contains the array was replaced");
  if (facts.bytes < bytes)
    throw std::invalid_argument(path + " has " + std::to_string(facts.bytes) +
                                " bytes, but the array ends at byte " + std::to_string(bytes) +
                                ": the file has been truncated");
}

/// A mapping of a file in this mode that can be used once more; null: there is none. Lock held.
/// \param bytes  how long the file is, or how much of it is needed.
/// \param path   where the file was opened: the mapping must be of that path and of just this length, since its
///               users ask it for both. Null: a handle needs that many bytes of the file, and no more.
std::shared_ptr<mapped> known(table& t, const file_identity& which, file_mode mode, std::uint64_t bytes,
                              const std::string* path) noexcept {
  const auto [first, last] = t.by_inode.equal_range(which.inode);
  for (auto at = first; at != last; ++at) {
    const mapped& m = *at->second;
    if (m.identity == which && m.mode == mode &&
        (path != nullptr ? m.bytes == bytes && m.path == *path : m.bytes >= bytes))
      if (auto found = at->second->weak_from_this().lock()) return found;
  }
  return nullptr;
}

/// Enters a new mapping, unless another thread was faster: then that one's.
std::shared_ptr<mapped> enter(const std::string& path, file_mode mode, const os::file_bytes& made,
                              bool for_handle = false) {
  std::shared_ptr<mapped> added;
  try {
    added = std::make_shared<mapped>(path, mode, made);
  } catch (...) {
    os::unmap_file(made.data, made.facts.bytes);
    throw;
  }
  ++count;  // what `added` takes back when it is not used either
  table& t = all();
  const std::lock_guard lock(t.lock);
  if (auto found = known(t, added->identity, mode, added->bytes, for_handle ? nullptr : &path)) return found;
  t.by_inode.emplace(added->identity.inode, added.get());
  if (added->bytes != 0) t.by_address.emplace(reinterpret_cast<std::uintptr_t>(added->data), added.get());
  return added;
}

/// The mapping that holds `p`. Lock held.
mapped* find(const table& t, const void* p) noexcept {
  auto above = t.by_address.upper_bound(reinterpret_cast<std::uintptr_t>(p));
  if (above == t.by_address.begin()) return nullptr;
  mapped* candidate = std::prev(above)->second;
  return candidate->has(p) ? candidate : nullptr;
}

}  // namespace

file_view::mapped::~mapped() {
  {
    table& t = all();
    const std::lock_guard lock(t.lock);
    const auto [first, last] = t.by_inode.equal_range(identity.inode);
    for (auto at = first; at != last; ++at)
      if (at->second == this) {
        t.by_inode.erase(at);
        t.by_address.erase(reinterpret_cast<std::uintptr_t>(data));
        break;
      }
  }
  os::unmap_file(data, bytes);
  --count;
}

file_view file_view::open(const std::string& path, file_mode mode) {
  const os::file_facts facts = os::look_at_file(path);
  const file_identity identity{facts.device, facts.inode, facts.birth};
  if (count.load(std::memory_order_relaxed) != 0) {
    table& t = all();
    const std::lock_guard lock(t.lock);
    if (auto found = known(t, identity, mode, facts.bytes, &path)) return file_view(std::move(found));
  }
  return file_view(enter(path, mode, os::map_file(path, mode == file_mode::read_write)));
}

file_view file_view::open(const std::string& path, file_mode mode, const file_identity& expected,
                          std::uint64_t bytes) {
  check(os::look_at_file(path), path, expected, bytes);
  if (count.load(std::memory_order_relaxed) != 0) {
    table& t = all();
    const std::lock_guard lock(t.lock);
    if (auto found = known(t, expected, mode, bytes, nullptr)) return file_view(std::move(found));
  }
  const os::file_bytes made = os::map_file(path, mode == file_mode::read_write);
  try {
    check(made.facts, path, expected, bytes);
  } catch (...) {
    os::unmap_file(made.data, made.facts.bytes);
    throw;
  }
  return file_view(enter(path, mode, made, true));
}

file_view file_view::create(const std::string& path, std::uint64_t bytes, std::span<const std::byte> head) {
  if (head.size() > bytes) throw std::invalid_argument("the head of a new file is longer than the file");
  return file_view(enter(path, file_mode::read_write, os::create_file(path, bytes, head)));
}

file_view file_view::at(const void* p) noexcept {
  if (count.load(std::memory_order_acquire) == 0) return {};
  table& t = all();
  const std::lock_guard lock(t.lock);
  mapped* found = find(t, p);
  return found == nullptr ? file_view() : file_view(found->weak_from_this().lock());
}

bool file_view::holds(const void* p) noexcept {
  if (count.load(std::memory_order_acquire) == 0) return false;
  table& t = all();
  const std::lock_guard lock(t.lock);
  return find(t, p) != nullptr;
}

std::byte* file_view::data() const noexcept { return shared_->data; }
std::uint64_t file_view::bytes() const noexcept { return shared_->bytes; }
file_mode file_view::mode() const noexcept { return shared_->mode; }
const std::string& file_view::path() const noexcept { return shared_->path; }
file_identity file_view::identity() const noexcept { return shared_->identity; }

void file_view::flush(const void* p, std::uint64_t bytes) const {
  if (bytes == 0) return;
  const auto from = static_cast<std::uint64_t>(static_cast<const std::byte*>(p) - shared_->data);
  if (!shared_->has(p) || bytes > shared_->bytes - from)
    throw std::invalid_argument("the bytes to flush are not within the file");
  const file_identity& which = shared_->identity;
  os::flush_file(shared_->data + from, bytes, shared_->path,
                 {which.device, which.inode, which.birth, shared_->bytes},
                 shared_->mode == file_mode::read_write);
}

}  // namespace sharedmem
