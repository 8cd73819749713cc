/* tests/expect.h - what the cmocka tests share: expected failures, and a folder of their own.
 *
 * expect_ok(expr)                      fails the test with Kinora's own message
 * expect_fail(expr, code, "a", "b")    expr returns code and the message holds every string
 * temp_folder_setup / _teardown        cmocka group fixtures: a new folder in the working
 * directory,
 *                                      removed with all it holds
 * temp_path("x.png")                   a path in it; the last 8 results stay valid
 */
#ifndef KN_TESTS_EXPECT_H
#define KN_TESTS_EXPECT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/status.h"

#define expect_ok(expr) expect_ok_at((expr), #expr, __FILE__, __LINE__)
#define expect_fail(expr, code, ...)                                                               \
    expect_fail_at((expr), (code), #expr, __FILE__, __LINE__, (const char *[]){__VA_ARGS__, NULL})

static inline void expect_ok_at(kn_status st, const char *expr, const char *file, int line)
{
    if (st == KN_OK) return;
    print_error("%s:\n  expected success, found '%s' error: %s\n", expr, kn_status_name(st),
                kn_error_text());
    _fail(file, line);
}

static inline void expect_fail_at(kn_status st, kn_status code, const char *expr, const char *file,
                                  int line, const char *const *words)
{
    if (st != code) {
        print_error("%s:\n  expected '%s' error, found '%s': %s\n", expr, kn_status_name(code),
                    kn_status_name(st), kn_error_text());
        _fail(file, line);
    }
    for (; *words; words++) {
        if (strstr(kn_error_text(), *words)) continue;
        print_error("%s:\n  expected '%s' in the message, found: %s\n", expr, *words,
                    kn_error_text());
        _fail(file, line);
    }
}

static char temp_folder[64];

static inline int temp_folder_setup(void **state)
{
    (void)state;
    strcpy(temp_folder, "kn_test_XXXXXX");
    return mkdtemp(temp_folder) ? 0 : -1;
}

static inline void remove_tree(const char *path)
{
    char child[1024];
    DIR *dir = opendir(path);
    for (struct dirent *d = dir ? readdir(dir) : NULL; d; d = readdir(dir)) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0) continue;
        int n = snprintf(child, sizeof child, "%s/%s", path, d->d_name);
        if (n < 0 || (size_t)n >= sizeof child) continue;
        struct stat info;
        if (lstat(child, &info) == 0 && S_ISDIR(info.st_mode))
            remove_tree(child);
        else
            unlink(child);
    }
    if (dir) closedir(dir);
    rmdir(path);
}

static inline int temp_folder_teardown(void **state)
{
    (void)state;
    remove_tree(temp_folder);
    return 0;
}

static inline const char *temp_path(const char *name)
{
    static char paths[8][512];
    static int next;
    char *p = paths[next++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", temp_folder, name);
    return p;
}

/* Number of names in a folder, "." and ".." not counted: shows leftovers. */
static inline int count_names(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *d = dir ? readdir(dir) : NULL; d; d = readdir(dir))
        n += strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
    if (dir) closedir(dir);
    return n;
}

/* A file as it is, without Kinora's own writer. */
static inline void put_file(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

#endif
