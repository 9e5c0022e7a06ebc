/*
 * Harts that run a model together; the interface is runtime/team.h. STROP_HARTS is how many, from the board's
 * description. A hart that waits sleeps until another wakes it, so waiting is no work.
 *
 * With STROP_TEAM_TURNS the harts run one after the other between two barriers. That changes no result and takes an
 * emulator, which has one CPU for all of them, no longer; but it lets each hart's instructions be counted, where the
 * core's counter is common to all. strop_team_hidden is then what must be taken from the counter for the time that the
 * slowest hart has taken.
 */
#include "port.h"
#include "team.h"

#if STROP_HARTS > 1
#include <stdatomic.h>

/* Stacks of all harts but the first, which has the program's own. A kernel takes 100 to 300 bytes. */
enum { STACK_WORDS = 256 }; /* startup_rv32.S knows it too */
_Alignas(16) uint32_t strop_team_stacks[STROP_HARTS - 1][STACK_WORDS];

_Noreturn void strop_team_join(int hart);

uint64_t strop_team_hidden;

static struct {
    int what;
    const void *x, *y;
    void *out;
} job;

#if STROP_TEAM_TURNS
static atomic_int turn; /* the hart that may run */
static uint64_t began, round_began, slowest;

static void wait_for_turn(int hart) {
    while (atomic_load(&turn) != hart) {
        strop_port_sleep(hart);
    }
    began = strop_port_counter_raw();
    if (hart == 0) {
        round_began = began;
    }
}

/* Ends a hart's turn; the last one's is the end of the round, of which all but the longest turn is hidden. */
static void end_turn(int hart) {
    const int next = (hart + 1) % STROP_HARTS;
    const uint64_t now = strop_port_counter_raw();
    slowest = now - began > slowest ? now - began : slowest;
    if (next == 0) {
        strop_team_hidden += now - round_began - slowest;
        slowest = 0;
    }
    atomic_store(&turn, next);
    strop_port_wake(next);
}

void strop_team_barrier(int hart) {
    end_turn(hart);
    wait_for_turn(hart);
}

#else
static atomic_uint round; /* barriers passed */
static atomic_int arrived;

void strop_team_barrier(int hart) {
    const unsigned mine = atomic_load(&round);
    if (atomic_fetch_add(&arrived, 1) + 1 < STROP_HARTS) {
        while (atomic_load(&round) == mine) {
            strop_port_sleep(hart);
        }
        return;
    }
    atomic_store(&arrived, 0);
    atomic_fetch_add(&round, 1);
    for (int other = 0; other < STROP_HARTS; other++) {
        if (other != hart) {
            strop_port_wake(other);
        }
    }
}

static void wait_for_turn(int hart) { (void)hart; }
#endif

/* A program without a model. */
__attribute__((weak)) void strop_model_part(int what, const void *x, const void *y, void *out, int hart, int harts) {
    (void)what, (void)x, (void)y, (void)out, (void)hart, (void)harts;
}

/* All other harts wait in the barrier before their next job. */
void strop_team_run(int what, const void *x, const void *y, void *out) {
    job.what = what;
    job.x = x;
    job.y = y;
    job.out = out;
    strop_team_barrier(0);
    strop_model_part(what, x, y, out, 0, STROP_HARTS);
    strop_team_barrier(0);
}

/* Where every hart but the first spends its life; start-up code calls it on a stack of its own. */
_Noreturn void strop_team_join(int hart) {
    wait_for_turn(hart);
    for (;;) {
        strop_team_barrier(hart);
        strop_model_part(job.what, job.x, job.y, job.out, hart, STROP_HARTS);
        strop_team_barrier(hart);
    }
}
#endif
