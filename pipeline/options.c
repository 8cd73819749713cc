#include "pipeline/options.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "io/json.h"
#include "io/memory.h"
#include "io/text.h"

/* Wan 2.1 wan/configs/shared_config.py sample_neg_prompt: the models were tuned with this text. */
static const char wan_negative_prompt[] =
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"
    "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，"
    "毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走";

enum {
    R = KN_OPTION_SHAPES_RESULT,
    C = KN_OPTION_COMMAND_LINE,
    M = KN_OPTION_MODEL,
    W = KN_OPTION_WRITES,
    MAX_SIDE_PX = 16384,
    MAX_FRAMES = 4097
};

#define AT(field) offsetof(kn_options, field)
#define STR(key, letter, field, init, group, flags, help) \
    {key, letter, KN_OPTION_STRING, AT(field), 0, 0, init, NULL, NULL, group, flags, help}
#define PATH(key, letter, field, group, flags, help) \
    {key, letter, KN_OPTION_PATH, AT(field), 0, 0, NULL, NULL, NULL, group, flags, help}
#define INT(key, letter, field, lo, hi, init, unit, group, flags, help) \
    {key, letter, KN_OPTION_INT, AT(field), lo, hi, init, NULL, unit, group, flags, help}
#define DBL(key, letter, field, lo, hi, init, unit, group, flags, help) \
    {key, letter, KN_OPTION_DOUBLE, AT(field), lo, hi, init, NULL, unit, group, flags, help}
#define BOOL(key, letter, field, init, group, flags, help) \
    {key, letter, KN_OPTION_BOOL, AT(field), 0, 0, init, NULL, NULL, group, flags, help}
#define LIST(key, field, lo, hi, init, unit, group, flags, help) \
    {key, 0, KN_OPTION_LIST, AT(field), lo, hi, init, NULL, unit, group, flags, help}
#define PICK(key, letter, field, choices, init, group, flags, help) \
    {key, letter, KN_OPTION_CHOICE, AT(field), 0, 0, init, choices, NULL, group, flags, help}

/* Defaults are those of Wan 2.1 T2V (wan/configs, README): 832x480, 81 frames at 16 fps, 50 steps,
 * guidance 5; shift comes from the model folder's scheduler config where it has one. */
static const kn_option table[] = {
    PATH("model", 'm', model, "Model and prompt", 0, "Model folder (diffusers layout); see docs/models.md."),
    STR("prompt", 'p', prompt, NULL, "Model and prompt", R, "What the video shows."),
    PATH("prompt-file", 0, prompt_file, "Model and prompt", 0, "Read the prompt from a UTF-8 text file."),
    STR("negative-prompt", 'n', negative_prompt, wan_negative_prompt, "Model and prompt", R | M,
        "What the video should not show. The default is Wan's own list."),
    INT("text-length", 0, text_length_tok, 1, 4096, "512", "tokens", "Model and prompt", R | M,
        "Text tokens given to the transformer; a property of the model."),

    {"size", 0, KN_OPTION_SIZE, 0, 0, 0, NULL, NULL, NULL, "Picture", 0,
     "WIDTHxHEIGHT, such as 832x480 or 1920x1080; the same as --width and --height."},
    INT("width", 'W', width_px, 16, MAX_SIDE_PX, "832", "px", "Picture", R | M,
        "Frame width. Not a multiple of 16: rendered on the next one and cropped."),
    INT("height", 'H', height_px, 16, MAX_SIDE_PX, "480", "px", "Picture", R | M, "Frame height, likewise."),
    INT("frames", 0, frames, 1, MAX_FRAMES, "81", "frames", "Picture", R | M, "Number of frames, 4n+1."),
    DBL("seconds", 0, seconds, 0, 600, "0", "s", "Picture", 0,
        "Length instead of --frames: the nearest 4n+1 frames at --fps."),
    DBL("fps", 0, fps, 1, 240, "16", "frames/s", "Picture", R | M, "Frame rate of the video."),

    INT("steps", 0, steps, 1, 1000, "50", "steps", "Sampling", R | M, "Denoising steps."),
    INT("seed", 0, seed, -1, 9.2e18, "-1", NULL, "Sampling", R,
        "Seed of the initial noise, as torch.manual_seed on the CPU; -1 draws one and prints it."),
    DBL("guidance", 0, guidance, 0, 100, "5", NULL, "Sampling", R | M,
        "Classifier-free guidance scale; 1 turns guidance off and halves the work."),
    DBL("shift", 0, shift, 0.01, 100, "3", NULL, "Sampling", R | M, "Shift of the sigma grid toward high noise."),
    PICK("solver", 0, solver, "unipc|euler|dpm++", "unipc", "Sampling", R | M,
         "unipc: order 2, bh2, with corrector. dpm++: 2M."),
    PICK("grid", 0, grid, "auto|wan|diffusers|flow-euler|linear", "auto", "Sampling", R | M,
         "Sigma grid. auto: the one the reference uses with the solver; wan: also diffusers up to 0.36; diffusers: 0.37 and newer."),

    STR("refine-size", 0, refine_size, NULL, "High resolution", R,
        "Sizes to refine to after the base pass at --size, one after the other: 2x, or 2x,4x, or 1280x720,1920x1080. With --input: of the video's size; 2x when not given."),
    LIST("strength", strength, 0.01, 1, "0.7", NULL, "High resolution", R | M,
         "Share of the steps that a refine stage runs: how much of the picture it makes anew; 1: all of it, from noise. One number, or "
         "one per stage: 0.5,0.4."),
    LIST("refine-steps", refine_steps, 0, 1000, "0", "steps", "High resolution", R | M,
         "Steps of the refine stages' whole schedule, of which --strength runs a part; 0: as --steps."),
    LIST("refine-shift", refine_shift, 0.01, 100, "9", NULL, "High resolution", R | M,
         "Shift of the refine stages' sigma grid. High values make more anew than --strength says; the starting sigma is printed."),
    LIST("refine-guidance", refine_guidance, 0, 100, "0", NULL, "High resolution", R | M,
         "Guidance of the refine stages; 0: as --guidance."),
    PICK("upscale", 0, upscale, "bilinear|lanczos|latent", "bilinear", "High resolution", R | M,
         "How a stage's result is enlarged for the next one. latent: without decoding and encoding it."),
    PICK("attention", 0, attention, "window|dense|tile3d|cross|draft|permute|paro", "window", "High resolution", R | M,
         "Self-attention of the refine stages. window: every token sees as many tokens around it as the base pass has; tile3d: whole "
         "tiles around its own; cross: tiles that share a coordinate; draft, permute, paro: blocks chosen anew from queries and keys."),
    PICK("base-attention", 0, base_attention, "dense|draft|permute", "dense", "High resolution", R | M,
         "Self-attention of the base pass."),
    PICK("full-attention", 0, full_attention, "dense|draft|permute", "dense", "High resolution", R | M,
         "Self-attention of the second branch, see --override."),
    PICK("full-positions", 0, full_positions, "own|fitted", "own", "High resolution", R | M,
         "Positions of the tokens in full self-attention, which is the second branch's, that of --dense-steps and that of --attention dense. own: of the larger "
         "grid, as published; fitted: scaled to span what the base pass's span, so that none is larger than those of training."),
    PICK("attention-precision", 0, attention_precision, "full|int8", "full", "High resolution", R | M,
         "Products in the self-attention of the refine stages. int8: of 8-bit integers, faster, with an output error of about 2% "
         "(docs/attention.md); needs a Hopper GPU."),
    PICK("base-attention-precision", 0, base_attention_precision, "full|int8", "full", "High resolution", R | M,
         "The same for the base pass."),
    PICK("linear-precision", 0, linear_precision, "full|fp8", "full", "High resolution", R | M,
         "Products in the linear layers of the transformer's blocks, in all passes. fp8: of 8-bit floats (e4m3), faster; what that "
         "changes is in docs/attention.md; needs a Hopper GPU."),
    DBL("attention-skip", 0, attention_skip, 0, 0.5, "0", NULL, "High resolution", R | M,
        "Leave out blocks of keys in the self-attention of the refine stages in which no weight reaches this share of the largest "
        "before (BLASST); 0: none. Needs a Hopper GPU."),
    DBL("density", 0, density, 0.001, 1, "0.25", NULL, "High resolution", R | M,
        "Share of the blocks that draft keeps; set for permute and paro, it takes the place of --mass."),
    BOOL("within-density", 0, within_density, "false", "High resolution", R | M,
         "The tiles that draft always keeps, of the query's frame and of the first one, use up --density instead of adding to it."),
    DBL("mass", 0, mass, 0.01, 1, "0.9", NULL, "High resolution", R | M,
        "Attention weight that permute and paro keep in each row of blocks, as their block means estimate it."),
    STR("paro-axes", 0, paro_axes, "auto", "High resolution", R | M,
        "Order of the axes, slowest first, in which paro lays out the tokens: thw, twh, hwt, htw, wht or wth for all heads, or one per head with "
        "commas between. auto: chosen for each layer and head from its queries and keys."),
    DBL("paro-alpha", 0, paro_alpha, 0, 1, "0.5", NULL, "High resolution", R | M,
        "How paro judges an order: weight of the share of sparse blocks against the evenness of weights within blocks."),
    DBL("paro-epsilon", 0, paro_epsilon, 0, 1, "0.001", NULL, "High resolution", R | M,
        "An attention weight below this is small to paro."),
    DBL("paro-share", 0, paro_share, 0, 1, "0.9", NULL, "High resolution", R | M,
        "A block is sparse to paro when at least this share of its weights is small."),
    INT("paro-rows", 0, paro_rows, 0, 100000, "2", "rows", "High resolution", R | M,
        "Rows of 64x64 blocks, spread over the clip, by which paro judges orders; 0: all, which costs more than dense attention."),
    STR("attention-tile", 0, attention_tile, "auto", "High resolution", R | M,
        "Tile of tokens, TxHxW; auto: searched for by counted work (window), 6x8x8 (tile3d), 4x8x8 (cross), 1x8x16 (draft, permute, paro)."),
    STR("tile-window", 0, tile_window, "auto", "High resolution", R | M,
        "Tiles that tile3d sees on each axis, TxHxW; auto: as many as cover the base pass's token grid, made odd."),
    PATH("tile-windows", 0, tile_windows, "High resolution", R,
        "Windows of tile3d by layer and head, from a file that `kinora search-windows` wrote for this model and size; its tile goes with it."),
    INT("dense-steps", 0, dense_steps, -1, 1000, "-1", "steps", "High resolution", R | M,
        "First steps of a stage that stay dense; -1: as published (tile3d 12 of 50; draft: while the timestep is above 925; else 0)."),
    INT("dense-layers", 0, dense_layers, -1, 1000, "-1", "layers", "High resolution", R | M,
        "First layers that stay dense; -1: as published (draft 1, else 0)."),
    INT("reuse-lists", 0, reuse_lists, 1, 1000, "1", "steps", "High resolution", R | M,
        "Steps for which draft, permute and paro keep a layer's lists."),
    STR("window", 0, window, "auto", "High resolution", R | M,
        "Window in tokens (16 px each), WIDTHxHEIGHT, both odd; auto: the base pass's token grid, made odd. All frames are always seen."),
    STR("temperature", 0, temperature, "auto", "High resolution", R | M,
        "Factor on the softmax scale of the refine stages' self-attention. auto: sqrt(log(2n)/log(n)), n tokens in a frame of the base pass; off: 1."),
    BOOL("override", 0, cross_override, "true", "High resolution", R | M,
         "Let a second branch with dense self-attention supply the cross-attention of the one with the window."),
    PICK("override-for", 0, override_for, "auto|prompt|both", "auto", "High resolution", R | M,
         "Which passes of guidance the second branch runs for. auto, as published: both when --refresh is 1, else the prompt's only."),
    INT("refresh", 0, refresh, 1, 1000, "2", "steps", "High resolution", R | M,
        "Steps for which the second branch's result is kept. 1: it runs at every step."),
    PICK("context-cache", 0, context_cache, "auto|device|host|int8", "auto", "High resolution", R,
         "Where the second branch's result is kept, the largest thing of a stage: in device memory, in host memory and copied beside the work, or on the device in eight bits (not the same bytes). auto: on the device if the stage fits there and takes at most 22 GB, else host."),
    INT("override-steps", 0, override_steps, 0, 1000, "0", "steps", "High resolution", R | M,
        "First steps of a stage that take the second branch's cross-attention; later ones use their own. 0: all steps."),
    STR("override-layers", 0, override_layers, "all", "High resolution", R | M,
        "Layers that take it: all, or FIRST-LAST, counted from 1; the others use their own."),

    PATH("input", 0, input, "Refining a video", 0,
         "Video to refine; `kinora refine VIDEO` sets it. Any file that libav reads, or PNG files (folder or name with %d). --frames is then the length of a segment, --size only the model's own size, by which windows go; the prompt may be left out."),
    PICK("fit", 0, fit, "crop|pad|stretch", "crop", "Refining a video", R,
         "When the video's shape is not that of --refine-size. crop: cut off at the sides; pad: black bars; stretch: shape not kept."),
    INT("overlap", 0, overlap, 1, MAX_FRAMES, "5", "frames", "Refining a video", R,
        "A video longer than --frames is refined in segments; this many frames of two neighbours are blended. 4n+1, at most half of --frames."),
    PICK("tail", 0, tail, "trim|keep", "trim", "Refining a video", R,
         "A video of at most --frames that has not 4n+1 frames. trim: the last ones are left out; keep: its last frame is repeated for the model, and no frame is lost."),
    BOOL("audio", 0, audio, "true", "Refining a video", R, "Copy the video's first audio stream, unchanged."),

    PATH("output", 'o', output, "Output", W, "Video file; its extension chooses the container."),
    STR("codec", 0, codec, "auto", "Output", R,
        "Video codec by name; auto picks by container (H.264 for mp4). `kinora info --codecs` lists them."),
    DBL("crf", 0, crf, -1, 63, "-1", NULL, "Output", R, "Quality on the codec's own scale, lower is better; -1: its default."),
    PATH("frames-dir", 0, frames_dir, "Output", W, "Also write every frame as a PNG into this folder."),
    INT("frames-depth", 0, frames_depth, 8, 16, "8", "bits", "Output", 0, "Depth of those PNGs, 8 or 16."),
    PATH("contact-sheet", 0, contact_sheet, "Output", W, "Also write one PNG with frames side by side."),
    PATH("preview", 0, preview, "Output", W,
         "PNG or WebP picture that shows the middle of the clip as the steps so far make it; written anew while denoising, in at most 5 % of the time."),
    PICK("preview-terminal", 0, preview_terminal, "off|auto|kitty|iterm|sixel", "off", "Output", C,
         "Show that picture above the progress bar. auto: where the terminal can, by its name or its answer; the others say how it draws pictures."),
    STR("encoder-preset", 0, encoder_preset, NULL, "Output", R, "Speed preset of the encoder, such as medium or slow."),
    INT("bit-depth", 0, bit_depth, 0, 16, "0", "bits", "Output", R, "Bits per channel of the video; 0: the codec's default."),
    BOOL("overwrite", 'y', overwrite, "false", "Output", C, "Replace an output file that exists."),
    BOOL("sidecar", 0, sidecar, "true", "Output", 0, "Write all settings to OUTPUT.json beside the video."),

    PATH("debug-dir", 0, debug_dir, "Looking inside", C,
         "Write what happens inside the run into this folder: previews and latents of every step, density and recall of every layer, a timeline. A batch makes one in it for each job."),
    PATH("attention-map", 0, attention_map, "Looking inside", C,
         "With `kinora plan`: draw the attention of the last stage into a PNG file."),
    STR("attention-query", 0, attention_query, NULL, "Looking inside", C,
        "Token T,H,W whose receptive field the map shows; the middle of the clip if not given."),

    PATH("noise-in", 0, noise_in, "Research and parity", R, "Noise from a safetensors file (tensor `noise`; for refine stages `noise.1`, `noise.2`, ...)."),
    PATH("latents-in", 0, latents_in, "Research and parity", R,
         "Result of the base pass from a safetensors file (tensor `latents`): only refine stages, if any, and decoding follow."),
    PATH("latents-out", 0, latents_out, "Research and parity", W, "Write the final latents to a safetensors file."),
    PATH("embeds-in", 0, embeds_in, "Research and parity", R,
         "Prompt embeddings from a safetensors file (tensors `prompt`, `negative`); skips the text encoder."),
    PATH("embeds-out", 0, embeds_out, "Research and parity", W, "Write the prompt embeddings likewise."),

    PICK("device", 0, device, "auto|cpu|ref|cuda", "auto", "Run", R,
         "Where to compute. ref is the slow specification, for bisecting wrong frames."),
    INT("threads", 't', threads, 0, 1024, "0", "threads", "Run", 0, "CPU threads; 0: all cores of this process."),
    DBL("memory", 0, memory_gib, 0, 65536, "0", "GiB", "Run", 0,
        "Memory budget of the device; 0: what is free now. Jobs that cannot fit are refused before they start."),
    BOOL("offload", 0, offload, "false", "Run", 0,
         "Keep the weights of transformer and text encoder in host memory, two blocks at a time on the GPU, copied beside the work, and cut the VAE's frames into tiles as on a card of 12 GiB. Same bytes."),
    BOOL("cuda-graphs", 0, cuda_graphs, "true", "Run", 0,
         "Record what a step of a small model launches on a GPU, and queue it whole from then on, which spares the CPU. Off: kernel by kernel, for debugging. Same bytes."),
    INT("vae-tile", 0, vae_tile_px, 0, MAX_SIDE_PX, "0", "px", "Run", R,
        "Decode in square tiles of this side; 0: only when the memory budget asks for it."),
    BOOL("resume", 0, resume, "false", "Run", C, "Go on from the checkpoint that a stopped run of this job left."),
    BOOL("keep-checkpoint", 0, keep_checkpoint, "false", "Run", 0, "Keep the checkpoint after success."),
    INT("checkpoint-every", 0, checkpoint_every, KN_CHECKPOINTS_AUTO, 1000, "-1", "steps", "Run", 0,
        "Steps between checkpoints of the latents; -1: as many as keep them below a twentieth of the time; 0: one when denoising is done."),
    BOOL("dry-run", 0, dry_run, "false", "Run", C, "Check everything, print the plan, render nothing."),

    STR("preset", 0, preset, NULL, "Files and messages", C, "Named settings; `kinora presets` lists them."),
    PATH("config", 0, config, "Files and messages", C, "YAML or JSON file whose keys are these option names."),
    PATH("from", 0, from, "Files and messages", C,
         "Take the settings of a video, frame or sidecar that Kinora made: renders it again. Flags change single ones."),
    STR("save-preset", 0, save_preset, NULL, "Files and messages", C,
        "Save the settings given as flags and by --config as a preset of your own. Without --output nothing is rendered."),
    PICK("progress", 0, progress, "auto|bar|lines|json|none", "auto", "Files and messages", 0,
         "auto: a bar on a terminal, else lines. json: one event per line on standard output."),
    BOOL("verbose", 'v', verbose, "false", "Files and messages", 0, "Say more."),
    BOOL("quiet", 'q', quiet, "false", "Files and messages", 0, "Only errors."),

    STR("candidates", 0, candidates, "auto", "Window search", C,
        "With `kinora search-windows`: windows to try, in tiles, TxHxW with commas between, such as 1x3x3,3x1x5. auto: combinations of 1, 3, half and all tiles of each axis."),
    DBL("budget", 0, budget, 0.001, 1, "0.25", NULL, "Window search", C,
        "Mean density of the windows that are chosen: the least error that it buys."),
    DBL("max-error", 0, max_error, 0, 1, "0", NULL, "Window search", C,
        "Instead of --budget: each head gets the smallest window whose relative error of its output stays below this; 0: by --budget."),
    INT("ranges", 0, ranges, 1, 16, "1", "ranges", "Window search", C,
        "Ranges of steps that get windows of their own."),

    PATH("output-dir", 0, output_dir, "Batch", C,
         "Folder of a batch: relative outputs and results.jsonl go there. Default: the batch file's name without its ending."),
    STR("shard", 0, shard, NULL, "Batch", C,
        "I/N: do only every N-th job, from the I-th. Default: the place of this task in a Slurm job array."),
};

enum { TABLE_COUNT = sizeof table / sizeof table[0] };
_Static_assert((int)TABLE_COUNT <= (int)KN_OPTION_MAX, "kn_options.source is too short");

const kn_option *kn_option_table(int *count)
{
    *count = TABLE_COUNT;
    return table;
}

/* ---- looking up -------------------------------------------------------------------------------*/

static bool same_key(const char *key, const char *text)
{
    for (; *key && *text; key++, text++)
        if (*key != (*text == '_' ? '-' : *text)) return false;
    return !*key && !*text;
}

const kn_option *kn_option_find(const char *key)
{
    for (int i = 0; i < TABLE_COUNT; i++)
        if (same_key(table[i].key, key)) return &table[i];
    return NULL;
}

const kn_option *kn_option_find_letter(char letter)
{
    for (int i = 0; letter && i < TABLE_COUNT; i++)
        if (table[i].letter == letter) return &table[i];
    return NULL;
}

/* Levenshtein distance, cut off at the length of the buffers. */
static int edit_distance(const char *a, const char *b)
{
    enum { LEN = 40 };
    int row[LEN + 1];
    size_t n = strlen(b);
    if (n > LEN || strlen(a) > LEN) return LEN;
    for (size_t j = 0; j <= n; j++) row[j] = (int)j;
    for (size_t i = 0; a[i]; i++) {
        int diagonal = row[0];
        row[0] = (int)i + 1;
        for (size_t j = 0; j < n; j++) {
            int best = diagonal + (a[i] != b[j]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j + 1] + 1 < best) best = row[j + 1] + 1;
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    return row[n];
}

/* What other programs for the same models call an option (Wan's generate.py, diffusers, ComfyUI,
 * stable-diffusion.cpp, LightX2V): edit distance does not find these. */
static const char *const foreign_names[][2] = {
    {"cfg", "guidance"}, {"cfg-scale", "guidance"}, {"guidance-scale", "guidance"}, {"guide-scale", "guidance"},
    {"sample-guide-scale", "guidance"}, {"flow-shift", "shift"}, {"sample-shift", "shift"}, {"sampler", "solver"},
    {"sample-solver", "solver"}, {"sampling-method", "solver"}, {"scheduler", "solver"}, {"num-frames", "frames"},
    {"frame-num", "frames"}, {"video-frames", "frames"}, {"length", "frames"}, {"num-inference-steps", "steps"},
    {"sample-steps", "steps"}, {"infer-steps", "steps"}, {"base-seed", "seed"}, {"save-file", "output"}, {"out", "output"},
    {"ckpt-dir", "model"}, {"model-path", "model"}, {"denoise", "strength"}, {"denoising-strength", "strength"},
    {"resolution", "size"}, {"quality", "crf"}, {"vram", "memory"}, {"max-vram", "memory"}, {"hires", "refine-size"},
    {"upscale-size", "refine-size"}, {"neg", "negative-prompt"}, {"force", "overwrite"}, {"gpu", "device"},
};

/* The option whose key goes on where `key` ends, if there is one alone: "negative". */
static const char *only_longer(const char *key)
{
    const char *found = NULL;
    size_t n = strlen(key);
    for (int i = 0; n >= 4 && i < TABLE_COUNT; i++) {
        if (strncmp(key, table[i].key, n)) continue;
        if (found) return NULL;
        found = table[i].key;
    }
    return found;
}

const char *kn_option_nearest(const char *key)
{
    const char *best = NULL;
    int best_distance = 1000;
    for (size_t i = 0; i < sizeof foreign_names / sizeof *foreign_names; i++)
        if (same_key(foreign_names[i][0], key)) return foreign_names[i][1];
    if (only_longer(key)) return only_longer(key);
    for (int i = 0; i < TABLE_COUNT; i++) {
        int d = edit_distance(key, table[i].key);
        if (d < best_distance) best_distance = d, best = table[i].key;
    }
    size_t n = strlen(key);
    return best_distance <= (n > 5 ? 3 : 2) ? best : NULL;
}

/* ---- fields -----------------------------------------------------------------------------------*/

static char **string_field(const kn_options *o, const kn_option *opt)
{
    return (char **)((char *)o + opt->offset);
}

static int64_t *int_field(const kn_options *o, const kn_option *opt)
{
    return (int64_t *)((char *)o + opt->offset);
}

static double *double_field(const kn_options *o, const kn_option *opt)
{
    return (double *)((char *)o + opt->offset);
}

static bool *bool_field(const kn_options *o, const kn_option *opt)
{
    return (bool *)((char *)o + opt->offset);
}

static bool is_string(const kn_option *opt)
{
    return opt->type == KN_OPTION_STRING || opt->type == KN_OPTION_PATH || opt->type == KN_OPTION_LIST;
}

kn_option_source kn_options_source(const kn_options *o, const kn_option *opt)
{
    return (kn_option_source)o->source[opt - table];
}

static const char *choice_name(const kn_option *opt, int64_t index, size_t *length)
{
    const char *p = opt->choices;
    for (; index > 0 && strchr(p, '|'); index--) p = strchr(p, '|') + 1;
    *length = strcspn(p, "|");
    return p;
}

/* ---- setting ----------------------------------------------------------------------------------*/

static kn_status set_string(kn_options *o, const kn_option *opt, const char *value)
{
    char *copy;
    KN_TRY(kn_strdup(value, &copy));
    char **field = string_field(o, opt);
    kn_free(*field);
    *field = copy;
    return KN_OK;
}

static kn_status set_int(kn_options *o, const kn_option *opt, const char *value, const char *where)
{
    int64_t v;
    if (!kn_text_to_int(value, &v) || (double)v < opt->min || (double)v > opt->max)
        return kn_fail(KN_ERR_ARG, "%s: expected a whole number from %.0f to %.0f%s%s, found '%s'", where,
                       opt->min, opt->max, opt->unit ? " " : "", opt->unit ? opt->unit : "", value);
    *int_field(o, opt) = v;
    return KN_OK;
}

static kn_status set_double(kn_options *o, const kn_option *opt, const char *value, const char *where)
{
    double v;
    if (!kn_text_to_double(value, &v) || v < opt->min || v > opt->max)
        return kn_fail(KN_ERR_ARG, "%s: expected a number from %g to %g%s%s, found '%s'", where, opt->min,
                       opt->max, opt->unit ? " " : "", opt->unit ? opt->unit : "", value);
    *double_field(o, opt) = v;
    return KN_OK;
}

/* Next item of a list into buf; *at moves behind it. */
static bool next_item(const char **at, char buf[32])
{
    size_t n = strcspn(*at, ",");
    bool fits = n > 0 && n < 32;
    snprintf(buf, 32, "%.*s", (int)n, *at);
    *at += n + ((*at)[n] == ',');
    return fits;
}

double kn_option_list_at(const char *list, int i)
{
    char item[32];
    double v = 0;
    for (; i >= 0 && *list; i--)
        if (!next_item(&list, item) || !kn_text_to_double(item, &v)) break;
    return v;
}

static kn_status set_list(kn_options *o, const kn_option *opt, const char *value, const char *where)
{
    const char *at = value;
    char item[32];
    double v;
    do {
        if (!next_item(&at, item) || !kn_text_to_double(item, &v) || v < opt->min || v > opt->max)
            return kn_fail(KN_ERR_ARG, "%s: expected numbers from %g to %g with commas between, found '%s'", where, opt->min,
                           opt->max, value);
    } while (*at || at[-1] == ',');
    return set_string(o, opt, value);
}

static kn_status set_bool(kn_options *o, const kn_option *opt, const char *value, const char *where)
{
    if (!value || !strcasecmp(value, "true") || !strcasecmp(value, "yes") || !strcmp(value, "1"))
        *bool_field(o, opt) = true;
    else if (!strcasecmp(value, "false") || !strcasecmp(value, "no") || !strcmp(value, "0"))
        *bool_field(o, opt) = false;
    else
        return kn_fail(KN_ERR_ARG, "%s: expected true or false, found '%s'", where, value);
    return KN_OK;
}

static kn_status set_choice(kn_options *o, const kn_option *opt, const char *value, const char *where)
{
    int64_t index = 0;
    for (const char *p = opt->choices;; index++) {
        size_t n = strcspn(p, "|");
        if (strlen(value) == n && !memcmp(p, value, n)) break;
        if (!p[n]) return kn_fail(KN_ERR_ARG, "%s: expected one of %s, found '%s'", where, opt->choices, value);
        p += n + 1;
    }
    *int_field(o, opt) = index;
    return KN_OK;
}

/* "1920x1080", also "832*480" as Wan's own program writes it. */
static kn_status set_size(kn_options *o, const char *value, kn_option_source source, const char *where)
{
    size_t n = strspn(value, "0123456789");
    if (!n || n > 6 || !value[n] || !strchr("xX*", value[n]))
        return kn_fail(KN_ERR_ARG, "%s: expected WIDTHxHEIGHT such as 832x480, found '%s'", where, value);
    char width[8];
    memcpy(width, value, n);
    width[n] = '\0';
    KN_TRY(kn_options_set(o, "width", width, source, where));
    return kn_options_set(o, "height", value + n + 1, source, where);
}

kn_status kn_options_set(kn_options *o, const char *key, const char *value, kn_option_source source,
                         const char *where)
{
    const kn_option *opt = kn_option_find(key);
    if (!opt) {
        const char *near = kn_option_nearest(key);
        return kn_fail(KN_ERR_ARG, "%s: unknown option '%s'%s%s%s", where, key, near ? "; did you mean '" : "",
                       near ? near : "", near ? "'?" : "");
    }
    bool from_file = source == KN_FROM_PRESET || source == KN_FROM_CONFIG;
    if (from_file && (opt->flags & KN_OPTION_COMMAND_LINE))
        return kn_fail(KN_ERR_ARG, "%s: '%s' can only be given on the command line", where, opt->key);
    if (source == KN_FROM_MODEL && !(opt->flags & KN_OPTION_MODEL))
        return kn_fail(KN_ERR_ARG, "%s: '%s' is not a property of a model", where, opt->key);
    if (!value && opt->type != KN_OPTION_BOOL) return kn_fail(KN_ERR_ARG, "%s: expected a value", where);
    if (opt->type == KN_OPTION_SIZE) return set_size(o, value, source, where);
    unsigned char *mark = &o->source[opt - table];
    /* Validate also what a later layer hides: a wrong file is wrong either way. */
    bool hidden = *mark > source;
    kn_options scratch = {0};
    kn_options *to = hidden ? &scratch : o;
    kn_status st = KN_ERR_INTERNAL;
    switch (opt->type) {
    case KN_OPTION_STRING:
    case KN_OPTION_PATH: st = set_string(to, opt, value); break;
    case KN_OPTION_INT: st = set_int(to, opt, value, where); break;
    case KN_OPTION_DOUBLE: st = set_double(to, opt, value, where); break;
    case KN_OPTION_BOOL: st = set_bool(to, opt, value, where); break;
    case KN_OPTION_CHOICE: st = set_choice(to, opt, value, where); break;
    case KN_OPTION_LIST: st = set_list(to, opt, value, where); break;
    case KN_OPTION_SIZE: break;
    }
    if (hidden)
        kn_options_free(&scratch);
    else if (st == KN_OK)
        *mark = (unsigned char)source;
    return st;
}

kn_status kn_options_init(kn_options *o)
{
    memset(o, 0, sizeof *o);
    for (int i = 0; i < TABLE_COUNT; i++)
        if (table[i].initial) {
            kn_status st = kn_options_set(o, table[i].key, table[i].initial, KN_FROM_DEFAULT, table[i].key);
            if (st != KN_OK) {
                kn_options_free(o);
                return st;
            }
        }
    return KN_OK;
}

void kn_options_free(kn_options *o)
{
    for (int i = 0; i < TABLE_COUNT; i++)
        if (is_string(&table[i])) {
            kn_free(*string_field(o, &table[i]));
            *string_field(o, &table[i]) = NULL;
        }
}

kn_status kn_options_copy(const kn_options *from, kn_options *to)
{
    *to = *from;
    for (int i = 0; i < TABLE_COUNT; i++)
        if (is_string(&table[i])) *string_field(to, &table[i]) = NULL;
    for (int i = 0; i < TABLE_COUNT; i++) {
        const char *text = is_string(&table[i]) ? *string_field(from, &table[i]) : NULL;
        kn_status st = text ? set_string(to, &table[i], text) : KN_OK;
        if (st != KN_OK) {
            kn_options_free(to);
            return st;
        }
    }
    return KN_OK;
}

/* ---- reading back -----------------------------------------------------------------------------*/

const char *kn_options_text(const kn_options *o, const kn_option *opt, char buf[KN_OPTION_TEXT])
{
    size_t n;
    buf[0] = '\0';
    switch (opt->type) {
    case KN_OPTION_STRING:
    case KN_OPTION_LIST:
    case KN_OPTION_PATH:
        if (*string_field(o, opt)) snprintf(buf, KN_OPTION_TEXT, "%s", *string_field(o, opt));
        break;
    case KN_OPTION_INT: snprintf(buf, KN_OPTION_TEXT, "%lld", (long long)*int_field(o, opt)); break;
    case KN_OPTION_DOUBLE: snprintf(buf, KN_OPTION_TEXT, "%.15g", *double_field(o, opt)); break;
    case KN_OPTION_BOOL: snprintf(buf, KN_OPTION_TEXT, "%s", *bool_field(o, opt) ? "true" : "false"); break;
    case KN_OPTION_CHOICE: {
        const char *p = choice_name(opt, *int_field(o, opt), &n);
        snprintf(buf, KN_OPTION_TEXT, "%.*s", (int)n, p);
        break;
    }
    case KN_OPTION_SIZE:
        snprintf(buf, KN_OPTION_TEXT, "%lldx%lld", (long long)o->width_px, (long long)o->height_px);
        break;
    }
    return buf;
}

static json_t *option_json(const kn_options *o, const kn_option *opt)
{
    size_t n;
    switch (opt->type) {
    case KN_OPTION_STRING:
    case KN_OPTION_LIST:
    case KN_OPTION_PATH: return kn_json_text(*string_field(o, opt));
    case KN_OPTION_INT: return json_integer(*int_field(o, opt));
    case KN_OPTION_DOUBLE: return json_real(*double_field(o, opt));
    case KN_OPTION_BOOL: return json_boolean(*bool_field(o, opt));
    case KN_OPTION_CHOICE: {
        const char *p = choice_name(opt, *int_field(o, opt), &n);
        return json_stringn(p, n);
    }
    case KN_OPTION_SIZE: break;
    }
    return NULL;
}

json_t *kn_options_json(const kn_options *o, int flags)
{
    json_t *object = json_object();
    for (int i = 0; object && i < TABLE_COUNT; i++) {
        const kn_option *opt = &table[i];
        if (opt->type == KN_OPTION_SIZE || (flags && !(opt->flags & flags))) continue;
        if (is_string(opt) && !*string_field(o, opt)) continue;
        if (json_object_set_new(object, opt->key, option_json(o, opt)) != 0) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}

/* ---- rules over several options ---------------------------------------------------------------*/

static kn_status resolve_frames(kn_options *o)
{
    const kn_option *seconds = kn_option_find("seconds"), *frames = kn_option_find("frames");
    kn_option_source from_s = kn_options_source(o, seconds), from_f = kn_options_source(o, frames);
    if (o->seconds > 0 && from_s >= from_f) {
        if (from_s == from_f)
            return kn_fail(KN_ERR_ARG, "--seconds and --frames are both given (%g s, %lld frames): give one", o->seconds,
                           (long long)o->frames);
        double n = round((o->seconds * o->fps - 1) / 4);
        o->frames = 4 * (int64_t)(n < 0 ? 0 : n) + 1;
        if (o->frames > MAX_FRAMES)
            return kn_fail(KN_ERR_ARG, "--seconds: %g s at %g fps are %lld frames, expected at most %d", o->seconds,
                           o->fps, (long long)o->frames, (int)MAX_FRAMES);
    }
    if (o->frames % 4 != 1) {
        int64_t below = (o->frames - 1) / 4 * 4 + 1;
        return kn_fail(KN_ERR_ARG, "--frames: expected 4n+1 (the VAE packs four frames into one latent), found %lld; nearest are %lld and %lld",
                       (long long)o->frames, (long long)below, (long long)below + 4);
    }
    return KN_OK;
}

kn_status kn_options_resolve(kn_options *o)
{
    KN_TRY(resolve_frames(o));
    if (o->frames_depth != 8 && o->frames_depth != 16)
        return kn_fail(KN_ERR_ARG, "--frames-depth: expected 8 or 16 bits, found %lld", (long long)o->frames_depth);
    if (o->prompt && o->prompt_file)
        return kn_fail(KN_ERR_ARG, "--prompt and --prompt-file are both given: give one");
    if (o->verbose && o->quiet) return kn_fail(KN_ERR_ARG, "--verbose and --quiet are both given: give one");
    return KN_OK;
}
