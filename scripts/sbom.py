#!/usr/bin/env python3
"""Writes the software bill of materials of the binary to standard output: CycloneDX 1.5
in JSON, from Cargo.lock and `cargo metadata`. What only tests and builds need is left out."""

import json
import os
import subprocess
import sys
import tomllib
import urllib.parse

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
rustc = subprocess.check_output(["rustc", "-vV"], text=True, cwd=root)
host = next(line.split()[1] for line in rustc.splitlines() if line.startswith("host:"))
metadata = json.loads(
    subprocess.check_output(
        ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", host], cwd=root
    )
)
with open(os.path.join(root, "Cargo.lock"), "rb") as file:
    locked = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(file)["package"]}

packages = {package["id"]: package for package in metadata["packages"]}


def is_macro(package):
    return any("proc-macro" in target["kind"] for target in packages[package]["targets"])


# Neither a build dependency nor a macro is in the binary.
dependencies = {
    node["id"]: sorted(
        dependency["pkg"]
        for dependency in node["deps"]
        if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        and not is_macro(dependency["pkg"])
    )
    for node in metadata["resolve"]["nodes"]
}
service = metadata["resolve"]["root"]
found, waiting = set(), [service]
while waiting:
    package = waiting.pop()
    if package not in found:
        found.add(package)
        waiting += dependencies[package]


def reference(package):
    name, version = packages[package]["name"], packages[package]["version"]
    return f"pkg:cargo/{name}@{urllib.parse.quote(version, safe='')}"


def component(package):
    facts = packages[package]
    described = {
        "type": "application" if package == service else "library",
        "bom-ref": reference(package),
        "name": facts["name"],
        "version": facts["version"],
        "purl": reference(package),
    }
    if facts["license"]:
        described["licenses"] = [{"expression": facts["license"].replace("/", " OR ")}]
    if facts["repository"]:
        described["externalReferences"] = [{"type": "vcs", "url": facts["repository"]}]
    checksum = locked[facts["name"], facts["version"]]
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return described


by_name = sorted(found, key=reference)
json.dump(
    {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(service)},
        "components": [component(package) for package in by_name if package != service],
        "dependencies": [
            {"ref": reference(package), "dependsOn": [reference(d) for d in dependencies[package]]}
            for package in by_name
        ],
    },
    sys.stdout,
    indent=1,
)
print()
