/* The overflow slots: children that found no slot of their own share the bits of one of two such slots, which are
 * cleared when no child without a slot is left.  protocol.rst says it in prose; `run` verifies it.
 *
 * There is one block, which its parent holds until the end of a fork, so the bits are those of that block: a
 * clearer that works through many of them may be stopped before any.  The reading rules are those of block.pml:
 * one atomic{} or one plain statement on a shared variable is one atomic machine operation, death may come between
 * any two. A process that is stopped for long is one that takes no step for a while.
 *
 * Processes: 0 has a slot and forks; the CHILDREN that follow are forked without a slot, by 0 or by each other, and
 * may leave the overflow; the CLEARERS have a slot each and look for what can be cleared.
 */
#ifndef CHILDREN
#define CHILDREN 2
#endif
#ifndef CLEARERS
#define CLEARERS 1
#endif
#ifndef D
#define D 1                           /* deaths */
#endif
#ifndef PASSES
#define PASSES 1                      /* passes of a clearer at any moment; when all is quiet it makes more */
#endif
#define N          (1 + CHILDREN + CLEARERS)
#define NOBODY     31

/* ------------------------------------------------------------------ shared memory */
/* header.overflow, one word: for each overflow slot, whether a child may have its bits, and whether its bits are
 * being cleared, during which no child gets them */
bit  used[2], clearing[2];
byte ctl[2];                          /* of the overflow slots: VOID = NOBODY, or REPAIR(clearer) */
bit  shared[2];                       /* their bits on the block */
/* own slots, each process in one that has its number */
#define VOID     0
#define ACTIVE   1
#define RESERVED 2
byte slot[N];
bit  forking[N];
bit  own[N];                          /* its bit on the block */

/* ------------------------------------------------------------------ the world outside */
#define UNBORN 0
#define RUNS   1                      /* and counts in the census */
#define DEAD   2
byte phase[N];
byte ndead;

/* ------------------------------------------------------------------ ghost */
byte in[N];                           /* the overflow slot whose bit holds the block for p; NOBODY: p needs none */

inline no_child_without_slot() {      /* ok = "surely none" */
  ok = 1; i = 0;
  do :: atomic { i < N -> if :: slot[i] == ACTIVE -> set = set | (1 << i) :: else fi; i++ }
     :: atomic { i == N -> i = 0; break } od;
  count();                                                  /* shmctl(IPC_STAT), after reading the slots */
  do :: atomic { i < N && (set & (1 << i)) ->               /* alive and the arena mapped */
          if :: phase[i] == RUNS && n > 0 -> n-- :: else -> ok = 0 fi; i++ }
     :: atomic { i < N && !(set & (1 << i)) -> i++ }
     :: atomic { i == N -> if :: n > 0 -> ok = 0 :: else fi; i = 0; n = 0; set = 0; break } od
}
inline count() {
  atomic { n = 0; do :: i < N -> if :: phase[i] == RUNS -> n++ :: else fi; i++ :: i == N -> i = 0; break od }
}

/* ------------------------------------------------------------------ fork */
/* Who has no slot shows up in the census instead of `forking`. */
inline fork_child(c) {
  if :: slot[me] == ACTIVE -> forking[me] = 1 :: else fi;
#ifdef BUG_TAKE_OVER_FROM_THE_LIVING
  atomic { clearing[0] = 0; used[0] = 1; k = 0 };           /* "it does not get on with it" */
#else
  atomic { k = (clearing[0] -> 1 : 0); used[k] = 1 };
#endif
#ifdef BUG_WITHOUT_CLAIMS
  if :: clearing[0] :: else -> shared[k] = 1 fi;
#else
  shared[k] = 1;
#endif
  if
  :: atomic { phase[c] == UNBORN -> phase[c] = RUNS; in[c] = k; assert(shared[k]) }
  :: skip                                                   /* fork fails */
  fi;
  if :: forking[me] -> forking[me] = 0 :: else fi;
  k = 0
}

/* ------------------------------------------------------------------ a child gets a slot of its own */
inline leave_overflow() {
#ifdef BUG_ACTIVE_BEFORE_ITS_BITS
  slot[me] = ACTIVE;
#else
  slot[me] = RESERVED;
#endif
  atomic { assert(shared[in[me]]); own[me] = 1 };           /* hold() finds the block alive */
  atomic { slot[me] = ACTIVE; in[me] = NOBODY }
}

/* ------------------------------------------------------------------ clearing */
#define GONE(x) (x != NOBODY && phase[x] == DEAD)
#ifdef BUG_SLOT_STAYS_WITH_THE_DEAD
#define MAY_CLEAR(x) (used[x] && ctl[x] == NOBODY)
#else
#define MAY_CLEAR(x) (used[x] && (ctl[x] == NOBODY || GONE(ctl[x])))
#endif
#if CHILDREN > 1
#define QUIET2 && WITH_SLOT(2)
#else
#define QUIET2
#endif
#define WITH_SLOT(p) (phase[p] != RUNS || slot[p] == ACTIVE)
#define QUIET        (WITH_SLOT(1) QUIET2 && !(phase[0] == RUNS && forking[0]))

inline repair_the_dead() {            /* block.pml has it step by step; own slots only */
  do :: atomic { i < N -> if :: phase[i] == DEAD && slot[i] == ACTIVE -> own[i] = 0; slot[i] = VOID :: else fi; i++ }
     :: atomic { i == N -> i = 0; break } od
}
inline clear_overflow() {
  if
  :: atomic { MAY_CLEAR(x) -> ctl[x] = me };
#ifndef NO_FIRST_LOOK
     no_child_without_slot();
#else
     ok = 1;
#endif
     if
#ifdef BUG_BOTH_AT_A_TIME
     :: atomic { ok -> clearing[x] = 1 }
#else
     :: atomic { ok && !clearing[1 - x] -> clearing[x] = 1 }
     :: atomic { ok && clearing[1 - x] -> ok = 0 }
#endif
     :: !ok
     fi;
     if
     :: ok ->
#ifndef BUG_FORKS_NOT_LOOKED_AT
        do :: atomic { i < N -> if :: slot[i] != VOID && forking[i] -> busy = 1 :: else fi; i++ }
           :: atomic { i == N -> i = 0; break } od;
#endif
        if
        :: !busy ->
#ifndef BUG_ONE_LOOK
           no_child_without_slot()
#endif
        :: busy -> atomic { busy = 0; ok = 0 }
        fi;
        if
        :: ok ->
#ifdef BUG_TAKE_OVER_FROM_THE_LIVING
           if :: clearing[x] -> clear_bits() :: else fi;    /* looking once more does not help */
#else
           clear_bits();
#endif
#ifdef BUG_FORGETS_THE_OTHER
           atomic { used[0] = 0; used[1] = 0; clearing[x] = 0 }
#else
           atomic { used[x] = 0; clearing[x] = 0 }
#endif
        :: !ok -> clearing[x] = 0
        fi
     :: !ok
     fi;
     ok = 0;
     ctl[x] = NOBODY
  :: !MAY_CLEAR(x)
  fi
}
inline clear_bits() {
  atomic { shared[x] = 0;
           do :: i < N -> assert(!(phase[i] == RUNS && in[i] == x)); i++ :: i == N -> i = 0; break od }
}

/* ------------------------------------------------------------------ processes */
/* Whoever runs may die before its next step. */
proctype death() {
  byte p;
end_enough:
  do
  :: atomic { ndead < D -> ndead++; p = 0;
              do :: p < N - 1 -> p++ :: break od;
              if :: phase[p] == RUNS -> phase[p] = DEAD; in[p] = NOBODY :: else -> ndead-- fi }
  od
}

proctype parent(byte me) {
  byte k;
  { do
    :: phase[1] == UNBORN -> fork_child(1)
#if CHILDREN > 1
    :: phase[2] == UNBORN -> fork_child(2)
#endif
    :: break
    od;
end_parent: 0 } unless { atomic { phase[me] == DEAD -> k = 0 } }
}

proctype child(byte me) {
  byte k;
end_unborn: phase[me] == RUNS;
  {
#if CHILDREN > 1
    if :: me == 1 && phase[2] == UNBORN -> fork_child(2) :: skip fi;
#endif
    if :: leave_overflow() :: skip fi;
end_child: 0 } unless { atomic { phase[me] == DEAD -> k = 0 } }
}

proctype clearer(byte me) {
  byte i, n, x, passes;
  byte set;
  bit ok, busy;
  {
end_quiet:
    do
    :: atomic { passes < PASSES -> passes++; if :: x = 0 :: x = 1 fi }; repair_the_dead(); clear_overflow()
    :: atomic { QUIET && MAY_CLEAR(0) && !clearing[1] -> x = 0 }; repair_the_dead(); clear_overflow()
    :: atomic { QUIET && MAY_CLEAR(1) && !clearing[0] -> x = 1 }; repair_the_dead(); clear_overflow()
    od } unless { atomic { phase[me] == DEAD -> i = 0; n = 0; x = 0; passes = 0; set = 0; ok = 0; busy = 0 } }
}

/* When nothing more can happen: whatever could be cleared is. */
#if CLEARERS > 1
#define LAST_LIVES (phase[N-1] == RUNS || phase[N-2] == RUNS)
#else
#define LAST_LIVES (phase[N-1] == RUNS)
#endif
proctype monitor() {
end_busy:
  timeout;
  atomic {
    if
    :: LAST_LIVES && QUIET -> assert(!used[0] && !used[1] && !clearing[0] && !clearing[1]);
                              assert(!shared[0] && !shared[1]);
                              assert((ctl[0] == NOBODY || GONE(ctl[0])) && (ctl[1] == NOBODY || GONE(ctl[1])))
    :: else
    fi
  }
}

init {
  atomic {
    byte p;
    ctl[0] = NOBODY; ctl[1] = NOBODY;
    do :: p < N -> in[p] = NOBODY;
                   if :: p == 0 || p > CHILDREN -> phase[p] = RUNS; slot[p] = ACTIVE :: else fi; p++
       :: else -> break od;
    p = 0;
    run parent(0); run child(1);
#if CHILDREN > 1
    run child(2);
#endif
    run clearer(N - 1);
#if CLEARERS > 1
    run clearer(N - 2);
#endif
    run death(); run monitor()
  }
}
