#!/usr/bin/env python3
"""Software bill of materials of a built program, as CycloneDX 1.5 JSON.

    tools/sbom.py PROGRAM [--output sbom.json]

The components are the shared libraries that the program links itself (its DT_NEEDED entries, resolved by ldd), with
the Debian package, version and licences of each, the libraries that these pull in (as dependencies), and what is
built in from elsewhere. Needs readelf, ldd and dpkg.
"""
import argparse
import datetime
import hashlib
import json
import os
import re
import subprocess
import uuid

# Text and tables in the tree that come from elsewhere; code is Kinora's own.
BUILT_IN = [
    {"name": "Unicode Character Database (tables in text/unicode_tables.c)", "version": "14.0.0", "licenses": ["Unicode-DFS-2016"]},
    {"name": "named character references of Python's html.entities (text/html_entities.c)", "version": "3.11.7", "licenses": ["PSF-2.0"]},
]
# What debian/copyright files call their licences; SPDX names where they differ.
SPDX = {"Expat": "MIT", "GPL-2+": "GPL-2.0-or-later", "GPL-3+": "GPL-3.0-or-later", "LGPL-2.1+": "LGPL-2.1-or-later", "LGPL-2+": "LGPL-2.0-or-later",
        "LGPL-3+": "LGPL-3.0-or-later", "LGPL-2.1": "LGPL-2.1-only", "GPL-2": "GPL-2.0-only", "GPL-3": "GPL-3.0-only", "BSD-3-clause": "BSD-3-Clause",
        "BSD-2-clause": "BSD-2-Clause", "zlib": "Zlib", "Zlib": "Zlib", "ISC": "ISC", "Apache-2.0": "Apache-2.0", "libpng": "Libpng", "GPL": "GPL-1.0-or-later",
        "LGPL": "LGPL-2.0-or-later"}


def run(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout


def needed(path):
    return re.findall(r"\(NEEDED\).*\[(.*?)\]", run("readelf", "-W", "-d", path))


def package_of(path):
    # dpkg knows files by where they were installed: /lib may be a link to /usr/lib.
    for name in (path, os.path.realpath(path), os.path.realpath(path).replace("/usr/lib", "/lib", 1)):
        found = run("dpkg", "-S", name).split(":")[0].strip()
        if found:
            version = run("dpkg-query", "-W", "-f=${Version}\t${source:Package}\n", found).split("\n")[0].split("\t")
            return found, version[0], version[1]
    return None, None, None


def licences_of(package):
    path = f"/usr/share/doc/{package}/copyright"
    if not os.path.exists(path):
        return []
    with open(path, errors="replace") as f:
        text = f.read()
    # Of the machine-readable format: the licences of the files (not those of debian/).
    names = set()
    for block in re.split(r"\n\s*\n", text):
        files = re.search(r"^Files:\s*(.*)", block, re.M)
        licence = re.search(r"^License:\s*(\S.*)", block, re.M)
        if files and licence and not files.group(1).startswith("debian"):
            for name in re.split(r"\s+(?:and|or|and/or)\s+|,\s*", licence.group(1).strip()):
                names.add(SPDX.get(name, name))
    return sorted(names)


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def component(library, path):
    package, version, source = package_of(path)
    c = {"type": "library", "bom-ref": library, "name": library, "version": version or "unknown",
         "hashes": [{"alg": "SHA-256", "content": sha256(os.path.realpath(path))}]}
    if package:
        licences = licences_of(package)
        c["licenses"] = [{"license": {"name": name}} for name in licences] or [{"license": {"name": f"see /usr/share/doc/{package}/copyright"}}]
        c["purl"] = f"pkg:deb/debian/{package}@{version}"
        c["properties"] = [{"name": "source package", "value": source}]
    return c


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--output", default="sbom.json")
    o = parser.parse_args()
    where = dict(re.findall(r"(\S+) => (/\S+)", run("ldd", o.program)))
    direct = [n for n in needed(o.program) if n in where]
    seen, queue = {}, list(direct)
    while queue:
        name = queue.pop()
        if name in seen or name not in where:
            continue
        seen[name] = [n for n in needed(where[name]) if n in where]
        queue += seen[name]
    version = run(o.program, "--version").split()[-1]
    root = {"type": "application", "bom-ref": "kinora", "name": "kinora", "version": version, "hashes": [{"alg": "SHA-256", "content": sha256(o.program)}],
            "licenses": [{"license": {"id": "Apache-2.0"}}]}
    components = [component(n, where[n]) for n in sorted(seen)]
    for b in BUILT_IN:
        components.append({"type": "data", "bom-ref": b["name"], "name": b["name"], "version": b["version"],
                           "licenses": [{"license": {"id": i}} for i in b["licenses"]]})
    bom = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{uuid.uuid4()}", "version": 1,
        "metadata": {"timestamp": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), "component": root},
        "components": components,
        "dependencies": [{"ref": "kinora", "dependsOn": sorted(direct) + [b["name"] for b in BUILT_IN]}] +
                        [{"ref": n, "dependsOn": sorted(set(seen[n]))} for n in sorted(seen)],
    }
    with open(o.output, "w") as f:
        json.dump(bom, f, indent=1)
        f.write("\n")
    print(f"{o.output}: {len(direct)} libraries linked, {len(seen)} with what they pull in")
    for n in sorted(direct):
        c = next(c for c in components if c["name"] == n)
        print(f"{n:24} {c['version']:28} {', '.join(l['license'].get('name', '') for l in c.get('licenses', []))[:80]}")


if __name__ == "__main__":
    main()
