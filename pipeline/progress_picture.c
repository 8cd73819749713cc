/* Previews above the progress bar, in terminals that draw pictures. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "io/memory.h"
#include "pipeline/progress.h"

enum { ANSWER_MS = 300, CELL_WIDTH_PX = 8, CELL_HEIGHT_PX = 16, COLUMNS_MAX = 96, ROWS_MIN = 3 };

/* ---- what the terminal can do -----------------------------------------------------------------*/

static bool begins(const char *text, const char *with) { return text && !strncmp(text, with, strlen(with)); }

kn_terminal_images kn_terminal_images_by_name(const char *term, const char *program, const char *kitty_window, bool inside)
{
    if (inside || begins(term, "tmux") || begins(term, "screen")) return KN_TERMINAL_NONE; /* it does not pass them on */
    if ((kitty_window && *kitty_window) || begins(term, "xterm-kitty") || begins(term, "xterm-ghostty") || begins(program, "ghostty"))
        return KN_TERMINAL_KITTY;
    if (begins(program, "iTerm") || begins(program, "WezTerm") || begins(program, "mintty")) return KN_TERMINAL_ITERM;
    return KN_TERMINAL_NONE;
}

bool kn_terminal_answer_has_sixel(const char *answer)
{
    const char *p = strstr(answer, "\033[?");
    for (p = p ? p + 3 : ""; *p && *p != 'c';) {
        char *end;
        long feature = strtol(p, &end, 10);
        if (end == p) break;
        if (feature == 4 && (*end == ';' || *end == 'c')) return true;
        p = *end == ';' ? end + 1 : end;
    }
    return false;
}

/* Characters from the terminal until its answer ends or it has been silent for ANSWER_MS. */
static void read_answer(char *answer, size_t size)
{
    size_t n = 0;
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    while (n + 1 < size && poll(&in, 1, ANSWER_MS) == 1) {
        if (read(STDIN_FILENO, answer + n, 1) != 1) break;
        if (answer[n++] == 'c') break;
    }
    answer[n] = '\0';
}

/* Ask for the primary device attributes (DA1, ESC [ c), which every terminal since the VT100 answers. Only
 * where the answer can be read unseen: both ends are this terminal, we are in front, nothing was typed ahead. */
static bool answers_sixel(int out)
{
    struct termios before, raw;
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    char answer[128] = "";
    if (!isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp() || poll(&in, 1, 0) != 0) return false;
    if (tcgetattr(STDIN_FILENO, &before)) return false;
    raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw)) return false;
    if (write(out, "\033[c", 3) == 3) read_answer(answer, sizeof answer);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    return kn_terminal_answer_has_sixel(answer);
}

kn_terminal_images kn_progress_find_images(const kn_progress *p, kn_preview_terminal wanted)
{
    static const kn_terminal_images told[] = {
        [KN_PREVIEW_KITTY] = KN_TERMINAL_KITTY, [KN_PREVIEW_ITERM] = KN_TERMINAL_ITERM, [KN_PREVIEW_SIXEL] = KN_TERMINAL_SIXEL};
    const char *term = getenv("TERM");
    if (wanted == KN_PREVIEW_OFF || p->style != KN_PROGRESS_BAR || !isatty(fileno(p->file))) return KN_TERMINAL_NONE;
    if (wanted != KN_PREVIEW_AUTO) return told[wanted];
    if (!term || !*term || !strcmp(term, "dumb")) return KN_TERMINAL_NONE;
    kn_terminal_images named =
        kn_terminal_images_by_name(term, getenv("TERM_PROGRAM"), getenv("KITTY_WINDOW_ID"), getenv("TMUX") || getenv("STY"));
    if (named != KN_TERMINAL_NONE) return named;
    return answers_sixel(fileno(p->file)) ? KN_TERMINAL_SIXEL : KN_TERMINAL_NONE;
}

/* ---- drawing ----------------------------------------------------------------------------------*/

/* Half of the terminal's rows at most; none when that is too little. */
static kn_terminal_cells room_of(FILE *f)
{
    struct winsize w;
    kn_terminal_cells c = {.columns = 80, .rows = 12, .cell_width_px = CELL_WIDTH_PX, .cell_height_px = CELL_HEIGHT_PX};
    if (ioctl(fileno(f), TIOCGWINSZ, &w) || !w.ws_col || !w.ws_row) return c;
    c.columns = w.ws_col - 1 < COLUMNS_MAX ? w.ws_col - 1 : COLUMNS_MAX;
    c.rows = w.ws_row / 2;
    if (w.ws_xpixel >= w.ws_col && w.ws_ypixel >= w.ws_row) {
        c.cell_width_px = w.ws_xpixel / w.ws_col;
        c.cell_height_px = w.ws_ypixel / w.ws_row;
    }
    return c;
}

/* The first picture makes room by going down so many lines from the bar's; the next ones are drawn over it.
 * The cursor is saved and restored around each, since terminals leave it at different places. */
void kn_progress_picture(kn_progress *p, const kn_picture *picture)
{
    if (p->images == KN_TERMINAL_NONE) return;
    kn_terminal_cells room = room_of(p->file);
    if (room.columns < 1 || room.rows < ROWS_MIN) return;
    kn_terminal_cells at = kn_terminal_image_fit(picture, &room);
    bool again = p->image_rows == at.rows;
    kn_text text = {0};
    if (kn_terminal_image_text(p->images, picture, &at, p->image_number + !again, &text) == KN_OK) {
        fputs("\r\033[K", p->file);
        if (!again) {
            for (int i = 0; i < at.rows; i++) fputc('\n', p->file);
            p->image_rows = at.rows;
            p->image_number++;
        }
        fprintf(p->file, "\033[%dA\0337", at.rows);
        (void)fwrite(text.data, 1, text.size, p->file);
        fprintf(p->file, "\0338\033[%dB\r", at.rows);
        fflush(p->file);
        p->line_open = true;
    } else {
        kn_error_clear(); /* no memory for a picture is no reason to stop */
    }
    kn_free(text.data);
}
