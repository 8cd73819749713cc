/* results.jsonl and the locks of a batch folder: lines of killed processes, outputs that changed, two processes. */
#include "tests/expect.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "io/sha256.h"
#include "pipeline/batch_ledger.h"

static json_t *line_of(const char *output, const char *status, const char *request)
{
    json_t *line = json_pack("{s:s, s:s, s:s}", "output", output, "status", status, "request", request);
    assert_non_null(line);
    return line;
}

static void append(kn_ledger *l, json_t *line)
{
    expect_ok(kn_ledger_append(l, line));
    json_decref(line);
}

static void folders_are_made(void **state)
{
    (void)state;
    static char longer[5000];
    expect_ok(kn_make_folders(temp_path("a/b/c")));
    expect_ok(kn_make_folders(temp_path("a/b/c/")));
    assert_int_equal(access(temp_path("a/b/c"), X_OK), 0);
    put_file(temp_path("a/file"), "", 0);
    expect_fail(kn_make_folders(temp_path("a/file/d")), KN_ERR_IO, "a/file/d", "Not a directory");
    memset(longer, 'x', sizeof longer - 1);
    expect_fail(kn_make_folders(longer), KN_ERR_ARG, "at most 4095 bytes, found 4999");
    kn_ledger l;
    expect_fail(kn_ledger_open(longer, &l), KN_ERR_ARG, "at most");
    assert_null(l.path);
}

static void lines_are_found_again(void **state)
{
    (void)state;
    kn_ledger l, other;
    const char *folder = temp_path("lines");
    expect_ok(kn_ledger_open(folder, &l));
    expect_ok(kn_ledger_open(folder, &other));
    assert_int_equal(json_array_size(l.lines), 0);
    assert_null(kn_ledger_find(&l, "x.mp4", 0));
    append(&l, line_of("x.mp4", "failed", "1"));
    append(&l, line_of("y.mp4", "done", "1"));
    append(&other, line_of("x.mp4", "done", "2"));
    assert_null(kn_ledger_find(&l, "x.mp4", 1)); /* not before it is read again */
    expect_ok(kn_ledger_reload(&l));
    assert_int_equal(json_array_size(l.lines), 3);
    const json_t *newest = kn_ledger_find(&l, "x.mp4", 0);
    assert_string_equal(json_string_value(json_object_get(newest, "request")), "2");
    assert_null(kn_ledger_find(&l, "x.mp4", 3));
    assert_null(kn_ledger_find(&l, "z.mp4", 0));
    kn_ledger_close(&other);
    kn_ledger_close(&l);
}

static void what_a_killed_process_left_is_passed_over(void **state)
{
    (void)state;
    /* Half a line, zero bytes of a crashed machine, and JSON that is no object. */
    static const char left[] = "{\"output\": \"a\"}\n[1]\n\n7\n{\"output\": \n\0\0\0\n{\"output\": \"b\"}\n{\"output\": \"c";
    kn_ledger l;
    const char *folder = temp_path("left");
    expect_ok(kn_make_folders(folder));
    put_file(temp_path("left/results.jsonl"), left, sizeof left - 1);
    expect_ok(kn_ledger_open(folder, &l));
    assert_int_equal(json_array_size(l.lines), 2);
    assert_non_null(kn_ledger_find(&l, "b", 0));
    append(&l, line_of("d", "done", "1"));
    append(&l, line_of("e", "done", "1"));
    expect_ok(kn_ledger_reload(&l));
    assert_int_equal(json_array_size(l.lines), 4);
    assert_non_null(kn_ledger_find(&l, "d", 0));
    kn_ledger_close(&l);
}

static void only_a_file_is_written(void **state)
{
    (void)state;
    kn_ledger l;
    const char *folder = temp_path("link"), *path = temp_path("link/results.jsonl");
    expect_ok(kn_ledger_open(folder, &l));
    put_file(temp_path("victim"), "kept\n", 5);
    assert_int_equal(symlink("../victim", path), 0);
    json_t *line = line_of("a", "done", "1");
    expect_fail(kn_ledger_append(&l, line), KN_ERR_IO, "results.jsonl");
    assert_int_equal(json_array_size(l.lines), 0);
    struct stat s;
    assert_int_equal(stat(temp_path("victim"), &s), 0);
    assert_int_equal(s.st_size, 5);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    expect_fail(kn_ledger_append(&l, line), KN_ERR_IO, "results.jsonl");
    expect_fail(kn_ledger_reload(&l), KN_ERR_IO, "results.jsonl", "a folder");
    kn_ledger_close(&l);
    expect_fail(kn_ledger_open(folder, &l), KN_ERR_IO, "a folder");
    json_decref(line);
}

/* A line that says the file at path is done. */
static void record(kn_ledger *l, const char *path, const char *request)
{
    char hash[KN_SHA256_TEXT];
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    expect_ok(kn_sha256_file(path, hash));
    append(l, json_pack("{s:s, s:s, s:s, s:s, s:I}", "output", path, "status", "done", "request", request, "sha256", hash,
                        "bytes", (json_int_t)s.st_size));
}

static void finished_means_content_and_request(void **state)
{
    (void)state;
    kn_ledger l;
    const char *out = temp_path("done.mp4");
    expect_ok(kn_ledger_open(temp_path("finished"), &l));
    put_file(out, "first", 5);
    assert_false(kn_ledger_finished(&l, out, "r"));
    record(&l, out, "r");
    assert_true(kn_ledger_finished(&l, out, "r"));
    assert_false(kn_ledger_finished(&l, out, "other settings"));
    assert_false(kn_ledger_finished(&l, "elsewhere.mp4", "r"));
    append(&l, line_of(out, "failed", "r")); /* a later failure leaves the output as it was */
    assert_true(kn_ledger_finished(&l, out, "r"));
    put_file(out, "fIrst", 5);
    assert_false(kn_ledger_finished(&l, out, "r"));
    put_file(out, "first, and more", 15);
    assert_false(kn_ledger_finished(&l, out, "r"));
    record(&l, out, "r");
    assert_true(kn_ledger_finished(&l, out, "r"));
    put_file(out, "first", 5); /* the content of an older line */
    assert_false(kn_ledger_finished(&l, out, "r"));
    assert_int_equal(unlink(out), 0);
    assert_false(kn_ledger_finished(&l, out, "r"));
    /* Something of the recorded size that cannot be read as a file. */
    struct stat s;
    assert_int_equal(mkdir(out, 0700), 0);
    assert_int_equal(stat(out, &s), 0);
    append(&l, json_pack("{s:s, s:s, s:s, s:s, s:I}", "output", out, "status", "done", "request", "r", "sha256", "0", "bytes",
                         (json_int_t)s.st_size));
    assert_false(kn_ledger_finished(&l, out, "r"));
    assert_string_equal(kn_error_text(), "");
    kn_ledger_close(&l);
}

static void a_lock_has_one_holder(void **state)
{
    (void)state;
    char holder[128], me[64];
    int fd = -1, second = 0;
    const char *out = temp_path("locked.mp4"), *lock = temp_path("locked.mp4.lock");
    expect_ok(kn_lock_take(out, &fd, holder));
    assert_true(fd >= 0);
    assert_string_equal(holder, "");
    expect_ok(kn_lock_take(out, &second, holder));
    assert_true(second < 0);
    snprintf(me, sizeof me, ", process %ld", (long)getpid());
    assert_non_null(strstr(holder, me));
    kn_lock_release(out, second); /* not held: nothing happens */
    assert_int_equal(access(lock, F_OK), 0);
    kn_lock_release(out, fd);
    assert_int_equal(access(lock, F_OK), -1);
    put_file(lock, "left by a killed process", 24); /* the kernel dropped its lock */
    expect_ok(kn_lock_take(out, &fd, holder));
    assert_true(fd >= 0);
    kn_lock_release(out, fd);
    expect_fail(kn_lock_take(temp_path("no/folder/x.mp4"), &fd, holder), KN_ERR_IO, "x.mp4.lock");
    assert_true(fd < 0);
    put_file(temp_path("target"), "kept", 4);
    assert_int_equal(symlink("target", lock), 0);
    expect_fail(kn_lock_take(out, &fd, holder), KN_ERR_IO, "locked.mp4.lock");
    assert_int_equal(access(temp_path("target"), F_OK), 0);
    assert_int_equal(unlink(lock), 0);
}

/* Takes and releases the lock, with a file that only its holder has. 0: it was never in the way. */
static int contend(const char *out, const char *mark, int rounds)
{
    char holder[128];
    for (int had = 0; had < rounds;) {
        int fd;
        if (kn_lock_take(out, &fd, holder) != KN_OK) return 1;
        if (fd < 0) continue;
        int f = open(mark, O_CREAT | O_EXCL | O_WRONLY, 0600);
        if (f < 0 || close(f) != 0 || unlink(mark) != 0) return 2;
        kn_lock_release(out, fd);
        had++;
    }
    return 0;
}

static void processes_take_turns(void **state)
{
    (void)state;
    enum { PROCESSES = 3, ROUNDS = 150 };
    const char *out = temp_path("turns.mp4"), *mark = temp_path("turns.mark");
    pid_t child[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        child[i] = fork();
        if (child[i] == 0) _exit(contend(out, mark, ROUNDS));
        assert_true(child[i] > 0);
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status = -1;
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_int_equal(access(temp_path("turns.mp4.lock"), F_OK), -1);
}

static void leftovers_are_those_of_one_output(void **state)
{
    (void)state;
    static const char *const of_it[] = {".a.mp4.tmp-1-2", ".a.mp4.json.tmp-1-3", ".a.mp4.checkpoint.safetensors.tmp-77-0"};
    static const char *const others[] = {".b.mp4.tmp-1-2", ".a.mp4x.tmp-1-2", ".a.mp4", "a.mp4.tmp-1-2", "a.mp4"};
    char path[512];
    const char *folder = temp_path("leftovers");
    expect_ok(kn_make_folders(folder));
    for (size_t i = 0; i < 3; i++) snprintf(path, sizeof path, "%s/%s", folder, of_it[i]), put_file(path, "x", 1);
    for (size_t i = 0; i < 5; i++) snprintf(path, sizeof path, "%s/%s", folder, others[i]), put_file(path, "x", 1);
    snprintf(path, sizeof path, "%s/a.mp4", folder);
    kn_remove_leftovers(path);
    assert_int_equal(count_names(folder), 5);
    for (size_t i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, others[i]);
        assert_int_equal(access(path, F_OK), 0);
    }
    kn_remove_leftovers(temp_path("no-such-folder/a.mp4"));
    kn_remove_leftovers("a-file-of-the-working-folder.mp4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_are_made),
        cmocka_unit_test(lines_are_found_again),
        cmocka_unit_test(what_a_killed_process_left_is_passed_over),
        cmocka_unit_test(only_a_file_is_written),
        cmocka_unit_test(finished_means_content_and_request),
        cmocka_unit_test(a_lock_has_one_holder),
        cmocka_unit_test(processes_take_turns),
        cmocka_unit_test(leftovers_are_those_of_one_output),
    };
    return cmocka_run_group_tests(tests, temp_folder_setup, temp_folder_teardown);
}
