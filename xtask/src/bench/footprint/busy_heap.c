/* A heap of small blocks, and a thread that measures its own pauses.
 *
 * busy_heap MIB MAPPINGS: fills MIB of the heap with small blocks, of which it frees a third, makes so many mappings of
 * their own, and says `ready` with the number of blocks. Then each line on stdin begins or ends a measurement: `maps` maps
 * and unmaps 64 KiB without pause, `faults` touches new pages without pause, `stop` ends it, and a line tells how often
 * that was done, the longest time between one and the next, what those of more than 0.1 ms add up to, and how long it took
 * in all, was on a processor, and waited for one. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { PAGE = 4096, MAPPED = 64 << 10, TOUCHED = 4 << 20, LONG_NS = 100000, MAX_BLOCKS = 16 << 20 };

static atomic_int stop;
static int touches;
static uint64_t count, longest, long_sum, wall, cpu, delay;

static uint64_t clock_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* How long this thread was ready to run and did not: the second number of its schedstat. */
static uint64_t delay_ns(void) {
    unsigned long long ran = 0, waited = 0;
    FILE *file = fopen("/proc/thread-self/schedstat", "r");
    if (!file || fscanf(file, "%llu %llu", &ran, &waited) != 2) {
        perror("schedstat");
        exit(1);
    }
    fclose(file);
    return waited;
}

static void *map(size_t size, int access) {
    void *at = mmap(NULL, size, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return at;
}

static void took(uint64_t ns) {
    count++;
    if (ns > longest) longest = ns;
    if (ns > LONG_NS) long_sum += ns;
}

static void *measure(void *unused) {
    (void)unused;
    volatile char *area = map(TOUCHED, PROT_READ | PROT_WRITE);
    madvise((void *)area, TOUCHED, MADV_NOHUGEPAGE);
    size_t at = 0;
    uint64_t delay_before = delay_ns(), cpu_before = clock_ns(CLOCK_THREAD_CPUTIME_ID), began = now_ns(), before = began;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        if (!touches) {
            volatile char *piece = map(MAPPED, PROT_READ | PROT_WRITE);
            piece[0] = 1;
            munmap((void *)piece, MAPPED);
        } else if (at == TOUCHED) {
            /* Not measured: it is no page fault. */
            madvise((void *)area, TOUCHED, MADV_DONTNEED);
            at = 0;
            before = now_ns();
            continue;
        } else {
            area[at] = 1;
            at += PAGE;
        }
        uint64_t now = now_ns();
        took(now - before);
        before = now;
    }
    wall = now_ns() - began;
    cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_before;
    delay = delay_ns() - delay_before;
    munmap((void *)area, TOUCHED);
    return NULL;
}

static long fill(long bytes) {
    unsigned long seed = 1;
    long held = 0, n = 0;
    char **blocks = map(MAX_BLOCKS * sizeof(char *), PROT_READ | PROT_WRITE);
    while (held < bytes && n < MAX_BLOCKS) {
        seed = seed * 6364136223846793005UL + 1442695040888963407UL;
        long size = 24 + (long)(seed >> 33) % 288;
        blocks[n] = malloc(size);
        memset(blocks[n], 0x5a, size);
        held += size + 8;
        n++;
    }
    /* Neighbours stay, so that what is freed stays small. */
    for (long i = 1; i < n; i += 3) free(blocks[i]);
    munmap(blocks, MAX_BLOCKS * sizeof(char *));
    return n;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: busy_heap MIB MAPPINGS\n");
        return 2;
    }
    long n = fill(atol(argv[1]) << 20);
    for (long i = atol(argv[2]); i > 0; i--) {
        /* Every second one can't be written to, so that neighbours stay apart. */
        char *at = map(PAGE, PROT_READ | PROT_WRITE);
        at[0] = 1;
        if (i % 2) mprotect(at, PAGE, PROT_READ);
    }
    printf("ready %ld\n", n);
    fflush(stdout);
    char line[16];
    pthread_t thread;
    while (fgets(line, sizeof line, stdin)) {
        if (strcmp(line, "stop\n") != 0) {
            touches = strcmp(line, "faults\n") == 0;
            count = longest = long_sum = 0;
            atomic_store(&stop, 0);
            if (pthread_create(&thread, NULL, measure, NULL)) return 1;
            continue;
        }
        atomic_store(&stop, 1);
        pthread_join(thread, NULL);
        printf("{\"count\": %llu, \"longest_ns\": %llu, \"long_ns\": %llu, \"wall_ns\": %llu, \"cpu_ns\": %llu, "
               "\"delay_ns\": %llu}\n",
               (unsigned long long)count, (unsigned long long)longest, (unsigned long long)long_sum,
               (unsigned long long)wall, (unsigned long long)cpu, (unsigned long long)delay);
        fflush(stdout);
    }
    return 0;
}
