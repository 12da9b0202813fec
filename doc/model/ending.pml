/* The orderly end: which of several processes that end leaves a process behind to keep the arena for a message
 * that no process has read.  protocol.rst has it in prose; `run` verifies it.  Reading rules as in block.pml.
 *
 * The kernel removes the arena with the last process that has it attached.  Who ends in order therefore keeps it
 * by a lingering process, unless another process is there that will decide later.  The decision:
 *     mark my slot ENDING;  a message is out, and no other is ACTIVE: leave a lingering process
 * A process that does not end after all (its exec failed) makes its slot ACTIVE again, and decides later.
 * A lingering process leaves as soon as it sees an ACTIVE process; that it leaves when its time is over is not
 * modelled.  Sizes are macros given by `run`; -DBUG_x switches one known mistake on.
 */
#ifndef N
#define N 2            /* processes */
#endif
#ifndef START
#define START N        /* of them there from the beginning; the others join at any time */
#endif
#ifndef D
#define D 1            /* how many may be killed */
#endif
#ifndef M
#define M 1            /* messages, one at a time */
#endif

#ifndef BACK
#define BACK 0         /* how often each goes on after it has decided */
#endif

#define VOID   0
#define ACTIVE 1
#define ENDING 2

byte ctl[N];                          /* the slots */
bool out;                             /* a message that no process has read */
byte attached;                        /* processes that have the arena: at 0 it is gone, and so is the message */

/* ghost */
byte deaths;
bool killed[N], gone[N];             /* died; ended in order */
byte sender, sent;                    /* of the message that is out; how many there were */
#define NONE  N
#define LATER (N+1)
byte relied[N];                       /* on which one a process relied when it left none behind; LATER: on the one that
                                       * sends something, since nothing was out; NONE: it left one behind */

/* The last one that goes may be one that counted on another, if that one was killed meanwhile; or if that one
 * counted on a third that was killed: among three processes no chain is longer. */
#define ON(x) (x >= N -> NONE : (relied[x] == LATER -> sender : relied[x]))
inline assert_kept(me) {
  r = ON(me); q = ON(r);
  assert(attached > 0 || !out || (r < N && killed[r]) || (q < N && killed[q]));
  r = 0; q = 0
}

#ifdef BUG_COUNTS_ON_WHO_ENDS
#define COUNTED || ctl[i] == ENDING
#else
#define COUNTED
#endif
/* Looks at all slots, one at a time: `other` is another one on which to rely, or N. */
inline look() {
  other = N; i = 0;
  do
  :: atomic { i < N && other == N ->
       if :: i != me && (ctl[i] == ACTIVE COUNTED) && !killed[i] -> other = i :: else fi;
       i++;
       if :: i == N || other < N -> i = 0; break :: else fi }
  od
}

proctype lingering(byte s) {
  byte i, other = N, r, q, me = N;      /* counts on the process that it was forked from, too, if that goes on */
  do
  :: look();
     if
     :: other < N ->                   /* a process came that will decide at its own end */
        atomic { if :: relied[s] == NONE -> relied[s] = other :: else fi; attached--; assert_kept(s) }
        break
     :: else -> skip
     fi
  :: atomic { !out -> if :: relied[s] == NONE -> relied[s] = LATER :: else fi; attached--; assert_kept(s) } break
  od
}

proctype participant(byte s) {
  byte i, other = N, r, q, me = s;
  bool lingers;
  byte back;
  if
  :: ctl[s] == VOID ->                  /* joins, if there still is an arena */
     if
     :: atomic { attached > 0 -> attached++; ctl[s] = ACTIVE }
     :: goto done
     fi
  :: else
  fi;
  {
lives:
    do                                  /* lives: one process sends, one loads */
    :: atomic { !out && sent < M -> out = true; sender = s; sent++ }
    :: out = false
    :: break
    od;
#ifndef BUG_LOOKS_BEFORE_IT_MARKS
    ctl[s] = ENDING;
#endif
    if
    :: !out -> other = LATER
    :: out -> look(); lingers = (other == N)
    fi;
#ifdef BUG_LOOKS_BEFORE_IT_MARKS
    ctl[s] = ENDING;
#endif
    if
    :: lingers -> atomic { attached++; run lingering(s) }
    :: !lingers -> relied[s] = other
    fi;
    if
    :: back < BACK -> atomic { back++; lingers = false; other = N; relied[s] = NONE; ctl[s] = ACTIVE }
       goto lives
    :: skip
    fi;
    atomic { other = 0; lingers = false; attached--; gone[s] = true; assert_kept(s) }  /* the slot stays ENDING until it is repaired */
  } unless { killed[s] };
done:
  atomic { i = 0; other = 0; lingers = false; back = 0; r = 0; q = 0 }        /* private memory is gone */
}

proctype killer() {
  byte p;
end:
  do
  :: atomic {
       deaths < D ->
       if :: p = 0 :: p = 1 :: p = N - 1 fi;
       if
       :: ctl[p] != VOID && !gone[p] && !killed[p] -> deaths++; killed[p] = true; attached--
       :: else
       fi;
       p = 0
     }
  od
}

init {
  byte i;
  atomic {
    do
    :: i < N ->
       relied[i] = N;
       if :: i < START -> ctl[i] = ACTIVE; attached++ :: else fi;
       i++
    :: else -> break
    od;
    i = 0;
    do :: i < N -> run participant(i); i++ :: else -> break od;
    run killer()
  }
}
