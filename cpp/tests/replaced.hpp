/// \file
/// For tests that put functions in the place of the C library's.
#pragma once

#include <sys/types.h>

/// What the C library's declarations promise: those of glibc that no exception comes out of them, those of musl nothing.
#ifdef __THROW
#define AS_DECLARED __THROW
#else
#define AS_DECLARED
#endif
