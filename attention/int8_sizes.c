/* attention/int8_sizes.c - where the bytes of 8-bit attention lie, in every build: a plan for a GPU can be
 * made on any machine. */
#include "attention/int8.h"

_Static_assert((int)KN_INT8_DIM == (int)KN_ATTN_INT8_HEAD_DIM, "what callers are told is what the kernels have");

/* A part's place: in `where`, if that has as many bytes left, else in memory. */
typedef struct home {
    char *memory; /* NULL: pointers stay NULL */
    size_t bytes, most;
} home;

static bool take(home *h, size_t bytes, void **out)
{
    bytes = (bytes + 255) / 256 * 256;
    if (bytes > h->most - h->bytes) return false;
    *out = h->memory ? h->memory + h->bytes : NULL;
    h->bytes += bytes;
    return true;
}

static size_t place(void *memory, home room, home of_k, int64_t queries, int64_t keys, int heads, kn_attn_int8 *x)
{
    size_t n = (size_t)heads;
    home rest = {memory, 0, SIZE_MAX / 2}, none = {NULL, 0, 0};
    x->q_pitch = (queries + 127) / 128 * 128 + 128; /* a block of queries may begin at the last one */
    x->k_pitch = (keys + 127) / 128 * 128 + 128; /* so may an entry */
    const struct {
        void **to;
        size_t bytes;
        home *first;
    } part[] = {
        {(void **)&x->q, n * (size_t)x->q_pitch * KN_INT8_DIM, &room},
        {(void **)&x->k, n * (size_t)x->k_pitch * KN_INT8_DIM, &room},
        {(void **)&x->v, n * (size_t)x->k_pitch * KN_INT8_DIM, &of_k},
        {(void **)&x->q_scale, n * (size_t)x->q_pitch * sizeof(float), &none},
        {(void **)&x->q_shift, n * (size_t)x->q_pitch * sizeof(float), &none},
        {(void **)&x->channel, n * 4 * KN_INT8_DIM * sizeof(float), &none},
        {(void **)&x->part, KN_INT8_PARTS * n * 2 * 3 * KN_INT8_DIM * sizeof(float), &none},
    };
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        if (!take(part[i].first, part[i].bytes, part[i].to)) take(&rest, part[i].bytes, part[i].to);
    return rest.bytes;
}

size_t kn_attn_int8_place(void *memory, int64_t queries, int64_t keys, int heads, kn_attn_int8 *x)
{
    return place(memory, (home){NULL, 0, 0}, (home){NULL, 0, 0}, queries, keys, heads, x);
}

/* All of a contiguous tensor whose address copies can take. */
static home home_of(const kn_tensor *t)
{
    bool fits = t->rank && kn_tensor_contiguous(t) && (uintptr_t)t->data % 256 == 0;
    return (home){t->data, 0, fits ? kn_tensor_bytes(t) : 0};
}

size_t kn_attn_int8_place_call(void *memory, const kn_attn_args *a, kn_attn_int8 *x)
{
    home none = {NULL, 0, 0};
    return place(memory, home_of(&a->room), a->room.rank ? home_of(&a->k) : none, a->q.dim[0], a->k.dim[0],
                 (int)a->q.dim[1], x);
}

size_t kn_attn_int8_room_bytes(int64_t tokens, int heads)
{
    int64_t pitch = (tokens + 127) / 128 * 128 + 128;
    return 2 * (size_t)heads * (size_t)pitch * KN_INT8_DIM;
}
