/* Names in an arena: find, claim, build, publish, attach, unlink, fail, die, repair.
 * protocol.rst says it in prose; run verifies it.
 *
 * Reading rules: those of block.pml. One atomic{} or one plain statement on a shared variable is one atomic
 * machine operation; locals are private memory; ghosts are for assertions; death comes between any two steps.
 *   - All processes ask for ONE name: other names only take entries away.
 *   - An entry's word is state:3, slot:14, nonce:47, and the nonce rises when the entry is vacated, so a
 *     compare-and-swap succeeds exactly if the word has not been written since it was read.  The model keeps no
 *     nonces but that: FRESH(p,i) = "the word of entry i is what p read last".
 *   - Arrays are those of block.pml: holding one that is alive succeeds, holding one that has been freed does not.
 * Sizes are macros given by run; -DBUG_x switches one known mistake on.
 */
#ifndef N
#define N 2            /* processes */
#endif
#ifndef E
#define E 2            /* entries of the table */
#endif
#ifndef NG
#define NG 3           /* calls of get_or_create, in all */
#endif
#ifndef NU
#define NU 0           /* calls of unlink, in all */
#endif
#ifndef D
#define D 1            /* deaths */
#endif
#define M (NG+1)       /* arrays 1..NG */

#define VACANT   0
#define FILLING  1     /* its owner writes name and hash; no other reads them */
#define CLAIMING 2     /* provisional: anybody with the same name may take it away */
#define BUILDING 3     /* only its owner builds */
#define READY    4     /* names array eob; stale once that is freed */
#define FAILED   5     /* the text of an exception, for those who waited */

/* ------------------------------------------------------------------ shared memory */
byte est[E], esl[E];   /* the word */
bit  enm[E];           /* the name's bytes are there; stay when the entry is vacated */
byte eob[E];           /* the array */
bit  fresh[N*E];
#define FRESH(p,i)  fresh[(p)*E+(i)]
byte wi[N];            /* private: the entry + 1 that p waits for, 0 none; here so that vacate() can see it */
bit  gone[N];          /* that entry was vacated since: its nonce is another */
bit  dead[N];          /* known to be dead */
bit  dying[N];
bit  ref[N*M];         /* a local reference, and its bit in holders: kept until a process repairs after a death */
#define REF(p,o)    ref[(p)*M+(o)]

/* ------------------------------------------------------------------ ghost */
byte ngoc, nun, ndead, nobj;

#if N == 2
#define ALIVE(o)  (REF(0,o) || REF(1,o))
#elif N == 3
#define ALIVE(o)  (REF(0,o) || REF(1,o) || REF(2,o))
#else
#define ALIVE(o)  (REF(0,o) || REF(1,o) || REF(2,o) || REF(3,o))
#endif

inline touch(x) {      /* the word of entry x is written: all copies are out of date */
  FRESH(0,x) = 0; FRESH(1,x) = 0
#if N > 2
  ; FRESH(2,x) = 0
#endif
#if N > 3
  ; FRESH(3,x) = 0
#endif
}
#define WENT(p,x)  if :: wi[p] == (x) + 1 -> gone[p] = 1 :: else fi
inline vacate(x) {
  est[x] = VACANT; esl[x] = 0; eob[x] = 0; touch(x);
  WENT(0,x); WENT(1,x)
#if N > 2
  ; WENT(2,x)
#endif
#if N > 3
  ; WENT(3,x)
#endif
}
#define FORGET  wi[me] = 0; gone[me] = 0; q = 0; do :: q < E -> FRESH(me,q) = 0; q++ :: else -> q = 0; break od
/* never two that are settled: being built, or bound to an array that is alive */
#define SETTLED(x)  (est[x] == BUILDING || (est[x] == READY && ALIVE(eob[x])))
inline assert_unique() {
  c = 0; q = 0;
  do :: q < E -> if :: SETTLED(q) -> c++ :: else fi; q++ :: else -> break od;
  assert(c <= 1); c = 0; q = 0
}

#ifdef BUG_NO_NONCE
#define CAS_OK(p,x,old)  (est[x] == old)
#else
#define CAS_OK(p,x,old)  FRESH(p,x)
#endif

proctype worker(byte me) {
  byte i, k, mine, st, o, c, q, d;
  bit ok;
  {
end_idle:
    do
    :: atomic { ngoc < NG -> ngoc++; i = 0 } -> goto find
    /* drop an array: holders bit cleared, block freed by the block protocol */
    :: atomic { nobj >= 1 && REF(me,1) -> REF(me,1) = 0 }
#if NG > 1
    :: atomic { nobj >= 2 && REF(me,2) -> REF(me,2) = 0 }
#endif
#if NG > 2
    :: atomic { nobj >= 3 && REF(me,3) -> REF(me,3) = 0 }
#endif
#if NG > 3
    :: atomic { nobj >= 4 && REF(me,4) -> REF(me,4) = 0 }
#endif
#if NU > 0
    :: atomic { nun < NU -> nun++; i = 0 } -> goto unlink
#endif
    :: atomic { dead[0] -> d = 0 } -> goto repair
    :: atomic { dead[1] -> d = 1 } -> goto repair
#if N > 2
    :: atomic { dead[2] -> d = 2 } -> goto repair
#endif
#if N > 3
    :: atomic { dead[3] -> d = 3 } -> goto repair
#endif
    od;

/* ---------------- find: read every word below the mark */
find:
    do
    :: atomic { i == E -> i = 0; break }                                 /* there is none: claim it */
    :: atomic { i < E ->
         st = est[i]; o = eob[i]; FRESH(me,i) = 1;
         if :: st >= CLAIMING && !enm[i] -> st = VACANT :: else fi };     /* another name, or bytes not there */
       if
       :: atomic { st == BUILDING -> if :: wi[me] == i + 1 && !gone[me] -> skip :: else -> wi[me] = i + 1; gone[me] = 0 fi; st = 0; o = 0 }; goto wait
       :: st == READY -> goto take
       :: st == FAILED ->
            if
            :: atomic { wi[me] == i + 1 && !gone[me] -> st = 0; i = 0; o = 0; FORGET }; goto end_idle  /* raises what the builder raised */
            :: atomic { else -> if :: CAS_OK(me,i,FAILED) -> vacate(i) :: else fi; i = 0; o = 0; st = 0 }
            fi
       :: atomic { else -> FRESH(me,i) = 0; st = 0; o = 0; i++ }
       fi
    od;
    goto claim;

/* ---------------- a process builds: sleep on the bell, check each 100 ms whether it is alive */
wait:
    if
    :: atomic { !FRESH(me,i) -> i = 0; st = 0; o = 0 }; goto find
    :: atomic { est[i] == BUILDING && dead[esl[i]] -> d = esl[i] };
#ifdef BUG_WAITERS_DO_NOT_REPAIR
       (!FRESH(me,i));
#endif
       goto repair_and_find
    fi;

/* ---------------- bound: hold the array, confirmed by its generation */
take:
    atomic { assert(o != 0); ok = ALIVE(o);
             if :: ok -> REF(me,o) = 1 :: else fi };
    if
    :: atomic { ok -> ok = 0; i = 0; o = 0; st = 0; FORGET }; goto end_idle
    :: atomic { else ->                                                   /* it went with its last holder */
         if :: CAS_OK(me,i,READY) -> assert(!ALIVE(eob[i])); vacate(i) :: else fi;
         i = 0; o = 0; st = 0 }; goto find
    fi;

/* ---------------- claim: set, then look at all others */
claim:
    if
    :: atomic { est[0] == VACANT -> mine = 0; est[0] = FILLING; esl[0] = me; touch(0) }
    :: atomic { est[0] != VACANT && est[1] == VACANT -> mine = 1; est[1] = FILLING; esl[1] = me; touch(1) }
#if E > 2
    :: atomic { est[0] != VACANT && est[1] != VACANT && est[2] == VACANT -> mine = 2; est[2] = FILLING; esl[2] = me; touch(2) }
#endif
#if E > 3
    :: atomic { est[0] != VACANT && est[1] != VACANT && est[2] != VACANT && est[3] == VACANT ->
                mine = 3; est[3] = FILLING; esl[3] = me; touch(3) }
#endif
    :: atomic { else -> FORGET }; goto end_idle                            /* the table is full: an error */
    fi;
#ifdef BUG_SCAN_BEFORE_SET
    goto scan;
set_after:
#endif
#ifdef BUG_NAME_LATE
    enm[mine] = 0;
#else
    enm[mine] = 1;
#endif
    atomic { assert(est[mine] == FILLING && esl[mine] == me); est[mine] = CLAIMING; touch(mine); FRESH(me,mine) = 1 };
#ifdef BUG_SCAN_BEFORE_SET
    goto promote;
scan:
#endif
    k = 0;
#ifndef BUG_NO_SCAN
    do
    :: atomic { k == E -> k = 0; break }
    :: atomic { k == mine -> k++ }
    :: atomic { k < E && k != mine -> st = est[k]; FRESH(me,k) = 1;
                if :: st >= CLAIMING && !enm[k] -> st = VACANT :: else fi };
       if
       :: st == CLAIMING ->
#ifdef BUG_IGNORE_LATER
          if
          :: k > mine -> k++; goto next                                   /* "my index is lower: I win" */
          :: else
          fi;
#endif
          if                                                              /* take it away, or back out: both are safe */
          :: atomic { if :: CAS_OK(me,k,CLAIMING) -> vacate(k) :: else fi; st = 0 }
          :: atomic { st = 0; if :: CAS_OK(me,mine,CLAIMING) -> vacate(mine) :: else fi; k = 0; mine = 0; i = 0 }; goto find
          fi
       :: st == BUILDING || st == READY || st == FAILED ->
#ifdef BUG_SCAN_BEFORE_SET
          atomic { vacate(mine); st = 0; k = 0; mine = 0; i = 0 }; goto find
#else
          atomic { if :: CAS_OK(me,mine,CLAIMING) -> vacate(mine) :: else fi; st = 0; k = 0; mine = 0; i = 0 }; goto find
#endif
       :: atomic { else -> FRESH(me,k) = 0; st = 0; k++ }
       fi;
next:  skip
    od;
#endif
#ifdef BUG_SCAN_BEFORE_SET
    goto set_after;
promote:
#endif
#ifdef BUG_NAME_LATE
    enm[mine] = 1;
#endif
#ifdef BUG_PROMOTE_BLIND
    atomic { est[mine] = BUILDING; esl[mine] = me; touch(mine); FRESH(me,mine) = 1; ok = 1; assert_unique() };
#else
    atomic { ok = CAS_OK(me,mine,CLAIMING);
             if :: ok -> est[mine] = BUILDING; touch(mine); FRESH(me,mine) = 1; assert_unique() :: else fi };
#endif
    if
    :: atomic { !ok -> mine = 0; i = 0 }; goto find                       /* taken away */
    :: atomic { else -> ok = 0 }
    fi;

/* ---------------- build: succeed, fail, or be interrupted */
    if
    :: true ->
#ifdef BUG_READY_FIRST
       atomic { est[mine] = READY; esl[mine] = 0; touch(mine); FRESH(me,mine) = 1 };
       atomic { nobj++; o = nobj; REF(me,o) = 1; eob[mine] = o };
#else
       atomic { nobj++; o = nobj; REF(me,o) = 1 };                         /* LIVE, and our bit is set */
       atomic { assert(est[mine] == BUILDING && esl[mine] == me); eob[mine] = o };   /* ours alone while BUILDING */
       atomic { assert(CAS_OK(me,mine,BUILDING));
                est[mine] = READY; esl[mine] = 0; touch(mine); assert_unique() };
#endif
       atomic { o = 0; mine = 0; FORGET }
    :: true -> atomic { assert(est[mine] == BUILDING && esl[mine] == me);            /* the text of the exception */
                        est[mine] = FAILED; esl[mine] = 0; touch(mine); mine = 0; FORGET }
    :: true -> atomic { assert(est[mine] == BUILDING && esl[mine] == me);            /* interrupted: KeyboardInterrupt */
                        vacate(mine); mine = 0; FORGET }
    fi;
    goto end_idle;

#if NU > 0
/* ---------------- unlink: what is bound or has failed; what is being built belongs to its builder */
#ifdef BUG_UNLINK_TAKES_BUILDING
#define UNLINKS BUILDING
#else
#define UNLINKS READY
#endif
unlink:
    do
    :: atomic { i == E -> i = 0; FORGET; break }
    :: atomic { i < E -> st = est[i]; FRESH(me,i) = 1;
                if :: st >= UNLINKS && enm[i] -> skip :: else -> st = 0 fi };
       if
       :: st != 0 -> atomic { if :: CAS_OK(me,i,st) -> vacate(i) :: else fi; st = 0; FRESH(me,i) = 0; i++ }
       :: atomic { else -> FRESH(me,i) = 0; i++ }
       fi
    od;
    goto end_idle;
#endif

/* ---------------- repair: part of repair(d) of the block protocol, before its slot becomes VOID */
repair_and_find:
    k = 0;
    do
    :: atomic { k == E -> k = 0; break }
    :: atomic { k < E ->
#ifdef BUG_REPAIR_LEAVES_BUILDING
                if :: (est[k] == FILLING || est[k] == CLAIMING) && esl[k] == d -> vacate(k) :: else fi;
#else
                if :: (est[k] == FILLING || est[k] == CLAIMING || est[k] == BUILDING) && esl[k] == d -> vacate(k) :: else fi;
#endif
                k++ }
    od;
    atomic { c = 1; do :: c < M -> REF(d,c) = 0; c++ :: else -> c = 0; break od; d = 0; i = 0 };
    goto find;
repair:
    k = 0;
    do
    :: atomic { k == E -> k = 0; break }
    :: atomic { k < E ->
#ifdef BUG_REPAIR_LEAVES_BUILDING
                if :: (est[k] == FILLING || est[k] == CLAIMING) && esl[k] == d -> vacate(k) :: else fi;
#else
                if :: (est[k] == FILLING || est[k] == CLAIMING || est[k] == BUILDING) && esl[k] == d -> vacate(k) :: else fi;
#endif
                k++ }
    od;
    atomic { c = 1; do :: c < M -> REF(d,c) = 0; c++ :: else -> c = 0; break od;
             dead[d] = 0; dying[d] = 1; d = 0 };
    goto end_idle
  } unless { atomic { dead[me] || dying[me] -> i = 0; k = 0; mine = 0; st = 0; o = 0; c = 0; q = 0; d = 0; ok = 0; FORGET } }
}

proctype killer() {
  do
  :: break
  :: atomic { ndead < D && !dead[0] && !dying[0] -> ndead++; dead[0] = 1 }
  :: atomic { ndead < D && !dead[1] && !dying[1] -> ndead++; dead[1] = 1 }
#if N > 2
  :: atomic { ndead < D && !dead[2] && !dying[2] -> ndead++; dead[2] = 1 }
#endif
#if N > 3
  :: atomic { ndead < D && !dead[3] && !dying[3] -> ndead++; dead[3] = 1 }
#endif
  od
}

init {
  atomic {
    run worker(0); run worker(1);
#if N > 2
    run worker(2);
#endif
#if N > 3
    run worker(3);
#endif
    run killer()
  }
}
