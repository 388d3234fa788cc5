/* driver.c - runs a fuzz target where there is no libFuzzer.
 *
 * driver [-runs=N] [-seed=N] [-max_len=N] [-max_total_time=S] [FILE|DIR...]
 *
 * Takes libFuzzer's options of these names.  Each file is run first; unless
 * they were files alone, random inputs and changed ones of the files follow,
 * without a look at what they cover.
 * SPDX-License-Identifier: MIT */

#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define INPUT_MAX 65536
#define KEPT_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    uint8_t *data;
    size_t size;
} input;

static input kept[KEPT_MAX];
static size_t kept_count;
static input current;
static uint64_t random_state = 1;
static uint64_t runs_done;

static uint64_t
random_next(void)
{
    /* xorshift64* */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(2685821657736338717);
}

static size_t
random_below(size_t n)
{
    return n == 0 ? 0 : (size_t)((random_next() >> 16) % n);
}

/* What the process dies of is left in a file. */
static void
on_crash(int number)
{
    FILE *file = fopen("crash-input", "wb");
    if (file != NULL) {
        fwrite(current.data, 1, current.size, file);
        fclose(file);
        fprintf(stderr, "the input is in ./crash-input\n");
    }
    signal(number, SIG_DFL);
    raise(number);
}

static void
run(const uint8_t *data, size_t size)
{
    /* A block of exactly its size: a sanitizer sees a read behind it. */
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (copy == NULL) {
        exit(2);
    }
    memcpy(copy, data, size);
    current = (input){copy, size};
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    runs_done++;
}

static void
run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    uint8_t *data = malloc(INPUT_MAX);
    if (data == NULL) {
        exit(2);
    }
    size_t size = fread(data, 1, INPUT_MAX, file);
    fclose(file);
    run(data, size);
    if (kept_count < KEPT_MAX) {
        kept[kept_count++] = (input){data, size};
    }
    else {
        free(data);
    }
}

static void
run_folder(const char *path)
{
    char name[4096];
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.') {
            run_file(name);
        }
    }
    closedir(folder);
}

static void
run_random(size_t max)
{
    static uint8_t data[INPUT_MAX];
    size_t size = random_below(max) + 1;
    if (kept_count > 0 && random_below(4) != 0) {
        const input *from = &kept[random_below(kept_count)];
        size = from->size < max ? from->size : max;
        memcpy(data, from->data, size);
        for (size_t i = random_below(8) + 1; i > 0 && size > 0; i--) {
            data[random_below(size)] = (uint8_t)(random_next() >> 32);
        }
    }
    else {
        for (size_t i = 0; i < size; i++) {
            data[i] = (uint8_t)(random_next() >> 32);
        }
    }
    run(data, size);
}

int
main(int argc, char **argv)
{
    uint64_t runs = UINT64_MAX, seed = (uint64_t)time(NULL), max = 512;
    uint64_t seconds = UINT64_MAX;
    int files = 0, folders = 0;
    /* The sanitizer reports the other signals, and then aborts. */
    signal(SIGABRT, on_crash);
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (sscanf(argv[i], "-runs=%" SCNu64, &runs) == 1 ||
            sscanf(argv[i], "-seed=%" SCNu64, &seed) == 1 ||
            sscanf(argv[i], "-max_len=%" SCNu64, &max) == 1 ||
            sscanf(argv[i], "-max_total_time=%" SCNu64, &seconds) == 1 ||
            argv[i][0] == '-') {
            continue;
        }
        if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
            run_folder(argv[i]);
            folders++;
        }
        else {
            run_file(argv[i]);
            files++;
        }
    }
    random_state = seed * 2 + 1;
    max = max < INPUT_MAX ? max : INPUT_MAX;
    time_t started = time(NULL);
    while (
        (files == 0 || folders > 0) && runs_done < runs &&
        (runs_done % 256 != 0 || (uint64_t)(time(NULL) - started) < seconds)) {
        run_random((size_t)max);
    }
    fprintf(stderr, "Done %" PRIu64 " runs in %ld second(s)\n", runs_done,
            (long)(time(NULL) - started));
    return 0;
}
