/* The life cycle of blocks in the shared arena: allocate, hold, lend, load, release, free, die, repair,
 * join, leave, fork.  protocol.rst says it in prose; `run` verifies it.
 *
 * Reading rules
 *   - One atomic{} or one plain statement on a shared variable = one atomic machine operation.
 *     A load followed by a CAS that is retried until it succeeds is written as one step: a failed
 *     CAS changes nothing.  A CAS whose failure makes the process give up is written as a choice.
 *   - Locals of a participant = its private memory, lost when it dies.
 *   - Variables under "ghost" do not exist in the program: assertions use them.
 *   - Death may come between any two steps of anybody (`unless` around the body of participant()).
 *   - The threads of one process take turns under a private lock, so a process is one participant.
 *   - SPIN interleaves sequentially consistent steps: see "Memory orders" in protocol.rst.
 * Sizes and features are macros given by `run` (-DN=3 ...); -DBUG_x switches one known mistake on.
 */
#ifndef N
#define N 3            /* processes */
#endif
#ifndef S
#define S N            /* slots = bits of a holders mask, each in a word of its own: the hardest case */
#endif
#ifndef B
#define B 1            /* blocks */
#endif
#ifndef E
#define E 1            /* entries of the lease table */
#endif
#ifndef G
#define G 1            /* lives (generations) a block may have */
#endif
#ifndef NS
#define NS 1           /* handles pickled in all */
#endif
#ifndef NR
#define NR 0           /* times the bytes of a handle are loaded once more */
#endif
#ifndef PEEKS
#define PEEKS 0           /* times a handle is loaded without consuming its lease, as it is with frames of a `Latest` */
#endif
#ifndef D
#define D 1            /* deaths */
#endif
#ifndef START
#define START N        /* processes 0..START-1 are in the arena at the start; the rest join, or are forked */
#endif
#ifndef OWNER
#define OWNER 0        /* the process that owns the chunk at the start */
#endif
#ifdef FORK
#define CHILD      (N-1)   /* the process that participant 0 forks; its slot will be 0 */
#define SLOT0(p)   ((p)+1)
#else
#define CHILD      N
#define SLOT0(p)   (p)
#endif
#define NOBODY 31

/* ------------------------------------------------------------------ shared memory */
/* life[b], one word: state, freer's slot, generation */
#define FREE    0
#define LIVE    1
#define FREEING 2
#define EMPTYING 3                    /* freed, new generation; the slot named gives its pages back first */
byte st[B], fr[B], gen[B];
bit  hold[B*S];                       /* holders[b], bit s */
bit  hint[B];                         /* lease_groups[b]: some lease in this group may name b */
byte owner[B];                        /* owner slot of the chunk that b lies in; NOBODY = orphan */
#define HOLD(b,s)  hold[(b)*S+(s)]

/* lease table; one word per entry: state, actor's slot, nonce.  A second word: block and generation */
#define VACANT  0
#define FILLING 1
#define OUT     2
#define LOADING 3
byte lst[E], lac[E], lno[E];
byte lbl[E], lge[E];

/* ctl[s], one word: state and actor (pid, start time, pid namespace: unique for ever) */
#define VOID     0
#define ACTIVE   1
#define RESERVED 2                    /* for a child about to be forked by the actor */
#define REPAIR   3                    /* the actor gives back what the slot's process held */
byte cst[S], cac[S];

/* ------------------------------------------------------------------ the world outside */
#define UNBORN  0
#define RUNS    1
#define EXITING 2                     /* takes no more steps, still attached (PF_EXITING) */
#define DEAD    3                     /* known to be dead: gone or zombie */
byte phase[N];
bit  att[N];                          /* the kernel's count of attaches: shm_nattch = sum of att */
byte ndead;
chan pipe = [NS+NR+1] of { byte, byte, byte, byte };   /* block, generation, lease entry, nonce */
byte fslot, fpar;                     /* what a forked child finds in its copy of the parent's memory */

/* ------------------------------------------------------------------ ghost */
byte ref[N*B];                        /* generation to which p has a local reference to b, 0 = none */
#define REF(p,b)   ref[(p)*B+(b)]
#ifdef VIEWS                          /* a message has two handles of its block; B is 1 */
byte kept[N*B];                       /* the same of the keeper, which p's unpickler refers to */
#define KEPT(p,b)  kept[(p)*B+(b)]
#define HELD(p,b)  (REF(p,b) + KEPT(p,b))
#else
#define HELD(p,b)  REF(p,b)
#endif
byte nsend, nrep, nfork, npeek;
bit  spent[NS+1];                     /* lease of nonce n was consumed or has expired */
bit  inhand[NS+1];                    /* handle n was read from the pipe, its load has not begun */

/* ------------------------------------------------------------------ freeing */
/* Is anything claiming b?  First every word of holders, THEN the leases. */
inline scan_holders() {
  i = 0;
  do
  :: atomic { i < S && !claim -> if :: HOLD(b,i) -> claim = 1 :: else fi; i++ }
  :: atomic { i == S || claim -> i = 0; break }
  od
}
inline scan_leases() {
  if
  :: atomic { hint[b] && !claim -> i = 0 };
     do
     :: atomic { i < E && !claim && (lst[i] == OUT || lst[i] == LOADING) -> skip };   /* the word ... */
        atomic { if :: lbl[i] == b && lge[i] == gen[b] -> claim = 1 :: else fi; i++ } /* ... what it names */
     :: atomic { i < E && !claim && lst[i] != OUT && lst[i] != LOADING -> i++ }
     :: atomic { i == E || claim -> i = 0; break }
     od
  :: else
  fi
}
#ifdef BUG_LEASES_BEFORE_HOLDERS
#define SCAN() scan_leases(); scan_holders()
#else
#define SCAN() scan_holders(); scan_leases()
#endif

inline assert_unused() {              /* ghost: no process has a reference to b */
  k = 0;
  do :: k < N -> assert(HELD(k,b) == 0); k++ :: else -> k = 0; break od
}
inline assert_free_is_right() {       /* ghost: about to free (b, g) */
  assert_unused();                                                      /* no use after free */
  do :: k < E -> assert(!((lst[k] == OUT || lst[k] == LOADING) && lbl[k] == b && lge[k] == g)); k++
     :: else -> break od;                                               /* no array lost in flight */
  k = 0
}

/* FREEING carries the slot of the process that wrote it; otherwise its last CAS could hit the same word of
 * another. A repairer may sign with the slot that it repairs: it alone works on that one, and so a process
 * without a slot can repair (SIGN_REPAIRED: all do).
 */
#ifdef BUG_SHARED_SIGNATURE
#define SIGNED(x) 0
#else
#define SIGNED(x) (x)
#endif
#ifdef SIGN_REPAIRED
#define REPAIRER d
#else
#define REPAIRER s
#endif

/* Any process may call this for any block at any time; one that removes a claim must. Never waits. */
inline try_free(signer) {
  claim = 0;
#ifndef NO_PRECHECK
  SCAN();                                                   /* cheap look: usually others hold it */
#endif
  if
  :: atomic { claim -> claim = 0 }
  :: atomic { !claim && (st[b] == FREE || st[b] == EMPTYING) -> skip }
#ifdef BUG_LEAVE_TO_OTHER_FREER
  :: atomic { !claim && st[b] == FREEING -> skip }          /* "another process is freeing it already" */
  :: atomic { !claim && st[b] == LIVE -> st[b] = FREEING; fr[b] = SIGNED(signer); g = gen[b] };
#else
  :: atomic { !claim && (st[b] == LIVE || st[b] == FREEING) ->                      /* also takes over */
              st[b] = FREEING; fr[b] = SIGNED(signer); g = gen[b] };
#endif
     SCAN();
     if
     :: atomic { claim -> claim = 0;
          if :: st[b] == FREEING && fr[b] == SIGNED(signer) && gen[b] == g -> st[b] = LIVE; fr[b] = 0
             :: else fi; g = 0 }
     :: atomic { !claim ->               /* CAS FREEING(s,g) -> FREE(g+1), or EMPTYING(s,g+1) if large */
          if :: st[b] == FREEING && fr[b] == SIGNED(signer) && gen[b] == g ->
                assert_free_is_right(); gen[b] = g + 1;
                if :: st[b] = FREE; fr[b] = 0
#ifdef BUG_EMPTIED_AFTER_FREE
                   :: st[b] = FREE; fr[b] = 0; k = 1
#else
                   :: st[b] = EMPTYING; fr[b] = signer; k = 1
#endif
                fi
             :: else                                        /* rescued, or taken over: theirs now */
          fi; g = 0 };
        if
        :: atomic { k == 1 -> assert_unused();              /* madvise(MADV_REMOVE), then -> FREE */
                    st[b] = FREE; fr[b] = 0; k = 0 }
        :: else
        fi
     fi
  fi
}

/* After setting a bit of holders[b]: is b (still) alive in generation g?  ok = answer.
 * FREEING is no obstacle: the CAS back to LIVE makes the freer's last CAS fail. Never waits. */
inline confirm(who) {
  atomic {
    if
    :: gen[b] == g && st[b] == LIVE                       -> ok = 1
#ifdef BUG_NO_RESCUE
    :: gen[b] == g && st[b] == FREEING                    -> ok = 1
#else
    :: gen[b] == g && st[b] == FREEING -> st[b] = LIVE; fr[b] = 0; ok = 1
#endif
    :: else                                               -> ok = 0
    fi;
    if :: ok -> REF(who,b) = g :: else fi
  }
}

/* ------------------------------------------------------------------ repair of slot d, claimed by me */
inline repair_slot() {
#ifdef BUG_SLOT_FREED_FIRST
  atomic { cst[d] = VOID; cac[d] = 0 };
#endif
  b = 0;
  do :: atomic { b < B -> HOLD(b,d) = 0; b++ } :: atomic { b == B -> b = 0; break } od;
  do :: atomic { b < B -> if :: st[b] == EMPTYING && fr[b] == d -> st[b] = FREE; fr[b] = 0 :: else fi; b++ }
     :: atomic { b == B -> b = 0; break } od;
  do :: atomic { b < B -> if :: owner[b] == d -> owner[b] = NOBODY :: else fi; b++ }
     :: atomic { b == B -> b = 0; break } od;
  e = 0;
  do :: atomic { e < E ->
          if :: (lst[e] == FILLING || lst[e] == LOADING) && lac[e] == d -> lst[e] = VACANT; lac[e] = 0
             :: lst[e] == OUT && lac[e] == d -> lac[e] = NOBODY         /* its deadline starts now */
             :: else fi; e++ }
     :: atomic { e == E -> e = 0; break } od;
#ifndef BUG_REPAIR_WITHOUT_SWEEP
  do :: b < B -> try_free(REPAIRER); b++
     :: atomic { b == B -> b = 0; break } od;
#endif
#ifndef BUG_SLOT_FREED_FIRST
  atomic { if :: cst[d] == REPAIR && cac[d] == me -> cst[d] = VOID; cac[d] = 0 :: else fi };
#endif
  d = 0
}

#define NATTCH (att[0]+att[1] NA2 NA3)
#if N > 2
#define NA2 +att[2]
#else
#define NA2
#endif
#if N > 3
#define NA3 +att[3]
#else
#define NA3
#endif

/* Is there a process with the arena mapped that has no slot yet (a child between fork and adoption)?
 * The kernel knows: compare shm_nattch with the participants that are alive.  ok = "surely none". */
inline no_unadopted_child() {
  ok = 1; i = 0;
#ifdef BUG_RESERVED_NOT_GUARDED
  skip
#else
#ifdef BUG_NATTCH_READ_FIRST
  k = NATTCH;
#endif
  do :: atomic { i < S -> if :: cst[i] == ACTIVE -> set = set | (1 << cac[i]) :: else fi; i++ }
     :: atomic { i == S -> i = 0; break } od;
#ifndef BUG_NATTCH_READ_FIRST
  k = NATTCH;                                               /* shmctl(IPC_STAT), after reading the slots */
#endif
  do :: atomic { i < N && (set & (1 << i)) ->               /* kill(pid,0), start time, not exiting: after it */
          if :: phase[i] == RUNS && k > 0 -> k-- :: else -> ok = 0 fi; i++ }
     :: atomic { i < N && !(set & (1 << i)) -> i++ }
     :: atomic { i == N -> if :: k > 0 -> ok = 0 :: else fi; i = 0; k = 0; set = 0; break } od
#endif
}
/* A pass repairs dead slots first, then looks at reservations: worth a try when every ACTIVE one runs. */
#define LOOKS_QUIET (NATTCH == (0 AC0 AC1 AC2 AC3))
#define ACT(i) (cst[i] == ACTIVE -> (phase[cac[i]] == RUNS -> 1 : 20) : 0)
#define AC0 + ACT(0)
#define AC1 + ACT(1)
#if S > 2
#define AC2 + ACT(2)
#else
#define AC2
#endif
#if S > 3
#define AC3 + ACT(3)
#else
#define AC3
#endif

#ifdef BUG_SWEEP_TRUSTS_FREE
#define owner_free(x)  (owner[x] == s && st[x] == FREE && gen[x] <= G)
#else
#define owner_free(x)  (owner[x] == s && st[x] == FREE && gen[x] <= G && HELD(me,x) == 0)
#endif
/* A block that was never shared may be allocated and dropped for ever; where cycles are searched for, PRIV bounds it. */
#ifdef PRIV
byte npriv;
#define MAY_DROP   (npriv < PRIV)
#define DROPPED    npriv++
#else
#define MAY_DROP   1
#define DROPPED    skip
#endif
/* first share: my private block becomes LIVE */
inline publish() {
  if
  :: st[b] == FREE -> HOLD(b,s) = 1; hint[b] = 0;
       atomic { assert(st[b] == FREE && owner[b] == s && gen[b] == REF(me,b)); st[b] = LIVE }
  :: else
  fi
}
#if B > 1
#define HOLDS_NOTHING(p) (REF(p,0) == 0 && REF(p,1) == 0)
#else
#define HOLDS_NOTHING(p) (HELD(p,0) == 0)
#endif

#ifdef BUG_LEAVE_WHILE_HOLDING
#define LEAVE_OK(p) 1
#else
#define LEAVE_OK(p) HOLDS_NOTHING(p)
#endif
#define LOST(a)  (phase[a] == DEAD)
#define DEADSLOT(x)  ((cst[x] == ACTIVE || cst[x] == REPAIR) && LOST(cac[x]))
#ifdef BUG_TWO_REPAIRERS
#undef DEADSLOT
#define DEADSLOT(x)  ((cst[x] == ACTIVE && LOST(cac[x])) || (cst[x] == REPAIR && cac[x] != me))
#endif

proctype participant(byte me) {
  byte s = NOBODY;             /* my slot */
  byte b, g, e, n, i, k, d;
  byte set, mine = NOBODY;     /* mine: slot I reserved for a child, fork() has returned */
  bit  claim, ok, got;
#ifdef VIEWS
  byte vg, ve, vn;             /* the view's handle while its message is loaded; generation 0: no message is */
#define BETWEEN_HANDLES (vg != 0)
#define KEEPS(x) KEPT(me,x)
#else
#define BETWEEN_HANDLES 0
#define KEEPS(x) 0
#endif
  {
    /* ---------------- come in */
    if
    :: me < START -> s = SLOT0(me)
#ifdef FORK
    :: me == CHILD ->
end_unborn:
       atomic { phase[me] == RUNS -> s = fslot };
       atomic { assert(cst[s] == RESERVED && cac[s] == fpar);           /* no process took our slot away */
                cst[s] = ACTIVE; cac[s] = me }
#endif
#ifdef JOIN
    :: me >= START && me != CHILD ->
       /* shmat by id: the kernel says no once the last process has gone -> "stale handle" */
       atomic { if :: NATTCH > 0 -> att[me] = 1 :: else -> goto gone fi };
end_join:
       if
       :: atomic { cst[0] == VOID -> s = 0; cst[s] = ACTIVE; cac[s] = me }
       :: atomic { cst[1] == VOID -> s = 1; cst[s] = ACTIVE; cac[s] = me }
#if S > 2
       :: atomic { cst[2] == VOID -> s = 2; cst[s] = ACTIVE; cac[s] = me }
#endif
#if S > 3
       :: atomic { cst[3] == VOID -> s = 3; cst[s] = ACTIVE; cac[s] = me }
#endif
       fi
#endif
    fi;

end_idle:
    do
    /* ---------------- allocate: owner only, from its private list of FREE blocks */
    :: atomic { owner_free(0) -> b = 0 } -> goto do_allocate
#if B > 1
    :: atomic { owner_free(1) -> b = 1 } -> goto do_allocate
#endif
    :: atomic { owner[0] == NOBODY -> owner[0] = s }                    /* adopt an orphan chunk: CAS */
#if B > 1
    :: atomic { owner[1] == NOBODY -> owner[1] = s }
#endif
    /* ---------------- pickle: take a lease, then write the handle into the pipe */
    :: atomic { nsend < NS && REF(me,0) -> b = 0; nsend++; n = nsend } -> goto do_send
#if B > 1
    :: atomic { nsend < NS && REF(me,1) -> b = 1; nsend++; n = nsend } -> goto do_send
#endif
    /* ---------------- drop the last local reference */
    :: atomic { REF(me,0) && st[0] == FREE && MAY_DROP -> REF(me,0) = 0; DROPPED }   /* private: no shared word */
    :: atomic { REF(me,0) && st[0] != FREE && !KEEPS(0) -> b = 0; REF(me,0) = 0; HOLD(0,s) = 0 } -> goto do_try_free
#ifdef GIVEBACK
    :: atomic { owner[0] == s && st[0] == FREE && REF(me,0) == 0 -> owner[0] = NOBODY }
#endif
#if B > 1
    :: atomic { REF(me,1) && st[1] == FREE && MAY_DROP -> REF(me,1) = 0; DROPPED }   /* private: no shared word */
    :: atomic { REF(me,1) && st[1] != FREE -> b = 1; REF(me,1) = 0; HOLD(1,s) = 0 } -> goto do_try_free
#ifdef GIVEBACK
    :: atomic { owner[1] == s && st[1] == FREE && REF(me,1) == 0 -> owner[1] = NOBODY }
#endif
#endif
#ifdef VIEWS
    /* ---------------- between the handles of a message: other threads drop what they have; then the view is
     * loaded, or an exception ends the load before that */
    :: atomic { REF(me,0) && KEEPS(0) -> REF(me,0) = 0 }                /* private: the count falls from 2 to 1 */
    :: atomic { BETWEEN_HANDLES -> b = 0; g = vg } -> goto do_load_view
    :: atomic { BETWEEN_HANDLES -> vg = 0; ve = 0; vn = 0; b = 0 } -> goto do_drop_keeper
#ifdef BUG_KEEPER_DROPPED
    :: atomic { BETWEEN_HANDLES && KEEPS(0) -> b = 0 } -> goto do_drop_keeper
#endif
#endif
    /* ---------------- load a handle, perhaps keeping its bytes to load them again */
#ifdef VIEWS
    :: atomic { !BETWEEN_HANDLES && len(pipe) > 0 -> pipe?b,g,e,n; inhand[n] = 1;
                if :: nrep < NR -> nrep++; pipe!b,g,e,n :: skip fi } -> goto do_load
#else
    :: atomic { pipe?b,g,e,n -> inhand[n] = 1; if :: nrep < NR -> nrep++; pipe!b,g,e,n :: skip fi } -> goto do_load
#endif
#if PEEKS > 0
    /* ---------------- load a handle that stays where it is, with its lease; the sender gives that back */
    :: atomic { npeek < PEEKS && len(pipe) > 0 -> pipe?<b,g,e,n>; npeek++ } -> goto do_peek
    :: atomic { lst[0] == OUT && lac[0] == s -> spent[lno[0]] = 1; b = lbl[0]; lst[0] = VACANT; lac[0] = 0 } ->
#ifdef BUG_GIVE_BACK_WITHOUT_TRY_FREE
       b = 0
#else
       goto do_try_free
#endif
#endif
    /* ---------------- repair a dead participant's slot: one repairer at a time */
    :: atomic { DEADSLOT(0) -> d = 0; cst[d] = REPAIR; cac[d] = me } -> goto do_repair
    :: atomic { DEADSLOT(1) -> d = 1; cst[d] = REPAIR; cac[d] = me } -> goto do_repair
#if S > 2
    :: atomic { DEADSLOT(2) -> d = 2; cst[d] = REPAIR; cac[d] = me } -> goto do_repair
#endif
#if S > 3
    :: atomic { DEADSLOT(3) -> d = 3; cst[d] = REPAIR; cac[d] = me } -> goto do_repair
#endif
    /* ---------------- expire a lease whose sender is dead and whose deadline has passed */
    :: atomic { lst[0] == OUT && lac[0] == NOBODY -> spent[lno[0]] = 1; b = lbl[0];
                lst[0] = VACANT; lac[0] = 0 } -> goto do_try_free
#if E > 1
    :: atomic { lst[1] == OUT && lac[1] == NOBODY -> spent[lno[1]] = 1; b = lbl[1];
                lst[1] = VACANT; lac[1] = 0 } -> goto do_try_free
#endif
#ifdef LEAVE
    /* ---------------- leave = repair one's own slot, then exit */
    :: atomic { LEAVE_OK(me) && cst[s] == ACTIVE -> d = s; cst[s] = REPAIR; cac[s] = me } ->
       repair_slot();
       atomic { att[me] = 0; phase[me] = DEAD }; goto gone
#endif
#ifdef FORK
    /* ---------------- fork: prepare, fork, parent goes on */
    :: atomic { me == 0 && nfork == 0 && !HOLDS_NOTHING(me) && cst[0] == VOID ->
                nfork = 1; d = 0; cst[0] = RESERVED; cac[0] = me } -> goto do_fork
    /* a reservation that no child will ever adopt: fork failed, or the child died first, or the parent */
    :: atomic { cst[0] == RESERVED && (LOST(cac[0]) || (cac[0] == me && mine == 0)) &&
                (LOOKS_QUIET || n == 0) -> n = 1; d = 0 } ->
       g = cac[0];
       no_unadopted_child();
       if
       :: atomic { ok && cst[0] == RESERVED && cac[0] == g -> cst[0] = REPAIR; cac[0] = me; g = 0; ok = 0; d = 0 } ->
          goto do_repair
       :: atomic { else -> g = 0; ok = 0 }
       fi
#endif
    od;

do_allocate:
    atomic { assert(st[b] == FREE); assert_unused(); REF(me,b) = gen[b]; b = 0 };
    goto end_idle;

do_send:
    publish();
    /* CAS VACANT -> FILLING(s, new nonce); a full table raises in the sender (the model: no-op) */
    if
    :: atomic { lst[0] == VACANT -> e = 0; lst[0] = FILLING; lac[0] = s; lno[0] = n }
#if E > 1
    :: atomic { lst[0] != VACANT && lst[1] == VACANT ->
                e = 1; lst[1] = FILLING; lac[1] = s; lno[1] = n }
#endif
    :: atomic { else -> b = 0; n = 0; goto end_idle }
    fi;
    atomic { lbl[e] = b; lge[e] = REF(me,b) };
    hint[b] = 1;                                            /* before OUT */
    lst[e] = OUT;
    atomic { pipe!b,REF(me,b),e,n; b = 0; e = 0; n = 0 };
    goto end_idle;

do_load:
#ifdef BUG_LEASE_UNTIL_THE_END
    atomic { inhand[n] = 0; ve = e; vn = n };
#else
#ifdef BUG_LEASE_CONSUMED_FIRST
    atomic { if :: lst[e] == OUT && lno[e] == n -> lst[e] = VACANT; lac[e] = 0; spent[n] = 1; got = 1
                :: else -> got = 0; assert(spent[n]) fi };
#else
    /* CAS OUT(*, n) -> LOADING(s, n): I am the one who consumes the lease, should I die, too */
    atomic { if
#ifdef BUG_NO_NONCE
             :: lst[e] == OUT -> spent[n] = 1; lst[e] = LOADING; lac[e] = s; got = 1
#else
             :: lst[e] == OUT && lno[e] == n -> spent[n] = 1; lst[e] = LOADING; lac[e] = s; got = 1
#endif
             :: else -> got = 0; assert(spent[n]) fi;       /* no unspent lease was lost */
             inhand[n] = 0 };
#endif
#endif
    if
    :: atomic { REF(me,b) -> ok = (REF(me,b) == g) }        /* I hold it: private count only */
    :: else ->
#ifdef BUG_CHECK_BEFORE_BIT
       atomic { ok = (gen[b] == g && st[b] != FREE) };
       atomic { if :: ok -> HOLD(b,s) = 1; REF(me,b) = g :: else fi };
#else
       HOLD(b,s) = 1;
       confirm(me);
       if :: atomic { !ok -> HOLD(b,s) = 0; assert(!got); g = 0; e = 0; n = 0 };   /* stale handle: back out ... */
#ifdef BUG_BACK_OUT_WITHOUT_TRY_FREE
             goto end_idle
#else
             goto do_try_free                               /* ... and it was a claim: another process may have seen it */
#endif
          :: else
       fi
#endif
    fi;
    assert(ok || !got);                                     /* a leased handle is never stale */
#ifndef BUG_LEASE_CONSUMED_FIRST
    atomic { if :: got -> assert(lst[e] == LOADING && lac[e] == s); lst[e] = VACANT; lac[e] = 0 :: else fi };
#endif
#ifdef VIEWS
    atomic { if :: ok && KEPT(me,b) == 0 -> KEPT(me,b) = g; vg = g
                :: else fi };
#endif
    atomic { ok = 0; got = 0; b = 0; g = 0; e = 0; n = 0 };
    goto end_idle;

#if PEEKS > 0
do_peek:                                                    /* the lease may be out, or given back at any moment */
    if
    :: atomic { REF(me,b) -> ok = (REF(me,b) == g) }
    :: else ->
#ifdef BUG_PEEK_CHECKS_FIRST
       atomic { ok = (gen[b] == g && st[b] != FREE) };
       atomic { if :: ok -> HOLD(b,s) = 1; REF(me,b) = g :: else fi };
#else
       HOLD(b,s) = 1;
       confirm(me);
       if :: atomic { !ok -> HOLD(b,s) = 0; assert(spent[n]); g = 0; e = 0; n = 0 };  /* a newer one is there */
#ifdef BUG_PEEK_BACKS_OUT_WITHOUT_TRY_FREE
             atomic { b = 0; goto end_idle }
#else
             goto do_try_free
#endif
          :: else
       fi
#endif
    fi;
    assert(ok || spent[n]);                                 /* never stale while its lease is out */
    atomic { ok = 0; b = 0; g = 0; e = 0; n = 0 };
    goto end_idle;
#endif

#ifdef VIEWS
do_load_view:                                               /* its handle has no lease: the keeper is all it needs */
    if
    :: atomic { HELD(me,b) -> ok = (REF(me,b) == g || KEPT(me,b) == g) }
    :: else -> HOLD(b,s) = 1; confirm(me)
    fi;
    assert(ok);                                             /* never stale */
#ifdef BUG_LEASE_UNTIL_THE_END
    atomic { if :: lst[ve] == OUT && lno[ve] == vn -> lst[ve] = VACANT; lac[ve] = 0; spent[vn] = 1 :: else fi };
#endif
    atomic { REF(me,b) = g; KEPT(me,b) = 0; vg = 0; ve = 0; vn = 0; ok = 0; b = 0; g = 0 };
    goto end_idle;

do_drop_keeper:
    atomic { if :: KEPT(me,b) && REF(me,b) == 0 -> KEPT(me,b) = 0; HOLD(b,s) = 0
                :: else -> KEPT(me,b) = 0; b = 0; goto end_idle fi };
    goto do_try_free;
#endif

do_try_free:
    try_free(s);
    atomic { b = 0; g = 0 };
    goto end_idle;

do_repair:
    repair_slot();
    goto end_idle;

#ifdef FORK
do_fork:
    do                                                       /* pthread_atfork: prepare */
    :: b < B ->
       if
       :: REF(me,b) ->
#ifndef BUG_FORK_WITHOUT_PUBLISH
          publish();
#endif
          HOLD(b,d) = 1; g = REF(me,b);
#ifndef BUG_FORK_WITHOUT_CONFIRM
#ifdef BUG_FORK_WITHOUT_PUBLISH
          if :: st[b] != FREE -> confirm(me); assert(ok); ok = 0 :: else fi;
#else
          confirm(me); assert(ok); ok = 0;
#endif
#endif
          g = 0
       :: else
       fi; b++
    :: atomic { b == B -> b = 0; break }
    od;
    atomic {                                                 /* fork() */
      if
      :: phase[CHILD] = RUNS; att[CHILD] = 1; fslot = d; fpar = me;
         do :: b < B -> REF(CHILD,b) = REF(me,b); b++ :: b == B -> b = 0; break od
      :: skip                                                /* failed: EAGAIN, ENOMEM */
      fi;
      mine = d; d = 0 };
    goto end_idle;
#endif
gone: skip
  } unless { atomic { phase[me] >= EXITING ->               /* killed: private memory is gone */
      s = 0; b = 0; g = 0; e = 0; n = 0; i = 0; k = 0; d = 0; set = 0; mine = 0; claim = 0; ok = 0; got = 0 } }
}

/* ------------------------------------------------------------------ death, and the end */
#define CAN_DIE(x) (ndead < D && phase[x] == RUNS)
#ifdef VIEWS
#define NOT_KEPT(p,b) KEPT(p,b) = 0
#else
#define NOT_KEPT(p,b) skip
#endif
#define KILL  ndead++; phase[p] = EXITING; j = 0; \
              do :: j < B -> REF(p,j) = 0; NOT_KEPT(p,j); j++ :: else -> j = 0; break od; NOW
#ifdef FORK                                                  /* exit in steps: others may look in between */
#define NOW   skip
#define LATER ; att[p] = 0; atomic { phase[p] = DEAD; p = 0 }
#else
#define NOW   att[p] = 0; phase[p] = DEAD; p = 0
#define LATER
#endif
proctype killer() {
  byte p, j;
  do
  :: break
  :: atomic { CAN_DIE(0) -> p = 0; KILL }
     LATER
  :: atomic { CAN_DIE(1) -> p = 1; KILL }
     LATER
#if N > 2
  :: atomic { CAN_DIE(2) -> p = 2; KILL }
     LATER
#endif
#if N > 3
  :: atomic { CAN_DIE(3) -> p = 3; KILL }
     LATER
#endif
  od
}

/* Nobody can do anything any more: references dropped, handles loaded, the dead repaired, leases expired.
 * If a participant is left, every block must be FREE, unless its lease is out, sent by a process that
 * lives, and the handle died with a receiver that had read it from the pipe but not begun its load. */
proctype judge() {
  byte j, k; bit alive, excused;
end_judge:
  atomic { timeout ->
    do :: j < S -> if :: cst[j] == ACTIVE && phase[cac[j]] == RUNS -> alive = 1 :: else fi; j++
       :: else -> break od; j = 0;
    if
    :: alive ->
       do :: j < S -> assert(cst[j] == VOID || (cst[j] == ACTIVE && phase[cac[j]] == RUNS)); j++
          :: else -> break od; j = 0;
       do :: j < E -> assert(lst[j] == VACANT || (lst[j] == OUT && lac[j] != NOBODY)); j++
          :: else -> break od; j = 0;
       do :: j < B -> excused = 0; k = 0;
             do :: k < E -> if :: lst[k] == OUT && lbl[k] == j && inhand[lno[k]] -> excused = 1 :: else fi; k++
                :: else -> break od;
             assert(st[j] == FREE || excused); j++          /* no leak */
          :: else -> break od
    :: else
    fi }
}

init {
  byte j;
  atomic {
    do :: j < B -> st[j] = FREE; gen[j] = 1; owner[j] = SLOT0(OWNER); j++ :: else -> break od; j = 0;
    do :: j < N ->
          if :: j < START -> phase[j] = RUNS; att[j] = 1; cst[SLOT0(j)] = ACTIVE; cac[SLOT0(j)] = j
#ifdef FORK
             :: j == CHILD -> phase[j] = UNBORN
             :: j >= START && j != CHILD -> phase[j] = RUNS
#else
             :: j >= START -> phase[j] = RUNS
#endif
          fi; run participant(j); j++
       :: else -> break
    od; j = 0;
    run killer(); run judge()
  }
}
