#include "segment/mapping.hpp"

#include <cerrno>
#include <cstdio>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include <sharedmem/error.hpp>

#include "os/os.hpp"
#include "segment/sysv_check.hpp"

namespace sharedmem {
namespace {

static_assert(os::reservation::alignment == huge_page_size);

std::string memfd_name(std::uint64_t tag) {
  char text[32];
  std::snprintf(text, sizeof text, "sharedmem:%016llx", static_cast<unsigned long long>(tag));
  return text;
}

std::string sysv_name(int id) { return "segment " + std::to_string(id); }

// Reading a hole to dump it would allocate it.
void keep_out_of_dumps(const mapping& made) {
  const int code = os::leave_out_of_dumps(made.data(), made.size());
  // EINVAL: a kernel without the advice, which is no reason to do without the memory
  if (code != 0 && code != EINVAL) {
    throw error(code, "madvise(MADV_DONTDUMP)", std::to_string(made.size()) + " bytes");
  }
}

// Attaches at the reserved place; where the segment has gone meanwhile, says so.
void attach_known(int id, const os::reservation& room, os::access mode) {
  try {
    os::sysv_attach(id, room, mode);
  } catch (const error&) {
    if (sysv_has_gone(id)) throw stale_handle(sysv_name(id) + " has gone");
    throw;
  }
}

class open_file {
 public:
  explicit open_file(int fd) noexcept : fd_{fd} {}
  open_file(const open_file&) = delete;
  open_file& operator=(const open_file&) = delete;
  ~open_file() {
    if (fd_ >= 0) os::file_close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }
  int release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

os::file_status check_memfd(int fd, const std::string& name, std::size_t bytes) {
  os::file_status status;
  if (!os::file_look(fd, status)) throw error(errno, "fstat", name);
  const std::uint32_t user = os::effective_user();
  if (status.owner != user) {
    throw error(EPERM, "attach",
                name + " of user " + std::to_string(status.owner) + ", not " + std::to_string(user));
  }
  if (status.mode != 0600 || !status.sealed) {
    throw stale_handle(name + " is not one of this library's");
  }
  if (status.bytes != bytes) {
    throw stale_handle(name + " has " + std::to_string(status.bytes) + " bytes, not " +
                       std::to_string(bytes));
  }
  return status;
}

int find_memfd(const segment_name& name, const std::string& text) {
  int found = os::memfd_open(name.pid, name.id, text);
  if (found < 0 && !os::none_left(errno)) found = os::memfd_search(text);
  if (found < 0 && os::none_left(errno)) throw error(errno, "open", "memfd " + text);
  if (found < 0) throw stale_handle("memfd " + text + " has gone, or cannot be reached");
  return found;
}

bool look_at_memfd(int fd, std::size_t bytes, mapping::verifier look, void* context) {
  os::reservation room{bytes};  // unmaps the look, too
  os::file_attach(fd, room, os::access::read);
  os::leave_out_of_dumps(room.base(), bytes);
  return look(room.base(), bytes, context);
}

std::size_t mappable(std::uint64_t bytes) {
  if (bytes > SIZE_MAX / 2) throw error(ENOMEM, "map a segment", std::to_string(bytes) + " bytes");
  return static_cast<std::size_t>(bytes);
}

void require(bool accepted, const std::string& name) {
  if (!accepted) throw stale_handle(name + " belongs to another arena");
}

}  // namespace

mapping::mapping(mapping&& other) noexcept
    : base_{std::exchange(other.base_, nullptr)},
      size_{std::exchange(other.size_, 0)},
      inode_{std::exchange(other.inode_, 0)},
      id_{std::exchange(other.id_, -1)},
      kind_{std::exchange(other.kind_, backing::none)} {}

mapping& mapping::operator=(mapping&& other) noexcept {
  if (this != &other) {
    reset();
    base_ = std::exchange(other.base_, nullptr);
    size_ = std::exchange(other.size_, 0);
    inode_ = std::exchange(other.inode_, 0);
    id_ = std::exchange(other.id_, -1);
    kind_ = std::exchange(other.kind_, backing::none);
  }
  return *this;
}

mapping::~mapping() { reset(); }

void mapping::reset() noexcept {
  if (kind_ == backing::sysv) {
    os::sysv_detach(base_);
  } else if (kind_ == backing::memfd) {
    os::unmap(base_, size_);
    // A program that closes every descriptor (os.closerange) may have got the number anew.
    os::file_status status;
    if (os::file_look(id_, status) && status.inode == inode_ && status.sealed) os::file_close(id_);
  }
  base_ = nullptr;
  size_ = 0;
  inode_ = 0;
  id_ = -1;
  kind_ = backing::none;
}

mapping mapping::create_sysv(std::size_t bytes) {
  // The addresses first: between shmget and IPC_RMID as little as possible can happen.
  os::reservation room{bytes};
  const int id = os::sysv_create(os::arena_keys, bytes);
  try {
    os::sysv_attach(id, room, os::access::write);
  } catch (...) {
    os::sysv_remove(id);
    throw;
  }
  mapping made{backing::sysv, room.taken(), bytes, id, 0};
  if (const int code = os::sysv_remove(id); code != 0) {
    throw error(code, "shmctl(IPC_RMID)",
                "id " + std::to_string(id) + ", " + std::to_string(bytes) + " bytes");
  }
  return made;
}

mapping mapping::create_memfd(std::size_t bytes, std::uint64_t tag) {
  os::reservation room{bytes};
  open_file file{os::memfd_create(memfd_name(tag), bytes)};
  os::file_status status;
  if (!os::file_look(file.get(), status)) throw error(errno, "fstat", memfd_name(tag));
  os::file_attach(file.get(), room, os::access::write);
  return {backing::memfd, room.taken(), bytes, file.release(), status.inode};
}

mapping mapping::create(backing kind, std::size_t bytes, std::uint64_t tag) {
  const std::size_t page = os::page_size();
  if (bytes > SIZE_MAX - page) throw std::invalid_argument("segment too large");
  bytes = (bytes + page - 1) / page * page;
  if (kind != backing::sysv && kind != backing::memfd) {
    throw std::invalid_argument("a segment needs a kind");
  }
  mapping made = kind == backing::sysv ? create_sysv(bytes) : create_memfd(bytes, tag);
  keep_out_of_dumps(made);
  (void)os::punching_works();  // now, while there is a page to try it with
  return made;
}

bool mapping::look_at_sysv(int id, std::size_t bytes, verifier look, void* context) {
  const os::sysv_status before = check_sysv(id, bytes);
  os::reservation room{bytes};
  attach_known(id, room, os::access::read);
  const mapping seen{backing::sysv, room.taken(), bytes, id, 0};
  keep_out_of_dumps(seen);
  if (!look(seen.data(), bytes, context)) return false;
  require(before.same_segment(check_sysv(id, bytes)), sysv_name(id));
  return true;
}

mapping mapping::attach_sysv(int id, std::size_t bytes, verifier verify, void* context) {
  require(look_at_sysv(id, bytes, verify, context), sysv_name(id));
  os::reservation room{bytes};
  attach_known(id, room, os::access::write);
  return {backing::sysv, room.taken(), bytes, id, 0};
}

mapping mapping::attach_memfd(const segment_name& name, std::size_t bytes, std::uint64_t tag, verifier verify,
                              void* context) {
  const std::string text = memfd_name(tag);
  open_file file{find_memfd(name, text)};
  const os::file_status status = check_memfd(file.get(), text, bytes);
  require(look_at_memfd(file.get(), bytes, verify, context), text);
  os::reservation room{bytes};
  os::file_attach(file.get(), room, os::access::write);
  return {backing::memfd, room.taken(), bytes, file.release(), status.inode};
}

mapping mapping::attach(const segment_name& name, std::size_t bytes, std::uint64_t tag, verifier verify,
                        void* context) {
  if (bytes == 0 || bytes % os::page_size() != 0) {
    throw std::invalid_argument("a segment of " + std::to_string(bytes) + " bytes");
  }
  if (name.kind != backing::sysv && name.kind != backing::memfd) {
    throw std::invalid_argument("a segment needs a kind");
  }
  const bool is_sysv = name.kind == backing::sysv;
  mapping made = is_sysv ? attach_sysv(name.id, bytes, verify, context)
                         : attach_memfd(name, bytes, tag, verify, context);
  keep_out_of_dumps(made);
  (void)os::punching_works();
  require(verify(made.data(), bytes, context), is_sysv ? sysv_name(name.id) : memfd_name(tag));
  return made;
}

bool mapping::examine(const segment_name& name, std::uint64_t tag, verifier look, void* context) {
  if (name.kind == backing::sysv) {
    os::sysv_status status;
    os::sysv_look(name.id, status);  // what is wrong with it is for check_sysv to say
    return look_at_sysv(name.id, mappable(status.bytes), look, context);
  }
  if (name.kind != backing::memfd) throw std::invalid_argument("a segment needs a kind");
  const std::string text = memfd_name(tag);
  const open_file file{find_memfd(name, text)};
  os::file_status status;
  if (!os::file_look(file.get(), status)) throw error(errno, "fstat", text);
  check_memfd(file.get(), text, mappable(status.bytes));
  return look_at_memfd(file.get(), mappable(status.bytes), look, context);
}

segment_name mapping::name() const noexcept {
  const bool is_memfd = kind_ == backing::memfd;
  return {.kind = kind_, .id = id_, .pid = is_memfd ? static_cast<std::int32_t>(os::pid()) : 0};
}

std::size_t mapping::resident() const noexcept {
  std::uint64_t bytes = 0;
  os::file_status status;
  if (kind_ == backing::sysv) {
    bytes = os::sysv_resident(id_);
  } else if (kind_ == backing::memfd && os::file_look(id_, status) && status.inode == inode_) {
    bytes = status.resident;
  }
  return bytes < SIZE_MAX ? static_cast<std::size_t>(bytes) : SIZE_MAX;
}

bool mapping::holds(std::size_t offset, std::size_t bytes) const noexcept {
  return bytes != 0 && offset <= size_ && bytes <= size_ - offset;
}

bool mapping::discard(std::size_t offset, std::size_t bytes) noexcept {
  // The kernel would round the length up, over bytes that nobody gave back.
  const std::size_t page = os::page_size();
  if (!holds(offset, bytes) || offset % page != 0 || bytes % page != 0) return false;
  return os::punch(base_ + offset, bytes);
}

void mapping::guard(std::size_t offset, std::size_t bytes) noexcept {
  if (holds(offset, bytes)) os::forbid(base_ + offset, bytes);
}

void mapping::prefer_huge(std::size_t offset, std::size_t bytes) noexcept {
  if (holds(offset, bytes)) os::want_huge(base_ + offset, bytes);
}

}  // namespace sharedmem
