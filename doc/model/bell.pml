/* The bells of queues (cpp/src/queue_layout.hpp): receivers sleep until the word changes, and a sender makes the system
 * call that wakes one only where one is expected to sleep. (Where the system does not count whom it wakes, it stays so.)
 *
 * With the lock, a receiver that found no message and the word unchanged says that it is about to sleep; a sender
 * changes the word, and reads who was the last to say so. Without the lock, the sender wakes one. If it wakes none, it
 * takes back what it has read: no sleeper is expected any more, unless another one has announced itself since.
 *
 * Checked: without a death, no message is left while all receivers sleep.
 *
 * -DPUTS=n  messages, each by a sender of its own   -DRECEIVERS=n
 * -DBUG_x: a mistake that must be found.
 */
#ifndef PUTS
#define PUTS 3
#endif
#ifndef RECEIVERS
#define RECEIVERS 1
#endif
#define NOBODY 255

byte lock = NOBODY;
byte messages = 0;
byte word = 0;
byte sleepers = 0;                  /* 0: none; else the number of the last one that was expected */
byte expected = 0;                  /* how many were, so far */
bool asleep[RECEIVERS];
byte put = 0;                       /* senders that have ended */

inline take_lock(who) { atomic { lock == NOBODY -> lock = who } }
inline drop_lock() { lock = NOBODY }

proctype sender(byte me) {
  byte seen;
  bool woken = false;
  take_lock(me);
  messages++;
  word++;
  seen = sleepers;
  drop_lock();
  if
  :: seen != 0 ->
     atomic {
       if
       :: asleep[0] -> asleep[0] = false; woken = true
#if RECEIVERS > 1
       :: asleep[1] -> asleep[1] = false; woken = true
#endif
       :: else
       fi
     }
#ifdef BUG_RESET_BLINDLY
     if :: !woken -> sleepers = 0 :: else fi
#else
     atomic { if :: !woken && sleepers == seen -> sleepers = 0 :: else fi }
#endif
  :: else
  fi;
  put++
}

proctype receiver(byte me) {
  byte seen, next;
  do
  :: take_lock(PUTS + me);
     if
     :: messages > 0 -> messages--; drop_lock()
     :: else ->
        seen = word;
        drop_lock();
        take_lock(PUTS + me);
        if :: word != seen -> drop_lock(); goto again :: else fi;
#ifdef BUG_COUNT_FROM_SLEEPERS
        next = sleepers + 1;        /* begins at 1 again when a process has set it to 0 */
        sleepers = next;
#else
        expected++;
        sleepers = expected;
#endif
        drop_lock();
#ifdef BUG_SLEEP_BLINDLY
        asleep[me] = true;
#else
        atomic { if :: word == seen -> asleep[me] = true :: else fi };
#endif
end_asleep:
        !asleep[me]
     fi;
again: skip
  od
}

active proctype all() {
  byte i = 0;
  atomic {
    do :: i < PUTS -> run sender(i); i++ :: else -> break od;
    i = 0;
    do :: i < RECEIVERS -> run receiver(i); i++ :: else -> break od
  }
  timeout -> assert(put == PUTS && messages == 0)
}
