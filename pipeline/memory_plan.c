#include "pipeline/memory_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "compute/device.h"

static const double GIB = 1024.0 * 1024.0 * 1024.0;

/* ---- host memory ------------------------------------------------------------------------------*/

static size_t read_number(const char *path)
{
    unsigned long long v = 0;
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (fscanf(f, "%llu", &v) != 1) v = 0; /* "max": no limit */
    fclose(f);
    return (size_t)v;
}

static size_t meminfo_available(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1) break;
    if (f) fclose(f);
    return (size_t)kib * 1024;
}

size_t kn_host_memory_available(void)
{
    size_t available = meminfo_available();
    size_t limit = read_number("/sys/fs/cgroup/memory.max"), used = read_number("/sys/fs/cgroup/memory.current");
    if (limit && used < limit && limit - used < available) available = limit - used;
    return available;
}

/* ---- plan -------------------------------------------------------------------------------------*/

typedef kn_status measure_fn(kn_job *j, kn_dev *measure);

static kn_status measure(kn_job *j, measure_fn *fn, size_t *bytes)
{
    kn_dev *dev;
    kn_dev_params p = {.kind = KN_DEV_MEASURE, .measured = kn_dev_get_kind(j->dev)};
    KN_TRY(kn_dev_open(&p, &dev));
    kn_status st = fn(j, dev);
    *bytes = kn_dev_bytes_peak(dev);
    kn_dev_close(&dev);
    return st;
}

kn_status kn_memory_plan_build(kn_job *j, kn_memory_plan *out)
{
    static const char *const names[KN_PHASES] = {"text", "denoise", "decode"};
    static measure_fn *const phases[KN_PHASES] = {kn_job_text_measure, kn_job_denoise_measure, kn_job_decode_measure};
    const kn_options *o = j->o;
    bool frames = o->output || o->frames_dir || o->contact_sheet;
    bool needed[KN_PHASES] = {!o->embeds_in && (!j->denoised || o->embeds_out),
                              !j->denoised && (frames || o->latents_out), frames};
    memset(out, 0, sizeof *out);
    out->budget_bytes = o->memory_gib > 0 ? (size_t)(o->memory_gib * GIB) : kn_host_memory_available();
    j->budget_bytes = out->budget_bytes; /* decoding chooses its tiles by it */
    for (int i = 0; i < KN_PHASES; i++) {
        out->phase[i].name = names[i];
        out->phase[i].needed = needed[i];
        if (needed[i]) KN_TRY(measure(j, phases[i], &out->phase[i].peak_bytes));
    }
    return KN_OK;
}

void kn_memory_plan_tell(kn_job *j, const kn_memory_plan *p)
{
    for (int i = 0; i < KN_PHASES; i++)
        if (p->phase[i].needed)
            kn_job_note(j, "%-8s %8.3f GiB", p->phase[i].name, (double)p->phase[i].peak_bytes / GIB);
    kn_job_note(j, "budget   %8.3f GiB", (double)p->budget_bytes / GIB);
}

kn_status kn_memory_plan_check(kn_job *j, const kn_memory_plan *p)
{
    for (int i = 0; i < KN_PHASES; i++)
        if (p->budget_bytes && p->phase[i].peak_bytes > p->budget_bytes)
            return kn_fail(KN_ERR_NOMEM, "%s needs %.2f GiB, the budget is %.2f GiB%s; %s", p->phase[i].name,
                           (double)p->phase[i].peak_bytes / GIB, (double)p->budget_bytes / GIB,
                           j->o->memory_gib > 0 ? " (--memory)" : " (memory that is free now)",
                           i == 2 ? "try a smaller --vae-tile or frame size" : "try fewer frames or a smaller frame size");
    return KN_OK;
}
