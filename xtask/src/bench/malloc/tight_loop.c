/* Pairs of malloc and free, one after the other, as fast as it goes.
 *
 * tight_loop FILE SECONDS: writes to FILE how many pairs there were in about SECONDS and what they took, and how many
 * before that in half the time, to warm up. Both clocks run around the loop alone. CPU time is the process's: what a tool does in threads of its own inside it is in it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Pairs between two looks at the clock. */
enum { BATCH = 1000 };

static uint64_t now_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static __attribute__((noipa)) void batch(void) {
    for (uint32_t i = 0; i < BATCH; i++) {
        char *block = malloc(64 + i % 256);
        if (!block) abort();
        *(volatile char *)block = 1;
        free(block);
    }
}

static __attribute__((noipa)) uint64_t pairs_for(uint64_t wall_ns) {
    uint64_t n = 0;
    for (uint64_t end = now_ns(CLOCK_MONOTONIC) + wall_ns; now_ns(CLOCK_MONOTONIC) < end; n += BATCH) batch();
    return n;
}

int main(int argc, char **argv) {
    double seconds = argc == 3 ? strtod(argv[2], NULL) : 0;
    if (!(seconds > 0)) {
        fprintf(stderr, "usage: tight_loop FILE SECONDS\n");
        return 2;
    }
    uint64_t wanted = (uint64_t)(seconds * 1e9);
    /* What is slow only once, as heaptrack's first look at the libraries. */
    uint64_t warm_up = pairs_for(wanted / 2);
    uint64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID), wall = now_ns(CLOCK_MONOTONIC);
    uint64_t pairs = pairs_for(wanted);
    wall = now_ns(CLOCK_MONOTONIC) - wall;
    cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    FILE *file = fopen(argv[1], "w");
    if (!file) {
        perror(argv[1]);
        return 1;
    }
    fprintf(file, "{\"pairs\": %llu, \"warm_up\": %llu, \"cpu_ns\": %llu, \"wall_ns\": %llu}\n",
            (unsigned long long)pairs, (unsigned long long)warm_up, (unsigned long long)cpu, (unsigned long long)wall);
    return fclose(file) ? 1 : 0;
}
