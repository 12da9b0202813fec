#include <sharedmem/error.hpp>

#include <cerrno>
#include <utility>

namespace sharedmem {
namespace {

// Only glibc has strerrorname_np; these are the codes that this library meets.
const char* code_name(int code) noexcept {
  switch (code) {
    case EPERM: return "EPERM";
    case ENOENT: return "ENOENT";
    case ESRCH: return "ESRCH";
    case EINTR: return "EINTR";
    case EIO: return "EIO";
    case EBADF: return "EBADF";
    case EAGAIN: return "EAGAIN";
    case ENOMEM: return "ENOMEM";
    case EACCES: return "EACCES";
    case EFAULT: return "EFAULT";
    case EBUSY: return "EBUSY";
    case EEXIST: return "EEXIST";
    case EINVAL: return "EINVAL";
    case ENFILE: return "ENFILE";
    case EMFILE: return "EMFILE";
    case EFBIG: return "EFBIG";
    case ENOSPC: return "ENOSPC";
    case ENOSYS: return "ENOSYS";
    case EIDRM: return "EIDRM";
    case EOVERFLOW: return "EOVERFLOW";
    default: return nullptr;
  }
}

std::string describe(int code, const std::string& operation, const std::string& object) {
  const char* const name = code_name(code);
  return operation + "(" + object + "): " + std::generic_category().message(code) + " [" +
         (name != nullptr ? std::string{name} : "errno " + std::to_string(code)) + "]";
}

}  // namespace

struct error::texts {
  std::string operation;
  std::string object;
  std::string all;
};

error::error(int errno_code, std::string operation, std::string object)
    : std::system_error{errno_code, std::generic_category()} {
  std::string all = describe(errno_code, operation, object);
  texts_ = std::make_shared<const texts>(texts{std::move(operation), std::move(object), std::move(all)});
}

error::~error() = default;

const char* error::what() const noexcept { return texts_->all.c_str(); }
const std::string& error::operation() const noexcept { return texts_->operation; }
const std::string& error::object() const noexcept { return texts_->object; }

no_memory::no_memory(std::string text) : text_{std::make_shared<const std::string>(std::move(text))} {}

no_memory::~no_memory() = default;

const char* no_memory::what() const noexcept { return text_->c_str(); }

stale_handle::~stale_handle() = default;

corrupted::~corrupted() = default;

}  // namespace sharedmem
