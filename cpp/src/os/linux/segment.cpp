/// \file
/// Linux: segments of either kind, System V memory or a memfd.
#include "os/segment.hpp"

#include <cerrno>
#include <cstdio>
#include <stdexcept>
#include <utility>

#include <sharedmem/error.hpp>

#include "os/identity.hpp"
#include "os/linux/address_space.hpp"
#include "os/linux/memfd.hpp"
#include "os/linux/proc.hpp"
#include "os/linux/sysv.hpp"

namespace sharedmem::os {
namespace {

std::string memfd_name(std::uint64_t tag) {
  char text[32];
  std::snprintf(text, sizeof text, "sharedmem:%016llx", static_cast<unsigned long long>(tag));
  return text;
}

std::string sysv_name(int id) { return "segment " + std::to_string(id); }

// Attaches at the reserved place. If the segment was removed meanwhile, the error says this.
void attach_known(int id, reservation& room, access mode) {
  try {
    sysv_attach(id, room, mode);
  } catch (const error&) {
    if (sysv_has_gone(id)) throw stale_handle(sysv_name(id) + " has gone");
    throw;
  }
}

file_status check_memfd(int fd, const std::string& name) {
  file_status status;
  if (!file_look(fd, status)) throw error(errno, "fstat", name);
  const std::uint32_t user = effective_user();
  if (status.owner != user) {
    throw error(EPERM, "attach",
                name + " of user " + std::to_string(status.owner) + ", not " + std::to_string(user));
  }
  if (status.mode != 0600 || !status.sealed) {
    throw stale_handle(name + " is not one of this library's");
  }
  return status;
}

int find_memfd(const segment_name& name, const std::string& text) {
  int found = memfd_open(name.pid, name.id, text);
  if (found < 0 && !none_left(errno)) found = memfd_search(text);
  if (found < 0 && none_left(errno)) throw error(errno, "open", "memfd " + text);
  if (found < 0) throw stale_handle("memfd " + text + " has gone, or cannot be reached");
  return found;
}

std::size_t mappable(std::uint64_t bytes) {
  if (bytes > SIZE_MAX / 2) throw error(ENOMEM, "map a segment", std::to_string(bytes) + " bytes");
  return static_cast<std::size_t>(bytes);
}

[[noreturn]] void refuse_kind() { throw std::invalid_argument("a segment needs a kind"); }

}  // namespace

segment::segment(segment&& other) noexcept { *this = std::move(other); }

segment& segment::operator=(segment&& other) noexcept {
  if (this != &other) {
    reset();
    kind_ = std::exchange(other.kind_, backing::none);
    id_ = std::exchange(other.id_, -1);
    base_ = std::exchange(other.base_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    tag_ = other.tag_;
    tagged_ = other.tagged_;
    changed_ = other.changed_;
    made_by_ = other.made_by_;
  }
  return *this;
}

segment::~segment() { reset(); }

void segment::reset() noexcept {
  if (kind_ == backing::sysv) {
    if (base_ != nullptr) sysv_detach(base_);
  } else if (kind_ == backing::memfd) {
    if (base_ != nullptr) unmap(base_, bytes_);
    // A program that closes every descriptor (os.closerange) may have reused the number.
    file_status status;
    if (file_look(id_, status) && status.inode == changed_ && status.sealed) file_close(id_);
  }
  kind_ = backing::none;
  id_ = -1;
  base_ = nullptr;
  bytes_ = 0;
}

segment segment::create(backing kind, std::size_t bytes, std::uint64_t tag) {
  if (kind != backing::sysv && kind != backing::memfd) refuse_kind();
  // The addresses first: between shmget and IPC_RMID as little as possible can happen.
  reservation room{bytes};
  segment made{kind, bytes, -1, tag};
  if (kind == backing::sysv) {
    made.id_ = sysv_create(arena_keys, bytes);
    try {
      sysv_attach(made.id_, room, access::write);
    } catch (...) {
      sysv_remove(made.id_);
      throw;
    }
    made.base_ = room.taken();
    if (const int code = sysv_remove(made.id_); code != 0) {
      throw error(code, "shmctl(IPC_RMID)",
                  "id " + std::to_string(made.id_) + ", " + std::to_string(bytes) + " bytes");
    }
  } else {
    made.id_ = memfd_create(memfd_name(tag), bytes);
    file_status status;
    if (!file_look(made.id_, status)) {
      const int code = errno;
      file_close(std::exchange(made.id_, -1));
      throw error(code, "fstat", memfd_name(tag));
    }
    made.changed_ = status.inode;
    file_attach(made.id_, room, access::write);
    made.base_ = room.taken();
  }
  leave_out_of_dumps(made.base_, bytes);
  return made;
}

segment segment::open(const segment_name& name, std::uint64_t tag) {
  if (name.kind == backing::sysv) {
    const sysv_status status = check_sysv(name.id);
    const std::size_t past = status.bytes % page_size();
    segment found{name.kind, mappable(status.bytes - past), name.id, tag};
    found.tagged_ = past != 0;
    found.changed_ = static_cast<std::uint64_t>(status.changed);
    found.made_by_ = static_cast<std::uint64_t>(status.creator_pid);
    return found;
  }
  if (name.kind != backing::memfd) refuse_kind();
  const std::string text = memfd_name(tag);
  segment found{name.kind, 0, find_memfd(name, text), tag};
  file_status status;
  if (file_look(found.id_, status)) found.changed_ = status.inode;  // so that it is closed by `reset`
  status = check_memfd(found.id_, text);
  found.bytes_ = mappable(status.bytes);
  return found;
}

bool segment::look(viewer view, void* context) const {
  reservation room{mapped()};
  if (kind_ == backing::memfd) {
    file_attach(id_, room, access::read);  // unmapped with its room
    leave_out_of_dumps(room.base(), bytes_);
    return view(room.base(), bytes_, context);
  }
  attach_known(id_, room, access::read);
  segment seen{backing::sysv, bytes_, id_, tag_};
  seen.base_ = room.taken();
  leave_out_of_dumps(seen.base_, mapped());
  if (!view(seen.base_, bytes_, context)) return false;
  const sysv_status now = check_sysv(id_);
  if (static_cast<std::uint64_t>(now.changed) != changed_ || now.bytes - now.bytes % page_size() != bytes_ ||
      static_cast<std::uint64_t>(now.creator_pid) != made_by_)
    throw stale_handle(text() + " belongs to another arena");
  return true;
}

void segment::attach() {
  reservation room{mapped()};
  if (kind_ == backing::sysv)
    attach_known(id_, room, access::write);
  else
    file_attach(id_, room, access::write);
  base_ = room.taken();
  leave_out_of_dumps(base_, mapped());
}

meeting segment::create_under_key(std::uint32_t number, std::size_t bytes, std::uint32_t tag,
                                  segment& object) {
  const std::uint32_t key = meeting_keys | (number & ~meeting_key_mask);
  const std::size_t beyond = meeting_size + tag;
  int id = -1;
  const int code = sysv_create_keyed(key, bytes + beyond, id);
  if (code == 0) {
    object = segment{backing::sysv, bytes, id, 0};
    object.tagged_ = true;
    return meeting::made;
  }
  if (code != EEXIST) throw error(code, "shmget", bytes_text(bytes));
  if (const int refused = sysv_find_keyed(key, id); refused != 0)
    return refused == ENOENT ? meeting::gone : meeting::taken;
  sysv_status status;
  if (const int refused = sysv_look(id, status); refused != 0)
    return refused == EACCES ? meeting::taken : meeting::gone;
  const std::uint32_t user = effective_user();
  if (status.owner != user || status.creator != user || status.mode != 0600 ||
      status.bytes % huge_page_size != beyond || status.bytes == beyond)
    return meeting::taken;
  object = segment{backing::sysv, mappable(status.bytes - beyond), id, 0};
  object.tagged_ = true;
  return meeting::found;
}

void segment::let_key_go(const segment_name& name) noexcept { (void)sysv_remove(name.id); }

std::vector<segment_name> segment::list(std::uint32_t tag, std::span<const std::uint32_t>) {
  std::vector<segment_name> found;
  const std::uint32_t user = effective_user();
  const int code = sysv_each([&](int id, const sysv_status& status) {
    if (status.owner == user && status.creator == user && status.mode == 0600 && status.removed &&
        status.bytes % huge_page_size == meeting_size + tag)
      found.push_back({.kind = backing::sysv, .id = id, .pid = 0});
  });
  if (code != 0) throw error(code, "shmctl(SHM_INFO)", "the list of System V segments");
  return found;
}

segment segment::attach_read_only() const {
  reservation room{mapped()};
  segment made{kind_, bytes_, kind_ == backing::sysv ? id_ : -1, tag_};  // the descriptor stays this one's
  made.tagged_ = tagged_;
  if (kind_ == backing::sysv) {
    sysv_attach(id_, room, access::read);
  } else {
    file_status status;
    if (!file_look(id_, status) || status.inode != changed_)
      throw error(EBADF, "open",
                  memfd_name(tag_) + ": its descriptor " + std::to_string(id_) + " was closed");
    // A mapping through the descriptor that can write could be made writable later.
    const int fd = memfd_reopen_read_only(id_);
    try {
      file_attach(fd, room, access::read);
    } catch (...) {
      file_close(fd);
      throw;
    }
    file_close(fd);
  }
  made.base_ = room.taken();
  leave_out_of_dumps(made.base_, mapped());
  return made;
}

segment_name segment::name() const noexcept {
  return {.kind = kind_, .id = id_, .pid = kind_ == backing::memfd ? static_cast<std::int32_t>(pid()) : 0};
}

std::string segment::text() const { return kind_ == backing::sysv ? sysv_name(id_) : memfd_name(tag_); }

std::uint64_t segment::resident() const noexcept {
  if (kind_ == backing::sysv) return sysv_resident(id_);
  file_status status;
  if (kind_ == backing::memfd && file_look(id_, status) && status.inode == changed_) return status.resident;
  return 0;
}

}  // namespace sharedmem::os
