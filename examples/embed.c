/* Two renderers in one process, each in its own thread; frames come through a callback.
 *
 *   cc embed.c $(pkg-config --cflags --libs kinora) -pthread -o embed && ./embed MODEL
 *
 * Prints the mean brightness of every frame, then cancels a third render after its second step.
 */
#include <kinora.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

typedef struct clip {
    const char *model, *prompt, *seed;
    double brightness[64];
    int64_t frames;
    int code;
    char error[512];
} clip;

static int on_frame(void *user, const float *rgb, int width_px, int height_px, int64_t index)
{
    clip *c = user;
    double sum = 0;
    for (int64_t i = 0; i < (int64_t)width_px * height_px * 3; i++) sum += (double)rgb[i];
    if (index < 64) c->brightness[index] = sum / ((double)width_px * height_px * 3);
    c->frames = index + 1;
    return 0;
}

static int stop_at_two(void *user, const char *stage, int64_t done, int64_t total, double eta_sec)
{
    (void)user, (void)total, (void)eta_sec;
    return !strcmp(stage, "denoise") && done == 2;
}

static int set_all(kinora_settings *s, const clip *c)
{
    const char *const option[][2] = {{"model", c->model}, {"prompt", c->prompt}, {"seed", c->seed}, {"steps", "4"}, {"frames", "9"},
                                     {"threads", "1"}};
    for (size_t i = 0; i < sizeof option / sizeof *option; i++) {
        int code = kinora_set(s, option[i][0], option[i][1]);
        if (code) return code;
    }
    return 0;
}

static void render(clip *c, const kinora_callbacks *callbacks)
{
    kinora_renderer *r = NULL;
    kinora_settings *s = NULL;
    c->code = kinora_settings_open(&s);
    if (!c->code) c->code = set_all(s, c);
    if (!c->code) c->code = kinora_renderer_open(&r);
    if (!c->code) c->code = kinora_render(r, s, callbacks);
    if (c->code) snprintf(c->error, sizeof c->error, "%s", kinora_error());
    kinora_renderer_close(&r);
    kinora_settings_close(&s);
}

static void *render_frames(void *user)
{
    kinora_callbacks callbacks = {.frame = on_frame, .user = user};
    render(user, &callbacks);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: embed MODEL\n");
        return 2;
    }
    clip clips[2] = {{.model = argv[1], .prompt = "a red ball bouncing over grass", .seed = "3"},
                     {.model = argv[1], .prompt = "a small yellow star over water", .seed = "5"}};
    pthread_t thread[2];
    printf("kinora %s\n", kinora_version());
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread[i], NULL, render_frames, &clips[i])) return 1;
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < 2; i++) {
        if (clips[i].code) {
            fprintf(stderr, "embed: %s\n", clips[i].error);
            return clips[i].code;
        }
        printf("%s:", clips[i].prompt);
        for (int64_t k = 0; k < clips[i].frames && k < 64; k++) printf(" %.4f", clips[i].brightness[k]);
        printf("\n");
    }
    clip cancelled = clips[0];
    kinora_callbacks callbacks = {.frame = on_frame, .progress = stop_at_two, .user = &cancelled};
    render(&cancelled, &callbacks);
    printf("cancelled: code %d, %s\n", cancelled.code, cancelled.error);
    return cancelled.code == KINORA_CANCELLED ? 0 : 1;
}
