/* tests/fuzz/replay.c - runs a fuzz target over stored inputs, without libFuzzer.
 *
 * Every file of each folder given goes through LLVMFuzzerTestOneInput as a heap block of exactly
 *       its
 * size, so that AddressSanitizer sees the first byte read past it. Inputs that once crashed stay in
 * tests/fuzz/corpus/ and are run by ctest for ever. An empty or missing folder is a failure: a test
 * that ran nothing has tested nothing.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
    struct stat info;
    FILE *f = fopen(path, "rb");
    if (!f || fstat(fileno(f), &info) != 0) {
        fprintf(stderr, "cannot open %s\n", path);
        if (f) fclose(f);
        return 1;
    }
    size_t size = (size_t)info.st_size;
    uint8_t *data = malloc(size ? size : 1);
    int failed = !data || fread(data, 1, size, f) != size;
    fclose(f);
    if (failed)
        fprintf(stderr, "cannot read %s\n", path);
    else
        LLVMFuzzerTestOneInput(data, size);
    free(data);
    return failed;
}

/* Number of files run, or -1. */
static int run_folder(const char *folder)
{
    struct dirent **names;
    int count = scandir(folder, &names, NULL, alphasort), run = 0;
    if (count < 0) {
        fprintf(stderr, "cannot read the folder %s\n", folder);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        char path[4096];
        if (names[i]->d_name[0] != '.' && run >= 0) {
            snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
            /* Named before it runs, so that a crash says which. */
            printf("%s\n", path);
            fflush(stdout);
            run = run_file(path) ? -1 : run + 1;
        }
        free(names[i]);
    }
    free(names);
    return run;
}

int main(int argc, char **argv)
{
    int failed = argc < 2;
    if (failed) fprintf(stderr, "usage: %s FOLDER...\n", argv[0]);
    for (int i = 1; i < argc; i++) {
        int run = run_folder(argv[i]);
        if (run == 0) fprintf(stderr, "%s: expected inputs, found none\n", argv[i]);
        if (run <= 0) failed = 1;
    }
    return failed;
}
