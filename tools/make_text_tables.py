#!/usr/bin/env python3
"""Write text/html_entities.c and text/unicode_tables.c from Python's own tables.

    make_text_tables.py [TEXT_FOLDER]

Named character references: html.entities.html5 (the HTML 5 standard's list). Unicode data:
unicodedata (canonical decomposition, combining class, compatibility forms of U+FF01..U+FFEF).
"""
import html
import html.entities
import os
import sys
import unicodedata

HEAD = "/* {what} of {source}.\n * Made by tools/make_text_tables.py; do not edit. */\n"


def c_string(text):
    return '"' + "".join(f"\\x{b:02x}" if b > 126 or b < 32 else "\\" + chr(b) if chr(b) in '"\\' else chr(b)
                         for b in text.encode()) + '"'


def pack(items, out):
    """Comma-separated items in lines of at most 98 columns."""
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > 98:
            out.append(line)
            line = "   "
        line += " " + item + ","
    out.append(line)


def entities():
    table = {}  # name without ';' -> [value, flags]
    for name, value in html.entities.html5.items():
        bare = name.rstrip(";")
        entry = table.setdefault(bare, [value, 0])
        assert entry[0] == value
        entry[1] |= 1 if name.endswith(";") else 2
    for name, value in html.entities.html5.items():
        upper = name.upper()
        if name.endswith(";") and name == name.lower() and html.unescape("&" + upper) == "&" + upper:
            table[upper[:-1]] = [value.upper(), 4]
    out = [HEAD.format(what="Named character references",
                       source=f"Python {sys.version.split()[0]} html.entities.html5") + '#include "text/html.h"', ""]
    out.append("/* sorted by name, as strcmp orders */")
    out.append("const kn_html_entity kn_html_entities[] = {")
    pack((f"{{{c_string(n)}, {c_string(v)}, {f}}}" for n, (v, f) in sorted(table.items())), out)
    out += ["};", "const int kn_html_entity_count = sizeof kn_html_entities / sizeof *kn_html_entities;"]
    assert max(map(len, table)) <= 32
    return out


def unicode_tables():
    decompose, compose, classes, width = [], [], [], []
    for cp in range(0x110000):
        char = chr(cp)
        ccc = unicodedata.combining(char)
        if ccc:
            if classes and classes[-1][1] == cp - 1 and classes[-1][2] == ccc:
                classes[-1][1] = cp
            else:
                classes.append([cp, cp, ccc])
        parts = unicodedata.decomposition(char)
        if parts and not parts.startswith("<"):
            codes = [int(p, 16) for p in parts.split()]
            decompose.append((cp, codes[0], codes[1] if len(codes) > 1 else 0))
            if len(codes) == 2 and unicodedata.normalize("NFC", chr(codes[0]) + chr(codes[1])) == char:
                compose.append((codes[0], codes[1], cp))
    for cp in range(0xFF01, 0xFFF0):
        form = [ord(c) for c in unicodedata.normalize("NFKC", chr(cp))]
        if form != [cp]:
            assert len(form) <= 2
            width.append((cp, form[0], form[1] if len(form) > 1 else 0))
    out = [HEAD.format(what="Unicode tables", source="Unicode " + unicodedata.unidata_version)
           + '#include "text/unicode_tables.h"']

    def table(kind, name, rows):
        out.extend(["", f"const {kind} {name}[] = {{"])
        pack(("{" + ", ".join(f"0x{v:x}" for v in row) + "}" for row in rows), out)
        out.extend(["};", f"const int {name}_count = sizeof {name} / sizeof *{name};"])
    table("kn_unicode_triple", "kn_unicode_decompose", decompose)
    table("kn_unicode_triple", "kn_unicode_compose", sorted(compose))
    table("kn_unicode_triple", "kn_unicode_class", classes)
    table("kn_unicode_triple", "kn_unicode_width", width)
    return out


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..", "text")
    for name, lines in (("html_entities.c", entities()), ("unicode_tables.c", unicode_tables())):
        with open(os.path.join(folder, name), "w") as f:
            f.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
