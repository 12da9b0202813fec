/// \file
/// What differs between systems when the library is compiled. They are constants, so that what a system does not
/// need is not in its programs:
///
/// `segment_kinds`       the kinds that this system has, for new arenas: the best first.
/// `usual_kind`          what a handle means that says nothing of the kind: the same in all builds for a system, so that
///                       programs of different builds understand each other.
/// `memory_is_promised`  memory of a segment must be promised by `segment::commit` before it is touched. Where this is
///                       false, touching it is enough.
/// `discarded_is_zero`   what `punch` gave back reads as 0. Else its bytes are unspecified until they are written.
/// `has_fork`            processes can be forked.
/// `wakes_are_counted`   `wake` returns how many threads it woke; else always 0.
/// `keys_can_be_let_go`  a segment's key can be free before the segment goes (`segment::let_key_go`).
#pragma once

#if defined(_WIN32)
#include "os/windows/traits.hpp"
#else
#include "os/linux/traits.hpp"
#endif
