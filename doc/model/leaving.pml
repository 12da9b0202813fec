/* Arenas of names in one process: threads use the one that was asked for last without a lock, while another thread
 * asks for another arena, so that this one is left when nothing is held in it (cpp/src/kept.hpp, registry.cpp).
 * One entry of the list of arenas. Private memory: threads, no deaths.
 *
 *   CALLERS   threads that look for the arena, take a reference or not, and drop it: twice each
 *   ASKS      how often a thread asks for another arena
 *
 * Asserted: a call uses the arena only while it is attached and visible, so that addresses in it are found; a
 * reference keeps it; at the end it is left unless it was requested last, and no count remains. */

#ifndef CALLERS
#define CALLERS 2
#endif
#ifndef ASKS
#define ASKS 2
#endif

bool names_at = 1;    /* whether this entry is the one that was asked for last */
bool attached = 1;
bool visible = 1;
byte users = 0;
byte held = 0;        /* references: taken and dropped under locks of their own */
bool some_hidden = 0;
bool lock = 0;
byte life = 0;        /* how often the arena was left, and attached again */

inline acquire_lock() { atomic { !lock -> lock = 1 } }

/* Lock held. Pins of reports and readers of addresses are left out: they keep an arena for longer. */
inline hide_idle() {
  if
  :: !attached -> skip
  :: else ->
     if
     :: names_at -> skip
     :: else ->
#ifndef BUG_USERS_DO_NOT_KEEP
        if
        :: users != 0 -> skip
        :: else ->
#endif
           if
           :: held != 0 -> skip
           :: else -> visible = 0; some_hidden = 1
           fi
#ifndef BUG_USERS_DO_NOT_KEEP
        fi
#endif
     fi
  fi
}

/* Lock held. */
inline leave_hidden() {
  some_hidden = 0;
  if
  :: attached && !visible ->
     if
     :: held == 0 -> attached = 0; life++
     :: else -> visible = 1
     fi
  :: else -> skip
  fi
}

/* registry_lock's end. */
inline let_go() {
  lock = 0;
  do
  :: !some_hidden -> break
  :: else ->
     if
     :: atomic { !lock -> lock = 1 }; leave_hidden(); lock = 0
     :: lock -> break
     fi
  od
}

inline end_use() {
  d_step { users--; was_last = (users == 0) };
  if
  :: !was_last -> skip
  :: else ->
#ifndef BUG_NOBODY_LEAVES
     if
     :: names_at -> skip
     :: else -> acquire_lock(); hide_idle(); let_go()
     fi
#else
     skip
#endif
  fi
}

/* While it is used: what find_name does, and the caller that gets its block. */
inline use_it() {
  assert(attached && visible);
  seen = life;
  if
  :: held++; took = 1
  :: skip
  fi;
  assert(attached && visible && seen == life)
}

proctype caller() {
  bool took = 0, was_last, counted;
  byte round = 0, seen;
  do
  :: round == 2 -> break
  :: else ->
     round++;
     counted = 0;
     /* try_last */
     if
     :: !names_at -> skip
     :: else ->
        users++;
#ifndef BUG_NO_SECOND_LOOK
        if
        :: names_at -> counted = 1
        :: else -> end_use()
        fi
#else
        counted = 1
#endif
     fi;
     if
     :: counted -> skip
     :: else ->
        acquire_lock();
        if
        :: attached -> skip
        :: else -> attached = 1
        fi;
        users++;
        visible = 1;
        names_at = 1;
        let_go()
     fi;
     use_it();
     end_use();
     if
     :: took ->
        assert(attached && visible && seen == life);   /* arena_of finds it */
        held--;
        took = 0;
        acquire_lock(); hide_idle(); let_go()           /* release */
     :: else -> skip
     fi
  od
}

proctype other() {
  byte n = 0;
  do
  :: n == ASKS -> break
  :: else ->
     n++;
     acquire_lock();
#ifdef BUG_COUNT_READ_FIRST
     if
     :: users == 0 && held == 0 && attached -> names_at = 0; visible = 0; some_hidden = 1
     :: else -> names_at = 0
     fi;
#else
     names_at = 0;
     hide_idle();
#endif
     let_go()
  od
}

init {
  byte i;
  atomic {
    for (i : 1 .. CALLERS) { run caller() }
    run other()
  }
  (_nr_pr == 1);
  assert(users == 0 && held == 0 && !lock);
  assert(names_at || !attached)
}
