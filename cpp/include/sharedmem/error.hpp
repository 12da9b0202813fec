/// \file
/// The exceptions of the library: what was tried, on what, and what the system answered.
#pragma once

#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include <sharedmem/export.hpp>

namespace sharedmem {

/// The operating system refused a call.
/// `what()` reads "shmat(id 7, 1048576 bytes): Cannot allocate memory [ENOMEM]".
/// Copies never throw: they share the texts.
class SHAREDMEM_API error : public std::system_error {
 public:
  /// \param errno_code  an errno value; it becomes `code().value()`, in the generic category.
  /// \param operation   the call, without parentheses: "shmat".
  /// \param object      what it was applied to, with sizes: "id 7, 1048576 bytes"; may be empty.
  error(int errno_code, std::string operation, std::string object = "");
  error(const error&) noexcept = default;
  error& operator=(const error&) noexcept = default;
  ~error() override;

  [[nodiscard]] const char* what() const noexcept override;
  [[nodiscard]] const std::string& operation() const noexcept;  ///< as it was given
  [[nodiscard]] const std::string& object() const noexcept;     ///< as it was given

 private:
  struct texts;
  std::shared_ptr<const texts> texts_;
};

/// There is not enough memory; the text says how many bytes were requested and are available, which
/// limit was reached and what changes it. Copies never throw.
class SHAREDMEM_API no_memory : public std::bad_alloc {
 public:
  /// \param text  what `what()` returns.
  /// \throws std::bad_alloc  there was not enough memory for the text either.
  explicit no_memory(std::string text);
  no_memory(const no_memory&) noexcept = default;
  no_memory& operator=(const no_memory&) noexcept = default;
  ~no_memory() override;

  [[nodiscard]] const char* what() const noexcept override;

 private:
  std::shared_ptr<const std::string> text_;
};

/// A name or handle of something that no longer exists, or that never was what it claims to be.
class SHAREDMEM_API stale_handle : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  stale_handle(const stale_handle&) noexcept = default;
  stale_handle& operator=(const stale_handle&) noexcept = default;
  ~stale_handle() override;
};

/// Shared bytes that are invalid: in an arena's header or table; the text names it.
class SHAREDMEM_API corrupted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  corrupted(const corrupted&) noexcept = default;
  corrupted& operator=(const corrupted&) noexcept = default;
  ~corrupted() override;
};

}  // namespace sharedmem
