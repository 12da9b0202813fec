/* Messages that die with their reader: which process may give back the lease of one that will never be loaded.
 * `lease_table.hpp`, `channel.hpp` and `_ledger.pyx` and `_in_flight.pyx` are the code; `run` verifies this.
 *
 * One lease, that process 0 took and stands for. Process 1 reads connection 0, process 2 connection 1; 0 writes to
 * both, 1 passes on to 2. A connection is a pipe, whose unread bytes the kernel keeps for its writers, or
 * a socket, whose unread bytes go with the reading end. Process 2 may be one that reads without the library.
 * Bytes that were written may be kept by their writer until they have been read, and written again.
 *
 * Reading rules: as in block.pml.
 */
#ifndef PIPE
#define PIPE 1         /* connections are pipes; 0: sockets */
#endif
#ifndef FOREIGN
#define FOREIGN 0      /* process 2 reads without the library, which the arena says (fileno) */
#endif
#ifndef MOST
#define MOST 4         /* writes in all */
#endif
#define P 3

#define OUT 0
#define GIVEN_BACK 1
#define LOADED 2
byte lst, lac;                        /* lease word: state, and who stands for it */
bit  copied;                          /* lease bytes: the flag of several copies */
bit  alive[P] = 1;
byte from0[2], from1[2];              /* unread copies in a connection, by who wrote them */
bit  hand[P];                         /* has the bytes, and may load them or write them */
bit  kept[P];                         /* has written them, and may do so again until they are read */
bit  outside;                         /* a process got them by other means: a file, a socket, another library */
byte nwrite;
byte wrote[4];                        /* ledgers: copies that p = 0, 1 wrote to connection c and knows nothing of */
#define WROTE(p,c)   wrote[(p)*2+(c)]
#define READER(c)    ((c)+1)
#define ABANDONED(c) (!alive[READER(c)])
#define UNREAD(c)    (from0[c]+from1[c])
#define TELLS(p)     ((p) != 2 || !FOREIGN)
#define REACHES(c)   (ABANDONED(c) -> 0 : UNREAD(c))
#define SOMEBODY_HAS (hand[0] || hand[1] || hand[2] || kept[0] || kept[1] || outside || REACHES(0) || REACHES(1))

inline write(c) {                     /* the ledger, and who stands for it, before write(2) */
  atomic {
    nwrite++;
    if
#ifdef BUG_COPIES_NOT_NOTED
    :: lst == OUT -> WROTE(me,c)++; lac = me
#else
    :: lst == OUT && lac == me && WROTE(me,0) + WROTE(me,1) == 0 -> WROTE(me,c)++
    :: lst == OUT && (lac != me || WROTE(me,0) + WROTE(me,1) > 0) -> lac = me; copied = 1
#endif
    :: else
    fi
  };
  atomic {
    if
    :: !ABANDONED(c) && me == 0 -> from0[c]++
    :: !ABANDONED(c) && me == 1 -> from1[c]++
    :: else -> if :: WROTE(me,c) > 0 -> WROTE(me,c)-- :: else fi                       /* EPIPE */
    fi;
    hand[me] = 0; kept[me] = 1
  }
}

#ifdef BUG_READ_COUNTS_AS_LOST
#define TOLD(c) (1)
#else
#define TOLD(c) ((PIPE && (me == 0 -> from0[c] : from1[c]) >= WROTE(me,c)) || BY_LEASE(c))
#endif
#ifdef BUG_FOREIGN_READERS_TRUSTED
#define BY_LEASE(c) (lac == me)
#else
#define BY_LEASE(c) (TELLS(READER(c)) && lac == me)
#endif
#ifdef BUG_READER_NOT_LOOKED_AT
#define LOST(c) (WROTE(me,c) == 0 || TOLD(c))
#else
#define LOST(c) (WROTE(me,c) == 0 || (ABANDONED(c) && TOLD(c)))
#endif
#ifdef BUG_OWN_BYTES_FORGOTTEN
#define UNUSED 1
#else
#define UNUSED (!hand[me] && !kept[me])
#endif
#ifdef BUG_GIVES_BACK_ANOTHERS
#define MINE 1
#else
#define MINE (lac == me && !copied)
#endif

proctype process(byte me) {
  byte k;
  bit sure;
  {
end_idle:
    do
    :: (hand[me] || kept[me]) && nwrite < MOST && me == 0 -> write(0)
    :: (hand[me] || kept[me]) && nwrite < MOST && me < 2 -> write(1)
    :: atomic { kept[me] -> kept[me] = 0 }                                            /* dropped */
    :: atomic { hand[me] -> hand[me] = 0; outside = 1 }
    /* read(2); then a reader of the library takes the lease over; only then can anything be done with the bytes */
    :: atomic { me > 0 && UNREAD(me-1) > 0 ->
                if :: from0[me-1] > 0 -> from0[me-1]--; kept[0] = 0
                   :: from1[me-1] > 0 -> from1[me-1]--; kept[1] = 0 fi; k = 1 };
#ifndef BUG_NO_TAKE_OVER
       atomic { if :: TELLS(me) && lst == OUT -> lac = me :: else fi };
#endif
       atomic { hand[me] = 1; k = 0 }
    :: atomic { hand[me] -> hand[me] = 0;                                             /* load */
                if :: lst == OUT -> lst = LOADED :: else fi }
    /* a look at the ledger, then one compare-and-swap */
    :: atomic { me < 2 && lst == OUT && WROTE(me,0) + WROTE(me,1) > 0 && LOST(0) && LOST(1) && UNUSED ->
                sure = 1 };
       atomic { if :: lst == OUT && MINE -> lst = GIVEN_BACK; assert(!SOMEBODY_HAS); WROTE(me,0) = 0; WROTE(me,1) = 0
                   :: else fi; sure = 0 }
    /* the ledger forgets what was read: another process is responsible for it */
    :: atomic { me < 2 && WROTE(me,0) + WROTE(me,1) > 0 && lac != me -> WROTE(me,0) = 0; WROTE(me,1) = 0 }
    od
  } unless {
    atomic { !alive[me] -> hand[me] = 0; kept[me] = 0 }
  }
}

init {
  atomic { hand[0] = 1; run process(0); run process(1); run process(2) };
end_kills:
  do
  :: atomic { alive[1] -> alive[1] = 0; hand[1] = 0; kept[1] = 0 }
  :: atomic { alive[2] -> alive[2] = 0; hand[2] = 0 }
  od
}
