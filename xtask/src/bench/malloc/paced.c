/* Calls of malloc and free at a steady rate, from stacks of 20 frames.
 *
 * paced FILE RATE CALLS THREADS KEEP: THREADS threads make CALLS calls, RATE a second, all of them together. Each thread
 * keeps up to KEEP blocks; when it has as many, it gives the oldest back, then asks for another. Every millisecond each
 * thread makes the calls that are due. FILE says at the end how many calls there were and what they took.
 *
 * Of the 20 frames, 15 are levels of which each is one of two functions: 256 paths among 32,768, another one with each
 * call. The others are malloc, `ask`, `work`, and the two with which glibc begins a thread.
 *
 * The program itself never calls the allocator beside that, and its threads do not end before the process does: glibc
 * would give back by free what it kept for the thread. */
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 64, N_PATHS = 256 };
static const uint64_t TICK_NS = 1000000;

typedef void *level(uint32_t path, size_t size);

static __attribute__((noipa)) void *ask(size_t size) {
    void *block = malloc(size);
    if (!block) abort();
    return block;
}

static __attribute__((noipa)) void *left_0(uint32_t path, size_t size) {
    (void)path;
    void *block = ask(size);
    __asm__ volatile("" ::: "memory");
    return block;
}

static __attribute__((noipa)) void *right_0(uint32_t path, size_t size) {
    (void)path;
    void *block = ask(size);
    __asm__ volatile("" ::: "memory");
    return block;
}

/* The assembly keeps the call from becoming a jump, which would leave no frame. */
#define ONE_OF_LEVEL(side, n, inner)                                                     \
    static __attribute__((noipa)) void *side##_##n(uint32_t path, size_t size) {         \
        void *block = (path & 1 ? left_##inner : right_##inner)(path >> 1, size);        \
        __asm__ volatile("" ::: "memory");                                               \
        return block;                                                                    \
    }
#define LEVEL(n, inner) ONE_OF_LEVEL(left, n, inner) ONE_OF_LEVEL(right, n, inner)

LEVEL(1, 0)
LEVEL(2, 1)
LEVEL(3, 2)
LEVEL(4, 3)
LEVEL(5, 4)
LEVEL(6, 5)
LEVEL(7, 6)
LEVEL(8, 7)
LEVEL(9, 8)
LEVEL(10, 9)
LEVEL(11, 10)
LEVEL(12, 11)
LEVEL(13, 12)
LEVEL(14, 13)

struct worker {
    uint64_t calls, keep;
    /* Calls a tick are calls_by_ticks / ticks, so that any rate comes out. */
    uint64_t calls_by_ticks, ticks;
    uint64_t n_mallocs, n_frees, bytes;
    /* The last `keep` blocks. */
    void **blocks;
};

static struct worker workers[MAX_THREADS];
static sem_t done;
static uint64_t start_ns;

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void sleep_until(uint64_t ns) {
    struct timespec time = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL)) {
    }
}

static void *work(void *argument) {
    struct worker *worker = argument;
    /* An odd factor: each product is another path. */
    uint32_t paths[N_PATHS];
    for (uint32_t i = 0; i < N_PATHS; i++) paths[i] = i * 20011 & 0x7fff;
    for (uint64_t tick = 1, n = 0; n < worker->calls; tick++) {
        sleep_until(start_ns + tick * TICK_NS);
        uint64_t due = tick * worker->calls_by_ticks / worker->ticks;
        for (; n < due && n < worker->calls; n++) {
            if (worker->n_mallocs - worker->n_frees == worker->keep) {
                free(worker->blocks[worker->n_frees++ % worker->keep]);
                continue;
            }
            uint32_t path = paths[worker->n_mallocs % N_PATHS];
            size_t size = 16 + path % 64;
            void *block = (path & 0x4000 ? left_14 : right_14)(path, size);
            worker->blocks[worker->n_mallocs++ % worker->keep] = block;
            worker->bytes += size;
        }
    }
    sem_post(&done);
    for (;;) pause();
    return NULL;
}

static uint64_t number(const char *text) { return strtoull(text, NULL, 10); }

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: paced FILE RATE CALLS THREADS KEEP\n");
        return 2;
    }
    uint64_t rate = number(argv[2]), calls = number(argv[3]), n_threads = number(argv[4]), keep = number(argv[5]);
    if (!rate || !n_threads || n_threads > MAX_THREADS || !keep) {
        fprintf(stderr, "paced: a number is out of range\n");
        return 2;
    }
    sem_init(&done, 0, 0);
    start_ns = now_ns();
    for (uint64_t i = 0; i < n_threads; i++) {
        struct worker *worker = &workers[i];
        *worker = (struct worker){.calls = calls / n_threads, .keep = keep};
        worker->calls_by_ticks = rate;
        worker->ticks = n_threads * (1000000000 / TICK_NS);
        worker->blocks = mmap(NULL, keep * sizeof(void *), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        pthread_t thread;
        if (worker->blocks == MAP_FAILED || pthread_create(&thread, NULL, work, worker)) abort();
    }
    struct worker all = {0};
    for (uint64_t i = 0; i < n_threads; i++) {
        while (sem_wait(&done)) {
        }
    }
    uint64_t wall_ns = now_ns() - start_ns;
    for (uint64_t i = 0; i < n_threads; i++) {
        all.n_mallocs += workers[i].n_mallocs;
        all.n_frees += workers[i].n_frees;
        all.bytes += workers[i].bytes;
    }
    /* Neither fprintf nor dprintf: both ask for a buffer. */
    char figures[256];
    int length = snprintf(figures, sizeof figures,
                          "{\"mallocs\": %llu, \"frees\": %llu, \"bytes\": %llu, \"wall_ns\": %llu}\n",
                          (unsigned long long)all.n_mallocs, (unsigned long long)all.n_frees,
                          (unsigned long long)all.bytes, (unsigned long long)wall_ns);
    int file = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    _exit(write(file, figures, (size_t)length) == length ? 0 : 1);
}
