/* Queues (cpp/src/queue.cpp): senders and receivers that are killed at any step, and what the next owner of the lock
 * settles.
 *
 * A message has a lease. While it is pickled its sender stands for it (OUT by the sender); the queue keeps it from
 * before the commit of `put` (KEPT) until after the commit of `get` (OUT by the receiver); the process that loads it makes it
 * VACANT. A lease of a dead process is given back by its repair at any later time. A kept one is not: only the queue's
 * own repair, and the receiver, end that.
 *
 * The lock is a robust mutex: the kernel frees it when its owner dies. What the owner was doing stands in `doing`,
 * `from` and `to`. The state (head, tail) is one record; its commit is a single store, here one step.
 *
 * The ring is replaced by SWAPS: the new ring is kept before the commit, the old one is given back after it.
 *
 * Checked: a message that was put and not taken is kept; what was taken was put, once, in order, and its lease is out by
 * its receiver; when all have ended and the queue is empty no lease of a message is left; there is one ring, and it is
 * kept; no process waits for a dead owner.
 *
 * -DMESSAGES=n  by each sender   -DDEATHS=n   -DSENDERS=n -DRECEIVERS=n  -DSWAPS=n
 * -DBUG_x: a mistake that must be found.
 */
#ifndef MESSAGES
#define MESSAGES 2
#endif
#ifndef SENDERS
#define SENDERS 2
#endif
#ifndef RECEIVERS
#define RECEIVERS 2
#endif
#ifndef DEATHS
#define DEATHS 2
#endif
#ifndef SWAPS
#define SWAPS 0
#endif
#if SWAPS > 0
#define USERS (SENDERS + RECEIVERS + 1)
#else
#define USERS (SENDERS + RECEIVERS)
#endif
#define ALL (MESSAGES * SENDERS)    /* messages; also places of the ring, which is never full here */
#define NOBODY 255
#define RINGS 4

/* Of a lease: VACANT, OUT by a process, KEPT by the queue. */
#define VACANT 0
#define OUT 1
#define KEPT 2

byte lock = NOBODY;                 /* who has it */
byte doing = 0, from, to;           /* what the owner notes: 0 nothing, 1 putting, 2 taking, 3 replacing */
byte head = 0, tail = 0;            /* the valid state */
byte place[ALL + 1];                /* which message lies there */
byte lease[ALL];
byte by[ALL];                       /* who stands for an OUT lease */
byte made = 0;                      /* messages so far */
byte ring = 0, new_ring, old_ring, rings = 1;
byte ring_lease[RINGS];
byte ring_by[RINGS];
bool dead[USERS];
byte taken[ALL];                    /* how often its receiver had it */
byte last = 0;                      /* commits of `get` so far */
byte deaths = 0, ended = 0;

/* A step of a process, after which it may be killed: the kernel frees its lock. */
inline may_die() {
  if
  :: true
  :: atomic { deaths < DEATHS -> deaths++; dead[me] = true;
       if :: lock == me -> lock = NOBODY :: else fi;
       goto gone }
  fi
}

/* What the new owner finds. Each step may be the last one of this owner, too: then the next one begins again. */
inline settle() {
  if
  :: doing == 1 ->
#ifndef BUG_NO_SETTLE_PUT
    if
    :: tail == from ->              /* not committed */
       if :: lease[place[from]] == KEPT -> lease[place[from]] = VACANT :: else fi
    :: else
    fi;
#endif
    may_die()
  :: doing == 2 ->
#ifndef BUG_NO_SETTLE_GET
    if
#ifdef BUG_SETTLE_UNCOMMITTED_GET
    :: true ->
#else
    :: head == to ->                /* committed: the message went with its receiver */
#endif
       if :: lease[place[from]] == KEPT -> lease[place[from]] = VACANT :: else fi
    :: else
    fi;
#endif
    may_die()
  :: doing == 3 ->
#ifndef BUG_NO_SETTLE_RING
    if
    :: ring == new_ring -> if :: ring_lease[old_ring] == KEPT -> ring_lease[old_ring] = VACANT :: else fi
    :: else -> if :: ring_lease[new_ring] == KEPT -> ring_lease[new_ring] = VACANT :: else fi
    fi;
#endif
    may_die()
  :: else
  fi;
  doing = 0
}

inline take_lock() {
  atomic { lock == NOBODY -> lock = me };
  may_die();
  settle();
  may_die()
}

inline drop_lock() {
  lock = NOBODY;
  may_die()
}

proctype sender(byte me) {
  byte n = 0, m;
  do
  :: n < MESSAGES ->
    atomic { m = made; made++; lease[m] = OUT; by[m] = me };      /* pickled */
    may_die();
    take_lock();
    place[tail] = m;                /* the record, beyond the tail: no process sees it */
    may_die();
#ifndef BUG_NOT_NOTED_PUT
    from = tail; may_die();
    to = tail + 1; may_die();
    doing = 1; may_die();
#endif
#ifdef BUG_COMMIT_BEFORE_KEEP
    tail = tail + 1; may_die();
    if :: lease[m] == OUT -> lease[m] = KEPT :: else fi; may_die();
#else
#ifdef BUG_NEVER_KEPT
    may_die();
#else
    if :: lease[m] == OUT -> lease[m] = KEPT :: else fi; may_die();
#endif
    tail = tail + 1;                /* the commit */
    may_die();
#endif
    doing = 0; may_die();
    drop_lock();
    n++
  :: else -> break
  od;
gone: ended++
}

proctype receiver(byte me) {
  byte m;
  do
  :: take_lock();
     if
     :: head == tail -> drop_lock(); break
     :: else
     fi;
     m = place[head];
     may_die();
#ifndef BUG_NOT_NOTED_GET
     from = head; may_die();
     to = head + 1; may_die();
     doing = 2; may_die();
#endif
#ifdef BUG_TAKE_BEFORE_COMMIT
     if :: lease[m] == KEPT -> lease[m] = OUT; by[m] = me :: else fi; may_die();
     head = head + 1; may_die();
#else
     head = head + 1;               /* the commit */
     may_die();
     if :: atomic { lease[m] == KEPT -> lease[m] = OUT; by[m] = me } :: else fi;
     may_die();
#endif
     doing = 0; may_die();
     drop_lock();
     /* loaded: what it was put with is there, and no other process has it */
     assert(lease[m] == OUT && by[m] == me);
     taken[m]++;
     assert(taken[m] == 1);
     lease[m] = VACANT
  od;
gone: ended++
}

#if SWAPS > 0
proctype replacer(byte me) {
  byte n = 0, r;
  do
  :: n < SWAPS ->
    atomic { r = rings; rings++; ring_lease[r] = OUT; ring_by[r] = me };
    may_die();
    take_lock();
    new_ring = r; may_die();
    old_ring = ring; may_die();
    doing = 3; may_die();
#ifdef BUG_RING_COMMIT_BEFORE_KEEP
    ring = r; may_die();
    if :: ring_lease[r] == OUT -> ring_lease[r] = KEPT :: else fi; may_die();
#else
    if :: ring_lease[r] == OUT -> ring_lease[r] = KEPT :: else fi; may_die();
#ifdef BUG_OLD_RING_FIRST
    ring_lease[old_ring] = VACANT; may_die();
#endif
    ring = r;                       /* the commit */
    may_die();
#endif
    ring_lease[old_ring] = VACANT; may_die();
    doing = 0; may_die();
    drop_lock();
    n++
  :: else -> break
  od;
gone: ended++
}
#endif

/* The arena's repair: leases of the dead go back, at any time. */
proctype repair() {
  byte i;
end_repair:
  do
  :: atomic { lease[0] == OUT && dead[by[0]] -> lease[0] = VACANT }
#if ALL > 1
  :: atomic { lease[1] == OUT && dead[by[1]] -> lease[1] = VACANT }
#endif
#if ALL > 2
  :: atomic { lease[2] == OUT && dead[by[2]] -> lease[2] = VACANT }
#endif
#if ALL > 3
  :: atomic { lease[3] == OUT && dead[by[3]] -> lease[3] = VACANT }
#endif
  :: atomic { ring_lease[1] == OUT && dead[ring_by[1]] -> ring_lease[1] = VACANT }
  :: atomic { ring_lease[2] == OUT && dead[ring_by[2]] -> ring_lease[2] = VACANT }
  :: atomic { ended == USERS -> break }
  od
}

/* In the end one more user, which is not killed, takes what is left. */
active proctype last_user() {
  byte i;
  atomic {
    ring_lease[0] = KEPT;
    run repair();
    i = 0;
    do
    :: i < SENDERS -> run sender(i); i++
    :: i < SENDERS + RECEIVERS && i >= SENDERS -> run receiver(i); i++
    :: else -> break
    od;
#if SWAPS > 0
    run replacer(SENDERS + RECEIVERS);
#endif
  }
  ended == USERS;                   /* an invalid end state here: a process waits for ever */
  assert(lock == NOBODY);
  atomic {
    if
    :: doing == 1 && tail == from && lease[place[from]] == KEPT -> lease[place[from]] = VACANT
    :: doing == 2 && head == to && lease[place[from]] == KEPT -> lease[place[from]] = VACANT
    :: doing == 3 && ring == new_ring -> ring_lease[old_ring] = VACANT
    :: doing == 3 && ring != new_ring && ring_lease[new_ring] == KEPT -> ring_lease[new_ring] = VACANT
    :: else
    fi;
    do
    :: head < tail -> assert(lease[place[head]] == KEPT && taken[place[head]] == 0);
       lease[place[head]] = VACANT; head++
    :: else -> break
    od;
    i = 0;
    do
    :: i < ALL -> assert(lease[i] != KEPT); i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < RINGS -> assert((ring_lease[i] == KEPT) == (i == ring)); i++
    :: else -> break
    od
  }
}
