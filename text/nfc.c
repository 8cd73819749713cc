/* text/nfc.c - see nfc.h. */
#include "text/nfc.h"

#include "text/unicode_tables.h"

enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7 };
enum { L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT };

/* Row whose first column is the last that is <= a; NULL before the first. */
static const kn_unicode_triple *last_row(const kn_unicode_triple *t, int count, uint32_t a)
{
    int lo = 0, hi = count;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (t[mid].a <= a)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo > 0 ? &t[lo - 1] : NULL;
}

static uint32_t combining_class(uint32_t cp)
{
    const kn_unicode_triple *row = last_row(kn_unicode_class, kn_unicode_class_count, cp);
    return row && cp <= row->b ? row->c : 0;
}

static kn_status decompose(uint32_t cp, kn_codepoints *out)
{
    if (cp >= S_BASE && cp < S_BASE + S_COUNT) {
        uint32_t s = cp - S_BASE;
        KN_TRY(kn_codepoints_add(out, L_BASE + s / (V_COUNT * T_COUNT)));
        KN_TRY(kn_codepoints_add(out, V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT));
        return s % T_COUNT ? kn_codepoints_add(out, T_BASE + s % T_COUNT) : KN_OK;
    }
    const kn_unicode_triple *row = last_row(kn_unicode_decompose, kn_unicode_decompose_count, cp);
    if (!row || row->a != cp) return kn_codepoints_add(out, cp);
    KN_TRY(decompose(row->b, out));                         /* at most four levels deep */
    return row->c ? kn_codepoints_add(out, row->c) : KN_OK; /* a second part has no parts itself */
}

/* Composition of two code points; 0 = none. */
static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a >= L_BASE && a < L_BASE + L_COUNT && b >= V_BASE && b < V_BASE + V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a >= S_BASE && a < S_BASE + S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE &&
        b < T_BASE + T_COUNT)
        return a + (b - T_BASE);
    int lo = 0, hi = kn_unicode_compose_count;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        const kn_unicode_triple *row = &kn_unicode_compose[mid];
        if (row->a == a && row->b == b) return row->c;
        if (row->a < a || (row->a == a && row->b < b))
            lo = mid + 1;
        else
            hi = mid;
    }
    return 0;
}

/* Marks in order of their class; equal classes keep their order. A run of marks that is out of
 * order is laid out class by class, so that long runs stay linear. */
static kn_status order_marks(kn_codepoints t)
{
    kn_status st = KN_OK;
    kn_codepoints run = {0};
    for (size_t i = 0; i < t.count;) {
        size_t end = i;
        uint32_t last = 0;
        bool sorted = true;
        for (uint32_t class; end < t.count && (class = combining_class(t.at[end])) > 0; end++) {
            sorted = sorted && class >= last;
            last = class;
        }
        if (!sorted) {
            run.count = 0;
            KN_TRY_GOTO(kn_codepoints_add_all(&run, kn_codepoints_part(t, i, end - i)));
            for (uint32_t class = 1; class <= 0xff; class ++)
                for (size_t k = 0; k < run.count; k++)
                    if (combining_class(run.at[k]) == class) t.at[i++] = run.at[k];
        }
        i = end + 1;
    }
done:
    kn_codepoints_free(&run);
    return st;
}

static void compose_in_place(kn_codepoints *t)
{
    size_t starter = 0, kept = 0;
    bool have_starter = false;
    uint32_t last_class = 0; /* of the last mark kept after the starter */
    for (size_t i = 0; i < t->count; i++) {
        uint32_t cp = t->at[i], class = combining_class(cp);
        bool adjacent = have_starter && kept == starter + 1;
        bool blocked = !adjacent && (last_class == 0 || last_class >= class);
        uint32_t whole = have_starter && !blocked ? compose(t->at[starter], cp) : 0;
        if (whole) {
            t->at[starter] = whole;
            continue;
        }
        if (class == 0) {
            starter = kept;
            have_starter = true;
        }
        last_class = class;
        t->at[kept++] = cp;
    }
    t->count = kept;
}

kn_status kn_nfc(kn_codepoints in, kn_codepoints *out)
{
    kn_status st = KN_OK;
    kn_codepoints parts = {0};
    for (size_t i = 0; i < in.count; i++) KN_TRY_GOTO(decompose(in.at[i], &parts));
    KN_TRY_GOTO(order_marks(parts));
    compose_in_place(&parts);
    KN_TRY_GOTO(kn_codepoints_add_all(out, parts));
done:
    kn_codepoints_free(&parts);
    return st;
}
