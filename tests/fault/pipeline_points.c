/* Fails one call of the whole program at a time - allocation, read, write, thread, device operation,
 * and a disk that is full from that call on - for loading, rendering, refining, a batch and resuming; on a
 * machine with an NVIDIA GPU also each call of CUDA's libraries, and the GPU lost at that call.
 *
 *   fault_pipeline_points                         a few calls of each kind, spread evenly: the ctest
 *   fault_pipeline_points count                             calls of each kind, own+theirs
 *   fault_pipeline_points full TSV [JOB [KIND [EVERY [FROM [TO]]]]]   every call (or every EVERY-th) from
 *                                                           number FROM to TO or until the job gets through, a
 *                                                           table into TSV; `all` for JOB or KIND; `stacks` for
 *                                                           EVERY: of each call stack the first two calls, the
 *                                                           last and one in 64
 *   fault_pipeline_points theirs TSV [JOB ...]              likewise the libraries' allocations and threads
 *
 *   fault_pipeline_points sites TSV [SHARE OF [SECONDS]]    kinds cuda and lost: the first call from each place in the
 *                                                           program, then from each place with its three callers, in
 *                                                           the first GPU job that has it; every OF-th, from the
 *                                                           SHARE-th; no new one after SECONDS. `callers` instead of
 *                                                           `sites` leaves out the first part
 *
 * tools/fault_points.sh shares the full campaign out over processes.
 *
 * The job runs in a forked process by kn_cli_main, so that a crash is seen and state is fresh. After each:
 * no signal, no hang; a documented exit code; one message; no temporary file; whatever has its final name
 * is whole, byte for byte as undisturbed; no own block and no descriptor kept; and the same command with
 * --resume then gives the undisturbed bytes (of the samples, and of all reads and writes).
 */
#define _GNU_SOURCE /* dladdr */
#include "tests/expect.h"
#include "tests/fault/inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "io/atomic_file.h"
#include "io/memory.h"
#include "io/safetensors.h"
#include "io/sha256.h"
#include "pipeline/cli.h"

#define DEMO KN_SOURCE_DIR "/demo/model"
#define MODEL "../in/model" /* seen from the output folder */
#define WIDE_MODEL "../in/wide"
enum { FILES = 64, SAMPLES = 4, LIMIT_SEC = 120 };

typedef struct job {
    const char *name;
    const char *args[48]; /* without the program; NULL ends them */
    int is;
} job;
enum {
    RESUMES = 1, /* --resume may be added */
    BATCH = 2,   /* of two jobs */
    GPU = 4,     /* left out on a machine without */
    HOPPER = 8   /* likewise on other GPUs */
};

/* Checkpoints by themselves would come at a clock's pleasure. */
#define TINY "--model", MODEL, "--threads", "2", "--steps", "2", "--checkpoint-every", "1", "--seed", "1", "--progress", "none"
#define SMALL TINY, "--device", "cpu"
#define ON_GPU                                                                                     \
    TINY, "--device", "cuda", "--size", "32x32", "--frames", "5", "--refine-size", "48x32", "--override", \
        "--refresh", "2", "--output", "x.mkv", "--codec", "ffv1", "--overwrite"

static const job jobs[] = {
    {"load",
     {"plan", "--config", "../in/config.yaml", "--prompt-file", "../in/prompt.txt", "--preset", "draft", SMALL,
      "--size", "32x32", "--frames", "5", "--output", "x.mp4"},
     0},
    {"render",
     {"render", "--prompt", "a ball", SMALL, "--size", "32x32", "--frames", "5", "--output", "x.mp4", "--frames-dir",
      "png", "--contact-sheet", "sheet.png", "--latents-out", "x.safetensors", "--overwrite"},
     RESUMES},
    {"refine",
     {"refine", "../in/clip.mkv", SMALL, "--frames", "5", "--overlap", "1", "--strength", "0.5", "--refine-size",
      "48x32", "--guidance", "1", "--output", "x.mkv", "--codec", "ffv1", "--overwrite"},
     RESUMES},
    {"batch", {"batch", "../in/batch.yaml", "--output-dir", ".", "--progress", "none"}, RESUMES | BATCH},
    {"resume",
     {"render", "--prompt", "a ball", SMALL, "--size", "32x32", "--frames", "5", "--output", "x.mkv", "--codec",
      "ffv1", "--resume", "--overwrite"},
     0},
    {"gpu", {"render", "--prompt", "a ball", ON_GPU, "--attention", "permute"}, RESUMES | GPU},
    {"gpu-offload", {"render", "--prompt", "a ball", ON_GPU, "--attention", "draft", "--offload", "--context-cache", "host"}, RESUMES | GPU},
    {"gpu-hopper",
     {"render", "--prompt", "a ball", ON_GPU, "--model", WIDE_MODEL, "--attention", "window", "--linear-precision", "fp8",
      "--base-attention-precision", "int8", "--attention-skip", "0.001"},
     RESUMES | GPU | HOPPER},
    {"gpu-batch", {"batch", "../in/gpu.yaml", "--output-dir", ".", "--progress", "none"}, RESUMES | BATCH | GPU},
};
enum { JOBS = sizeof jobs / sizeof *jobs };

/* What the run leaves in its folder. */
typedef struct outputs {
    int count;
    char name[FILES][64], hash[FILES][KN_SHA256_TEXT];
} outputs;

typedef struct run {
    int code, signal;
    char message[512], trouble[512];
} run;

static outputs expected[JOBS];
static int gpu_here, hopper_here;
static long kept_blocks[JOBS]; /* CUDA's runtime, linked into the program, keeps some */
static int kept_descriptors[JOBS];
static char root[256], out_folder[300];

/* ---- files ----------------------------------------------------------------------------------- */

static int ends(const char *name, const char *with)
{
    size_t n = strlen(name), m = strlen(with);
    return n >= m && !strcmp(name + n - m, with);
}

/* Of a sidecar the keys: one that is missing was lost on the way. A line of results.jsonl may be half
 * where a write failed. */
static void add_keys(kn_sha256 *s, const json_t *j)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)j, key, value) {
        kn_sha256_add(s, key, strlen(key) + 1);
        add_keys(s, value);
    }
}

static void hash_keys(const char *path, const char *name, char hash[KN_SHA256_TEXT], char *trouble)
{
    json_error_t error;
    kn_sha256 s;
    kn_sha256_init(&s);
    json_t *j = json_load_file(path, 0, &error);
    if (!j) snprintf(trouble, 512, "%s is no whole JSON: %s", name, error.text);
    add_keys(&s, j);
    json_decref(j);
    kn_sha256_text(&s, hash);
}

static void list_outputs(const char *folder, const char *prefix, outputs *o, char *trouble)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[700], name[300];
        struct stat s;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(path, sizeof path, "%s/%.255s", folder, e->d_name);
        snprintf(name, sizeof name, "%s%.255s", prefix, e->d_name);
        if (lstat(path, &s) == 0 && S_ISDIR(s.st_mode)) {
            strcat(name, "/");
            list_outputs(path, name, o, trouble);
            continue;
        }
        if (strstr(e->d_name, ".tmp-")) snprintf(trouble, 512, "left behind: %.200s", name);
        if (ends(name, ".checkpoint.safetensors") || strstr(name, ".segment") || ends(name, ".lock")) continue;
        if (o->count == FILES || ends(name, ".jsonl")) continue;
        snprintf(o->name[o->count], sizeof o->name[0], "%.63s", name);
        if (ends(name, ".json"))
            hash_keys(path, name, o->hash[o->count], trouble);
        else
            expect_ok(kn_sha256_file(path, o->hash[o->count]));
        o->count++;
    }
    if (d) closedir(d);
}

/* Every file must be one of the undisturbed run's, with its bytes; all of them if `all`. */
static void compare_outputs(const outputs *want, int all, char *trouble)
{
    static outputs got;
    got.count = 0;
    list_outputs(out_folder, "", &got, trouble);
    for (int i = 0; i < got.count; i++) {
        int k = 0;
        while (k < want->count && strcmp(want->name[k], got.name[i])) k++;
        if (k == want->count)
            snprintf(trouble, 512, "%s: not one of the outputs", got.name[i]);
        else if (strcmp(want->hash[k], got.hash[i]))
            snprintf(trouble, 512, "%s has its final name and other bytes (or keys)", got.name[i]);
    }
    if (all && got.count < want->count) snprintf(trouble, 512, "success, but %d of %d outputs", got.count, want->count);
}

static void in_root(char path[320], const char *name)
{
    snprintf(path, 320, "%s/%s", root, name);
}

/* ---- one run --------------------------------------------------------------------------------- */

static int open_descriptors(void)
{
    int n = 0;
    for (int fd = 3; fd < 256; fd++) n += fcntl(fd, F_GETFD) != -1;
    return n;
}

static void child(const job *j, int resume)
{
    char *argv[56] = {"kinora"}, text[320];
    int argc = 1;
    for (; j->args[argc - 1]; argc++) argv[argc] = (char *)j->args[argc - 1];
    if (resume) argv[argc++] = "--resume";
    if (chdir(out_folder) != 0) _exit(99);
    in_root(text, "out.txt");
    if (!freopen(text, "w", stdout)) _exit(99);
    in_root(text, "err.txt");
    if (!freopen(text, "w", stderr)) _exit(99);
    alarm(LIMIT_SEC);
    int before = open_descriptors();
    inject->active = 1;
    int code = kn_cli_main(argc, argv);
    inject->active = 0;
    inject->ended = 1;
    if (inject->blocks) inject_find_leaks();
    inject->descriptors = open_descriptors() - before;
    fflush(stdout);
    fflush(stderr);
    _exit(code);
}

/* Exactly one line for people; of a batch the table says it. */
static void check_message(const job *j, run *r)
{
    char path[320], line[1024];
    int lines = 0;
    in_root(path, "err.txt");
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "kinora: ", 8)) continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(r->message, sizeof r->message, "%.500s", line + 8);
        lines++;
    }
    if (f) fclose(f);
    if (r->code == 1 && (j->is & BATCH)) {
        in_root(path, "out.txt");
        f = fopen(path, "r");
        while (f && fgets(line, sizeof line, f))
            if (strstr(line, "  failed  ")) {
                line[strcspn(line, "\n")] = '\0';
                snprintf(r->message, sizeof r->message, "%.500s", strstr(line, "  failed  ") + 8);
            }
        if (f) fclose(f);
        if (!*r->message) snprintf(r->trouble, sizeof r->trouble, "the batch does not say what failed");
    } else if (lines != 1) {
        snprintf(r->trouble, sizeof r->trouble, "%d messages, expected 1", lines);
    }
}

static void start(const job *j, int resume, int keep, run *r)
{
    *r = (run){0};
    if (!keep) {
        remove_tree(out_folder);
        if (mkdir(out_folder, 0700) != 0) fail_msg("%s: %s", out_folder, strerror(errno));
        if (!strcmp(j->name, "resume")) {
            char from[320], to[400];
            in_root(from, "in/checkpoint.safetensors");
            snprintf(to, sizeof to, "%s/x.mkv.checkpoint.safetensors", out_folder);
            assert_int_equal(link(from, to), 0);
        }
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) child(j, resume);
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) fail_msg("starting a process: %s", strerror(errno));
    inject->active = 0; /* a process that was killed had no time for it */
    r->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    r->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void reset(int kind, int theirs, long at)
{
    memset(inject, 0, sizeof *inject);
    inject->kind = kind;
    inject->theirs = theirs;
    inject->at = at;
}

static int documented(const job *j, int code)
{
    static const int codes[] = {0, 2, 3, 4, 5, 6, 130};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (code == codes[i]) return 1;
    return code == 1 && (j->is & BATCH);
}

static void check_kept(const job *j, run *r)
{
    long blocks = inject->blocks - kept_blocks[j - jobs];
    int descriptors = inject->descriptors - kept_descriptors[j - jobs];
    if (blocks > 0) snprintf(r->trouble, sizeof r->trouble, "%ld own blocks leaked", blocks);
    if (descriptors > 0) snprintf(r->trouble, sizeof r->trouble, "%d descriptors kept", descriptors);
}

static int applies(const job *j, int kind)
{
    if ((j->is & HOPPER) && !hopper_here) return 0;
    if (kind == INJECT_CUDA || kind == INJECT_LOST) return (j->is & GPU) && gpu_here;
    return kind == INJECT_DEVICE ? !(j->is & GPU) || gpu_here : !(j->is & GPU);
}

/* Fails one call; says in r->trouble what is wrong with the end of the run. */
static void try_point(const job *j, int kind, int theirs, long at, int again, run *r)
{
    const outputs *want = &expected[j - jobs];
    reset(kind, theirs, at);
    start(j, 0, 0, r);
    if (inject->hits == 0) { /* it got through before that call */
        if (r->code != 0) snprintf(r->trouble, sizeof r->trouble, "exit code %d without a failure", r->code);
        return;
    }
    if (r->signal) {
        snprintf(r->trouble, sizeof r->trouble, r->signal == SIGALRM ? "hangs" : "signal %d", r->signal);
        return;
    }
    if (!inject->ended) {
        snprintf(r->trouble, sizeof r->trouble, "exit code %d from inside, not from the program's end", r->code);
        return;
    }
    if (!documented(j, r->code)) {
        snprintf(r->trouble, sizeof r->trouble, "exit code %d", r->code);
        return;
    }
    if (r->code != 0) check_message(j, r);
    int short_of = kind == INJECT_ALLOC || kind == INJECT_DRY || kind == INJECT_DEVICE || kind == INJECT_CUDA || kind == INJECT_LOST;
    if (r->code > 1 && r->code != 4 && !theirs && short_of)
        snprintf(r->trouble, sizeof r->trouble, "exit code %d, expected 4", r->code);
    check_kept(j, r);
    /* A temporary file that cannot be removed stays; the next run of the job removes it. */
    int stays = !strcmp(inject->what, "unlink");
    compare_outputs(want, r->code == 0, r->trouble);
    if (stays && !strncmp(r->trouble, "left behind", 11)) *r->trouble = '\0';
    if (*r->trouble || !again || !(j->is & RESUMES)) return;
    inject_state kept = *inject;
    run second;
    reset(kind, theirs, 0);
    start(j, 1, 1, &second);
    if (second.code != 0) {
        check_message(j, &second);
        snprintf(r->trouble, sizeof r->trouble, "--resume afterwards: exit code %d: %.400s", second.code, second.message);
    } else {
        compare_outputs(want, 1, r->trouble);
        if (stays && !strncmp(r->trouble, "left behind", 11)) *r->trouble = '\0';
    }
    *inject = kept;
}

static void tell(const job *j, int kind, int theirs, long at, const run *r)
{
    printf("%s, %s %ld%s (%s): %s; exit code %d: %s\n", j->name, inject_kind_name(kind), at,
           theirs ? " of the libraries" : "", inject->what, r->trouble, r->code, r->message);
    fflush(stdout);
    backtrace_symbols_fd(inject->frame, inject->frames, 1);
    for (int i = 0; i < 4 && inject->leaked[i]; i++) backtrace_symbols_fd(&inject->leaked[i], 1, 1);
}

/* ---- preparation ----------------------------------------------------------------------------- */

static void put_text(const char *name, const char *text)
{
    char path[320];
    in_root(path, name);
    put_file(path, text, strlen(text));
}

/* The demo model with one layer in each of its two transformers: fewer tensors, fewer calls that repeat. */
static void copy_text(const char *name, const char *find, char with)
{
    char from[400], to[400], *data;
    size_t size;
    snprintf(from, sizeof from, DEMO "/%s", name);
    snprintf(to, sizeof to, "%s/in/model/%s", root, name);
    expect_ok(kn_file_read(from, 1 << 20, &data, &size));
    char *at = find ? strstr(data, find) : NULL;
    if (find) {
        assert_non_null(at);
        at[strlen(find)] = with;
    }
    put_file(to, data, size);
    kn_free(data);
}

static void copy_first_layer(const char *name)
{
    enum { TENSORS = 512 };
    static kn_st_tensor tensors[TENSORS];
    char from[400], to[400];
    kn_safetensors *s;
    int count = 0;
    snprintf(from, sizeof from, DEMO "/%s", name);
    snprintf(to, sizeof to, "%s/in/model/%s", root, name);
    expect_ok(kn_safetensors_open(from, NULL, &s));
    for (int i = 0; i < kn_safetensors_count(s); i++) {
        const kn_st_tensor *t = kn_safetensors_at(s, i);
        if (!strncmp(t->name, "blocks.", 7) && strncmp(t->name, "blocks.0.", 9)) continue;
        if (!strncmp(t->name, "encoder.block.", 14) && strncmp(t->name, "encoder.block.0.", 16)) continue;
        assert_true(count < TENSORS);
        tensors[count++] = *t;
    }
    expect_ok(kn_safetensors_write(to, tensors, count, NULL));
    kn_safetensors_close(&s);
}

static void make_model(void)
{
    static const char *const folders[] = {"", "/scheduler", "/text_encoder", "/tokenizer", "/transformer", "/vae"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[400];
        snprintf(path, sizeof path, "%s/in/model%s", root, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    copy_text("model_index.json", NULL, 0);
    copy_text("kinora.json", NULL, 0);
    copy_text("scheduler/scheduler_config.json", NULL, 0);
    copy_text("text_encoder/config.json", "\"num_layers\": ", '1');
    copy_text("transformer/config.json", "\"num_layers\": ", '1');
    copy_text("vae/config.json", NULL, 0);
    copy_text("tokenizer/tokenizer_config.json", NULL, 0);
    copy_text("tokenizer/special_tokens_map.json", NULL, 0);
    copy_text("tokenizer/spiece.model", NULL, 0);
    copy_first_layer("text_encoder/model.safetensors");
    copy_first_layer("transformer/diffusion_pytorch_model.safetensors");
    copy_first_layer("vae/diffusion_pytorch_model.safetensors");
}

/* The same, read as one of two heads of 128 instead of four of 64, which 8-bit attention takes. */
static void make_wide_model(void)
{
    static const char *const shared[] = {"model_index.json", "kinora.json", "scheduler", "text_encoder", "tokenizer", "vae",
                                         "transformer/diffusion_pytorch_model.safetensors"};
    char path[400], target[100], *data, *heads, *dim;
    size_t size;
    snprintf(path, sizeof path, "%s/in/wide", root);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/in/wide/transformer", root);
    assert_int_equal(mkdir(path, 0700), 0);
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
        snprintf(path, sizeof path, "%s/in/wide/%s", root, shared[i]);
        snprintf(target, sizeof target, "%s../model/%s", strchr(shared[i], '/') ? "../" : "", shared[i]);
        assert_int_equal(symlink(target, path), 0);
    }
    snprintf(path, sizeof path, "%s/in/model/transformer/config.json", root);
    expect_ok(kn_file_read(path, 1 << 20, &data, &size));
    heads = strstr(data, "\"num_attention_heads\": 4"), dim = strstr(data, "\"attention_head_dim\": 64,");
    assert_true(heads && dim);
    heads[strlen("\"num_attention_heads\": ")] = '2';
    memcpy(dim, "\"attention_head_dim\":128,", strlen("\"attention_head_dim\":128,"));
    snprintf(path, sizeof path, "%s/in/wide/transformer/config.json", root);
    put_file(path, data, size);
    kn_free(data);
}

static void undisturbed(const job *j, int keep, outputs *o)
{
    run r;
    reset(INJECT_ALLOC, 0, 0);
    start(j, 0, keep, &r);
    if (r.code != 0 || r.signal) {
        r.code = 99;
        check_message(j, &r);
        fail_msg("%s, undisturbed: %s", j->name, r.message);
    }
    if (o) list_outputs(out_folder, "", o, r.trouble);
    if (inject->blocks) snprintf(r.trouble, sizeof r.trouble, "%ld own blocks leaked", inject->blocks);
    if (inject->descriptors) snprintf(r.trouble, sizeof r.trouble, "%d descriptors kept", inject->descriptors);
    if (*r.trouble) {
        tell(j, 0, 0, 0, &r);
        fail_msg("%s, undisturbed: %s", j->name, r.trouble);
    }
}

/* The first of those for a GPU. */
static const job *gpu_job(void)
{
    int i = 0;
    while (!(jobs[i].is & GPU)) i++;
    return &jobs[i];
}

static void undisturbed_on_gpu(int i)
{
    run r;
    if (&jobs[i] != gpu_job() && !gpu_here) return;
    reset(INJECT_ALLOC, 0, 0);
    start(&jobs[i], 0, 0, &r);
    int here = r.code != 5; /* no driver, no GPU, a build without, another GPU */
    *(jobs[i].is & HOPPER ? &hopper_here : &gpu_here) = here;
    if (!here) return;
    if (r.code != 0 || r.signal) {
        check_message(&jobs[i], &r);
        fail_msg("%s, undisturbed: exit code %d, signal %d: %s", jobs[i].name, r.code, r.signal, r.message);
    }
    list_outputs(out_folder, "", &expected[i], r.trouble);
    kept_blocks[i] = inject->blocks;
    kept_descriptors[i] = inject->descriptors;
}

static int setup(void **state)
{
    (void)state;
    struct stat s;
    void *warm[2];
    backtrace(warm, 2); /* loads libgcc once, before anything is counted */
    snprintf(root, sizeof root, "%s/kn_points_XXXXXX", stat("/dev/shm", &s) == 0 ? "/dev/shm" : ".");
    if (!mkdtemp(root)) return -1;
    if (*root == '.' && !realpath(root, out_folder)) return -1;
    if (*root == '.') snprintf(root, sizeof root, "%.255s", out_folder);
    snprintf(out_folder, sizeof out_folder, "%s/out", root);
    inject = mmap(NULL, sizeof *inject, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    inject_calls = mmap(NULL, INJECT_STACKS * sizeof *inject_calls, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (inject == MAP_FAILED || inject_calls == MAP_FAILED) return -1;
    char path[320], to[320];
    in_root(path, "in");
    if (mkdir(path, 0700) != 0) return -1;
    make_model();
    make_wide_model();
    put_text("in/config.yaml", "guidance: 1\nshift: 3\n");
    put_text("in/prompt.txt", "a ball\n");
    put_text("in/gpu.yaml",
             "defaults: {model: " MODEL ", device: cuda, threads: 2, steps: 2, checkpoint-every: 1, frames: 5, size: 32x32, seed: 1, refine-size: 48x32}\n"
             "jobs:\n"
             "  - {prompt: a ball, name: a, attention: permute, override: true, context-cache: int8, codec: ffv1, output: a.mkv}\n"
             "  - {prompt: a star, name: b, offload: true, codec: ffv1, output: b.mkv}\n");
    put_text("in/batch.yaml",
             "defaults: {model: " MODEL ", device: cpu, threads: 2, steps: 2, checkpoint-every: 1, frames: 5, size: 32x32, seed: 1, guidance: 1}\n"
             "jobs:\n"
             "  - {prompt: a ball, name: a}\n"
             "  - {prompt: a star, name: b, refine-size: 48x32, attention: permute, codec: ffv1, output: b.mkv}\n");
    static const job clip = {
        "clip", {"render", "--prompt", "a star", SMALL, "--size", "32x32", "--frames", "9", "--output", "c.mkv", "--codec", "ffv1"}, 0};
    static const job begun = {
        "begun", {"render", "--prompt", "a ball", SMALL, "--size", "32x32", "--frames", "5", "--output", "x.mkv", "--codec", "ffv1", "--keep-checkpoint"}, 0};
    undisturbed(&clip, 0, NULL);
    snprintf(path, sizeof path, "%.250s/c.mkv", out_folder);
    in_root(to, "in/clip.mkv");
    if (rename(path, to) != 0) return -1;
    undisturbed(&begun, 0, NULL);
    snprintf(path, sizeof path, "%.250s/x.mkv.checkpoint.safetensors", out_folder);
    in_root(to, "in/checkpoint.safetensors");
    if (rename(path, to) != 0) return -1;
    for (int i = 0; i < JOBS; i++)
        if (jobs[i].is & GPU)
            undisturbed_on_gpu(i);
        else
            undisturbed(&jobs[i], 0, &expected[i]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_tree(root);
    return 0;
}

/* ---- the ctest ------------------------------------------------------------------------------- */

static void samples_of_every_kind(void **state)
{
    (void)state;
    int bad = 0, tried = 0;
    for (int i = 0; i < JOBS; i++) {
        long seen[INJECT_KINDS];
        run r;
        if (((jobs[i].is & GPU) && !gpu_here) || ((jobs[i].is & HOPPER) && !hopper_here)) continue;
        reset(INJECT_ALLOC, 0, 0);
        start(&jobs[i], 0, 0, &r);
        for (int k = 0; k < INJECT_KINDS; k++) seen[k] = inject->seen[k][0];
        assert_true(seen[INJECT_ALLOC] > 100 && seen[INJECT_READ] > 10); /* the calls do pass through inject.c */
        assert_true(i == 0 || (seen[INJECT_DEVICE] > 100 && seen[INJECT_WRITE] > 10));
        assert_true(jobs[i].is & GPU ? seen[INJECT_CUDA] > 500 : i == 0 || seen[INJECT_THREAD] > 0);
        for (int k = 0; k < INJECT_KINDS; k++) {
            long last = 0;
            if (!applies(&jobs[i], k)) continue;
            for (int n = 0; n < SAMPLES; n++) {
                long at = 1 + (seen[k] - 1) * n / (SAMPLES - 1);
                if (at <= last || at > seen[k]) continue;
                last = at;
                try_point(&jobs[i], k, 0, at, 1, &r);
                if (*r.trouble) tell(&jobs[i], k, 0, at, &r);
                bad += *r.trouble != 0;
                tried += inject->hits > 0;
            }
        }
    }
    printf("%d points tried, %d bad\n", tried, bad);
    assert_int_equal(bad, 0);
    assert_true(tried > 100);
}

/* ---- machines and cards ------------------------------------------------------------------------ */

static void no_gpu_of_use(void **state)
{
    (void)state;
#ifndef KN_HAVE_CUDA
    skip();
#else
    static const struct {
        int card;
        const char *says;
    } cards[] = {
        {INJECT_CARD_NO_DRIVER, "no NVIDIA driver on this machine"},
        {INJECT_CARD_OLD_DRIVER, "the driver is for CUDA 11.4; this build needs one for"},
        {INJECT_CARD_NONE, "the driver shows no GPU"},
        {INJECT_CARD_TOO_OLD, "A card of 2017 has compute capability 7.0; 8.0 or newer is needed"},
    };
    static const outputs none;
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++) {
        run r;
        reset(INJECT_ALLOC, 0, 0);
        inject->card = cards[i].card;
        start(gpu_job(), 0, 0, &r);
        check_message(gpu_job(), &r);
        compare_outputs(&none, 0, r.trouble);
        if (r.code != 5 || *r.trouble || !strstr(r.message, cards[i].says))
            fail_msg("card %d: exit code %d, signal %d, %s: %s", cards[i].card, r.code, r.signal, r.trouble, r.message);
    }
#endif
}

/* From a card that holds nothing to one on which the job gets through. */
static void card_too_small(void **state)
{
    (void)state;
    if (!gpu_here) skip();
    int refused = 0, done = 0;
    for (size_t mib = 16; mib <= 2048; mib += mib < 256 ? 16 : 64) {
        run r;
        reset(INJECT_ALLOC, 0, 0);
        inject->card_bytes = mib << 20;
        start(gpu_job(), 0, 0, &r);
        if (r.code != 0) check_message(gpu_job(), &r);
        compare_outputs(&expected[gpu_job() - jobs], r.code == 0, r.trouble);
        if (r.code != 0 && r.code != 4) snprintf(r.trouble, sizeof r.trouble, "exit code %d, expected 4", r.code);
        if (r.signal) snprintf(r.trouble, sizeof r.trouble, "signal %d", r.signal);
        check_kept(gpu_job(), &r);
        print_message("%4zu MiB: exit code %d: %s\n", mib, r.code, r.message);
        if (*r.trouble) fail_msg("a card of %zu MiB: %s", mib, r.trouble);
        refused += r.code == 4;
        done += r.code == 0;
    }
    assert_true(refused > 0 && done > 0);
}

/* ---- the full campaign ----------------------------------------------------------------------- */

typedef struct tally {
    long tried, bad, code[256];
} tally;

static int compare_ulong(const void *a, const void *b)
{
    unsigned long x = *(const unsigned long *)a, y = *(const unsigned long *)b;
    return (x > y) - (x < y);
}

/* worth[n - 1]: call n is the first, second or last with its call stack, or one in 64. Returns the number of
 * calls; *distinct: of different stacks. */
static long choose_calls(const job *j, int kind, int theirs, bool *worth, long *distinct)
{
    static unsigned long sorted[INJECT_STACKS];
    static unsigned char times[INJECT_STACKS];
    run r;
    reset(kind, theirs, 0);
    inject->note_stacks = 1;
    start(j, 0, 0, &r);
    long n = inject->seen[kind][theirs], different = 0;
    assert_true(n <= INJECT_STACKS);
    for (long i = 0; i < n; i++) sorted[i] = inject_calls[i].stack;
    qsort(sorted, (size_t)n, sizeof *sorted, compare_ulong);
    memset(times, 0, sizeof times);
    for (int forward = 1; forward >= 0; forward--)
        for (long k = 0; k < n; k++) {
            long i = forward ? k : n - 1 - k;
            unsigned long *at = bsearch(&inject_calls[i].stack, sorted, (size_t)n, sizeof *sorted, compare_ulong);
            while (at > sorted && at[-1] == *at) at--;
            unsigned char *seen = &times[at - sorted];
            if (forward) {
                worth[i] = *seen < 2 || i % 64 == 0;
                different += *seen == 0;
                *seen += *seen < 2;
            } else if (*seen != 100) {
                worth[i] = true;
                *seen = 100;
            }
        }
    *distinct = different;
    return n;
}

/* ---- by place in the program ------------------------------------------------------------------ */

enum { PLACES = 1 << 14 };

typedef struct place {
    const job *j;
    long at;
    unsigned long hash;
    const void *caller;
    char what[40];
} place;

typedef struct places {
    int count;
    place list[PLACES];
} places;

static int is_known(const places *p, unsigned long hash)
{
    for (int i = 0; i < p->count; i++)
        if (p->list[i].hash == hash) return 1;
    return 0;
}

static void add_place(places *p, const job *j, long at, unsigned long hash)
{
    const inject_call *c = &inject_calls[at - 1];
    assert_true(p->count < PLACES);
    place *new = &p->list[p->count++];
    *new = (place){.j = j, .at = at, .hash = hash, .caller = c->caller};
    snprintf(new->what, sizeof new->what, "%s", c->what);
}

/* First calls by place and, of places that are known, by place and callers. */
static void find_places(places *sites, places *chains)
{
    for (int i = 0; i < JOBS; i++) {
        run r;
        if (!applies(&jobs[i], INJECT_CUDA)) continue;
        reset(INJECT_CUDA, 0, 0);
        inject->note_stacks = 1;
        start(&jobs[i], 0, 0, &r);
        long calls = inject->seen[INJECT_CUDA][0];
        assert_true(calls <= INJECT_STACKS);
        for (long n = 1; n <= calls; n++) {
            const inject_call *c = &inject_calls[n - 1];
            if (!is_known(sites, c->site))
                add_place(sites, &jobs[i], n, c->site);
            else if (!is_known(chains, c->near))
                add_place(chains, &jobs[i], n, c->near);
        }
        printf("%s: %ld calls; places %d, with other callers %d\n", jobs[i].name, calls, sites->count, chains->count);
        fflush(stdout);
    }
}

/* Did the call fail that was meant? */
static int is_meant(const place *p)
{
    if (strcmp(inject->what, p->what)) return 0;
    for (int i = 0; i < inject->frames; i++)
        if (inject->frame[i] == p->caller) return 1;
    return 0;
}

static void try_places(const places *p, const char *name, int share, int of, double until, FILE *tsv)
{
    extern char __executable_start;
    static const int kinds[2] = {INJECT_CUDA, INJECT_LOST};
    long tried[2] = {0}, meant[2] = {0}, bad[2] = {0};
    for (int n = share; n < p->count && (double)time(NULL) < until; n += of)
        for (int k = 0; k < 2; k++) {
            const place *x = &p->list[n];
            run r;
            try_point(x->j, kinds[k], 0, x->at, 0, &r);
            tried[k] += inject->hits > 0;
            meant[k] += is_meant(x);
            bad[k] += *r.trouble != 0;
            if (*r.trouble) tell(x->j, kinds[k], 0, x->at, &r);
            fprintf(tsv, "%s\t%s\t%s\t%ld\t%s\t%#lx\t%d\t%d\t%s\t%s\n", x->j->name, inject_kind_name(kinds[k]), name, x->at,
                    inject->what, (unsigned long)((const char *)x->caller - &__executable_start), r.code, r.signal,
                    *r.trouble ? r.trouble : "-", r.message);
            fflush(tsv);
        }
    for (int k = 0; k < 2; k++)
        printf("%s, %s: %d in all; of this share %ld tried, %ld at the place that was meant, %ld bad\n", name,
               inject_kind_name(kinds[k]), p->count, tried[k], meant[k], bad[k]);
    fflush(stdout);
}

static int by_place(int argc, char **argv)
{
    static places sites, chains;
    double until = argc > 5 ? (double)time(NULL) + atof(argv[5]) : 1e18;
    int share = argc > 4 ? atoi(argv[3]) : 0, of = argc > 4 ? atoi(argv[4]) : 1;
    if (of < 1 || setup(NULL) != 0) return 2;
    if (!gpu_here) {
        fprintf(stderr, "fault_pipeline_points: no GPU here\n");
        return 77;
    }
    FILE *tsv = fopen(argv[2], "a");
    if (!tsv) return 2;
    find_places(&sites, &chains);
    if (!strcmp(argv[1], "sites")) try_places(&sites, "place", share, of, until, tsv);
    try_places(&chains, "callers", share, of, until, tsv);
    fclose(tsv);
    return teardown(NULL);
}

/* Calls number from, from + every, ... to `to`, or until the job gets through; every: 0 means one of each call
 * stack, see choose_calls. */
static void sweep(const job *j, int kind, int theirs, long every, long from, long to, FILE *tsv)
{
    static bool worth[INJECT_STACKS];
    tally t = {0};
    int missed = 0;
    long distinct = 0, calls = every ? 0 : choose_calls(j, kind, theirs, worth, &distinct);
    if (!every) printf("%s, %s, %s: %ld calls from %ld different call stacks\n", j->name, inject_kind_name(kind), theirs ? "libraries" : "own", calls, distinct);
    fflush(stdout);
    /* Two in a row without a hit: with threads the number of calls varies by a few. */
    for (long at = from; missed < 2 && at <= to; at += every ? every : 1) {
        run r;
        if (!every && at <= calls && !worth[at - 1]) continue;
        int again = !theirs && (kind == INJECT_READ || kind == INJECT_WRITE || kind == INJECT_FULL);
        try_point(j, kind, theirs, at, again, &r);
        if (inject->hits == 0) {
            missed++;
            continue;
        }
        missed = 0;
        t.tried++;
        t.code[r.code & 255]++;
        t.bad += *r.trouble != 0;
        Dl_info library = {0};
        if (theirs && inject->frames > 2) dladdr(inject->frame[2], &library);
        if (*r.trouble) tell(j, kind, theirs, at, &r);
        fprintf(tsv, "%s\t%s\t%s\t%ld\t%s\t%s\t%d\t%d\t%s\t%s\n", j->name, inject_kind_name(kind), theirs ? "theirs" : "own", at,
                inject->what, library.dli_fname ? library.dli_fname : "-", r.code, r.signal, *r.trouble ? r.trouble : "-", r.message);
        fflush(tsv);
    }
    printf("%s, %s, %s: %ld points, %ld bad; exit codes", j->name, inject_kind_name(kind), theirs ? "libraries" : "own", t.tried, t.bad);
    for (int c = 0; c < 256; c++)
        if (t.code[c]) printf(" %dx%ld", c, t.code[c]);
    printf("\n");
    fflush(stdout);
}

/* Calls of each kind in the undisturbed jobs. */
static int count_points(void)
{
    if (setup(NULL) != 0) return 2;
    for (int i = 0; i < JOBS; i++) {
        run r;
        reset(INJECT_ALLOC, 0, 0);
        start(&jobs[i], 0, 0, &r);
        if (((jobs[i].is & GPU) && !gpu_here) || ((jobs[i].is & HOPPER) && !hopper_here)) continue;
        printf("%s:", jobs[i].name);
        for (int k = 0; k < INJECT_KINDS; k++)
            if (applies(&jobs[i], k)) printf(" %s %ld+%ld", inject_kind_name(k), inject->seen[k][0], inject->seen[k][1]);
        printf("\n");
    }
    return teardown(NULL);
}

static int campaign(int argc, char **argv)
{
    int theirs = !strcmp(argv[1], "theirs");
    FILE *tsv = fopen(argv[2], "a");
    if (!tsv || setup(NULL) != 0) return 2;
    for (int i = 0; i < JOBS; i++) {
        if (argc > 3 && strcmp(argv[3], "all") && strcmp(argv[3], jobs[i].name)) continue;
        for (int k = 0; k < INJECT_KINDS; k++) {
            if (argc > 4 && strcmp(argv[4], "all") && strcmp(argv[4], inject_kind_name(k))) continue;
            if (theirs && k != INJECT_ALLOC && k != INJECT_THREAD) continue;
            if (!applies(&jobs[i], k)) continue;
            sweep(&jobs[i], k, theirs, argc > 5 ? atol(argv[5]) : 1, argc > 6 ? atol(argv[6]) : 1,
                  argc > 7 ? atol(argv[7]) : LONG_MAX, tsv);
        }
    }
    fclose(tsv);
    return teardown(NULL);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "count")) return count_points();
    if (argc >= 3 && (!strcmp(argv[1], "sites") || !strcmp(argv[1], "callers"))) return by_place(argc, argv);
    if (argc >= 3) return campaign(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(samples_of_every_kind), cmocka_unit_test(no_gpu_of_use),
                                      cmocka_unit_test(card_too_small)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
