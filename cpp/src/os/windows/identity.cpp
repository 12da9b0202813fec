/// Windows: identifies processes, and finds out whether they are alive.
#include "os/identity.hpp"

#include <cerrno>

#include "os/windows/system.hpp"

// RtlGenRandom of ntsecapi.h, by the name under which advapi32.dll exports it.
extern "C" BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);

namespace sharedmem {
namespace {

/// The time at which a process started, in units of 10 ms, modulo 2^34; 0 if the system does not tell.
std::uint64_t start_of(HANDLE process) noexcept {
  FILETIME created{}, ended{}, kernel{}, user{};
  if (!::GetProcessTimes(process, &created, &ended, &kernel, &user)) return 0;
  const std::uint64_t units =
      std::uint64_t{created.dwHighDateTime} << 32 | created.dwLowDateTime;  // of 100 ns
  const std::uint64_t start = units / 100'000 & start_mask;
  return start == 0 ? 1 : start;
}

std::uint64_t mix(std::uint64_t hash, const void* data, std::size_t bytes) noexcept {
  const auto* const at = static_cast<const unsigned char*>(data);
  for (std::size_t i = 0; i < bytes; ++i) hash = (hash ^ at[i]) * 0x100000001b3U;  // FNV-1a
  return hash;
}

/// Identifies the machine and the session: processes find each other's sections by name only within one session.
std::uint64_t compute_host_id() noexcept {
  wchar_t name[256] = {};
  DWORD length = 256;
  std::uint64_t hash = 0xcbf29ce484222325U;
  if (::GetComputerNameExW(ComputerNamePhysicalDnsHostname, name, &length))
    hash = mix(hash, name, length * sizeof *name);
  DWORD session = 0;
  ::ProcessIdToSessionId(::GetCurrentProcessId(), &session);
  hash = mix(hash, &session, sizeof session);
  return hash == 0 ? 1 : hash;
}

}  // namespace

std::uint32_t os::pid() noexcept { return ::GetCurrentProcessId(); }

process_id this_process() noexcept { return {.pid = os::pid(), .start = start_of(::GetCurrentProcess())}; }

// Always the same: there is no exec, so a process cannot become another program.
std::uint64_t this_program() noexcept { return 0; }

process_namespaces this_namespaces() noexcept { return {.pid = 1, .time = 1}; }  // there are no namespaces

liveness look_at(const process_id& who) noexcept {
  const os::kernel_handle process{
      ::OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION | SYNCHRONIZE, FALSE, who.pid)};
  // A process that has ended can still be opened while another process has a handle of it, so a successful OpenProcess
  // does not prove that it is alive.
  if (!process) return ::GetLastError() == ERROR_INVALID_PARAMETER ? liveness::dead : liveness::unknown;
  if (::WaitForSingleObject(process.get(), 0) == WAIT_OBJECT_0) return liveness::dead;
  const std::uint64_t start = start_of(process.get());
  if (who.start == 0 || start == 0) return liveness::unknown;
  return start == who.start ? liveness::alive : liveness::dead;
}

bool is_exiting(std::uint32_t) noexcept { return true; }  // unknown: assume it

bool maps_segment(std::uint32_t, const segment_name&, bool fallback) noexcept { return fallback; }

std::uint64_t host_id() noexcept {
  static const std::uint64_t id = compute_host_id();
  return id;
}

void random_bytes(void* out, std::size_t bytes) {
  if (!::SystemFunction036(out, static_cast<ULONG>(bytes)))
    throw error(EIO, "RtlGenRandom", os::bytes_text(bytes));
}

}  // namespace sharedmem
