#!/usr/bin/env bash
# What a terminal gets to see, on a pseudo-terminal that answers as real ones do: the bar at several widths, nothing but
# text in a pipe, previews by kitty's, iTerm2's and DEC's (sixel) ways and only where they can be shown.
source "$(dirname "$0")/lib.sh" "$@"

cat >terminal.py <<'PY'
import base64, fcntl, os, pty, re, select, struct, sys, termios, time, zlib

kinora, model = sys.argv[1:3]
quick = ["--model", model, "--prompt", "a red ball bouncing over grass", "--seed", "3", "--steps", "3", "--frames", "5", "-y"]


def run(columns, rows, more, env=None, answer=None, cell=(8, 16), output="t.mp4"):
    """Everything that the program wrote, with its exit code and how the terminal's settings changed."""
    pid, fd = pty.fork()
    if pid == 0:
        for name in ("TMUX", "STY", "KITTY_WINDOW_ID", "TERM_PROGRAM", "NO_COLOR"):
            os.environ.pop(name, None)
        os.environ["TERM"] = "xterm-256color"
        os.environ.update(env or {})
        time.sleep(0.1)  # until the size is set
        os.execv(kinora, [kinora, "render", *quick, "-o", output, *more])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, columns * cell[0], rows * cell[1]))
    before = termios.tcgetattr(fd)
    seen, asked = b"", False
    while True:
        try:
            part = os.read(fd, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
        if answer and not asked and b"\033[c" in seen:
            os.write(fd, answer)
            asked = True
    after = termios.tcgetattr(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(fd)
    assert code == 0, (code, seen[-400:])
    assert before[3] == after[3], "the terminal's settings were not put back"
    return seen


def png_size(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:8]
    return struct.unpack(">II", data[16:24])


def png_pixels(data):
    width, height = png_size(data)
    at, packed = 8, b""
    while at < len(data):
        n = struct.unpack(">I", data[at:at + 4])[0]
        if data[at + 4:at + 8] == b"IDAT":
            packed += data[at + 8:at + 8 + n]
        at += 12 + n
    raw, rows, before = zlib.decompress(packed), [], bytearray(3 * width)
    for y in range(height):
        kind, line = raw[y * (3 * width + 1)], bytearray(raw[y * (3 * width + 1) + 1:(y + 1) * (3 * width + 1)])
        for x in range(3 * width):
            a, b, c = (line[x - 3] if x >= 3 else 0), before[x], (before[x - 3] if x >= 3 else 0)
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line[x] = (line[x] + [0, a, b, (a + b) // 2, paeth][kind]) & 255
        rows.append(line)
        before = line
    return width, height, [bytes(r) for r in rows]


def kitty_pictures(seen):
    pictures, data = [], b""
    for control, part in re.findall(rb"\033_G([^;]*);([^\033]*)\033\\", seen):
        assert len(part) <= 4096
        data += part
        if b"m=0" in control.split(b","):
            pictures.append(base64.b64decode(data))
            data = b""
    return pictures


def sixel_picture(text):
    width, height = map(int, re.match(rb'"1;1;(\d+);(\d+)', text).groups())
    colour, x, y, now = {}, 0, 0, 0
    rows = [bytearray(3 * width) for _ in range(height)]
    for name, args, run, char in re.findall(rb"#(\d+)((?:;\d+){4})?|(?:!(\d+))?([?-~$-])", text[text.index(b"#"):]):
        if name:
            now = int(name)
            if args:
                colour[now] = [int(v) * 255 // 100 for v in args.split(b";")[2:]]
        elif char == b"$":
            x = 0
        elif char == b"-":
            x, y = 0, y + 6
        else:
            for _ in range(int(run or 1)):
                for bit in range(6):
                    if (char[0] - 63) >> bit & 1:
                        rows[y + bit][3 * x:3 * x + 3] = bytes(colour[now])
                x += 1
    return width, height, rows


def no_pictures(seen):
    return not any(mark in seen for mark in (b"\033_G", b"\033]1337", b"\033P"))


# The bar at every width: no line as wide as the terminal, no colours, with and without NO_COLOR.
for columns, env in ((24, {}), (40, {}), (80, {}), (80, {"NO_COLOR": "1"}), (200, {})):
    seen = run(columns, 30, ["--progress", "bar"], env)
    assert not re.search(rb"\033\[[0-9;]*m", seen), seen
    bars = [b.split(b"\r\n")[0] for b in seen.split(b"\r\033[K")[1:]]
    assert bars and all(len(b) < columns for b in bars), (columns, bars)
    assert b"#" in b"".join(bars) or columns < 60, bars
print("bar: 24, 40, 80, 200 columns")

# Nothing was asked for: nothing is drawn, and the terminal is not asked either.
seen = run(80, 30, [], {"TERM": "xterm-kitty", "KITTY_WINDOW_ID": "1"})
assert no_pictures(seen) and b"\033[c" not in seen

# kitty
seen = run(80, 30, ["--preview-terminal", "auto"], {"TERM": "xterm-kitty"})
pictures = kitty_pictures(seen)
assert pictures and all(png_size(p) == (160, 96) for p in pictures), len(pictures)
assert b"\033[c" not in seen
control = re.search(rb"\033_G(a=T[^;]*);", seen).group(1).decode()
shown = dict(part.split("=") for part in control.split(","))
assert shown["q"] == "2" and shown["C"] == "1" and int(shown["r"]) <= 15 and int(shown["c"]) < 80, control
up = re.search(rb"\033\[(\d+)A\0337\033_G", seen)  # the place is as high as what is drawn
assert up and int(up.group(1)) == int(shown["r"]), control
print("kitty:", len(pictures), "pictures,", control)

# iTerm2
seen = run(80, 30, ["--preview-terminal", "auto"], {"TERM_PROGRAM": "iTerm.app"})
found = re.findall(rb"\033\]1337;File=inline=1;size=(\d+);width=(\d+);height=(\d+)[^:]*:([^\a]*)\a", seen)
assert found
for size, width, height, data in found:
    png = base64.b64decode(data)
    assert png_size(png) == (160, 96) and int(width) < 80 and int(height) <= 15
    assert abs(len(png) - int(size)) <= 2, (len(png), size)

# sixel, of a terminal that says so when asked; the picture is that of --preview
seen = run(80, 30, ["--preview-terminal", "auto", "--preview", "now.png"], answer=b"\033[?62;4;22c")
found = re.findall(rb"\033P0;1;0q(.*?)\033\\", seen, re.S)
assert found
width, height, rows = sixel_picture(found[-1])
assert height % 6 == 0 and height <= 15 * 16 and width <= 80 * 8, (width, height)
file_width, file_height, file_rows = png_pixels(open("now.png", "rb").read())
off = count = 0
for y in range(height):
    for x in range(width):
        v, u = y * file_height // height, x * file_width // width
        for k in range(3):
            off += abs(rows[y][3 * x + k] - file_rows[v][3 * u + k])
            count += 1
print(f"sixel: {width}x{height}, mean difference to the file {off / count:.2f} of 255")
assert off / count < 6, off / count  # 255 colours, dithered, in steps of 1 %
if len(sys.argv) > 3:
    with open(sys.argv[3], "wb") as f:
        f.write(b"P6 %d %d 255\n" % (width, height) + b"".join(rows))

# Terminals that cannot, that do not answer, that are seen through tmux: no pictures, a word about it, the run goes on.
for env, answer in (({}, b"\033[?1;2c"), ({}, None), ({"TERM": "tmux-256color", "TMUX": "/x,1,0", "KITTY_WINDOW_ID": "1"}, b"\033[?1;2;64c"),
                    ({"TERM": "dumb"}, None)):
    start = time.time()
    seen = run(80, 30, ["--preview-terminal", "auto"], env, answer)
    assert no_pictures(seen), (env, seen)
    assert b"shows no pictures" in seen, (env, seen)
# A row of lines is no place for a picture.
assert no_pictures(run(80, 30, ["--preview-terminal", "kitty", "--progress", "lines"]))
assert no_pictures(run(80, 5, ["--preview-terminal", "kitty"]))  # too few rows
PY
python3 terminal.py "$kinora" "$model" || fail "terminal"

# Piped, even where the variables of a terminal are set: plain lines.
TERM=xterm-kitty KITTY_WINDOW_ID=1 "$kinora" render "${quick[@]}" --progress auto --preview-terminal kitty -o piped.mp4 >out.txt 2>err.txt
! grep -q $'\033' out.txt err.txt || fail "escape sequences in a pipe: $(cat -v err.txt)"
grep -q '^denoise: 4 steps in' err.txt || fail "piped: $(cat err.txt)"

# WebP: a whole file at any time, of the clip's size.
if "$kinora" info --codecs | grep -qE '^webp .*libwebp'; then
  "$kinora" render "${quick[@]}" --preview now.webp -o w.mp4
  [ "$(head -c 4 now.webp)" = RIFF ] || fail "--preview now.webp"
  has '160x96' "$kinora" info now.webp || fail "WebP preview: $(cat has.txt)"
fi
