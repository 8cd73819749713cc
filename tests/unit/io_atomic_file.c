#include "tests/expect.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "io/atomic_file.h"
#include "io/memory.h"

static void assert_content(const char *path, const char *expected)
{
    char *data;
    size_t size;
    expect_ok(kn_file_read(path, 1000, &data, &size));
    assert_string_equal(data, expected);
    assert_int_equal(size, strlen(expected));
    kn_free(data);
}

static void commit_replaces_discard_keeps(void **state)
{
    (void)state;
    const char *path = temp_path("a.txt");
    kn_atomic_file *f;
    int names = count_names(temp_folder);
    put_file(path, "old", 3);
    expect_ok(kn_atomic_open(path, &f));
    expect_ok(kn_atomic_write(f, "ne", 2));
    assert_content(path, "old");
    assert_int_equal(count_names(temp_folder), names + 2);
    kn_atomic_discard(&f);
    assert_null(f);
    kn_atomic_discard(&f);
    assert_content(path, "old");
    assert_int_equal(count_names(temp_folder), names + 1);

    expect_ok(kn_atomic_open(path, &f));
    expect_ok(kn_atomic_write(f, "ne", 2));
    expect_ok(kn_atomic_write(f, "w", 1));
    expect_ok(kn_atomic_commit(&f));
    assert_null(f);
    assert_content(path, "new");
    assert_int_equal(count_names(temp_folder), names + 1);
}

static void mode_follows_the_umask(void **state)
{
    (void)state;
    struct stat info;
    mode_t old = umask(027);
    expect_ok(kn_file_write(temp_path("mode"), "x", 1));
    umask(old);
    assert_int_equal(stat(temp_path("mode"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
}

static void until_it_is_whole_it_is_private(void **state)
{
    (void)state;
    struct stat info;
    kn_atomic_file *f;
    mode_t old = umask(0);
    expect_ok(kn_atomic_open(temp_path("private"), &f));
    assert_int_equal(stat(kn_atomic_temp_path(f), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    expect_ok(kn_atomic_commit(&f));
    umask(old);
    assert_int_equal(stat(temp_path("private"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0666);
}

static void a_library_may_write_the_temporary_path(void **state)
{
    (void)state;
    const char *path = temp_path("by_name.mp4");
    kn_atomic_file *f;
    expect_ok(kn_atomic_open(path, &f));
    assert_non_null(strstr(kn_atomic_temp_path(f), "/.by_name.mp4.tmp-"));
    put_file(kn_atomic_temp_path(f), "video", 5);
    expect_ok(kn_atomic_commit(&f));
    assert_content(path, "video");
    /* And through the descriptor. */
    expect_ok(kn_atomic_open(path, &f));
    assert_int_equal(write(kn_atomic_fd(f), "again", 5), 5);
    expect_ok(kn_atomic_commit(&f));
    assert_content(path, "again");
}

static void links_are_followed_and_devices_refused(void **state)
{
    (void)state;
    struct stat info;
    put_file(temp_path("real"), "old", 3);
    assert_int_equal(symlink("real", temp_path("link")), 0);
    expect_ok(kn_file_write(temp_path("link"), "new", 3));
    assert_int_equal(lstat(temp_path("link"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_content(temp_path("real"), "new");
    assert_int_equal(symlink("nowhere", temp_path("dangling")), 0);
    expect_fail(kn_file_write(temp_path("dangling"), "x", 1), KN_ERR_IO, "dangling",
                "symbolic link");
    expect_fail(kn_file_write("/dev/null", "x", 1), KN_ERR_IO, "/dev/null", "not a regular file");
    assert_int_equal(mkfifo(temp_path("pipe"), 0600), 0);
    expect_fail(kn_file_write(temp_path("pipe"), "x", 1), KN_ERR_IO, "not a regular file");
    expect_fail(kn_file_write(temp_folder, "x", 1), KN_ERR_IO, temp_folder, "it is a folder");
}

static void unusable_targets_are_named(void **state)
{
    (void)state;
    char longest[300], path[512];
    expect_fail(kn_file_write("", "x", 1), KN_ERR_ARG, "empty");
    expect_fail(kn_file_write(temp_path("no/such/f"), "x", 1), KN_ERR_IO, "no/such/f", "folder",
                "no/such/ does not exist");
    expect_fail(kn_file_write(temp_path("none/"), "x", 1), KN_ERR_IO, "expected a file name");
    put_file(temp_path("file"), "", 0);
    expect_fail(kn_file_write(temp_path("file/f"), "x", 1), KN_ERR_IO, "file/f", "Not a directory");
    /* 255 bytes is the longest name of most file systems: its temporary name must fit too. */
    memset(longest, 'n', 255);
    longest[255] = '\0';
    snprintf(path, sizeof path, "%s/%s", temp_folder, longest);
    expect_ok(kn_file_write(path, "x", 1));
    assert_content(path, "x");
    if (geteuid() != 0) { /* root may write anywhere */
        assert_int_equal(mkdir(temp_path("locked"), 0500), 0);
        expect_fail(kn_file_write(temp_path("locked/f"), "x", 1), KN_ERR_IO, "locked/f",
                    "not writable");
    }
}

/* A write that fails half way: the file size limit stands in for a full disk. */
static void a_failed_write_says_how_far_it_came(void **state)
{
    (void)state;
    static char data[100000];
    const char *path = temp_path("large");
    kn_atomic_file *f;
    struct rlimit old, low = {65536, RLIM_INFINITY};
    int names = count_names(temp_folder);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low.rlim_max = old.rlim_max;
    expect_ok(kn_atomic_open(path, &f));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    kn_status st = kn_atomic_write(f, data, sizeof data);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    expect_fail(st, KN_ERR_IO, "large", "stopped after 65536 bytes", "34464 more",
                "File too large");
    kn_atomic_discard(&f);
    assert_int_equal(count_names(temp_folder), names);
}

static void a_failed_rename_leaves_nothing(void **state)
{
    (void)state;
    kn_atomic_file *f;
    int names = count_names(temp_folder);
    expect_ok(kn_atomic_open(temp_path("late"), &f));
    assert_int_equal(mkdir(temp_path("late"), 0700), 0); /* a folder appeared in its place */
    expect_fail(kn_atomic_commit(&f), KN_ERR_IO, "late", "renaming");
    assert_null(f);
    assert_int_equal(rmdir(temp_path("late")), 0);
    assert_int_equal(count_names(temp_folder), names);
}

static void unlink_all_removes_open_files_only(void **state)
{
    (void)state;
    enum { FILES = 40 }; /* more than the 32 that it promises */
    kn_atomic_file *f[FILES];
    char name[32];
    int names = count_names(temp_folder);
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "open%d", i);
        expect_ok(kn_atomic_open(temp_path(name), &f[i]));
    }
    assert_int_equal(count_names(temp_folder), names + FILES);
    pid_t child = fork();
    if (child == 0) {
        kn_atomic_unlink_all();
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(count_names(temp_folder), names + FILES - 32);
    for (int i = 0; i < FILES; i++) kn_atomic_discard(&f[i]);
    assert_int_equal(count_names(temp_folder), names);
}

static void reading_is_bounded(void **state)
{
    (void)state;
    char *data;
    size_t size;
    put_file(temp_path("ten"), "0123456789", 10);
    expect_ok(kn_file_read(temp_path("ten"), 10, &data, &size));
    assert_int_equal(size, 10);
    assert_string_equal(data, "0123456789");
    kn_free(data);
    expect_fail(kn_file_read(temp_path("ten"), 9, &data, &size), KN_ERR_FORMAT, "ten", "at most 9",
                "found 10");
    assert_null(data);
    expect_fail(kn_file_read(temp_path("absent"), 9, &data, &size), KN_ERR_IO, "absent",
                "No such file");
    expect_fail(kn_file_read(temp_folder, 9, &data, &size), KN_ERR_IO, temp_folder, "a folder");
    assert_int_equal(mkfifo(temp_path("fifo"), 0600), 0);
    expect_fail(kn_file_read(temp_path("fifo"), 9, &data, &size), KN_ERR_IO, "fifo",
                "regular file");
    put_file(temp_path("zero"), "", 0);
    expect_ok(kn_file_read(temp_path("zero"), 0, &data, &size));
    assert_int_equal(size, 0);
    assert_string_equal(data, "");
    kn_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commit_replaces_discard_keeps),
        cmocka_unit_test(mode_follows_the_umask),
        cmocka_unit_test(until_it_is_whole_it_is_private),
        cmocka_unit_test(a_library_may_write_the_temporary_path),
        cmocka_unit_test(links_are_followed_and_devices_refused),
        cmocka_unit_test(unusable_targets_are_named),
        cmocka_unit_test(a_failed_write_says_how_far_it_came),
        cmocka_unit_test(a_failed_rename_leaves_nothing),
        cmocka_unit_test(unlink_all_removes_open_files_only),
        cmocka_unit_test(reading_is_bounded),
    };
    return cmocka_run_group_tests(tests, temp_folder_setup, temp_folder_teardown);
}
