#include "pipeline/memory_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/attention.h"
#include "compute/device.h"
#include "io/memory.h"
#include "pipeline/render_output.h"

static const double GIB = 1024.0 * 1024.0 * 1024.0;
enum { OFFLOAD_VAE_GIB = 12 };
static const size_t CONTEXTS_PASS_BYTES = (size_t)22e9; /* a pass that leaves a card of 24 GB room for CUDA itself */

/* ---- host memory ------------------------------------------------------------------------------*/

static size_t read_number(const char *path)
{
    char line[64] = "";
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (!fgets(line, sizeof line, f)) *line = '\0';
    fclose(f);
    return (size_t)strtoull(line, NULL, 10); /* "max", no limit, gives 0 */
}

static size_t meminfo_available(void)
{
    static const char key[] = "MemAvailable:";
    char line[128];
    size_t kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, sizeof key - 1)) kib = strtoull(line + sizeof key - 1, NULL, 10);
    if (f) fclose(f);
    return kib * 1024;
}

/* Of a limited address space: stacks and arenas of threads, code and buffers that libraries bring in without asking. With
 * less, oneDNN 2.6 crashes where its own allocations fail. Measured with it and x264 0.164, two threads. */
enum { ADDRESSES_BESIDE_BYTES = 192 << 20 };

size_t kn_host_memory_available(void)
{
    size_t available = meminfo_available();
    size_t limit = read_number("/sys/fs/cgroup/memory.max"), used = read_number("/sys/fs/cgroup/memory.current");
    if (limit && used < limit && limit - used < available) available = limit - used;
    size_t addresses = kn_memory_address_left();
    if (addresses <= ADDRESSES_BESIDE_BYTES) return 1;
    if (addresses - ADDRESSES_BESIDE_BYTES < available) available = addresses - ADDRESSES_BESIDE_BYTES;
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
    kn_dev_params params = {.kind = KN_DEV_MEASURE, .measured = kn_dev_measured(j->session->dev),
                            .offload = kn_dev_offloads(j->session->dev)};
    KN_TRY(kn_dev_open(&params, &measure.dev));
    kn_status st = fn(j, pass, &measure);
    p->phase[p->phases].name = name;
    p->phase[p->phases].network = network;
    p->phase[p->phases].advice = advice;
    p->phase[p->phases].contexts = NULL;
    p->phase[p->phases].host_bytes = kn_dev_host_bytes_peak(measure.dev);
    p->phase[p->phases].outside_bytes = measure.outside_bytes;
    p->phase[p->phases++].peak_bytes = kn_dev_bytes_peak(measure.dev);
    kn_session_close(&measure);
    if (st == KN_ERR_NOMEM && p->base_bytes)
        return KN_CTX(st, "%s: %.2f of %.2f GiB are left beside the encoder and the output frame", name,
                      (double)j->budget_bytes / GIB, (double)p->budget_bytes / GIB);
    return st;
}

static bool host_fits(const kn_job *j, size_t bytes)
{
    size_t there = kn_host_memory_available();
    bool elsewhere = kn_dev_get_kind(j->session->dev) == KN_DEV_MEASURE; /* a plan for another machine */
    return elsewhere || there == 0 || bytes <= there;
}

/* A pass with the second branch's contexts in one place; *fits: within both memories. */
static kn_status try_pass(kn_job *j, kn_memory_plan *p, int i, kn_dit_place place, bool in_place, bool *fits)
{
    kn_pass *pass = &j->pass[i];
    static const char *const advice[2][2] = {
        {"try --offload, fewer frames or a smaller frame size", "try fewer frames or a smaller frame size"},
        {"try --context-cache int8, --offload, --no-override, fewer frames or a smaller frame size",
         "try --no-override, fewer frames or a smaller frame size"}};
    pass->context_cache = place;
    pass->ffn_in_place = in_place;
    KN_TRY(add_phase(j, p, pass->name, KN_NETWORK_DIT, kn_job_denoise_measure, i,
                     advice[pass->dual][kn_dev_offloads(j->session->dev)]));
    static const char *const names[] = {"on the device", "in host memory", "in eight bits"};
    if (pass->dual) p->phase[p->phases - 1].contexts = names[place];
    size_t peak = kn_memory_phase_bytes(p, p->phases - 1), host = p->phase[p->phases - 1].host_bytes;
    *fits = (!p->budget_bytes || peak <= p->budget_bytes) && host_fits(j, host);
    return KN_OK;
}

/* Contexts in host memory cost no time in a step, only a tenth of a second a GiB, once, to lock pages: those of a large pass
 * go there, if the host has half as much again. */
static kn_status prefer_host(kn_job *j, kn_memory_plan *p, int i)
{
    bool fits = false;
    if (kn_memory_phase_bytes(p, p->phases - 1) <= CONTEXTS_PASS_BYTES) return KN_OK;
    p->phases--;
    KN_TRY(try_pass(j, p, i, KN_DIT_ON_HOST, false, &fits));
    if (fits && host_fits(j, p->phase[p->phases - 1].host_bytes / 2 * 3)) return KN_OK;
    p->phases--;
    return try_pass(j, p, i, KN_DIT_ON_DEVICE, false, &fits);
}

/* Contexts where they are asked for; else on the device if the pass is small or fits there alone, else with the host:
 * what is free must not change the result. Who offloads wants the device's memory free. On ref and cpu both are one. */
static kn_status add_pass(kn_job *j, kn_memory_plan *p, int i)
{
    static const kn_dit_place places[] = {KN_DIT_ON_DEVICE, KN_DIT_ON_HOST, KN_DIT_EIGHT_BITS};
    kn_context_cache_choice choice = (kn_context_cache_choice)j->o->context_cache;
    bool gpu = kn_dev_measured(j->session->dev) == KN_DEV_CUDA, dual = j->pass[i].dual, fits = false;
    int first = gpu && kn_dev_offloads(j->session->dev) ? 1 : 0, last = gpu ? 1 : 0;
    if (choice != KN_CACHE_AUTO) first = last = choice == KN_CACHE_INT8 ? 2 : choice == KN_CACHE_HOST && gpu ? 1 : 0;
    if (!dual) first = last = 0;
    for (int k = first; k <= last && !fits; k++) {
        if (k > first) p->phases--;
        KN_TRY(try_pass(j, p, i, places[k], false, &fits));
    }
    if (fits && first < last && j->pass[i].context_cache == KN_DIT_ON_DEVICE) return prefer_host(j, p, i);
    if (fits) return KN_OK;
    for (int k = first; k <= last && !fits; k++) {
        p->phases--;
        KN_TRY(try_pass(j, p, i, places[k], true, &fits));
    }
    return KN_OK;
}

static const char *budget_source(const kn_job *j)
{
    if (j->o->memory_gib > 0) return " (--memory)";
    bool limited = kn_dev_measured(j->session->dev) != KN_DEV_CUDA && kn_memory_address_left() < meminfo_available();
    return limited ? " (what the limit of address space leaves)" : " (memory that is free now)";
}

/* vae_bytes: the VAE's tiles are chosen for a device of that size, if it is less than there is; 0: for what there is. */
static kn_status build(kn_job *j, kn_memory_plan *out, size_t vae_bytes)
{
    static const char tile[] = "try a smaller --vae-tile or frame size";
    static const char elsewhere[] =
        "try --offload, or encode the prompt on the CPU (--device cpu --embeds-out FILE) and give --embeds-in FILE";
    const kn_options *o = j->o;
    bool frames = kn_job_wants_frames(j), denoise = kn_job_wants_latents(j);
    memset(out, 0, sizeof *out);
    out->budget_bytes = o->memory_gib > 0 ? (size_t)(o->memory_gib * GIB) : available(j->session->dev);
    out->base_bytes = host_base(j->session->dev);
    if (!(o->memory_gib > 0)) out->budget_bytes += out->base_bytes; /* is taken already */
    j->budget_bytes = out->budget_bytes;
    if (out->base_bytes) {
        size_t beside = out->base_bytes + kn_output_bytes(j);
        if (beside >= j->budget_bytes)
            return kn_fail(KN_ERR_NOMEM,
                           "frames of %lldx%lld need %.2f GiB for the encoder and the frame at hand, the budget is %.2f GiB%s; "
                           "try a smaller frame size",
                           (long long)j->geo.out_width_px, (long long)j->geo.out_height_px, (double)beside / GIB,
                           (double)out->budget_bytes / GIB, budget_source(j));
        j->budget_bytes -= beside;
    }
    bool less = vae_bytes && (!j->budget_bytes || vae_bytes < j->budget_bytes);
    j->vae_budget_bytes = less ? vae_bytes : j->budget_bytes;
    if (!o->embeds_in && !j->embeds[KN_PROMPT] && (kn_job_first_pass(j) < j->passes || o->embeds_out))
        KN_TRY(add_phase(j, out, "text", KN_NETWORK_TEXT, kn_job_text_measure, 0, elsewhere));
    for (int i = kn_job_first_pass(j); denoise && i < j->passes; i++) {
        if (i > 0 && (o->upscale != KN_UPSCALE_LATENT || (o->input && i == 1)))
            KN_TRY(add_phase(j, out, j->pass[i].upscale, KN_NETWORK_VAE, kn_job_upscale_measure, i, tile));
        KN_TRY(add_pass(j, out, i));
    }
    return frames ? add_phase(j, out, "decode", KN_NETWORK_VAE, kn_job_decode_measure, 0, tile) : KN_OK;
}

/* Who offloads wants the device's memory free: the VAE's tiles, which give the same bytes in any number, are chosen as
 * for a small card, unless frames are so large that they do not fit one or --memory says what to use. */
kn_status kn_memory_plan_build(kn_job *j, kn_memory_plan *out)
{
    const kn_dev *d = j->session->dev;
    bool spares = kn_dev_offloads(d) && kn_dev_measured(d) == KN_DEV_CUDA && !(j->o->memory_gib > 0);
    kn_status st = build(j, out, spares ? (size_t)(OFFLOAD_VAE_GIB * GIB) : 0);
    if (st != KN_ERR_NOMEM || !spares) return st;
    kn_error_clear();
    return build(j, out, 0);
}

void kn_memory_plan_keep(kn_job *j, const kn_memory_plan *p)
{
    j->phases = p->phases;
    for (int i = 0; i < p->phases; i++) {
        kn_phase_memory *m = &j->phase[i];
        size_t *peak = &j->peak_bytes[p->phase[i].network];
        *m = (kn_phase_memory){.planned_bytes = p->phase[i].peak_bytes, .planned_host_bytes = p->phase[i].host_bytes};
        snprintf(m->name, sizeof m->name, "%s", p->phase[i].name);
        if (m->planned_bytes > *peak) *peak = m->planned_bytes;
    }
}

void kn_job_phase_begin(kn_job *j)
{
    kn_attn_forget(j->session->dev); /* lists of the phase before are in no plan of this one */
    kn_dev_reset_peak(j->session->dev);
}

/* A phase runs once for each segment of a clip. */
void kn_job_phase_end(kn_job *j, const char *name)
{
    size_t peak = kn_dev_bytes_peak(j->session->dev), host = kn_dev_host_bytes_peak(j->session->dev);
    for (int i = 0; i < j->phases; i++) {
        kn_phase_memory *m = &j->phase[i];
        if (strcmp(m->name, name) != 0) continue;
        if (peak > m->peak_bytes) m->peak_bytes = peak;
        if (host > m->peak_host_bytes) m->peak_host_bytes = host;
    }
}

void kn_memory_plan_tell(kn_job *j, const kn_memory_plan *p)
{
    for (int i = 0; i < p->phases; i++) {
        double host = p->base_bytes ? 0 : (double)p->phase[i].host_bytes / GIB;
        char beside[48] = "";
        const char *contexts = p->phase[i].contexts;
        if (host > 0) snprintf(beside, sizeof beside, ", and %.3f GiB of host memory", host);
        kn_job_note(j, "%-9s %8.3f GiB%s%s%s", p->phase[i].name, (double)kn_memory_phase_bytes(p, i) / GIB, beside,
                    contexts ? "; contexts " : "", contexts ? contexts : "");
    }
    if (p->budget_bytes)
        kn_job_note(j, "budget    %8.3f GiB", (double)p->budget_bytes / GIB);
    else
        kn_job_note(j, "no GPU is open here: planned for one of any size; --memory GIB sets the limit");
}

void kn_memory_plan_tell_contexts(kn_job *j, const kn_memory_plan *p)
{
    for (int i = 0; i < j->passes; i++)
        if (j->pass[i].dual && j->pass[i].context_cache != KN_DIT_ON_DEVICE)
            for (int k = 0; k < p->phases; k++)
                if (p->phase[k].contexts && !strcmp(p->phase[k].name, j->pass[i].name))
                    kn_job_note(j, "%s: contexts of the full branch %s", p->phase[k].name, p->phase[k].contexts);
}

static kn_status check_host(const kn_memory_plan *p, int phase)
{
    size_t needs = p->phase[phase].host_bytes, free_bytes = kn_host_memory_available();
    if (needs <= free_bytes || free_bytes == 0) return KN_OK;
    return kn_fail(KN_ERR_NOMEM, "%s needs %.2f GiB of host memory, %.2f GiB are free; %s", p->phase[phase].name,
                   (double)needs / GIB, (double)free_bytes / GIB, p->phase[phase].advice);
}

kn_status kn_memory_plan_check(kn_job *j, const kn_memory_plan *p)
{
    bool planned_only = kn_dev_get_kind(j->session->dev) == KN_DEV_MEASURE; /* for another machine */
    for (int i = 0; i < p->phases; i++) {
        if (!planned_only) KN_TRY(check_host(p, i));
        if (p->budget_bytes && kn_memory_phase_bytes(p, i) > p->budget_bytes)
            return kn_fail(KN_ERR_NOMEM, "%s needs %.2f GiB, the budget is %.2f GiB%s; %s", p->phase[i].name,
                           (double)kn_memory_phase_bytes(p, i) / GIB, (double)p->budget_bytes / GIB,
                           budget_source(j), p->phase[i].advice);
    }
    return KN_OK;
}
