/// \file
/// Windows: what spawned.hpp declares. Included by it alone.
#pragma once

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>

#include <exception>

namespace roles {

/// No word here has a quotation mark or a backslash in it.
inline spawned::spawned(std::vector<std::string> words) {
  SECURITY_ATTRIBUTES inherited{};
  inherited.nLength = sizeof inherited;
  inherited.bInheritHandle = TRUE;
  HANDLE to[2], from[2];
  if (!::CreatePipe(&to[0], &to[1], &inherited, 0) || !::CreatePipe(&from[0], &from[1], &inherited, 0))
    std::terminate();
  ::SetHandleInformation(to[1], HANDLE_FLAG_INHERIT, 0);
  ::SetHandleInformation(from[0], HANDLE_FLAG_INHERIT, 0);
  std::string line = "role";
  for (const std::string& word : words) line += " \"" + word + "\"";
  char program[MAX_PATH];
  ::GetModuleFileNameA(nullptr, program, MAX_PATH);
  STARTUPINFOA how{};
  how.cb = sizeof how;
  how.dwFlags = STARTF_USESTDHANDLES;
  how.hStdInput = to[0];
  how.hStdOutput = from[1];
  how.hStdError = ::GetStdHandle(STD_ERROR_HANDLE);
  PROCESS_INFORMATION made{};
  if (!::CreateProcessA(program, line.data(), nullptr, nullptr, TRUE, 0, nullptr, nullptr, &how, &made))
    std::terminate();
  ::CloseHandle(made.hThread);
  ::CloseHandle(to[0]);
  ::CloseHandle(from[1]);
  process_ = made.hProcess;
  pid_ = made.dwProcessId;
  to_ = to[1];
  from_ = from[0];
}

inline std::uint32_t spawned::pid() const { return pid_; }

namespace detail {
inline bool read_all(HANDLE from, void* to, std::size_t count) {
  for (std::size_t at = 0; at < count;) {
    DWORD done = 0;
    if (!::ReadFile(from, static_cast<char*>(to) + at, static_cast<DWORD>(count - at), &done, nullptr) ||
        done == 0)
      return false;
    at += done;
  }
  return true;
}
inline bool write_all(HANDLE to, const void* from, std::size_t count) {
  DWORD done = 0;
  return ::WriteFile(to, from, static_cast<DWORD>(count), &done, nullptr) && done == count;
}
}  // namespace detail

inline bool spawned::read(void* to, std::size_t count) { return detail::read_all(from_, to, count); }
inline bool spawned::write(const void* from, std::size_t count) {
  return detail::write_all(to_, from, count);
}

inline void spawned::close_input() {
  if (to_ != nullptr) ::CloseHandle(to_);
  to_ = nullptr;
}

inline int spawned::wait() {
  close_input();
  if (process_ == nullptr) return status_;
  DWORD status = 0;
  ::WaitForSingleObject(process_, INFINITE);
  ::GetExitCodeProcess(process_, &status);
  ::CloseHandle(process_);
  ::CloseHandle(from_);
  process_ = nullptr;
  status_ = static_cast<int>(status);
  return status_;
}

inline void spawned::kill() {
  if (process_ != nullptr) ::TerminateProcess(process_, static_cast<UINT>(-9));
  wait();
}

inline bool write_output(const void* from, std::size_t count) {
  return detail::write_all(::GetStdHandle(STD_OUTPUT_HANDLE), from, count);
}
inline bool read_input(void* to, std::size_t count) {
  return detail::read_all(::GetStdHandle(STD_INPUT_HANDLE), to, count);
}

/// Without this a debugger is started, or a window waits for somebody to close it.
inline void crash_quietly() {
  ::SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX);
  ::SetUnhandledExceptionFilter([](EXCEPTION_POINTERS* what) -> LONG {
    ::TerminateProcess(::GetCurrentProcess(), what->ExceptionRecord->ExceptionCode);
    return EXCEPTION_EXECUTE_HANDLER;
  });
}

}  // namespace roles
