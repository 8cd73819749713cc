#include "pipeline/memory_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "compute/device.h"
#include "io/memory.h"
#include "pipeline/render_output.h"

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

/* Of a GPU's memory: kernels that CUDA, cuDNN and cuBLASLt load as they are first used. */
enum { LIBRARIES_BYTES = 512 << 20 };

/* What the session keeps can be closed. A GPU that is not here is planned for without a limit. */
static size_t available(kn_dev *d)
{
    if (kn_dev_get_kind(d) == KN_DEV_MEASURE) return 0;
    size_t own = kn_dev_memory_free(d);
    if (own) own = own > LIBRARIES_BYTES ? own - LIBRARIES_BYTES : 1;
    return (own ? own : kn_host_memory_available()) + kn_dev_bytes_now(d);
}

/* Code that libraries bring in only when they first compute, encode or write: measured with oneDNN 2.6 and
 * FFmpeg 5.1. */
enum { LATE_CODE_BYTES = 6 << 20 };

/* Of the CPU's phases: what the process holds now. Tensors that a session keeps are in their phases. */
static size_t host_base(kn_dev *d)
{
    size_t now = kn_memory_resident(), tensors = kn_dev_bytes_now(d);
    if (kn_dev_measured(d) == KN_DEV_CUDA) return 0;
    return (now > tensors ? now - tensors : 0) + LATE_CODE_BYTES;
}

typedef kn_status measure_fn(kn_job *j, int pass, kn_session *measure);

static kn_status add_phase(kn_job *j, kn_memory_plan *p, const char *name, kn_network network,
                           measure_fn *fn, int pass, const char *advice)
{
    kn_session measure = {0};
    kn_dev_params params = {.kind = KN_DEV_MEASURE, .measured = kn_dev_measured(j->session->dev)};
    KN_TRY(kn_dev_open(&params, &measure.dev));
    kn_status st = fn(j, pass, &measure);
    p->phase[p->phases].name = name;
    p->phase[p->phases].network = network;
    p->phase[p->phases].advice = advice;
    p->phase[p->phases].host_bytes = measure.host_bytes;
    p->phase[p->phases++].peak_bytes = kn_dev_bytes_peak(measure.dev);
    kn_session_close(&measure);
    return st;
}

kn_status kn_memory_plan_build(kn_job *j, kn_memory_plan *out)
{
    static const char smaller[] = "try fewer frames or a smaller frame size", tile[] = "try a smaller --vae-tile or frame size";
    static const char elsewhere[] = "encode the prompt on the CPU (--device cpu --embeds-out FILE), then give --embeds-in FILE";
    const kn_options *o = j->o;
    bool frames = kn_job_wants_frames(j), denoise = kn_job_wants_latents(j);
    memset(out, 0, sizeof *out);
    out->budget_bytes = o->memory_gib > 0 ? (size_t)(o->memory_gib * GIB) : available(j->session->dev);
    out->base_bytes = host_base(j->session->dev);
    if (!(o->memory_gib > 0)) out->budget_bytes += out->base_bytes; /* is taken already */
    j->budget_bytes = out->budget_bytes; /* the VAE chooses its tiles by it */
    if (out->base_bytes) {
        size_t beside = out->base_bytes + kn_output_bytes(j);
        j->budget_bytes = beside < j->budget_bytes ? j->budget_bytes - beside : 1;
    }
    if (!o->embeds_in && !j->embeds[KN_PROMPT] && (kn_job_first_pass(j) < j->passes || o->embeds_out))
        KN_TRY(add_phase(j, out, "text", KN_NETWORK_TEXT, kn_job_text_measure, 0, elsewhere));
    for (int i = kn_job_first_pass(j); denoise && i < j->passes; i++) {
        const kn_pass *pass = &j->pass[i];
        if (i > 0 && (o->upscale != KN_UPSCALE_LATENT || (o->input && i == 1)))
            KN_TRY(add_phase(j, out, pass->upscale, KN_NETWORK_VAE, kn_job_upscale_measure, i, tile));
        KN_TRY(add_phase(j, out, pass->name, KN_NETWORK_DIT, kn_job_denoise_measure, i,
                         pass->dual ? "try --no-override, fewer frames or a smaller frame size" : smaller));
    }
    return frames ? add_phase(j, out, "decode", KN_NETWORK_VAE, kn_job_decode_measure, 0, tile) : KN_OK;
}

void kn_memory_plan_tell(kn_job *j, const kn_memory_plan *p)
{
    for (int i = 0; i < p->phases; i++)
        kn_job_note(j, "%-9s %8.3f GiB", p->phase[i].name, (double)kn_memory_phase_bytes(p, i) / GIB);
    if (p->budget_bytes)
        kn_job_note(j, "budget    %8.3f GiB", (double)p->budget_bytes / GIB);
    else
        kn_job_note(j, "no GPU is open here: planned for one of any size; --memory GIB sets the limit");
}

kn_status kn_memory_plan_check(kn_job *j, const kn_memory_plan *p)
{
    for (int i = 0; i < p->phases; i++)
        if (p->budget_bytes && kn_memory_phase_bytes(p, i) > p->budget_bytes)
            return kn_fail(KN_ERR_NOMEM, "%s needs %.2f GiB, the budget is %.2f GiB%s; %s", p->phase[i].name,
                           (double)kn_memory_phase_bytes(p, i) / GIB, (double)p->budget_bytes / GIB,
                           j->o->memory_gib > 0 ? " (--memory)" : " (memory that is free now)", p->phase[i].advice);
    return KN_OK;
}
